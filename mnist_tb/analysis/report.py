"""A comparison as one HTML file to mail: tables, curves, settings and pictures; it loads nothing. Imports no torch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_tb import __version__
from mnist_tb.analysis import tables
from mnist_tb.analysis.compare import Section
from mnist_tb.config.hyperparameters import format_value
from mnist_tb.errors import InputError
from mnist_tb.events import reader, tags
from mnist_tb.events.curves import thin
from mnist_tb.events.reader import Contents
from mnist_tb.runs.query import Problem, RunSummary, damage_problems

_TEMPLATE = Path(__file__).parent / "static" / "report.html"
_CURVE_POINTS = 400
"""The most points that are drawn of a curve."""
_RUNS_WITH_PICTURES = 40
"""The best runs, whose pictures are included: about 150 kB each."""
_ORDER = (tags.CONFUSION, tags.RESULTS, tags.MISTAKES, tags.UNCERTAIN, tags.CALIBRATION)
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


def write_report(path: Path, sections: Sequence[Section], logdir: Path) -> list[Problem]:
    """Write the report; returns what could not be read. Raises InputError where the file cannot be written."""
    problems: list[Problem] = []
    lines = [line for section in sections for line in section.lines]
    coloured = [(run, colour) for colour, line in enumerate(lines) for run in line.runs]
    runs = [_run(run, colour, number < _RUNS_WITH_PICTURES, problems) for number, (run, colour) in enumerate(coloured)]
    about = (
        f"{len(runs)} run{'s' if len(runs) != 1 else ''} of {logdir.resolve().name}, {datetime.now():%Y-%m-%d %H:%M}"
    )
    about += f", mnist_tb {__version__}"
    if len(runs) > _RUNS_WITH_PICTURES:
        about += f". Pictures of the first {_RUNS_WITH_PICTURES} only."
    data = {"about": about, "sections": [_section(section) for section in sections], "runs": runs}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    try:
        path.write_text(
            _TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", text), encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    return problems


def _section(section: Section) -> dict[str, Any]:
    columns = tables.header(section)
    lines = [
        {"cells": tables.cells(section, line, columns), "runs": [run.name for run in line.runs]}
        for line in section.lines
    ]
    return {
        "data": section.data,
        "summary": tables.summary(section),
        "titles": list(columns.values()),
        "rows": lines,
        "note": tables.footnote(section),
    }


def _run(run: RunSummary, colour: int, with_pictures: bool, problems: list[Problem]) -> dict[str, Any]:
    contents = reader.read(run.path)
    if run.native:  # the others were read for the table, and their problems named there
        problems += damage_problems(run.path, contents.damage)
    return {
        "name": run.name,
        "colour": colour,
        "data": run.data,
        "settings": {key: format_value(value) for key, value in run.settings.items()},
        "curves": {tag: _thinned(points) for tag, points in _in_order(contents)},
        "pictures": _pictures(contents) if with_pictures else {},
    }


def _in_order(contents: Contents) -> list[tuple[str, Any]]:
    """The curves, those of loss and accuracy first."""
    first = ("loss", "acc")
    curves = [item for item in contents.curves.items() if not item[0].startswith(tags.PER_CLASS)]
    return sorted(curves, key=lambda item: (not item[0].startswith(first), item[0]))


def _thinned(points: Sequence[reader.Point]) -> list[tuple[int, float | None]]:
    """Step and value of evenly spaced points; a value that is not finite is a gap."""
    kept = thin(points, _CURVE_POINTS)
    return [(p.step, float(f"{p.value:.7g}") if math.isfinite(p.value) else None) for p in kept]


def _pictures(contents: Contents) -> dict[str, str]:
    found = {}
    for tag in sorted(contents.pictures, key=lambda tag: (_ORDER.index(tag) if tag in _ORDER else len(_ORDER), tag)):
        picture = contents.pictures[tag][1]
        kind = next((name for start, name in _KINDS.items() if picture.startswith(start)), None)
        if kind is not None:
            found[tag] = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return found
