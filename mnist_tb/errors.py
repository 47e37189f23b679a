"""The two ways in which a command fails; the command line turns them into exit codes."""


class InputError(Exception):
    """The user's input was wrong: exit code 2. The message names the file, key or option and what would be right."""


class TrainingError(Exception):
    """The work itself failed: exit code 1. The message says where and what to try."""
