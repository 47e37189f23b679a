"""This process and its children: memory, threads, and how one process starts and ends another, on POSIX and Windows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SPINS = "1000"


def tune_malloc() -> None:
    """Have glibc keep freed memory instead of returning it to the system at once.

    A training step allocates and frees the same megabytes again and again; by default they are unmapped and faulted in
    anew each time, page by page, which can cost half of the step. Does nothing with another C library.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def set_switch_interval() -> None:
    """Have Python's threads yield to each other after half a millisecond, not after five.

    The training waits at most that long after each step for the thread that draws and writes.
    https://docs.python.org/3/library/sys.html#sys.setswitchinterval
    """
    sys.setswitchinterval(5e-4)


def bound_spinning() -> None:
    """Have GNU OpenMP, which torch uses, put a waiting thread to sleep after some microseconds.

    By default a waiting thread spins for milliseconds, on a core that other programs need, or the threads it waits for.
    To be called before torch is imported; settings in the user's environment take precedence.
    https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def available_cores() -> int:
    """How many processor cores this process may use."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    return cores


def start_child(
    command: list[str], stdout: int | None = None, stderr: int | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start a process that can end with this one: its standard input is closed then, see `when_parent_ends`.

    Ctrl-C in the terminal does not reach it: `end_child` ends it. environment: variables that it gets in addition.
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
    """Ask a process of `start_child` to end, as SIGTERM does, without waiting for it.

    Once, not twice: a second signal that comes late would end it before it has saved.
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
    """Call a function, on a thread of its own, when this process's standard input is closed."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        work()

    threading.Thread(target=wait, daemon=True, name="parent").start()


def terminate_self() -> None:
    """Send this process SIGTERM, from any thread; its handler runs in the main thread."""
    if sys.platform == "win32":  # os.kill would end it there without calling the handler
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
