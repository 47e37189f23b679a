"""Comparisons in, text out: tables for the terminal, CSV, JSON, Markdown. Imports no torch."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_tb.analysis.compare import LEVEL, METRICS, Line, Section, line_names
from mnist_tb.config.hyperparameters import finite_or_none, format_value
from mnist_tb.config.names import csv_line, encodable, in_markdown, printable
from mnist_tb.config.numbers import loss_text, percent
from mnist_tb.events.configurations import is_finished
from mnist_tb.runs.folder import run_number

_MOST_NAMED = 3
"""Runs of a group that a table names."""
_ONE_SEED = "One seed does not tell what another would do: train each configuration with at least two, better three."
_REPEATS = "n: seeds with a test result; runs that repeat a seed are averaged into one value."
_ONE_RUN = "With one run per setting, what another seed would do is not included."
_FAVOURED = "The lines are ranked by the same test set, which favours the first."
_TITLES = {
    "val_accuracy": "val %",
    "test_accuracy": "test %",
    "difference": "Δ vs {first}",
    "interval": "interval",
    "p": "p",
    "verdict": "verdict",
    "val_loss": "val loss",
    "test_loss": "test loss",
    "status": "status",
    "epochs": "epochs done",
    "seconds": "s",
    "images_per_second": "images/s",
}
"""Column → its title; the settings come before `epochs`."""


def header(section: Section) -> dict[str, str]:
    """Column → its title, results first and settings after: these by the last part of their name where it suffices."""
    ends = [key.removesuffix(".name").rpartition(".")[2] for key in section.varying]
    settings = {key: end if ends.count(end) == 1 else key for key, end in zip(section.varying, ends, strict=True)}
    left_out = {"status", "epochs"} if section.grouped else set()
    for key in ("epochs", "seconds", "images_per_second", *METRICS):
        if all(line.values.get(key) is None for line in section.lines):
            left_out.add(key)
    shown = {key: title.format(first=section.first) for key, title in _TITLES.items() if key not in left_out}
    last: dict[str, str] = {k: shown.pop(k) for k in ("epochs", "seconds", "images_per_second") if k in shown}
    return {**({"runs": "runs", "n": "n"} if section.grouped else {"run": "run"}), **shown, **settings, **last}


def cells(section: Section, line: Line, columns: Iterable[str]) -> list[str]:
    """The cells of a line, as they are printed."""
    return [_cell(section, line, key) for key in columns]


def _cell(section: Section, line: Line, key: str) -> str:
    value = line.values.get(key)
    if key in section.varying:
        return "" if value is None else format_value(value)
    if key in ("difference", "interval", "p", "verdict"):
        return _difference_cell(section, line, key)
    if value is None:
        return "–"
    if key == "runs":
        return _short_names(line)
    if key == "n" and len(line.runs) != value:
        return f"{value} ({len(line.runs)} run{'s' if len(line.runs) > 1 else ''})"
    if key in METRICS or key == "seconds":
        scale, digits = (100, 2) if "accuracy" in key else (1, 4 if "loss" in key else 1)
        spread = line.values.get(f"{key}_deviation")
        deviation = "" if spread is None else f" ± {scale * spread:.{digits}f}"
        return (percent(value) if scale > 1 else loss_text(value) if "loss" in key else f"{value:,.1f}") + deviation
    return f"{value:,.0f}" if key == "images_per_second" else str(value)


def _short_names(line: Line) -> str:
    """Runs by their numbers where they have them: `1, 2, 7`; of many, the first and how many more."""
    short = [str(run_number(run.path) or run.name) for run in line.runs]
    if len(short) > _MOST_NAMED:
        short = [*short[: _MOST_NAMED - 1], f"+{len(short) - _MOST_NAMED + 1}"]
    return ", ".join(short)


def _difference_cell(section: Section, line: Line, key: str) -> str:
    """A part of the difference in test accuracy from the first line, in percentage points, or the verdict on it."""
    difference = line.difference
    if line is section.lines[0] or difference is None or math.isnan(difference.value):
        if key == "verdict" and not line.counts:
            return "unfinished"
        is_first = line is section.lines[0] and len(section.counted) > 1
        return section.first if key == "verdict" and is_first else ""
    if key == "difference":
        return _points(difference.value, "+")
    if difference.p is None:
        return _untested(section, line) if key == "verdict" and section.grouped else ""
    if key == "interval":
        return f"{_points(difference.low, '+')} to {_points(difference.high, '+')}"
    if key == "p":
        return "<0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    return "same answers" if difference.is_equal else "significant" if difference.significant else "not significant"


def _untested(section: Section, line: Line) -> str:
    """Why nothing can be said of a group's difference from the first."""
    few = [each.values["n"] < 2 for each in (line, section.lines[0])]
    return "one seed" if few[0] else f"{section.first}: one seed" if few[1] else ""


