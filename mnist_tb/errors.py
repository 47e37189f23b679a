"""The ways in which work ends before its end; the command line turns the first two into exit codes."""


class InputError(Exception):
    """The user's input was wrong: exit code 2. The message names the file, key or option and what would be right."""


class TrainingError(Exception):
    """The work itself failed: exit code 1. The message says where and what to try."""


class InUseError(InputError):
    """Another process has the run."""


class MemoryFullError(TrainingError):
    """The memory is full: too small a machine, too large a training, or others beside it."""


class PointError(TrainingError):
    """A training failed for its settings, not for where it ran: it would fail anywhere."""


class Pruned(Exception):
    """A sweep has seen enough of a training: it was stopped for being worse than the others, and can be resumed."""
