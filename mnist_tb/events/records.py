"""A run's event files as files: their records and names, how long they are, how they are read and cut back."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

_files = itertools.count()


def record(content: bytes) -> bytes:
    """A record of an event file: the content's length, its checksum, the content, its checksum.

    TensorBoard's own writer does the same with a checksum in Python, a hundred times slower on a picture.
    https://github.com/tensorflow/tensorboard/blob/master/tensorboard/summary/writer/record_writer.py
    """
    length = struct.pack("<Q", len(content))
    return length + _masked_checksum(length) + content + _masked_checksum(content)


@dataclass
class Damage:
    """What of an event file could not be read. truncated: it ends within a record, as a process leaves it when killed.

    broken: records with a wrong checksum, or that are no event; nothing is known of what follows a broken length.
    """

    truncated: bool = False
    broken: int = 0

    def __bool__(self) -> bool:
        return self.truncated or self.broken > 0


def contents(path: Path, damage: Damage) -> Iterator[bytes]:
    """The content of each record of an event file, in order; what is wrong with the others is noted in `damage`.

    Raises OSError where the file cannot be read.
    """
    with open(path, "rb") as file:
        while head := file.read(12):
            if len(head) < 12:
                damage.truncated = True
                return
            length = struct.unpack("<Q", head[:8])[0]
            if _masked_checksum(head[:8]) != head[8:]:
                damage.broken += 1  # where the next record begins is not known
                return
            if length + 4 > os.fstat(file.fileno()).st_size - file.tell():
                damage.truncated = True
                return
            content, checksum = file.read(length), file.read(4)
            if _masked_checksum(content) == checksum:
                yield content
            else:
                damage.broken += 1


def _masked_checksum(content: bytes) -> bytes:
    checksum = google_crc32c.value(content)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def sizes(folder: Path) -> dict[str, int]:
    """The event files of a run and how long each is, in bytes."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*tfevents*"))}


def trim(folder: Path, lengths: Mapping[str, int]) -> None:
    """Take from a run's event files what was written after a checkpoint, at which they were as long as given.

    Files that were not there then are removed. Killed in between, it can be done again. Raises OSError.
    """
    for name, size in sizes(folder).items():
        path = folder / name
        if name not in lengths:
            path.unlink()
        elif size > lengths[name]:
            os.truncate(path, lengths[name])
            with open(path, "r+b") as file:
                os.fsync(file.fileno())


def new_name(others: Mapping[str, int]) -> str:
    """A name after those of the other files: TensorBoard reads them in that order. The clock may have been set back."""
    times = [int(match[1]) for name in others if (match := re.search(r"tfevents\.(\d+)\.", name))]
    moment = max([int(time.time()), *(moment + 1 for moment in times)])
    return f"events.out.tfevents.{moment:010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
