"""What POSIX and Windows do differently: locks, folders on the disk, how one process ends another.

Everything else in the package is the same on both; `make lint` type-checks all of it for Linux, macOS and Windows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import lock_descriptor

_POLL_SECONDS = 0.005
"""Between two tries for a lock that another process has."""


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of a folder or a file.

    The operating system lets go of it when the process ends, however it ends. wait: until whoever has it lets go.
    Raises BlockingIOError where another process, or another `locked` of this one, has it and `wait` is false, and
    OSError where the path cannot be opened.
    """
    with _opened(path) as descriptor:
        if not lock_descriptor(descriptor, blocking=wait, poll_interval=_POLL_SECONDS):
            raise BlockingIOError(f"{path}: is locked by another process")
        yield


def is_locked(path: Path) -> bool:
    """Whether a process has the lock of a folder or file at the moment; False where there is no such path."""
    try:
        with _opened(path) as descriptor:
            return not lock_descriptor(descriptor, blocking=False)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    flags = os.O_RDWR
    if path.is_dir():
        if sys.platform == "win32":  # it opens no folders: a file in it stands for it
            path, flags = path / ".lock", os.O_RDWR | os.O_CREAT
        else:
            flags = os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk. Windows sees to that by itself. Raises OSError."""
    if sys.platform != "win32":
        with _opened(folder) as descriptor:
            os.fsync(descriptor)


def available_cores() -> int:
    """How many processor cores this process may use."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    return cores


def start_child(
    command: list[str], stdout: int | None = None, stderr: int | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a process that can end with this one: its standard input comes to its end then, see `when_parent_ends`.

    Ctrl-C in the terminal does not reach it: it is ended by `end_child`. environment: what it has otherwise than this
    process.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **environment},
        creationflags=flags,
        start_new_session=sys.platform != "win32",
    )


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Have a process of `start_child` end as it does on SIGTERM, without waiting for it.

    One sign, not two: a second one, late, would end it before it has saved.
    """
    if sys.platform == "win32":  # there SIGTERM would not let it save
        _close_input(process)
    else:
        process.terminate()


def reap_child(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process of `start_child` has ended, and close its standard input."""
    process.wait()
    _close_input(process)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended by itself
        process.stdin.close()


def when_parent_ends(work: Callable[[], None]) -> None:
    """Call a function, on a thread of its own, when this process's standard input comes to its end."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        work()

    threading.Thread(target=wait, daemon=True, name="parent").start()


def terminate_self() -> None:
    """Send this process SIGTERM, from any thread; its handler runs in the main thread."""
    if sys.platform == "win32":  # there, os.kill would end it without asking the handler
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
