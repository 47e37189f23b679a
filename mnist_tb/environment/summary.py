"""What is said of a run's environment: facts in words, what differs between two, and the commands that repeat a run."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_tb.config.names import printable
from mnist_tb.environment.snapshot import packages, read_environment
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import Run


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
    code, host, versions = (
        value if isinstance(value := found.get(key), dict) else {} for key in ("code", "host", "packages")
    )
    known = {key: code.get(key) for key in ("commit", "branch", "changes")}
    known |= {"cpu": host.get("cpu"), "gpus": host.get("gpus")}
    known |= {"python": found.get("python"), **{f"package {name}": version for name, version in versions.items()}}
    return {key: str(value) for key, value in known.items() if value}


def reproduction(run: Run) -> list[str]:
    """Commands for a shell that repeat a run, with comments on what they cannot repeat.

    Raises InputError where the commit that it was made from is not known.
    """
    environment = read_environment(run)
    installed = packages()
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
        lines.append(f"git apply --binary {shlex.quote(str((run.home / str(code['patch'])).resolve()))}")
    if code.get("patch_too_large"):
        lines.append("# its changes to that commit were too large to be kept")
    if code.get("untracked"):
        names = ", ".join(printable(str(name)) for name in code["untracked"])  # a line break would end the comment
        lines.append(f"# files that git did not know, and are not here: {names}")
    wanted = environment.get("packages")
    other = (
        sorted(f"{n}=={v}" for n, v in wanted.items() if n in installed and installed[n] != v)
        if isinstance(wanted, dict)
        else []
    )
    python = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
    if other:
        lines.append(f"{python} -m pip install {' '.join(map(shlex.quote, other))}  # other versions are installed now")
    lines.append(f"{python} -m mnist_tb train --config {shlex.quote(str(run.config.resolve()))}")
    return lines
