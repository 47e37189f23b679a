"""Locks on files and folders that end with their process, however it ends; on POSIX and on Windows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

_POLL_SECONDS = 0.005
"""Between two attempts to get a lock that another process has."""


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of a folder or a file; the operating system releases it when the process ends.

    wait: until the lock is released by whoever has it. Raises BlockingIOError where another process, or another
    `locked` of this one, has it and `wait` is false, and OSError where the path cannot be opened.
    """
    with _opened(path) as descriptor:
        if not lock_descriptor(descriptor, blocking=wait, poll_interval=_POLL_SECONDS):
            raise BlockingIOError(f"{path}: is locked by another process")
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a folder or file; False where the path does not exist."""
    try:
        with _opened(path) as descriptor:
            return not lock_descriptor(descriptor, blocking=False)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    flags = os.O_RDWR
    if path.is_dir():
        if sys.platform == "win32":  # folders cannot be opened there: a file in it stands for it
            path, flags = path / ".lock", os.O_RDWR | os.O_CREAT
        else:
            flags = os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; Windows does that by itself. Raises OSError."""
    if sys.platform != "win32":
        with _opened(folder) as descriptor:
            os.fsync(descriptor)
