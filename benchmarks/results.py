"""benchmarks/RESULTS.md: one section a benchmark, each replaced by the next run of its benchmark and no other."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PATH = Path(__file__).parent / "RESULTS.md"
_PACKAGES = ("torch", "torchvision", "tensorboard", "lightning", "pytorch-ignite")


def write_section(title: str, text: str) -> None:
    """Put a section `## title` into RESULTS.md, in the place of the one of that title, or at the end."""
    old = PATH.read_text() if PATH.exists() else "# Results\n"
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    new, found = pattern.subn(lambda match: section + "\n", old)
    PATH.write_text((new if found else f"{old.rstrip()}\n\n{section}").rstrip() + "\n")
    print(f"\n{section}\n→ {PATH}", flush=True)


def machine() -> str:
    """The machine and the versions, in one line."""
    names = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    parts = [
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores",
        f"Python {platform.python_version()}",
    ]
    for package in _PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts) + "."


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Median [least to most]."""
    return f"{statistics.median(values):{form}} [{min(values):{form}} to {max(values):{form}}]"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
