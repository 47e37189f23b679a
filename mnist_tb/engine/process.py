"""How the process gets its memory, and how its threads wait and take turns."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SPINS = "1000"


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, instead of giving it back to the system at once.

    A training step frees and takes the same megabytes again and again; as glibc comes, each time they are unmapped and
    faulted in anew, page by page, which can cost half of the step. Does nothing where the C library is another one.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def take_short_turns() -> None:
    """Have a thread of Python's give way to another after half a millisecond, not after five.

    The training waits at most that long after each step for the thread that draws and writes.
    https://docs.python.org/3/library/sys.html#sys.setswitchinterval
    """
    sys.setswitchinterval(5e-4)


def bound_spinning() -> None:
    """Have GNU's OpenMP, which torch uses, put a thread that waits for others to sleep after some microseconds.

    As it comes, a waiting thread spins for milliseconds, on a core that other programs need, or those it waits for.
    To be called before torch is imported; whatever the user has said of it in the environment holds.
    https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS
