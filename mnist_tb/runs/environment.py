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
from mnist_tb.runs.folder import Run, read_json, write_atomically

_PATIENCE = 5.0
"""Seconds that another program, such as git, is waited for."""
_LARGEST_PATCH = 2**20
_MOST_UNTRACKED = 100
_VARIABLES = re.compile(
    r"(CUDA|NVIDIA|NCCL|OMP|GOMP|KMP|MKL|OPENBLAS|TORCH|PYTORCH|PYTHON|MNIST_TB|SLURM)\w*"
    r"|LD_PRELOAD|VIRTUAL_ENV|CONDA_DEFAULT_ENV|RANK|LOCAL_RANK|WORLD_SIZE"
)
_SECRET = re.compile(r"key|token|secret|passw|pwd|credential|auth|cookie", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)")  # of an address: user:password@host
_HIDDEN = "(hidden)"


def gather(source: Path, with_code: bool = True) -> tuple[dict[str, Any], bytes]:
    """What the present process is made of, for JSON, and the patch from the commit to the code as it is.

    source: a folder of the code that trains. Nothing here fails: what is not known is left out.
    """
    code, patch = _code(source) if with_code else ({}, b"")
    found = {
        "command": shlex.join(_without_secrets(sys.orig_argv)),
        "folder": os.getcwd(),
        "code": code,
        "python": platform.python_version(),
        "packages": _packages(),
        "host": _host(),
        "variables": {
            name: _HIDDEN if _SECRET.search(name) else hide_passwords(value)
            for name, value in sorted(os.environ.items())
            if _VARIABLES.fullmatch(name)
        },
    }
    return found, patch


def record(run: Run, source: Path, with_code: bool = True) -> dict[str, Any]:
    """Write environment.json and code.patch into a run's folder, and return what is in the former.

    Where a process resumes the run with other code or packages, that is added under `resumed`. Raises OSError.
    """
    found, patch = gather(source, with_code)
    known = _known(run)
    if known:
        before = [known, *known.get("resumed", [])]
        if any(_made_with(each) == _made_with(found) for each in before):
            return found
    name = f"code-{len(known.get('resumed', [])) + 2}.patch" if known else "code.patch"
    if patch:
        write_atomically(run.path / name, patch)
        found["code"]["patch"] = name
    written = {**known, "resumed": [*known.get("resumed", []), found]} if known else found
    write_atomically(run.path / "environment.json", json.dumps(written, indent=2, ensure_ascii=False).encode() + b"\n")
    return found


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


