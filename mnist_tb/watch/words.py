"""A run in words: as a line, and as the cells of a table for a terminal of any width. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.text import Text

from mnist_tb.config.names import printable
from mnist_tb.config.numbers import duration, loss_text, percent
from mnist_tb.events.status import FAILED, INTERRUPTED, KILLED, RUNNING, UNKNOWN
from mnist_tb.runs.query import RunSummary
from mnist_tb.watch.live import LiveRun

WIDE, WIDER = 120, 180
"""Columns of a terminal that has room for two charts beside each other, and for three."""
_OPTIONAL = ("done", "epoch", "val %", "val loss", "test %", "images/s", "data", "tags")
"""Columns that are left out where no run has anything in them."""
_DISPENSABLE = ("step", "images/s", "val loss", "started")
"""Columns that a terminal without room for all does without, the first one first."""
_GAP, _SCROLLBAR = 2, 2
"""Characters between two columns, and those that a table of more runs than fit needs."""
_SHORTEST_NAME = 10
_BAR = 8
_STYLES = {RUNNING: "bold green", FAILED: "bold red", KILLED: "bold red", INTERRUPTED: "yellow", UNKNOWN: "dim"}


def line(run: LiveRun) -> str:
    """A run in one line."""
    summary, said = run.summary, run.said
    parts = [f"{summary.name}: {summary.status}", *_progress(run)]
    if said is not None and said.loss is not None:
        parts.append(f"loss {loss_text(said.loss)}")
    parts += _results(summary)
    if summary.error:
        parts.append(summary.error)
    return printable(", ".join(parts))


def _progress(run: LiveRun) -> list[str]:
    """How far a run is, and how long it takes, as far as it is known."""
    summary, said = run.summary, run.said
    found = []
    if summary.epochs:
        found.append(f"epoch {min(said.epoch, summary.epochs) if said else summary.epoch or 0} of {summary.epochs}")
    if summary.step:
        found.append(f"step {summary.step:,}" + (f" of {said.steps:,}" if said and said.steps else ""))
    if summary.images_per_second:
        found.append(f"{summary.images_per_second:,.0f} images/s")
    if said is not None and said.remaining is not None:
        found.append(f"{duration(said.remaining)} left")
    elif summary.seconds is not None:
        found.append(duration(summary.seconds))
    return found


def _results(summary: RunSummary) -> list[str]:
    return [f"{name} {text}" + " %" * ("acc" in name) for name, text in _numbers(summary).items()]


def columns(width: int, runs: Sequence[LiveRun]) -> dict[str, list[Text]]:
    """The columns for which a terminal of so many characters has room, of those that say something.

    Returns the title of each, and its cells, one for each run.
    """
    narrow = ["run", "state", "done", "val %", "test %", "time"]
    wide = ["run", "state", "done", "epoch", "step", "val %", "val loss", "test %", "time", "images/s", "started"]
    shown = narrow if width < WIDE else wide if width < WIDER else [*wide, "data", "tags"]
    cells = {title: [_cell(run, title, width) for run in runs] for title in shown}
    found = {title: column for title, column in cells.items() if title not in _OPTIONAL or any(map(len, column))}
    taken = widths(found)
    for title in _DISPENSABLE:
        if sum(taken.values()) + _GAP * len(taken) <= width - _SCROLLBAR:
            break
        found.pop(title, None)
        taken.pop(title, None)
    return found


def widths(columns: Mapping[str, Sequence[Text]]) -> dict[str, int]:
    """The characters that each column takes."""
    return {title: max([cell_len(title), *(text.cell_len for text in column)]) for title, column in columns.items()}


def _cell(run: LiveRun, title: str, width: int) -> Text:
    """What a table says of a run in a column. width: of the terminal."""
    summary = run.summary
    if title == "run":
        return Text(_shortened(printable(summary.name), max(width // 3, _SHORTEST_NAME)))
    if title == "state":
        return Text(summary.status, style=_STYLES.get(summary.status, ""))
    if title == "done":
        return _done(run)
    results = _numbers(summary)
    number = {
        "val %": results.get("val accuracy", ""),
        "test %": results.get("test accuracy", ""),
        "val loss": results.get("val loss", ""),
        "epoch": f"{summary.epoch or 0}/{summary.epochs}" if summary.epochs else "",
        "step": "" if summary.step is None else f"{summary.step:,}",
        "images/s": "" if summary.images_per_second is None else f"{summary.images_per_second:,.0f}",
        "time": _time(run),
    }
    if title in number:
        return Text(number[title], justify="right")
    started = "" if summary.started is None else f"{datetime.fromtimestamp(summary.started):%m-%d %H:%M}"
    texts = {"started": started, "data": summary.dataset or "", "tags": " ".join(summary.notes.tags)}
    return Text(printable(texts[title]))


def _shortened(name: str, most: int) -> str:
    """The beginning and the end of a name, as many characters as there may be."""
    end = (most - 1) * 2 // 3
    return name if len(name) <= most else f"{name[: most - 1 - end]}…{name[-end:]}"


def _done(run: LiveRun) -> Text:
    """How much of it is done: a bar and a percentage while it runs."""
    if not run.is_running or run.fraction is None:
        return Text("")
    full = round(run.fraction * _BAR)
    return Text.assemble(("━" * full, "green"), ("━" * (_BAR - full), "dim"), f" {run.fraction:4.0%}")


def _time(run: LiveRun) -> str:
    """What is left of a run that runs, or how long it took."""
    if run.said is not None and run.said.remaining is not None:
        return f"{duration(run.said.remaining)} left"
    return "" if run.summary.seconds is None else duration(run.summary.seconds)


def _numbers(summary: RunSummary) -> dict[str, str]:
    """The best results on validation and on test, as far as they are known."""
    found = {
        "val accuracy": (summary.val_accuracy, percent),
        "val loss": (summary.val_loss, loss_text),
        "test accuracy": (summary.test_accuracy, percent),
        "test loss": (summary.test_loss, loss_text),
    }
    return {name: write(value) for name, (value, write) in found.items() if value is not None}


def detail(run: LiveRun) -> Text:
    """The chosen run: how far it is, its results, what went wrong, what somebody noted."""
    summary = run.summary
    parts = [*_progress(run), *_results(summary)]
    text = Text.assemble((printable(summary.name), "bold"), "  ", ", ".join(parts))
    for said, style in ((summary.error, "red"), (summary.notes.note, "italic")):
        if said:
            text.append(printable(f"\n{said}", "\n\t"), style=style)
    return text
