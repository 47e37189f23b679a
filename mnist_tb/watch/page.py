"""The page of `mnist-tb watch`: a Textual application over `live.LiveRuns`."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Static
from textual.worker import get_current_worker

from mnist_tb.config.names import printable
from mnist_tb.errors import InputError
from mnist_tb.events.curves import Told
from mnist_tb.events.status import COMPLETED, FAILED, INTERRUPTED, KILLED, PRUNED, RUNNING, UNKNOWN
from mnist_tb.runs.query import Problem
from mnist_tb.watch.chart import Chart, charts
from mnist_tb.watch.live import LiveRun, LiveRuns
from mnist_tb.watch.widgets import ChartView, RunTable
from mnist_tb.watch.words import WIDE, WIDER, columns, detail, widths

_EVERY_SECONDS, _LONGEST_PAUSE = 1.0, 3.0
_REST = 30
"""It rests this many times as long as it has worked since the last look: the cores are the training's."""
_READ_SECONDS = 0.3
"""How long the first reading of many runs may go on before those that have been read are shown."""
_STATES = ("", RUNNING, COMPLETED, FAILED, KILLED, INTERRUPTED, PRUNED, UNKNOWN)


def show_page(runs: LiveRuns, logdir: Path, until_end: bool, told: Told) -> list[LiveRun]:
    """Show the page until somebody leaves it; with `until_end`, until no run runs. Returns all runs as they are then.

    Raises InputError where a run that is named has gone.
    """
    page = TerminalPage(runs, logdir, until_end, told)
    page.run()
    if page.error is not None:
        raise page.error
    return page.runs


def _has_terminal() -> bool:
    """Whether somebody can type here: False also where the terminal has been closed since."""
    return sys.__stdin__ is not None and sys.__stdin__.isatty()


class _Changed(Message):
    """What the reading thread has found: all runs, how many wait to be read, what cannot be, the charts of `chosen`."""

    def __init__(
        self, runs: list[LiveRun], waiting: int, problems: list[Problem], chosen: str | None, charts: list[Chart]
    ) -> None:
        super().__init__()
        self.runs, self.waiting, self.problems, self.chosen, self.charts = runs, waiting, problems, chosen, charts