def _code(source: Path) -> tuple[dict[str, Any], bytes]:
    """The commit, and what differs from it; empty where the source is in no repository, or git is not there."""
    root = _said("git", "-C", str(source), "rev-parse", "--show-toplevel")
    if not root or _said("git", "-C", str(source), "check-ignore", "."):  # such as a .venv within another repository
        return {}, b""
    git = ("git", "-C", root, "-c", "core.fsmonitor=false")
    status = (_output(*git, "status", "--porcelain=v2", "--branch", "-z") or b"").decode(errors="replace").split("\0")
    said = dict(line[2:].split(" ", 1) for line in status if line.startswith("# ") and " " in line[2:])
    untracked = [line[2:] for line in status if line.startswith("? ")]
    changes = b""
    if any(line[:1] not in ("#", "?", "") for line in status):
        diff = ("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
        changes = _output(*git, *diff, limit=_LARGEST_PATCH) or b""
    is_cut = len(changes) > _LARGEST_PATCH
    commit, branch = said.get("branch.oid", ""), said.get("branch.head", "")
    found = {
        "repository": root,
        "remote": hide_passwords(_said(*git, "remote", "get-url", "origin")),
        "commit": "" if commit == "(initial)" else commit,
        "branch": "" if branch == "(detached)" else branch,
        "dirty": bool(changes or untracked),
        "changes": hashlib.sha256(changes).hexdigest()[:16] if changes else "",
        "untracked": untracked[:_MOST_UNTRACKED],
        "patch_too_large": is_cut,
    }
    return {key: value for key, value in found.items() if value or key == "dirty"}, b"" if is_cut else changes


@functools.cache
def _packages() -> dict[str, str]:
    return dict(sorted((each.metadata["Name"], each.version) for each in distributions()))


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
    gpus = _said("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return {**found, **({"gpus": gpus.splitlines()} if gpus else {})}


def _said(*command: str) -> str:
    return (_output(*command) or b"").decode(errors="replace").strip()


def _output(*command: str, limit: int = 2**16) -> bytes | None:
    """What a program prints, at most one byte more than `limit`; None where it fails, or does not end in time."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=sys.platform != "win32",
        )
    except OSError:
        return None
    timer = threading.Timer(_PATIENCE, _kill, [process])
    timer.start()
    assert process.stdout is not None
    with process.stdout:
        found = process.stdout.read(limit + 1)
    if len(found) > limit:
        _kill(process)
    code = process.wait()
    timer.cancel()
    return found if code == 0 or len(found) > limit else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started, which would keep its output open."""
    if sys.platform == "win32":
        process.kill()
    elif process.poll() is None:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)


def facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run is made with but for packages and variables, in words."""
    code, host = (value if isinstance(value, dict) else {} for value in (found.get("code"), found.get("host")))
    changes = "with changes" if code.get("dirty") else "unchanged"
    commit = f"{code['commit']} {changes}" if code.get("commit") else None
    known = {
        "command": found.get("command"),
        "folder": found.get("folder"),
        "commit": commit,
        "branch": code.get("branch"),
        "repository": code.get("remote") or code.get("repository"),
        "python": found.get("python"),
        "host": host.get("name"),
        "system": host.get("system"),
        "cpu": host.get("cpu") and f"{host['cpu']}, {host.get('cores')} cores, {host.get('memory_gb', '?')} GB",
        "gpu": "; ".join(map(str, host["gpus"])) if isinstance(host.get("gpus"), list) else None,
    }
    return [(name, str(value).replace("\n", " ")) for name, value in known.items() if value]


def flat_environment(folder: Path) -> dict[str, str]:
    """What two runs can differ in: commit, patch, Python, packages, processor and GPUs. Raises InputError."""
    found = read_environment(Run(folder))
    code, host, packages = (
        value if isinstance(value := found.get(key), dict) else {} for key in ("code", "host", "packages")
    )
    known = {key: code.get(key) for key in ("commit", "branch", "changes")}
    known |= {"cpu": host.get("cpu"), "gpus": host.get("gpus")}
    known |= {"python": found.get("python"), **{f"package {name}": version for name, version in packages.items()}}
    return {key: str(value) for key, value in known.items() if value}


def reproduction(run: Run) -> list[str]:
    """Commands for a shell that repeat a run, with comments on what they cannot repeat.

    Raises InputError where the commit that it was made from is not known.
    """
    environment = read_environment(run)
    installed = _packages()
    code = environment.get("code")
    if not isinstance(code, dict) or not code.get("commit"):
        raise InputError(f"{run.path}: the code that it was made with is not known; its configuration is {run.config}")
    folder = f"repeat-{run.name}"
    lines = [
        f"git clone --no-checkout {shlex.quote(str(code.get('repository')))} {shlex.quote(folder)}",
        f"cd {shlex.quote(folder)}",
        f"git checkout --detach {shlex.quote(str(code['commit']))}",
    ]
    if code.get("patch"):
        lines.append(f"git apply --binary {shlex.quote(str((run.path / str(code['patch'])).resolve()))}")
    if code.get("patch_too_large"):
        lines.append("# its changes to that commit were too large to be kept")
    if code.get("untracked"):
        lines.append(f"# files that git did not know, and are not here: {', '.join(map(str, code['untracked']))}")
    wanted = environment.get("packages")
    other = (
        sorted(f"{n}=={v}" for n, v in wanted.items() if n in installed and installed[n] != v)
        if isinstance(wanted, dict)
        else []
    )
    if other:
        lines.append(f"python -m pip install {' '.join(map(shlex.quote, other))}  # other versions are installed now")
    lines.append(f"python -m mnist_tb train --config {shlex.quote(str(run.config.resolve()))}")
    return lines