def summary(section: Section) -> str:
    """The first two lines in one sentence: how much better the best is, and how sure that is. Empty where unknown."""
    if not section.counted:
        return "No run is finished: none is the best, and nothing is tested."
    if len(section.lines) < 2 or (difference := section.lines[1].difference) is None or difference.p is None:
        return ""
    first, second = line_names([section])[:2]
    if difference.is_equal:
        return f"{first} and {second} give the same answers to all test images."
    low, high = sorted((abs(difference.low), abs(difference.high)))
    if difference.significant:
        better, worse = (first, second) if difference.value < 0 else (second, first)
        order = section.sort.replace("val_", "validation ").replace("_", " ")
        tail = "" if better == first or section.first != "best" else f", though {first} is the best by {order}"
        interval = f"({LEVEL:.0%}: {_points(low)} to {_points(high)})"
        return (
            f"{better} is {_points(abs(difference.value))} points better than {worse} {interval} on the test set{tail}."
        )
    interval = f"({LEVEL:.0%}: {_points(-difference.high)} to {_points(-difference.low)})"
    need = section.seeds_needed
    more = "" if need is None else f" {need} seeds of each would probably tell a difference of this size (power 80 %)."
    return f"{first} and {second} do not differ significantly: {_points(-difference.value)} points {interval}.{more}"


def _points(value: float, sign: str = "-") -> str:
    """A difference in percentage points: with two digits, or as many as tell it from 0."""
    for digits in range(2, 7):
        text = f"{100 * value:{sign}.{digits}f}"
        if float(text):
            return text
    return "0.00"


def footnote(section: Section) -> str:
    """What the verdict is based on, and what does not count; nothing where there is neither."""
    tested = [
        line.difference for line in section.lines[1:] if line.difference is not None and line.difference.p is not None
    ]
    notes = [unfinished(section)]
    if tested:
        test = "Welch's t over seeds" if section.grouped else "McNemar's exact test on the same test images"
        many = "" if len(tested) == 1 else f", for all {len(tested)} together (Bonferroni)"
        notes = [
            f"Δ vs {section.first}: test accuracy minus that of the first line, in percentage points, with its"
            f" {LEVEL:.0%} interval{many}; by {test}. Significant: p < {1 - tested[0].level:.2g}.",
            _FAVOURED if section.sort.startswith("test_") else "",
            _REPEATS if section.grouped else _ONE_RUN,
            *notes,
        ]
    elif section.grouped and len(section.counted) > 1:
        notes.insert(0, _ONE_SEED)
    return " ".join(filter(None, notes))


def unfinished(section: Section) -> str:
    """How many runs are unfinished, and whether they count; empty where none is."""
    states = Counter(run.status for line in section.lines for run in line.runs if not is_finished(run))
    words = ", ".join(f"{count} {status}" for status, count in states.items())
    if not states:
        return ""
    if all(line.counts for line in section.lines):
        return f"{states.total()} unfinished, counted as well: {words}."
    return f"{states.total()} unfinished, not counted: {words}. --unfinished counts them."


