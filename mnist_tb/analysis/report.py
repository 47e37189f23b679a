"""A comparison as one HTML file to mail: tables, curves, settings and pictures, without a network. Imports no torch."""

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
from mnist_tb.config import hyperparameters as settings
from mnist_tb.errors import InputError
from mnist_tb.events import reader as reading
from mnist_tb.events import tags
from mnist_tb.events.reader import Contents
from mnist_tb.runs.query import Problem, Row, damaged

_TEMPLATE = Path(__file__).parent / "static" / "report.html"
_DRAWN = 400
"""Points of a curve at most."""
_PICTURED = 40
"""Runs whose pictures are in it, the best first: each has about 150 kB of them."""
_ORDER = (tags.CONFUSION, tags.RESULTS, tags.MISTAKES, tags.UNCERTAIN, tags.CALIBRATION)
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


def write(path: Path, sections: Sequence[Section], logdir: Path) -> list[Problem]:
    """Write the report; returns what could not be read. Raises InputError where the file cannot be written."""
    problems: list[Problem] = []
    lines = [line for section in sections for line in section.lines]
    rows = [(row, colour) for colour, line in enumerate(lines) for row in line.rows]
    runs = [_run(row, colour, number < _PICTURED, problems) for number, (row, colour) in enumerate(rows)]
    about = (
        f"{len(rows)} run{'s' if len(rows) != 1 else ''} of {logdir.resolve().name}, {datetime.now():%Y-%m-%d %H:%M}"
    )
    about += f", mnist_tb {__version__}"
    if len(rows) > _PICTURED:
        about += f". Pictures of the first {_PICTURED} only."
    data = {"about": about, "sections": [_section(section) for section in sections], "runs": runs}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    try:
        path.write_text(_TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", text), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    return problems


def _section(section: Section) -> dict[str, Any]:
    columns = tables.header(section)
    lines = [
        {"cells": tables.cells(section, line, columns), "runs": [row.name for row in line.rows]}
        for line in section.lines
    ]
    return {"data": section.data, "titles": list(columns.values()), "rows": lines, "note": tables.footnote(section)}


def _run(row: Row, colour: int, pictured: bool, problems: list[Problem]) -> dict[str, Any]:
    contents = reading.read(row.path)
    if row.ours:  # of the others it was said when they were read for the table
        problems += damaged(row.path, contents.damage)
    return {
        "name": row.name,
        "colour": colour,
        "data": row.data,
        "settings": {key: settings.shown(value) for key, value in row.settings.items()},
        "curves": {tag: _thin(points) for tag, points in _in_order(contents)},
        "pictures": _pictures(contents) if pictured else {},
    }


def _in_order(contents: Contents) -> list[tuple[str, Any]]:
    """Loss and accuracy before all else."""
    first = ("loss", "acc")
    curves = [item for item in contents.curves.items() if not item[0].startswith(tags.PER_CLASS)]  # ten charts
    return sorted(curves, key=lambda item: (not item[0].startswith(first), item[0]))


def _thin(points: Sequence[reading.Point]) -> list[tuple[int, float | None]]:
    """At most so many points, evenly, the last one among them; what is no finite number is a gap."""
    every = -(-len(points) // _DRAWN)
    kept = points[(len(points) - 1) % every :: every]
    return [(p.step, float(f"{p.value:.7g}") if math.isfinite(p.value) else None) for p in kept]


def _pictures(contents: Contents) -> dict[str, str]:
    found = {}
    for tag in sorted(contents.pictures, key=lambda tag: (_ORDER.index(tag) if tag in _ORDER else len(_ORDER), tag)):
        picture = contents.pictures[tag][1]
        kind = next((name for start, name in _KINDS.items() if picture.startswith(start)), None)
        if kind is not None:
            found[tag] = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return found
