"""Runs renamed and removed, never outside their log folder, and their curves written out. Imports no torch."""

from __future__ import annotations

import csv
import fnmatch
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mnist_tb.config import load as configuration
from mnist_tb.config import strict_yaml
from mnist_tb.errors import InputError
from mnist_tb.runs import folder as runs
from mnist_tb.runs.folder import Run
from mnist_tb.runs.query import Problem, Row, damaged
from mnist_tb.system import locked

_COLUMNS = ("run", "tag", "step", "wall_time", "value")
_REMOVED = ".removed-"


def inside(logdir: Path, which: str) -> Run:
    """A run that is an entry of the log folder itself. Raises InputError where what is named is anything else."""
    run = runs.find(logdir, which)
    if run.path.parent.resolve() != logdir.resolve() or not runs.is_numbered(run.name):
        raise InputError(f"{which}: is no run in {logdir}; only those are renamed or removed")
    return run


def rename(logdir: Path, run: Run, name: str) -> Run:
    """Give a run another name after its number; TensorBoard follows. Raises InputError, and OSError."""
    if not configuration.is_run_name(name):
        raise InputError(f"{name!r}: a name is 1 to 40 letters, digits, dots, underscores and hyphens, no dot first")
    target = Run(logdir / f"{run.name.partition('-')[0]}-{name}")
    if target.path == run.path:
        return run
    with locked(logdir):
        if target.path.exists() or target.path.is_symlink():
            raise InputError(f"{target.path}: there is one already")
        if run.path.is_symlink():  # the link gets another name, and nothing changes where it leads
            run.path.rename(target.path)
            return target
        with run.in_use():
            run.path.rename(target.path)
            if target.config.exists():
                _name_in_config(target, name)
    return target


def _name_in_config(run: Run, name: str) -> None:
    values = strict_yaml.read(run.config).values
    if "name" in values:
        text = run.config.read_text(encoding="utf-8")
        changed = re.sub(r"^name: .*$", f"name: {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
        runs.write_atomically(run.config, changed.encode())
    known = run.read_metrics() if run.metrics.exists() else {}
    if isinstance(known.get("config"), dict) and "name" in known["config"]:
        run.update_metrics(config={**known["config"], "name": name})


def remove(logdir: Path, run: Run) -> None:
    """Delete a run's folder, of a link the link only. Raises InputError where a process has it, and OSError.

    It vanishes under its name at once; a removal that is killed is completed by the next one.
    """
    with locked(logdir):
        if run.path.is_symlink():
            run.path.unlink()
            return
        if run.last_checkpoint.parent.is_dir():
            with run.in_use():
                hidden = _hide(logdir, run)
        else:
            hidden = _hide(logdir, run)
        for path in {hidden, *logdir.glob(f"{_REMOVED}*")}:
            if not path.is_symlink():
                shutil.rmtree(path)


def _hide(logdir: Path, run: Run) -> Path:
    free = (logdir / f"{_REMOVED}{run.name}.{number}" for number in itertools.count())
    return run.path.rename(next(path for path in free if not path.exists() and not path.is_symlink()))


def export(rows: Sequence[Row], form: str, tags: Sequence[str], out: TextIO) -> list[Problem]:
    """Write every scalar of the runs in long form, `csv` or `json`, as it is read; returns what could not be read.

    tags: patterns such as `loss/*`; none take all. Values are exact: a 32-bit number is written with the digits that
    give it back as a 64-bit one. NaN and infinities are `nan`, `inf`, `-inf`, texts in JSON, which has no such numbers.
    """
    from mnist_tb.events import reader as reading

    problems: list[Problem] = []

    def points() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            damage: dict[str, Any] = {}
            for point in reading.points(row.path, damage):
                if not tags or any(fnmatch.fnmatchcase(point.tag, pattern) for pattern in tags):
                    yield row.name, point.tag, point.step, point.wall_time, point.value
            problems.extend(damaged(row.path, damage))

    if form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(points())
        return problems
    out.write("[")
    for index, point in enumerate(points()):
        *known, value = point
        finite = value if math.isfinite(value) else str(value)
        out.write((",\n " if index else "\n ") + json.dumps(dict(zip(_COLUMNS, (*known, finite), strict=True))))
    out.write("\n]\n")
    return problems
