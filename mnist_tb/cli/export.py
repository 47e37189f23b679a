"""Every scalar of runs as CSV or JSON, from where the last export ended. Imports no torch."""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mnist_tb.config.names import csv_line
from mnist_tb.errors import InputError
from mnist_tb.runs.files import read_json, write_atomically
from mnist_tb.runs.query import Problem, RunSummary, damage_problems

_COLUMNS = ("run", "tag", "step", "wall_time", "value")
_FORMAT = 1


class Place:
    """How far the event files of each run have been exported: run folder → event file → byte.

    Kept in a file, JSON, if there is one; else it is forgotten. A run is known by its folder, so that one that was
    renamed is exported anew. Raises InputError where the file is something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.is_new = path is None or not path.exists()
        self._read: dict[str, dict[str, int]] = {}
        if path is not None and not path.parent.is_dir():
            raise InputError(f"--since {path}: there is no folder {path.parent}")
        if path is not None and not self.is_new:
            known = read_json(path) or {}
            if known.get("format") != _FORMAT or not _fits(known.get("read")):
                raise InputError(f"--since {path}: was not written by export; name a file that does not exist yet")
            self._read = known["read"]

    def of(self, run: RunSummary) -> dict[str, int]:
        """The place in each event file of a run, to be changed."""
        return self._read.setdefault(str(run.path.resolve()), {})

    def keep(self) -> None:
        """Write the file. Raises InputError where that is not possible."""
        if self._path is not None:
            try:
                write_atomically(self._path, json.dumps({"format": _FORMAT, "read": self._read}, indent=1).encode())
            except OSError as error:
                raise InputError(f"--since {self._path}: cannot be written: {error.strerror}") from None


def export(runs: Sequence[RunSummary], form: str, tags: Sequence[str], place: Place, out: TextIO) -> list[Problem]:
    """Write the scalars of the runs from a place on, in long form, as `csv` or `json`; returns what could not be read.

    tags: patterns such as `loss/*`; all tags if there are none. Values are exact: a 32-bit number is written as the
    64-bit number that equals it. NaN and infinities are `nan`, `inf` and `-inf`, strings in JSON, which lacks them. The
    place moves behind all that was read. CSV has a header where the place is new, so that exports can be appended.
    """
    from mnist_tb.events import reader

    problems: list[Problem] = []
    found: set[str] = set()

    def points() -> Iterator[tuple[Any, ...]]:
        for run in runs:
            damage: dict[str, Any] = {}
            for point in reader.points(run.path, damage, place.of(run)):
                if not tags or any(fnmatch.fnmatchcase(point.tag, pattern) for pattern in tags):
                    found.add(point.tag)
                    yield run.name, point.tag, point.step, point.wall_time, point.value
            problems.extend(damage_problems(run.path, damage))
        if tags and not found and place.is_new:
            problems.append(Problem(f"--tag {', '.join(tags)}: no curve has such a tag", lost=False))

    if form == "csv":
        for line in itertools.chain([_COLUMNS] if place.is_new else [], points()):
            out.write(csv_line(line))
        return problems
    out.write("[")
    for index, point in enumerate(points()):
        *known, value = point
        finite = value if math.isfinite(value) else str(value)
        out.write((",\n " if index else "\n ") + json.dumps(dict(zip(_COLUMNS, (*known, finite), strict=True))))
    out.write("\n]\n")
    return problems


def _fits(read: Any) -> bool:
    """Whether this is what `Place` keeps."""
    return isinstance(read, dict) and all(
        isinstance(files, dict) and all(isinstance(byte, int) and byte >= 0 for byte in files.values())
        for files in read.values()
    )
