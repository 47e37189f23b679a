"""What a run was made with: code, command, packages and machine, in its environment.json and code.patch.

Secrets are left out: values of variables and options whose names look like one, and passwords in addresses.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mnist_tb.errors import InputError
from mnist_tb.runs.files import read_json, write_atomically
from mnist_tb.runs.folder import Run

_PATIENCE = 5.0
"""Seconds that another program, such as git, is waited for."""
_LARGEST_OUTPUT = 2**20
"""Bytes of a patch, and of whatever else a program prints."""
_CSV = "--format=csv,noheader"
_MOST_UNTRACKED = 100
_VARIABLES = re.compile(
    r"(CUDA|NVIDIA|NCCL|OMP|GOMP|KMP|MKL|OPENBLAS|TORCH|PYTORCH|PYTHON|MNIST_TB|SLURM)\w*"
    r"|LD_PRELOAD|VIRTUAL_ENV|CONDA_DEFAULT_ENV|RANK|LOCAL_RANK|WORLD_SIZE"
)
_SECRET = re.compile(r"key|token|secret|passw|pwd|credential|auth|cookie|notify", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)")  # of an address: user:password@host
_HIDDEN = "(hidden)"


class Gathering:
    """What the present process is made of; the programs that are asked for it run from its beginning on."""

    def __init__(self, source: Path) -> None:
        """source: a folder of the code that trains.

        Begin before anything is locked: until a started program has begun, it holds what its parent does.
        """
        git = ("git", "-C", str(source), "-c", "core.fsmonitor=false")
        commands = {
            "root": (*git, "rev-parse", "--show-toplevel"),
            "ignored": (*git, "check-ignore", "."),
            "status": (*git, "status", "--porcelain=v2", "--branch", "-z"),
            "changes": (*git, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv"),
            "remote": (*git, "remote", "get-url", "origin"),
        }
        self._programs = {name: _Program(command) for name, command in commands.items()}
        self._programs["gpus"] = _Program(("nvidia-smi", "--query-gpu=name,memory.total,driver_version", _CSV))
        self._timer = threading.Timer(_PATIENCE, self._kill)
        self._timer.start()

    def finish(self) -> tuple[dict[str, Any], bytes]:
        """For JSON, and the patch from the commit to the code as it is; call once.

        Nothing here fails: what is not known is left out.
        """
        outputs = {name: program.output() for name, program in self._programs.items()}
        self._timer.cancel()
        code, patch = _code(outputs)
        found = {
            "command": shlex.join(_without_secrets(sys.orig_argv)),
            "folder": _folder(),
            "code": code,
            "python": platform.python_version(),
            "packages": packages(),
            "host": {**_host(), **({"gpus": gpus.splitlines()} if (gpus := _text(outputs["gpus"])) else {})},
            "variables": {
                name: _HIDDEN if _SECRET.search(name) else hide_passwords(value)
                for name, value in sorted(os.environ.items())
                if _VARIABLES.fullmatch(name)
            },
        }
        return _readable(found), patch

    def give_up(self) -> None:
        """In place of `finish`."""
        self._kill()
        for program in self._programs.values():
            program.output()
        self._timer.cancel()

    def _kill(self) -> None:
        for program in self._programs.values():
            program.kill()


def record(run: Run, found: dict[str, Any], patch: bytes) -> None:
    """Write what was gathered to environment.json and code.patch in a run's folder.

    Where a process resumes the run with other code or packages, that is added under `resumed`. Raises OSError.
    """
    known = _known(run)
    if known:
        before = [known, *known.get("resumed", [])]
        if any(_made_with(each) == _made_with(found) for each in before):
            return
    name = f"code-{len(known.get('resumed', [])) + 2}.patch" if known else "code.patch"
    if patch:
        write_atomically(run.path / name, patch)
        found["code"]["patch"] = name
    written = {**known, "resumed": [*known.get("resumed", []), found]} if known else found
    write_atomically(run.path / "environment.json", json.dumps(written, indent=2, ensure_ascii=False).encode() + b"\n")


def read_environment(run: Run) -> dict[str, Any]:
    """A run's environment.json; empty where it has none. Raises InputError where it is broken."""
    return read_json(run.path / "environment.json") or {}


