"""The command mnist-tb in processes of its own, forked from one that has imported all it needs: two seconds less each.

A process forked so is a real one: it can be killed, stopped and waited for, and has its own output. It can be held, or
killed, at a place chosen by name: at the N-th call of a function. As a program this is the process that forks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from helpers.paths import REPOSITORY
from helpers.processes import Watch

HELD = "HELD\n"


class Place(NamedTuple):
    """The `call`-th call of a function, named with its module, of those in whose arguments `of` stands."""

    function: str
    call: int = 1
    of: str = ""


class Forked:
    """A running mnist-tb, with the methods and streams of a Popen object in text mode."""

    def __init__(self, pid: int, status: int, stdin: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self._status = os.fdopen(status, "r", encoding="utf-8")
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(stream, mode, encoding="utf-8") for stream, mode in ((stdin, "w"), (stdout, "r"), (stderr, "r"))
        )
        self.returncode: int | None = None

    def wait(self, timeout: float = 120) -> int:
        """The exit code, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["mnist-tb"], timeout)
            with self._status:
                self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """All of its output and errors that have not been read; its streams are closed."""
        found: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda s=stream, n=name: found.update({n: s.read()}), daemon=True)
            for name, stream in (("out", self.stdout), ("error", self.stderr))
        ]
        for reader in readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        self.close()
        return found.get("out", ""), found.get("error", "")

    def until(self, beginning: str) -> None:
        """Read its output up to a line that begins so. Raises AssertionError where it ends before."""
        assert any(line.startswith(beginning) for line in self.stdout), self.communicate()[1]

    def proceed(self) -> None:
        """Let it go on where it is held."""
        self.stdin.write("\n")
        self.stdin.flush()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Zygote:
    """The process that forks."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "helpers.zygote", str(theirs.fileno())]
            folder = REPOSITORY / "tests"
            self._process = subprocess.Popen(command, cwd=folder, pass_fds=[theirs.fileno()])

    def start(
        self,
        *arguments: str,
        hold: Place | None = None,
        kill: Place | None = None,
        slow: Place | None = None,
        **environment: str,
    ) -> Forked:
        """Start mnist-tb.

        hold: it says HELD there, and waits for `proceed`; kill: SIGKILL comes to it there; slow: from there on, every
        call of the function takes ten milliseconds longer, which leaves the processor to others.
        """
        pairs = [os.pipe() for _ in range(4)]  # its status, input, output, errors
        theirs = [pairs[0][1], pairs[1][0], pairs[2][1], pairs[3][1]]
        request = {
            "arguments": arguments,
            "hold": hold,
            "kill": kill,
            "slow": slow,
            "environment": {**os.environ, **environment},
        }
        text = json.dumps({**request, "folder": os.getcwd()}).encode()
        socket.send_fds(self._control, [len(text).to_bytes(4, "big")], theirs)
        self._control.sendall(text)
        for descriptor in theirs:
            os.close(descriptor)
        pid = int(_line(pairs[0][0]))
        process = Forked(pid, pairs[0][0], pairs[1][1], pairs[2][0], pairs[3][0])
        Watch.note(process)
        return process

    def run(self, *arguments: str, kill: Place | None = None, **environment: str) -> tuple[int, str, str]:
        """Run mnist-tb to its end: exit code, output, errors."""
        process = self.start(*arguments, kill=kill, **environment)
        out, error = process.communicate(300)
        assert process.returncode is not None
        return process.returncode, out, error

    def close(self) -> None:
        self._control.close()
        self._process.wait(30)


def _line(descriptor: int) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        part = os.read(descriptor, 1)
        assert part, "the process that forks has ended"
        read += part
    return read


# ---- The process that forks


def _serve(control: socket.socket) -> Mapping[str, Any] | None:
    """Fork for each request; returns it in the process that is to do it, and None at the end of all requests."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for the command are not waited for
    while True:
        size, descriptors, _, _ = socket.recv_fds(control, 4, 4)
        if not size:
            return None
        text = b""
        while len(text) < int.from_bytes(size, "big"):
            text += control.recv(65_536)
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        _become(json.loads(text), descriptors)
        return json.loads(text)  # type: ignore[no-any-return]


def _become(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Fork once more, so that somebody waits for the command; returns in the process that is to be it."""
    status, *streams = descriptors
    pid = os.fork()
    if pid:
        for descriptor in streams:
            os.close(descriptor)
        os.write(status, f"{pid}\n".encode())
        _, code = os.waitpid(pid, 0)
        os.write(status, f"{code}\n".encode())
        os._exit(0)
    os.close(status)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def _hold() -> None:
    os.write(1, HELD.encode())
    os.read(0, 1)


_ACTS: dict[str, tuple[Callable[[], object], bool]] = {  # what is done, and whether at every later call too
    "hold": (_hold, False),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), False),
    "slow": (lambda: time.sleep(0.01), True),
}


def _arm(place: Place, act: Callable[[], object], again: bool) -> None:
    """Have the function do something more, at that call."""
    path, _, name = place.function.rpartition(".")
    try:
        owner: Any = importlib.import_module(path)
    except ModuleNotFoundError:
        owner = getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    real, seen = getattr(owner, name), []

    def armed(*arguments: Any, **named: Any) -> Any:
        if len(seen) < place.call and (not place.of or place.of in repr(arguments)):
            seen.append(1)
        if len(seen) == place.call:
            seen.extend([] if again else [1])
            act()
        return real(*arguments, **named)

    setattr(owner, name, armed)


IMPORTED = [f"mnist_tb.{name}" for name in ("launch", "sweep.pool", "sweep.result", "sweep.study", "analysis.tables")]
"""What takes seconds to import, such as torch and Optuna."""


def main() -> int:
    sys.path[0] = str(REPOSITORY)
    for module in IMPORTED:
        importlib.import_module(module)
    cli = importlib.import_module("mnist_tb.cli.main")
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return 0
    for key, (act, again) in _ACTS.items():
        if request[key] is not None:
            _arm(Place(*request[key]), act, again)
    try:
        code = int(cli.main(arguments=request["arguments"]))
    except Exception:
        traceback.print_exc()
        code = 1
    _leave(code)
    return code


def _leave(code: int) -> None:
    """End at once: to take down an interpreter that has imported torch takes a second."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()) is not None:
        measured.stop()
        measured.save()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
