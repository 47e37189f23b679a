"""How work ends early, and what the messages advise: commands as they can be typed, and names that may be meant.

The command line turns the first two errors into exit codes; the others are special cases of them.
"""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


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


def command_line(*arguments: object) -> str:
    """A command of this program with these arguments, as it can be typed in the current folder."""
    program = shutil.which("mnist-tb", path=str(Path(sys.executable).parent))
    words = [_as_typed("mnist-tb", program)] if program else [_as_typed("python", sys.executable), "-m", "mnist_tb"]
    return shlex.join([*words, *map(str, arguments)])


def install_line(extra: str) -> str:
    """The command that installs what an optional part of this program needs, where this Python looks for it."""
    return f"{shlex.quote(_as_typed('python', sys.executable))} -m pip install 'mnist-tb[{extra}]'"


def _as_typed(name: str, path: str) -> str:
    """A program's name where the shell finds this one by it, else its path, below the current folder if it is there."""
    if shutil.which(name) == path:
        return name
    with suppress(OSError, ValueError):  # there is no current folder any more; it is not below it
        return str(Path(path).relative_to(Path.cwd()))
    return path


def did_you_mean(word: str, known: Sequence[str], all_are: str = "the keys are") -> str:
    """The end of a message about an unknown dotted key or name: the known one that is probably meant, else all.

    A key whose last part is the same comes first, then what is spelt alike, then a key whose last part is. The parts of
    a key are separated by dots, those of a name by slashes.
    """
    leaves = {re.split("[./]", key)[-1]: key for key in known}
    leaf = re.split("[./]", word)[-1]
    same = [key for key in known if re.split("[./]", key)[-1] == leaf]
    near = difflib.get_close_matches(word, same, 1, 0) or difflib.get_close_matches(word, known, 1, 0.6)
    near = near or [leaves[one] for one in difflib.get_close_matches(leaf, list(leaves), 1, 0.6)]
    return f"; did you mean {near[0]}?" if near else f"; {all_are} {', '.join(known)}"
