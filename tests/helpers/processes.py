"""Processes of tests: all that a test starts is gone when it ends, however it ends; a test that leaves one fails.

Every process of a test has the test's mark in its environment, and so have those that it starts itself, whatever
session or group they are in and whoever their parent is by then. What serves several tests has the suite's mark alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SUITE, TEST = "MNIST_TB_TEST_SUITE", "MNIST_TB_TEST"
_GRACE = 10.0
"""Seconds for what is about to end by itself, such as a child whose parent has ended."""


_FORKS = """
import atexit, os, sys
atexit.register(os._exit, 0)  # the last one that is called: to take torch apart takes most of a second
from mnist_tb import SummaryWriter, Tracker
from mnist_tb.environment.snapshot import packages
packages()  # once for all
folder, how = sys.argv[1], None
for each in sys.argv[2:]:
    if os.fork() == 0:
        how = each
        break
    os.wait()
if how is None:
    sys.exit()
"""


def in_forks(program: str, folder: Path, ways: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run a program once for each way to end, in a fork of one process that has imported torch.

    It knows `folder`, `how`, os, sys, SummaryWriter and Tracker.
    """
    command = [sys.executable, "-c", _FORKS + textwrap.dedent(program), str(folder), *ways]
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # forks of forks
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240, check=False, env=untraced)


def torchrun(processes: int, *command: str) -> list[str]:
    """The command that starts so many processes of a program."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*launcher, "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *command]


def marked(name: str, value: str) -> dict[int, str]:
    """Process → its command, of all that have an environment variable of this value, and are no zombies."""
    found, entry = {}, f"{name}={value}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if entry in (folder / "environ").read_bytes().split(b"\0") and alive(int(folder.name)):
                    found[int(folder.name)] = command_of(int(folder.name))
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 30) -> None:
    """Raises AssertionError where one of them is still there after so many seconds."""
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid)]


def end_all(name: str, value: str, grace: float = _GRACE, more: Iterable[int] = ()) -> list[str]:
    """Wait for processes with a mark, and some more, to end by themselves; kill the rest, and return their commands."""
    end = time.monotonic() + grace
    while True:
        found = {**marked(name, value), **{pid: command_of(pid) for pid in more if alive(pid)}}
        if not found or time.monotonic() >= end:
            break
        time.sleep(0.05)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until_gone([*found])
    return [*found.values()]


def mounts_below(folder: Path) -> list[str]:
    """The mount points in a folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


class Watch:
    """What the test of a certain mark starts, from `begin` to `end`."""

    _opened: list[Any] | None = None  # those of the test that runs; None between tests

    @classmethod
    def install(cls) -> None:
        """Have every Popen object of this process noted, whoever makes it."""
        original = subprocess.Popen.__init__

        def noted(self: Any, *arguments: Any, **named: Any) -> None:
            original(self, *arguments, **named)
            cls.note(self)

        subprocess.Popen.__init__ = noted  # type: ignore[method-assign]

    @classmethod
    def note(cls, process: Any) -> None:
        """Note a process of the test that runs; between tests, none is noted."""
        if cls._opened is not None:
            cls._opened.append(process)

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def begin(self) -> None:
        """Mark what is started from now on."""
        os.environ[TEST] = self._mark
        Watch._opened = []

    def end(self, grace: float = _GRACE) -> list[str]:
        """The commands of what was left after some seconds of grace, and is killed now. Its pipes are closed."""
        opened, Watch._opened = Watch._opened or [], None
        os.environ.pop(TEST, None)
        left = end_all(TEST, self._mark, grace, [process.pid for process in opened]) if opened else []
        for process in opened:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):
                        stream.close()
            process.wait(30)
        return left