def as_markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        columns = header(section)
        lines = [list(columns.values()), ["---"] * len(columns)]
        lines += [cells(section, line, columns) for line in section.lines]
        rows = "\n".join(f"| {' | '.join(map(in_markdown, line))} |" for line in lines)
        first = f"{in_markdown(sentence)}\n\n" if (sentence := summary(section)) else ""
        last = f"\n{note}\n" if (note := footnote(section)) else ""
        parts.append(f"**{in_markdown(section.data)}**\n\n{first}{rows}\n{last}")
    return "\n".join(parts)


def as_csv(sections: Sequence[Section]) -> str:
    """Every line with its dataset and exact numbers, under one header."""
    lines = [(section, line) for section in sections for line in section.lines]
    columns = list(dict.fromkeys(key for _, line in lines for key in line.values))
    rows: list[list[Any]] = [["dataset", "test_images", *columns]]
    for _, line in lines:
        rows.append(
            [line.runs[0].dataset, line.runs[0].test_images, *(_plain(line.values.get(key)) for key in columns)]
        )
    return encodable("".join(map(csv_line, rows)))


def as_json(sections: Sequence[Section]) -> str:
    """Sections of lines, the settings apart from the results."""
    made = [
        {
            "dataset": section.lines[0].runs[0].dataset,
            "test_images": section.lines[0].runs[0].test_images,
            "varying": section.varying,
            "lines": [
                {
                    "settings": {key: line.values.get(key) for key in section.varying},
                    **{key: value for key, value in line.values.items() if key not in section.varying},
                    "level": None if line.difference is None else line.difference.level,
                }
                for line in section.lines
            ],
        }
        for section in sections
    ]
    return json.dumps(finite_or_none(made), indent=2, allow_nan=False, default=str) + "\n"


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


_DISPENSABLE = ("images_per_second", "seconds", "test_loss", "val_loss", "epochs", "status", "p")
"""Columns that a narrow terminal does without, the first one first; then settings, the fewest values first."""


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print tables on the terminal; columns for which there is no room are left out, and named."""
    for section in sections:
        titles = header(section)
        rows = [dict(zip(titles, cells(section, line, titles), strict=True)) for line in section.lines]
        widths = {key: _width([title], [[row[key]] for row in rows]) for key, title in titles.items()}
        settings = section.varying[::-1]
        settings.sort(key=lambda key: len({row[key] for row in rows}))
        columns = dict(titles)
        for key in (*_DISPENSABLE, *settings):
            if sum(widths[key] for key in columns) <= console.width:
                break
            columns.pop(key, None)
        if sentence := summary(section):
            console.print(Text(printable(sentence), style="bold"), soft_wrap=not console.is_terminal)
        print_table(section.data, list(columns.values()), [[row[key] for key in columns] for row in rows], console)
        left_out = [title for key, title in titles.items() if key not in columns]
        for note in (footnote(section), f"No room for: {', '.join(left_out)}." if left_out else ""):
            if note:
                console.print(Text(printable(note), style="dim"), soft_wrap=not console.is_terminal)
        console.print()


def print_table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table, numbers aligned to the right; where it is wider than the terminal, long cells are folded."""
    titles, rows = list(map(printable, titles)), [list(map(printable, row)) for row in rows]
    if title:
        console.print(Text(printable(title), style="bold"))
    numeric = [index > 0 and all(_is_number(row[index]) for row in rows) for index in range(len(titles))]
    if console.is_terminal and _width(titles, rows) > console.width:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(titles), padding=(0, 1))
        for name, right in zip(titles, numeric, strict=True):
            table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    lines = [titles, *rows] if any(titles) else rows
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    filled = [
        "  ".join(
            _filled(cell, width, right) for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    if any(titles):
        filled.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    print("\n".join(filled) + "\n", file=console.file)  # rich takes a second over a thousand lines


def _is_number(cell: str) -> bool:
    return re.match(r"[+-]?\d|–?$", cell) is not None


def _filled(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def _width(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return sum(2 + max(cell_len(printable(cell)) for cell in column) for column in zip(titles, *rows, strict=True))
