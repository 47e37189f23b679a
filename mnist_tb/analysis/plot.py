"""A comparison as a figure for a paper or a slide, by matplotlib, with the caption that it needs. Imports no torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tb import __version__
from mnist_tb.analysis import tables
from mnist_tb.analysis.compare import Section, line_names
from mnist_tb.config.names import printable
from mnist_tb.errors import InputError, install_line
from mnist_tb.events import reader
from mnist_tb.events.configurations import BAND, MeanCurve, mean_curve
from mnist_tb.events.curves import Told, by_step, find_measured, own_tag
from mnist_tb.events.tags import ACCURACY_VAL
from mnist_tb.runs.query import Problem, RunSummary, damage_problems

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDINGS = (".pdf", ".svg", ".png")
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart with every kind of colour vision. M. Okabe and K. Ito 2008, https://jfly.uni-koeln.de/color/"""
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_MOST_LINES, _FEW_POINTS = 14, 30
_MOST_POINTS = 100
"""Of a curve; one with more is averaged over windows, or its noise would be all that one sees."""
_WORDS = {"train": "training", "val": "validation", "test": "test"}
_LARGEST = 1e300
"""What is beyond it cannot be an end of an axis."""
_SIZE = (5.6, 3.6)
"""Inches, of one panel: a column and a half of a paper."""


@dataclass(frozen=True)
class Figure:
    """What was drawn. caption: says what the lines and bands are. path: where it is written. problems: of reading."""

    caption: str
    path: Path
    problems: list[Problem]


@dataclass(frozen=True)
class _Line:
    """A line of the comparison in one panel. runs: that have the curve. curve: None where none has it.

    window: of how many consecutive points of a run each point is the mean; 1 where nothing was averaged.
    """

    name: str
    runs: int
    curve: MeanCurve | None
    window: int