def hide_passwords(text: str) -> str:
    """With `user:(hidden)@host` in place of `user:password@host`."""
    return _PASSWORD.sub(rf"\1:{_HIDDEN}", text)


def _made_with(found: Mapping[str, Any]) -> list[Any]:
    code = found.get("code")
    known = {key: value for key, value in code.items() if key != "patch"} if isinstance(code, dict) else code
    return [known, found.get("packages"), found.get("host")]


def _known(run: Run) -> dict[str, Any]:
    try:
        known = read_environment(run)
    except InputError:
        return {}
    resumed = known.get("resumed", [])
    return known if isinstance(resumed, list) and all(isinstance(each, dict) for each in resumed) else {}


def _without_secrets(command: Sequence[str]) -> list[str]:
    """A command line; the value of an option whose name looks like a secret is hidden."""
    hidden, found = False, []
    for word in command:
        option, separator, _ = word.partition("=")
        if hidden and not word.startswith("-"):
            word = _HIDDEN
        elif separator and _SECRET.search(option):
            word = f"{option}={_HIDDEN}"
        hidden = word.startswith("--") and not separator and _SECRET.search(word) is not None
        found.append(hide_passwords(word))
    return found


def _code(outputs: Mapping[str, bytes | None]) -> tuple[dict[str, Any], bytes]:
    """The commit, and what differs from it; empty where the source is in no repository, or git is not there."""
    root = _text(outputs["root"])
    if not root or outputs["ignored"]:  # such as a .venv within another repository
        return {}, b""
    status = (outputs["status"] or b"").decode(errors="replace").split("\0")
    said = dict(line[2:].split(" ", 1) for line in status if line.startswith("# ") and " " in line[2:])
    untracked = [line[2:] for line in status if line.startswith("? ")]
    changes = outputs["changes"] or b""
    is_cut = len(changes) > _LARGEST_OUTPUT
    commit, branch = said.get("branch.oid", ""), said.get("branch.head", "")
    found = {
        "repository": root,
        "remote": hide_passwords(_text(outputs["remote"])),
        "commit": "" if commit == "(initial)" else commit,
        "branch": "" if branch == "(detached)" else branch,
        "dirty": bool(changes or untracked),
        "changes": hashlib.sha256(changes).hexdigest()[:16] if changes else "",
        "untracked": untracked[:_MOST_UNTRACKED],
        "patch_too_large": is_cut,
    }
    return {key: value for key, value in found.items() if value or key == "dirty"}, b"" if is_cut else changes


@functools.cache
def packages() -> dict[str, str]:
    """Name → version of what is installed; what a broken installation has left without a name is left out."""
    found = ((each.metadata["Name"], each.version) for each in distributions())
    return dict(sorted((name, version) for name, version in found if name and version))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # somebody has removed it
        return ""


def _readable(value: Any) -> Any:
    """Text that UTF-8 has: a command and a variable may be any bytes."""
    if isinstance(value, dict):
        return {_readable(key): _readable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


@functools.cache
def _host() -> dict[str, Any]:
    found: dict[str, Any] = {"name": platform.node(), "system": platform.platform(), "cores": os.cpu_count()}
    model = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    found["cpu"] = model or platform.processor() or platform.machine()
    if sys.platform != "win32":
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return found


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace").strip()


class _Program:
    """A program that has been started."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # it is not there
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
                start_new_session=sys.platform != "win32",
            )

    def output(self) -> bytes | None:
        """What it prints, at most one byte more than _LARGEST_OUTPUT; None where it fails or is killed."""
        if self._process is None:
            return None
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            found = stream.read(_LARGEST_OUTPUT + 1)
        is_cut = len(found) > _LARGEST_OUTPUT
        if is_cut:
            self.kill()
        return found if self._process.wait() == 0 or is_cut else None

    def kill(self) -> None:
        """With all that it has started, which would keep its output open."""
        if self._process is None or self._process.poll() is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, signal.SIGKILL)


def main_folder() -> Path:
    """The folder of the program that runs; in an interpreter or a notebook, the present one."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return Path.cwd() if path is None else Path(path).resolve().parent