class TerminalPage(App[None]):
    """Runs above, the charts of the one that is chosen below. While the first is chosen, it is always the newest."""

    TITLE = "mnist-tb watch"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layers: page; }
    #head, #detail { height: auto; max-height: 5; padding: 0 1; }
    #words { display: none; height: 1; border: none; padding: 0 1; }
    #words.shown { display: block; }
    RunTable { height: auto; max-height: 45%; }
    Horizontal { height: 1fr; }
    ChartView { width: 1fr; height: 100%; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("slash", "find", "find", key_display="/"),
        Binding("s", "state", "state"),
        Binding("l", "logarithmic", "log scale"),
        Binding("escape", "all", "all", key_display="esc"),
    ]

    def __init__(self, runs: LiveRuns, logdir: Path, until_end: bool = False, told: Told | None = None) -> None:
        super().__init__()
        self.runs: list[LiveRun] = []
        self.error: InputError | None = None
        self._live, self._logdir, self._until_end, self._told = runs, logdir, until_end, told or {}
        self._waiting = 0
        self._problems: list[Problem] = []
        self._chosen: str | None = None
        self._charts: list[Chart] = []
        self._first_chart = 0
        self._is_logarithmic = False
        self._state = ""
        self._words: list[str] = []
        self._cells: dict[str, list[Text]] = {}
        self._widths: dict[str, int] = {}
        self._wake = threading.Event()

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Input(id="words", placeholder="words of a name, a state, data, tags, a note", compact=True)
        yield RunTable(cursor_type="row", zebra_stripes=False)
        yield Static(id="detail")
        with Horizontal():
            for _ in range(3):
                yield ChartView()
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(RunTable).focus()
        self._follow()

    def on_unmount(self) -> None:
        self._wake.set()

    # ---- Reading, on a thread of its own

    @work(thread=True)
    def _follow(self) -> None:
        worker, spent = get_current_worker(), time.process_time()
        while not worker.is_cancelled:
            if not self.is_headless and not _has_terminal():
                self.call_later(self.exit)  # else Textual would read the end of its input for ever, as fast as it can
                return
            try:
                runs = self._live.update(_READ_SECONDS)
            except InputError as error:
                self.error = error
                self.call_later(self.exit)
                return
            chosen = next((run.summary for run in runs if run.summary.name == self._chosen), None)
            made = [] if chosen is None else charts(self._live.contents(chosen).curves, self._told)
            name = None if chosen is None else chosen.name
            self.post_message(_Changed(runs, self._live.waiting, self._live.problems, name, made))
            if self._until_end and not self._live.waiting and not any(run.is_running for run in runs):
                self.call_later(self.exit)
            before, spent = spent, time.process_time()
            pause = min(max(_EVERY_SECONDS, _REST * (spent - before)), _LONGEST_PAUSE)
            self._wake.wait(0 if self._live.waiting else pause)
            self._wake.clear()

    def on__changed(self, message: _Changed) -> None:
        made = message.charts if message.chosen == self._chosen else self._charts
        found = message.runs, message.waiting, message.problems, made
        if found != (self.runs, self._waiting, self._problems, self._charts) or not self.runs:
            self.runs, self._waiting, self._problems, self._charts = found
            self._show()

    # ---- What is shown

    def _show(self) -> None:
        shown = [run for run in self.runs if self._is_wanted(run)]
        self._show_head(len(shown))
        self._show_table(shown)
        run = next((run for run in shown if run.summary.name == self._chosen), None)
        self.query_one("#detail", Static).update(Text("") if run is None else detail(run))
        self._show_charts(run is not None)

    def _is_wanted(self, run: LiveRun) -> bool:
        summary = run.summary
        text = " ".join(
            [summary.name, summary.status, summary.dataset or "", *summary.notes.tags, summary.notes.note]
        ).lower()
        return self._state in ("", summary.status) and all(word in text for word in self._words)

    def _show_head(self, shown: int) -> None:
        counts = Counter(run.summary.status for run in self.runs)
        parts = [f"{counts[state]} {state}" for state in _STATES if counts[state]]
        head = Text.assemble((printable(str(self._logdir)), "bold"), "  ", ", ".join(parts) or "no runs yet")
        if self._waiting:
            head.append(f", reading {self._waiting:,} more", style="dim")
        if shown < len(self.runs):
            why = " ".join(filter(None, [self._state, *self._words]))
            head.append(f"  {shown} shown: {why}", style="bold yellow")
        if self._problems:
            more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
            head.append(f"\n{printable(self._problems[0].text)}{more}", style="yellow")
        self.query_one("#head", Static).update(head)

    def _show_table(self, shown: Sequence[LiveRun]) -> None:
        """Change those cells that have changed; build the table anew where other runs, or columns, are to be shown."""
        table = self.query_one(RunTable)
        found = columns(self.size.width, shown)
        cells = {run.summary.name: texts for run, *texts in zip(shown, *found.values(), strict=True)}
        taken = widths(found)
        if list(cells) == list(self._cells) and taken == self._widths:
            for row, (name, texts) in enumerate(cells.items()):
                for place, text in enumerate(texts):
                    if text != self._cells[name][place]:
                        table.update_cell_at(Coordinate(row, place), text)
        else:
            self._build_table(table, taken, cells)
        self._cells, self._widths = cells, taken

    def _build_table(self, table: RunTable, taken: Mapping[str, int], cells: Mapping[str, list[Text]]) -> None:
        row = table.cursor_row if table.row_count else 0
        names: list[str | None] = list(cells)
        place = names.index(self._chosen) if row and self._chosen in names else max(min(row, len(cells) - 1), 0)
        with self.prevent(DataTable.RowHighlighted):
            table.clear(columns=True)
            for title, width in taken.items():
                table.add_column(title, width=width)
            for name, texts in cells.items():
                table.add_row(*texts, key=name)
            table.move_cursor(row=place)
        self._choose(names[place] if names else None)

    def _show_charts(self, is_chosen: bool) -> None:
        room = 3 if self.size.width >= WIDER else 2 if self.size.width >= WIDE else 1
        count = min(room, len(self._charts)) if is_chosen else 0
        self._first_chart = max(0, min(self._first_chart, len(self._charts) - count))
        which = f"  {self._first_chart + 1} of {len(self._charts)}" if len(self._charts) > count else ""
        for place, view in enumerate(self.query(ChartView)):
            view.display = place < max(count, 1)
            chart = self._charts[self._first_chart + place] if place < count else None
            view.show(chart, "" if place else which, self._is_logarithmic)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    # ---- Keys

    def _choose(self, name: str | None) -> None:
        if name != self._chosen:
            self._chosen = name
            self._charts = []
            self._wake.set()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.row_key.value is not None:
            self._choose(event.row_key.value)
            self._show()

    def action_chart(self, by: int) -> None:
        """The charts that follow, or those before."""
        self._first_chart = max(self._first_chart + by, 0)
        self._show()

    def action_logarithmic(self) -> None:
        """The axis upwards, logarithmic or not."""
        self._is_logarithmic = not self._is_logarithmic
        self._show()

    def action_state(self) -> None:
        """Only the runs of the next state that there is; then all again."""
        known = {run.summary.status for run in self.runs}
        there = ["", *(state for state in _STATES[1:] if state in known)]
        self._state = there[(there.index(self._state) + 1) % len(there)] if self._state in there else ""
        self._show()

    def action_find(self) -> None:
        """Only the runs that say what is typed."""
        words = self.query_one("#words", Input)
        words.add_class("shown")
        words.focus()

    def action_all(self) -> None:
        """All runs again."""
        self._state = ""
        words = self.query_one("#words", Input)
        words.value = ""
        words.remove_class("shown")
        self.query_one(RunTable).focus()
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value.lower().split()
        self._show()

    def on_input_submitted(self) -> None:
        self.query_one(RunTable).focus()
