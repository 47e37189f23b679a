"""Comparisons in, text out: tables for the terminal, CSV, JSON, Markdown. Imports no torch."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_tb.analysis.compare import LEVEL, METRICS, Line, Section
from mnist_tb.config.hyperparameters import finite_or_none, format_value, short_name
from mnist_tb.config.names import csv_line, encodable, in_markdown, printable
from mnist_tb.config.schema import LONGEST_NAME
from mnist_tb.runs.folder import run_number

_MOST_NAMED = 3
"""Runs of a group that a table names."""
_ONE_SEED = "One seed does not tell what another would do: train each configuration with at least two, better three."
_REPEATS = " n: seeds with a test result; runs that repeat a seed are averaged into one value."
_TITLES = {
    "val_accuracy": "val %",
    "test_accuracy": "test %",
    "difference": "Δ vs best",
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
    shown = {key: title for key, title in _TITLES.items() if key not in left_out}
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
        return f"{value} ({len(line.runs)} runs)"
    if key in METRICS or key == "seconds":
        scale, digits = (100, 2) if "accuracy" in key else (1, 4 if "loss" in key else 1)
        spread = line.values.get(f"{key}_deviation")
        deviation = "" if spread is None else f" ± {scale * spread:.{digits}f}"
        return f"{scale * value:,.{digits}f}{deviation}"
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
        is_known = any(line.values.get(key) is not None for key in ("test_accuracy", "val_accuracy"))
        is_best = line is section.lines[0] and len(section.lines) > 1 and is_known
        return "best" if is_best and key == "verdict" else ""
    if key == "difference":
        return f"{100 * difference.value:+.2f}"
    if difference.p is None:
        return _untested(section, line) if key == "verdict" and section.grouped else ""
    if key == "interval":
        return f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
    if key == "p":
        return "<0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    return "significant" if difference.significant else "not significant"


def _untested(section: Section, line: Line) -> str:
    """Why nothing can be said of a group's difference from the best."""
    few = [each.values["n"] < 2 for each in (line, section.lines[0])]
    return "one seed" if few[0] else "best: one seed" if few[1] else ""


def summary(section: Section) -> str:
    """The first two lines in one sentence: how much better the best is, and how sure that is. Empty where unknown."""
    if len(section.lines) < 2 or (difference := section.lines[1].difference) is None or difference.p is None:
        return ""
    best, second = (line_name(section, line) for line in section.lines[:2])
    value, low, high = 100 * -difference.value, 100 * -difference.high, 100 * -difference.low
    interval = f"({LEVEL:.0%}: {low:.2f} to {high:.2f})"
    if difference.significant and value > 0:
        return f"{best} is {value:.2f} points better than {second} {interval} on the test set."
    if difference.significant:
        return f"{best} is best by the order of this table, but {second} is {-value:.2f} points better on the test set."
    need = section.seeds_needed
    more = "" if need is None else f" {need} seeds of each would probably tell a difference of this size (power 80 %)."
    return f"{best} and {second} do not differ significantly: {value:.2f} points {interval}.{more}"


def line_name(section: Section, line: Line) -> str:
    """What a sentence calls a line: its settings where it is a group, else its run."""
    if not section.grouped:
        return str(line.values["run"])
    return short_name(_telling(section, line)) or line.runs[0].name


def _telling(section: Section, line: Line) -> dict[str, Any]:
    """The settings that tell a line from the others; where they make no short name, those that most lines do not have.

    A recipe such as best.yaml changes ten at once, and the others are not to be called by what they leave as it is.
    """
    own = {key: line.values.get(key) for key in section.varying}
    if all(len(short_name({key: each.values.get(key) for key in own})) <= LONGEST_NAME for each in section.lines):
        return own
    usual = {key: statistics.mode(format_value(each.values.get(key)) for each in section.lines) for key in own}
    return {key: value for key, value in own.items() if format_value(value) != usual[key]}


def footnote(section: Section) -> str:
    """What the verdict is based on; nothing where there is none."""
    tested = [
        line.difference for line in section.lines[1:] if line.difference is not None and line.difference.p is not None
    ]
    if not tested:
        return _ONE_SEED if section.grouped and len(section.lines) > 1 else ""
    test = "Welch's t over seeds" if section.grouped else "McNemar's exact test on the same test images"
    many = "" if len(tested) == 1 else f", for all {len(tested)} together (Bonferroni)"
    return (
        f"Δ vs best: test accuracy minus that of the first line, in percentage points, with its {LEVEL:.0%} interval"
        f"{many}; by {test}. Significant: p < {1 - tested[0].level:.2g}."
        + (_REPEATS if section.grouped else " With one run per setting, what another seed would do is not included.")
    )


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
        columns = header(section)
        titles = dict(columns)
        settings = section.varying[::-1]
        settings.sort(key=lambda key: len({format_value(line.values.get(key)) for line in section.lines}))
        for key in (*_DISPENSABLE, *settings):
            rows = [cells(section, line, columns) for line in section.lines]
            if _width(list(columns.values()), rows) <= console.width:
                break
            columns.pop(key, None)
        if sentence := summary(section):
            console.print(Text(printable(sentence), style="bold"), soft_wrap=not console.is_terminal)
        print_table(
            section.data, list(columns.values()), [cells(section, line, columns) for line in section.lines], console
        )
        notes = [footnote(section)] if footnote(section) else []
        left_out = [title for key, title in titles.items() if key not in columns]
        notes += [f"No room for: {', '.join(left_out)}."] if left_out else []
        for note in notes:
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
