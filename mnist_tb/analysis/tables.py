"""Comparisons in, text out: a table for the terminal, CSV, JSON, Markdown. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_tb.analysis.compare import LEVEL, METRICS, Line, Section
from mnist_tb.config import hyperparameters as settings
from mnist_tb.runs.query import Row


def header(section: Section) -> dict[str, str]:
    """Column → its title: settings by the last part of their name where that is enough."""
    ends = [key.rpartition(".")[2] for key in section.varying]
    titles = {key: end if ends.count(end) == 1 else key for key, end in zip(section.varying, ends, strict=True)}
    facts = {
        "val_accuracy": "val %",
        "val_loss": "val loss",
        "test_accuracy": "test %",
        "test_loss": "test loss",
        "status": "status",
        "epochs": "epochs",
        "seconds": "s",
        "images_per_second": "images/s",
        "difference": "Δ test",
        "interval": "interval",
        "p": "p",
        "verdict": "is",
    }
    if section.grouped:
        del facts["status"], facts["epochs"]
    for key in ("epochs", "seconds", "images_per_second", *METRICS):
        if all(line.values.get(key) is None for line in section.lines):
            facts.pop(key, None)
    return {**({"n": "n"} if section.grouped else {"run": "run"}), **titles, **facts}


def cells(section: Section, line: Line, columns: Iterable[str]) -> list[str]:
    """A line of a table, as a person reads it."""
    return [_cell(section, line, key) for key in columns]


def _cell(section: Section, line: Line, key: str) -> str:
    value = line.values.get(key)
    if key in section.varying:
        return "" if value is None else settings.shown(value)
    if key in ("difference", "interval", "p", "verdict"):
        return _against_first(section, line, key)
    if value is None:
        return "–"
    if key in METRICS or key == "seconds":
        scale, digits = (100, 2) if "accuracy" in key else (1, 4 if "loss" in key else 1)
        spread = line.values.get(f"{key}_deviation")
        deviation = "" if spread is None else f" ± {scale * spread:.{digits}f}"
        return f"{scale * value:,.{digits}f}{deviation}"
    return f"{value:,.0f}" if key == "images_per_second" else str(value)


def _against_first(section: Section, line: Line, key: str) -> str:
    """A part of the difference in test accuracy from the first line, in points, and what it is worth."""
    difference = line.difference
    if line is section.lines[0] or difference is None or math.isnan(difference.value):
        nothing = "the first" if line is section.lines[0] and len(section.lines) > 1 else ""
        return nothing if key == "verdict" else ""
    if key == "difference":
        return f"{100 * difference.value:+.2f}"
    if difference.p is None:
        return "one seed" if key == "verdict" and section.grouped else ""
    if key == "interval":
        return f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
    if key == "p":
        return "<0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    return "real" if difference.real else "noise"


def footnote(section: Section) -> str:
    """What the last column is; nothing where it says nothing."""
    tested = [
        line.difference for line in section.lines[1:] if line.difference is not None and line.difference.p is not None
    ]
    if not tested:
        return ""
    test = "Welch's t over seeds" if section.grouped else "McNemar's exact test on the same test images"
    many = "" if len(section.lines) == 2 else f", for all {len(section.lines) - 1} together (Bonferroni)"
    return (
        f"Δ test: test accuracy minus that of the first line, in points, with its {LEVEL:.0%} interval{many}; "
        f"by {test}. Real: p < {1 - tested[0].level:.2g}."
        + ("" if section.grouped else " One run a setting: what another seed would do is not in it.")
    )


def as_markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        columns = header(section)
        lines = [list(columns.values()), ["---"] * len(columns)]
        lines += [cells(section, line, columns) for line in section.lines]
        rows = "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)
        note = footnote(section)
        parts.append(f"**{_escaped(section.data)}**\n\n{rows}\n" + (f"\n{note}\n" if note else ""))
    return "\n".join(parts)


def as_csv(sections: Sequence[Section]) -> str:
    """Every line with its data, exact numbers; one header for all."""
    lines = [(section, line) for section in sections for line in section.lines]
    columns = list(dict.fromkeys(key for _, line in lines for key in line.values))
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["dataset", "test_images", *columns])
    for _, line in lines:
        values = [_plain(line.values.get(key)) for key in columns]
        writer.writerow([line.rows[0].dataset, line.rows[0].test_images, *values])
    return written.getvalue()


def as_json(sections: Sequence[Section]) -> str:
    """Sections of lines; settings apart from results."""
    made = [
        {
            "dataset": section.lines[0].rows[0].dataset,
            "test_images": section.lines[0].rows[0].test_images,
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
    return json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


_DISPENSABLE = ("images_per_second", "seconds", "test_loss", "val_loss", "interval", "epochs", "status")
"""Columns that a narrow terminal does without, the first one first."""


def show(sections: Sequence[Section], console: Console) -> None:
    """As tables on the terminal; what there is no room for is left out, and said."""
    for section in sections:
        columns, left_out = header(section), []
        for key in _DISPENSABLE:
            rows = [cells(section, line, columns) for line in section.lines]
            if _width(list(columns.values()), rows) <= console.width:
                break
            if key in columns:
                left_out.append(columns.pop(key))
        grid(section.data, list(columns.values()), [cells(section, line, columns) for line in section.lines], console)
        notes = [footnote(section)] if footnote(section) else []
        notes += [f"Left out for want of room: {', '.join(left_out)}."] if left_out else []
        for note in notes:
            console.print(Text(note, style="dim"), soft_wrap=not console.is_terminal)
        console.print()


def grid(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """A table of plain texts, numbers to the right; where it is wider than the terminal, long texts are folded."""
    if title:
        console.print(Text(title, style="bold"))
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
    return sum(2 + max(map(cell_len, column)) for column in zip(titles, *rows, strict=True))


def whole(row: Row) -> list[tuple[str, list[tuple[str, str]]]]:
    """All that is known of a run: tables of name and value."""
    facts = {
        "status": row.status,
        "error": row.error,
        "data": row.data,
        "started": None if row.started is None else f"{datetime.fromtimestamp(row.started):%Y-%m-%d %H:%M:%S}",
        "epoch": None if row.epochs is None else f"{row.epoch or 0} of {row.epochs}",
        "step": None if row.step is None else f"{row.step:,}",
        "validation": _result(row.val_accuracy, row.val_loss),
        "test": _result(row.test_accuracy, row.test_loss),
        "training": None if row.seconds is None else f"{row.seconds:,.1f} s",
        "images/s": None if row.images_per_second is None else f"{row.images_per_second:,.0f}",
    }
    files = [path for path in sorted(row.path.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [
        (row.name, [(name, value) for name, value in facts.items() if value is not None]),
        ("settings", [(key, settings.shown(value)) for key, value in row.settings.items()]),
        ("files", [(str(path.relative_to(row.path)), f"{path.stat().st_size:,} bytes") for path in files]),
    ]


def _result(accuracy: float | None, loss: float | None) -> str | None:
    parts = [f"accuracy {accuracy:.2%}"] if accuracy is not None else []
    return ", ".join([*parts, *([f"loss {loss:.4f}"] if loss is not None else [])]) or None
