"""A comparison as one HTML file to mail: tables, curves, settings and pictures; it loads nothing. Imports no torch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import mnist_tb
from mnist_tb import __version__
from mnist_tb.analysis import tables
from mnist_tb.analysis.compare import Line, Section, line_names
from mnist_tb.config.hyperparameters import format_value
from mnist_tb.config.names import encodable
from mnist_tb.errors import InputError
from mnist_tb.events import reader, tags
from mnist_tb.events.configurations import MeanCurve, about_means, mean_curve
from mnist_tb.events.curves import NOTHING_TOLD, Told, by_step, find_measured, own_tag, thin
from mnist_tb.events.reader import Contents
from mnist_tb.runs.query import Problem, RunSummary, damage_problems

_STATIC = Path(__file__).parent / "static"
_BOARD = Path(mnist_tb.__file__).parent / "board" / "static"
_PARTS = {
    "@UPLOT_CSS@": _BOARD / "vendor" / "uPlot.min.css",
    "@CHARTS_CSS@": _BOARD / "charts.css",
    "@UPLOT@": _BOARD / "vendor" / "uPlot.iife.min.js",
    "@CHARTS@": _BOARD / "charts.js",
    "@REPORT@": _STATIC / "report.js",
}
"""What the page is made of: the charts are those of the Live tab."""
_CURVE_POINTS = 400
"""The most points that are drawn of a curve."""
_RUNS_WITH_PICTURES = 40
"""The best runs, whose pictures are included: about 150 kB each."""
_ORDER = (tags.CONFUSION, tags.RESULTS, tags.MISTAKES, tags.UNCERTAIN, tags.CALIBRATION)
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


def write_report(path: Path, sections: Sequence[Section], logdir: Path, told: Told = NOTHING_TOLD) -> list[Problem]:
    """Write the report; returns what could not be read. Raises InputError where the file cannot be written.

    told: which curve of another program is which; it is drawn with ours.
    """
    problems: list[Problem] = []
    runs: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    means: list[tuple[str, list[MeanCurve]]] = []
    lines = [(section.grouped, line) for section in sections for line in section.lines]
    for number, ((grouped, line), name) in enumerate(zip(lines, line_names(sections), strict=True)):
        contents = [reader.read(run.path) for run in line.runs]
        for run, read in zip(line.runs, contents, strict=True):
            runs.append(_run(run, read, told, number, len(runs) < _RUNS_WITH_PICTURES, problems))
        if grouped:
            curves = _means(line, contents, told)
            comparable = [mean for tag, mean in curves.items() if not tag.startswith(tags.SYSTEM)]  # go by time
            means.append((name, comparable))
            groups.append(
                {
                    "name": name,
                    "runs": [run.name for run in line.runs],
                    "seeds": len(line.seeds),
                    "curves": {tag: _mean(mean) for tag, mean in curves.items()},
                }
            )
    numbers = iter(range(len(lines)))
    data = {
        "about": _about(len(runs), logdir),
        "sections": [_section(section, numbers) for section in sections],
        "runs": runs,
        "groups": groups,
        "band": about_means(means),
    }
    text = encodable(json.dumps(data, ensure_ascii=False, allow_nan=False))
    text = text.replace("</", "<\\/").replace("<!--", "<\\u0021--")
    try:
        path.write_text(_page().replace("@DATA@", text), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    return problems


def _about(runs: int, logdir: Path) -> str:
    when = f"{datetime.now():%Y-%m-%d %H:%M}"
    about = f"{runs} run{'s' if runs != 1 else ''} of {logdir.resolve().name}, {when}, mnist_tb {__version__}"
    return about + (f". Pictures of the first {_RUNS_WITH_PICTURES} only." if runs > _RUNS_WITH_PICTURES else "")


def _page() -> str:
    page = (_STATIC / "report.html").read_text(encoding="utf-8")
    for place, part in _PARTS.items():
        page = page.replace(place, part.read_text(encoding="utf-8"))
    return page


def _section(section: Section, numbers: Iterator[int]) -> dict[str, Any]:
    """A table. numbers: of the lines, through all sections; runs and rows have them."""
    columns = tables.header(section)
    return {
        "data": section.data,
        "summary": tables.summary(section),
        "titles": list(columns.values()),
        "rows": [{"cells": tables.cells(section, line, columns), "line": next(numbers)} for line in section.lines],
        "note": tables.footnote(section),
    }


def _run(
    run: RunSummary, contents: Contents, told: Told, line: int, with_pictures: bool, problems: list[Problem]
) -> dict[str, Any]:
    if run.native:  # the others were read for the table, and their problems named there
        problems += damage_problems(run.path, contents.damage)
    return {
        "name": run.name,
        "line": line,
        "data": run.data,
        "settings": {key: format_value(value) for key, value in run.settings.items()},
        "curves": {tag: _curve(points) for tag, points in _shown_curves(contents, told).items()},
        "pictures": _pictures(contents) if with_pictures else {},
    }


def _means(line: Line, contents: Sequence[Contents], told: Told) -> dict[str, MeanCurve]:
    """Tag → the mean curve of a configuration's seeds. contents: of its runs, in their order."""
    curves = {run.path: _shown_curves(read, told) for run, read in zip(line.runs, contents, strict=True)}
    found = {tag: None for known in curves.values() for tag in known}
    means = {tag: mean_curve([[curves[run.path].get(tag, []) for run in runs] for runs in line.seeds]) for tag in found}
    return {tag: mean for tag, mean in means.items() if mean is not None}


def _shown_curves(contents: Contents, told: Told) -> dict[str, list[tuple[int, float]]]:
    """Tag → the curve by steps; those of loss and accuracy first. What was told has the tag that it has here."""
    named = {tag: own_tag(key) for key, tag in told.items() if own_tag(key) not in contents.curves}
    shown = [item for item in contents.curves.items() if not item[0].startswith(tags.PER_CLASS)]
    units = dict(find_measured(contents.curves, told).values())
    curves = {named.get(tag, tag): [(p.step, p.value / units.get(tag, 1.0)) for p in points] for tag, points in shown}
    order = sorted(curves, key=lambda tag: (not tag.startswith(("loss", "acc")), tag))
    return {tag: by_step(curves[tag]) for tag in order}


def _curve(points: Sequence[tuple[int, float]]) -> dict[str, list[Any]]:
    """Steps and values of some of the points; a value that is not finite is a gap."""
    kept = thin(points, _CURVE_POINTS, itemgetter(1), itemgetter(0))
    return {"steps": [step for step, _ in kept], "values": [_rounded(value) for _, value in kept]}


def _mean(mean: MeanCurve) -> dict[str, list[Any]]:
    steps, values, deviations = map(list, zip(*mean.rows(_CURVE_POINTS), strict=True)) if mean.steps else ([], [], [])
    band = {"deviation": [*map(_rounded, deviations)]} if mean.seeds > 1 else {}
    return {"steps": steps, "values": [*map(_rounded, values)], **band}


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.7g}") if value is not None and math.isfinite(value) else None


def _pictures(contents: Contents) -> dict[str, str]:
    found = {}
    for tag in sorted(contents.pictures, key=lambda tag: (_ORDER.index(tag) if tag in _ORDER else len(_ORDER), tag)):
        picture = contents.pictures[tag][1]
        kind = next((name for start, name in _KINDS.items() if picture.startswith(start)), None)
        if kind is not None:
            found[tag] = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return found
