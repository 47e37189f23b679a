"""What a run was made with: code, command, packages and machine, in its environment.json and code.patch."""

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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mnist_tb.config.redaction import hide_address, hide_command, hide_variable
from mnist_tb.errors import InputError
from mnist_tb.runs.files import read_json, write_atomically
from mnist_tb.runs.folder import Run

_PATIENCE = 5.0
"""Seconds that another program, such as git, is waited for."""
_LARGEST_OUTPUT = 2**20
"""Bytes of a patch, and of whatever else a program prints."""
_RECENT_SECONDS = 5.0
_CSV = "--format=csv,noheader"
_MOST_UNTRACKED = 100
_VARIABLES = re.compile(
    r"(CUDA|NVIDIA|NCCL|OMP|GOMP|KMP|MKL|OPENBLAS|TORCH|PYTORCH|PYTHON|MNIST_TB|SLURM)\w*"
    r"|LD_PRELOAD|VIRTUAL_ENV|CONDA_DEFAULT_ENV|RANK|LOCAL_RANK|WORLD_SIZE"
)


def gather(source: Path, with_code: bool = True) -> tuple[dict[str, Any], bytes]:
    """What the present process is made of, for JSON, and the patch from the commit to the code as it is.

    source: a folder of the code that trains. Nothing here fails: what is not known is left out.
    """
    until = time.monotonic() + _PATIENCE
    code, patch = _code(source, until) if with_code else ({}, b"")
    gpus = _text(_output(("nvidia-smi", "--query-gpu=name,memory.total,driver_version", _CSV), until))
    found = {
        "command": shlex.join(hide_command(sys.orig_argv)),
        "folder": _folder(),
        "code": code,
        "python": platform.python_version(),
        "packages": packages(),
        "host": {**_host(), **({"gpus": gpus.splitlines()} if gpus else {})},
        "variables": {
            name: hide_variable(name, value) for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)
        },
    }
    return _readable(found), patch


def gather_recent(source: Path, with_code: bool) -> tuple[dict[str, Any], bytes]:
    """The same, a few seconds old perhaps: a program may begin many runs at once, and git takes its time."""
    with _gathering:
        made_of = source, with_code
        found, when = _gathered.get(made_of, (None, 0.0))
        if found is None or time.monotonic() - when > _RECENT_SECONDS:
            found = gather(source, with_code)
            _gathered[made_of] = found, time.monotonic()
        return found


_gathered: dict[tuple[Path, bool], tuple[tuple[dict[str, Any], bytes], float]] = {}
_gathering = threading.Lock()


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
        write_atomically(run.home / name, patch)
        found = {**found, "code": {**found["code"], "patch": name}}
    written = {**known, "resumed": [*known.get("resumed", []), found]} if known else found
    write_atomically(run.home / "environment.json", json.dumps(written, indent=2).encode() + b"\n")


def read_environment(run: Run) -> dict[str, Any]:
    """A run's environment.json; empty where it has none. Raises InputError where it is broken."""
    return read_json(run.home / "environment.json") or {}


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


def _code(source: Path, until: float) -> tuple[dict[str, Any], bytes]:
    """The commit, and what differs from it; empty where the source is in no repository, or git is not there."""

    def git(*command: str) -> bytes | None:
        return _output(("git", "-C", str(source), "-c", "core.fsmonitor=false", *command), until)

    root = _text(git("rev-parse", "--show-toplevel"))
    if not root or git("check-ignore", "."):  # such as a .venv within another repository
        return {}, b""
    status = (git("status", "--porcelain=v2", "--branch", "-z") or b"").decode(errors="replace").split("\0")
    said = dict(line[2:].split(" ", 1) for line in status if line.startswith("# ") and " " in line[2:])
    untracked = [line[2:] for line in status if line.startswith("? ")]
    changes = git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or b""
    is_cut = len(changes) > _LARGEST_OUTPUT
    commit, branch = said.get("branch.oid", ""), said.get("branch.head", "")
    found = {
        "repository": root,
        "remote": hide_address(_text(git("remote", "get-url", "origin"))),
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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    found["cpu"] = model or platform.processor() or platform.machine()
    if sys.platform != "win32":
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return found


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace").strip()


def _output(command: Sequence[str], until: float) -> bytes | None:
    """What a program prints, at most one byte more than _LARGEST_OUTPUT; None if it fails, or has not ended in time."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            start_new_session=sys.platform != "win32",
        )
    except OSError:  # it is not there
        return None
    timer = threading.Timer(max(until - time.monotonic(), 0.0), _kill, [process])
    timer.daemon = True
    timer.start()
    with process:
        assert process.stdout is not None
        found = process.stdout.read(_LARGEST_OUTPUT + 1)
        is_cut = len(found) > _LARGEST_OUTPUT
        if is_cut:
            _kill(process)
    timer.cancel()
    return found if process.returncode == 0 or is_cut else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started, which would keep its output open."""
    with suppress(ProcessLookupError):  # it has just ended
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def main_folder() -> Path:
    """The folder of the program that runs; in an interpreter or a notebook, the present one."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return Path.cwd() if path is None else Path(path).resolve().parent
