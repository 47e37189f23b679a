"""The parts of the page: the table of runs, a chart."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import DataTable

from mnist_tb.watch.chart import Chart, draw, heading


class RunTable(DataTable[Text]):
    """Left and right choose the chart: what has no room is left out, so there is nothing to scroll to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "app.chart(-1)", "chart", key_display="←"),
        Binding("right", "app.chart(1)", "chart", key_display="→"),
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]


class ChartView(Widget):
    """A chart that fills its place, whatever size that has."""

    _chart: Chart | None = None
    _which = ""
    _is_logarithmic = False

    def show(self, chart: Chart | None, which: str, is_logarithmic: bool) -> None:
        """Draw another chart. which: what follows its title."""
        self._chart, self._which, self._is_logarithmic = chart, which, is_logarithmic
        self.refresh()

    def render(self) -> Text:
        if self._chart is None:
            return Text("")
        width, height = self.content_size
        head = heading(self._chart).append(self._which, style="dim")
        return Text.assemble(head, "\n", draw(self._chart, width, height - 1, self._is_logarithmic))
