"""How work ends early. The command line turns the first two into exit codes; the others are special cases of them."""


class InputError(Exception):
    """The input is wrong: exit code 2. The message names the file, key or option, and what would be right."""


class TrainingError(Exception):
    """The work itself failed: exit code 1. The message says where, and what to try."""


class InUseError(InputError):
    """Another process is using the run."""


class MemoryFullError(TrainingError):
    """Out of memory: the machine is too small, the training too large, or other programs run beside it."""


class PointError(TrainingError):
    """A training failed because of its configuration, so that it would fail anywhere: a loss that is not finite."""


class Pruned(Exception):
    """A sweep has stopped a training that did worse than the others. It can be resumed."""
