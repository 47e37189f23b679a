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
    _open.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _open:  # in a fork it is closed already, and may be another file by now
            _open.remove(descriptor)
            os.close(descriptor)


_open: set[int] = set()


def _close_all() -> None:
    """A fork shares the locks of its parent, and would keep them if the parent were killed."""
    while _open:
        os.close(_open.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; Windows does that by itself. Raises OSError."""
    if sys.platform != "win32":
        with _opened(folder) as descriptor:
            os.fsync(descriptor)
