"""Event files as files: their records, names and lengths."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

OWN = ".mnist_tb"
"""In a folder that the user chose, the folder that holds what is kept of a run beside its event files."""
OWNER = "mnist_tb"
"""How the names of event files end that `mnist-tb train` writes; those of a Tracker end with the id of its run."""
_files = itertools.count()


def own_folder(folder: Path) -> Path:
    """Where all files of a run but its event files are: in its folder, or, if that is somebody's, in one of our own."""
    try:
        return folder / OWN if os.stat(folder / OWN / "metrics.json").st_size else folder
    except (OSError, ValueError):
        return folder


def record(content: bytes) -> bytes:
    """A record of an event file: the length of the content, its checksum, the content, its checksum.

    TensorBoard's own writer does the same with a checksum in Python, which is a hundred times slower for a picture.
    https://github.com/tensorflow/tensorboard/blob/master/tensorboard/summary/writer/record_writer.py
    """
    return _head(len(content)) + content + _masked_checksum(content)


@functools.lru_cache(1024)
def _head(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + _masked_checksum(packed)


@dataclass
class Damage:
    """What could not be read of an event file.

    truncated: it ends within a record, as a killed process leaves it. broken: how many records have a wrong checksum or
    are not an event; what follows a broken length is lost. end: the byte at which the last whole record ends.
    """

    truncated: bool = False
    broken: int = 0
    end: int = 0

    def __bool__(self) -> bool:
        return self.truncated or self.broken > 0


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, which would wait for its writer, is an OSError, as is all else."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if code == errno.EISDIR else "is not a regular file", str(path))


def contents(path: Path, damage: Damage) -> Iterator[bytes]:
    """The content of each intact record of an event file from `damage.end` on; the others are noted in `damage`.

    Called again with the same `damage`, it goes on where it was. Raises OSError where the file cannot be read.
    """
    damage.truncated = False
    with open_regular(path) as file:
        file.seek(damage.end)
        while head := file.read(12):
            if len(head) < 12:
                damage.truncated = True
                return
            length = struct.unpack("<Q", head[:8])[0]
            if _masked_checksum(head[:8]) != head[8:]:
                damage.broken += 1  # where the next record begins is unknown
                return
            if length + 4 > os.fstat(file.fileno()).st_size - file.tell():
                damage.truncated = True
                return
            content, checksum = file.read(length), file.read(4)
            damage.end += length + 16
            if _masked_checksum(content) == checksum:
                yield content
            else:
                damage.broken += 1


def _masked_checksum(content: bytes) -> bytes:
    checksum = google_crc32c.value(content)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def sizes(folder: Path) -> dict[str, int]:
    """The event files in a folder and their lengths in bytes; 0 where that is unknown, as of a dangling link."""
    found = {}
    for path in sorted(folder.glob("*tfevents*")):
        try:
            found[path.name] = path.stat().st_size
        except OSError:
            found[path.name] = 0
    return found


def owned(names: Iterable[str], owner: str = OWNER) -> list[str]:
    """Those event files that a certain run has written itself."""
    return [name for name in names if name.endswith(f".{owner}")]


def new_name(others: Iterable[str], ending: str = "") -> str:
    """A name that sorts after the others, as TensorBoard reads them in that order; even if the clock was set back."""
    times = [int(match[1]) for name in others if (match := re.search(r"tfevents\.(\d+)\.", name))]
    moment = max([int(time.time()), *(moment + 1 for moment in times)])
    return f"events.out.tfevents.{moment:010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}{ending}"