def write_figure(path: Path, sections: Sequence[Section], tags: Sequence[str], told: Told) -> Figure:
    """Draw a panel for each tag, a line for each run or group in it, and write the caption beside the figure.

    tags: by our names, or those of other programs; none: `accuracy/val`. told: which curve of another program is which.
    Raises InputError where matplotlib is missing, the file is of another kind or cannot be written, a tag is in no run,
    or there are more lines than can be told apart.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"--figure {path}: give it one of the endings {', '.join(_ENDINGS)}")
    count = sum(len(section.lines) for section in sections)
    if count > _MOST_LINES:
        raise InputError(
            f"--figure: {count} lines cannot be told apart, {_MOST_LINES} can; choose some with --where or --last, or"
            " put seeds together with --group"
        )
    tags = list(dict.fromkeys(tags)) or [ACCURACY_VAL]
    problems: list[Problem] = []
    panels = _panels(sections, tags, told, problems)
    caption = _caption(panels, sections)
    beside = path.with_name(f"{path.stem}.caption.txt")
    try:
        _draw(path, panels)
        beside.write_text(caption + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--figure {path}: cannot be written: {error.strerror}") from None
    return Figure(caption, beside, problems)


def _panels(
    sections: Sequence[Section], tags: Sequence[str], told: Told, problems: list[Problem]
) -> dict[str, list[_Line]]:
    known: set[str] = set()
    panels: dict[str, list[_Line]] = {}
    compared = [line for section in sections for line in section.lines]
    points = {run.path: _points(run, tags, told, known, problems) for line in compared for run in line.runs}
    named = list(zip(map(_printable, line_names(sections)), compared, strict=True))
    for tag in tags:
        window = math.ceil(max(len(curves.get(tag, [])) for curves in points.values()) / _MOST_POINTS) or 1
        curves = {path: _averaged(found[tag], window) for path, found in points.items() if tag in found}
        panels[tag] = [
            _Line(
                name,
                sum(run.path in curves for run in line.runs),
                mean_curve([[curves.get(run.path, []) for run in repeats] for repeats in line.seeds]),
                window,
            )
            for name, line in named
        ]
    for tag, lines in panels.items():
        if not any(line.curve and line.curve.steps for line in lines):
            raise InputError(
                f"--tag {tag}: no run has this curve; there are {', '.join(sorted(known)) or 'none at all'}"
            )
    return panels


def _points(
    run: RunSummary, tags: Sequence[str], told: Told, known: set[str], problems: list[Problem]
) -> dict[str, list[tuple[int, float]]]:
    """Tag → its points in a run, without the tags that it does not have. known: receives all tags of the run."""
    contents = reader.read(run.path)
    if run.native:  # the others were read for the table, and their problems named there
        problems += damage_problems(run.path, contents.damage)
    known.update(contents.curves)
    found = {own_tag(key): one for key, one in find_measured(contents.curves, told).items()}
    meant = {tag: found.get(tag, (tag, 1.0)) for tag in tags if tag in found or tag in contents.curves}
    return {tag: by_step((p.step, p.value / unit) for p in contents.curves[own]) for tag, (own, unit) in meant.items()}


def _printable(name: str) -> str:
    """A name as text; matplotlib leaves one that begins with _ out of the legend."""
    text = printable(name, "\n")
    return f" {text}" if text.startswith("_") else text


def _averaged(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    """The mean of each window of consecutive points, at its last step; not finite where one of them is not."""
    windows = [points[at : at + window] for at in range(0, len(points), window)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in windows]


def _draw(path: Path, panels: Mapping[str, Sequence[_Line]]) -> None:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise InputError(f"--figure needs matplotlib: {install_line('figure')}") from None

    # Letters that can be searched and edited, and the same bytes each time.
    settings: Any = {
        "font.size": 9,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": "mnist_tb",
        "axes.axisbelow": True,
    }
    dated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
    with mpl.rc_context(settings), warnings.catch_warnings(action="ignore"):  # of letters that the font lacks
        figure = Canvas(figsize=(_SIZE[0] * len(panels), _SIZE[1]), layout="constrained")
        for axes, (tag, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _draw_panel(axes, tag, lines)
        figure.savefig(path, dpi=300, metadata=dated[path.suffix.lower()])


def _draw_panel(axes: Axes, tag: str, lines: Sequence[_Line]) -> None:
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter

    for number, line in enumerate(lines):
        if line.curve is not None and line.curve.steps:
            _draw_line(axes, line.curve, _label(line), number)
    axes.set_xlabel("step")
    axes.set_ylabel(_title(tag))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if tag.startswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    low, high = _extent(lines)
    if math.isfinite(low):
        room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
        axes.set_ylim(low - room, high + room)
    axes.grid(color="0.88", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, handlelength=3.2)


def _draw_line(axes: Axes, curve: MeanCurve, label: str, number: int) -> None:
    """Colour, dashes and markers all differ, so that the lines are told apart in black and white too."""
    colour = _COLOURS[number % len(_COLOURS)]
    known = sum(value is not None for value in curve.mean)
    every = max(1, math.ceil(known / 12))
    middle, spread = ([math.nan if v is None else v for v in values] for values in (curve.mean, curve.deviation))
    axes.plot(
        curve.steps,
        middle,
        color=colour,
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=1.4,
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4,
        markevery=1 if known <= _FEW_POINTS else (number % every, every),
        label=label,
    )
    if curve.seeds > 1:
        low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.15, linewidth=0)


def _extent(lines: Sequence[_Line]) -> tuple[float, float]:
    """The least and the largest value of the last three quarters of the curves, bands included."""
    values = []
    for line in lines:
        curve = line.curve
        if curve is None or not curve.steps:
            continue
        begin = curve.steps[0] + (curve.steps[-1] - curve.steps[0]) / 4
        for step, mean, deviation in zip(curve.steps, curve.mean, curve.deviation, strict=True):
            if step >= begin and mean is not None:
                values += [mean - (deviation or 0.0), mean + (deviation or 0.0)]
    values = [value for value in values if abs(value) < _LARGEST]
    return min(values, default=math.nan), max(values, default=math.nan)


def _title(tag: str) -> str:
    """`accuracy/val` in words: validation accuracy."""
    kind, _, split = tag.partition("/")
    return printable(f"{_WORDS[split]} {kind}" if split in _WORDS else tag)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]  # the rest may be a tag, whose letters are what they are


def _label(line: _Line) -> str:
    assert line.curve is not None
    return f"{line.name} (n = {line.curve.seeds})" if line.curve.seeds > 1 else line.name


def _caption(panels: Mapping[str, Sequence[_Line]], sections: Sequence[Section]) -> str:
    """What a reader has to know: what is drawn, over how many seeds, where it stops, what was done to it."""
    grouped = any(section.grouped for section in sections)
    many = any(line.curve is not None and line.curve.seeds > 1 for lines in panels.values() for line in lines)
    shown = _sentence(" and ".join(map(_title, panels)))
    parts = [f"{shown} by step, on {'; '.join(_printable(section.data) for section in sections)}."]
    if grouped:
        parts.append("A line is the mean over the seeds of a configuration" + (f", the band {BAND}." if many else "."))
    else:
        parts.append("A line is a run.")
    made_of = {
        tag: "; ".join(_about(line) for line in lines if line.curve is not None) for tag, lines in panels.items()
    }
    if grouped and len(set(made_of.values())) == 1:
        parts.append(f"{next(iter(made_of.values()))}.")
    elif grouped:
        parts += [f"{_sentence(_title(tag))}: {text}." for tag, text in made_of.items()]
    for tag, lines in panels.items():
        missing = [line.name for line in lines if line.curve is None or not line.curve.steps]
        parts += [f"Not drawn, for want of the curve {printable(tag)}: {', '.join(missing)}."] if missing else []
    windows = {tag: max(line.window for line in lines) for tag, lines in panels.items()}
    smoothed = [f"{_title(tag)}: means of {window} consecutive points" for tag, window in windows.items() if window > 1]
    parts += filter(None, map(tables.unfinished, sections))
    parts.append("The vertical axis fits the last three quarters of each curve.")
    parts.append(f"Smoothed: {'; '.join(smoothed)}." if smoothed else "Nothing is smoothed.")
    return " ".join([*parts, f"Drawn by mnist_tb {__version__}."])


def _about(line: _Line) -> str:
    """How many seeds and runs a line is made of, and where it stops before one of them."""
    curve = line.curve
    assert curve is not None
    seeds = f"{curve.seeds} seed{'s' if curve.seeds > 1 else ''}"
    runs = f" in {line.runs} runs, repeats of a seed averaged" if line.runs > curve.seeds else ""
    is_cut = curve.is_cut and bool(curve.steps)
    cut = f", as far as the shortest seed goes: step {curve.steps[-1]:,} of {curve.last:,}" if is_cut else ""
    return f"{line.name}: {seeds}{runs}{cut}"
