"""Files that are whole at every instant, JSON of which nobody knows who wrote it, and event files cut back."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tb.errors import InputError
from mnist_tb.events.records import OWN, OWNER, open_regular, owned, sizes
from mnist_tb.runs.locks import sync_folder

_TEMPORARY = re.compile(r"^\..+\.\d+\.\d+$")
_LARGEST_JSON = 2**24
"""Bytes; what is longer is cut off, and then it is not JSON."""


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is no such file. Raises InputError where it is broken."""
    try:
        with open_regular(path) as file:
            values = json.loads(file.read(_LARGEST_JSON).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: cannot be read: the top level is not a mapping")
    return values


def read_ours(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file of ours; empty if there is none, or somebody else's file of that name."""
    try:
        return read_json(path) or {}
    except InputError:
        return {}


def is_temporary(name: str) -> bool:
    """Whether a file may have been left by a `write_atomically` that was killed."""
    return _TEMPORARY.match(name) is not None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every instant, even at a power cut, the path has the whole old or the whole new content.

    Beside a user's event files nothing is forced to the disk, as these are not: it takes milliseconds, and a power cut
    may leave an empty file. Raises OSError, which names the path; nothing is left beside it then.
    """
    is_durable = path.parent.name != OWN
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    if is_durable:
        sync_folder(path.parent)


def trim(folder: Path, lengths: Mapping[str, int], owner: str = OWNER) -> None:
    """Cut a run's own event files back to the lengths that they had at a checkpoint, and remove its newer ones.

    Files of other programs stay as they are. What version 1.0.0 wrote does not say whose it is: only files that the
    checkpoint names are cut then. If killed halfway, it can be done again. Raises OSError.
    """
    own = owned(lengths, owner) or list(lengths)
    for name, size in sizes(folder).items():
        path = folder / name
        if name in own:
            if size > lengths[name]:
                os.truncate(path, lengths[name])
                with open(path, "r+b") as file:
                    os.fsync(file.fileno())
        elif owned([name], owner):
            path.unlink()
