"""Curves as charts of characters, by plotext. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from rich.text import Text

from mnist_tb.config.names import printable
from mnist_tb.events.curves import NOTHING_TOLD, Told, by_step, find_measured, thin
from mnist_tb.events.reader import Point
from mnist_tb.events.tags import PER_CLASS

_COLORS = {"train": 208, "val": 33, "test": 35}
"""Of the 256 that terminals have: orange and blue, as in TensorBoard."""
_SMALLEST = 16, 4
"""Characters and lines."""
_DOTS = 2
"""Points beside each other in one character."""
_LARGEST = 308.2
"""The exponent of ten of the largest number."""


@dataclass(frozen=True)
class Chart:
    """What is drawn together. series: label → steps and finite values, ascending."""

    title: str
    series: Mapping[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)


def charts(curves: Mapping[str, Sequence[Point]], told: Told = NOTHING_TOLD) -> list[Chart]:
    """The loss on all splits, the accuracy on all splits, then each other curve by its tag, the classes' last."""
    known = find_measured(curves, told)
    made = []
    for kind in ("loss", "accuracy"):
        splits = {split: _finite(curves[tag], unit) for (of, split), (tag, unit) in known.items() if of == kind}
        if splits:
            made.append(Chart(kind, {split: splits[split] for split in _COLORS if split in splits}))
    rest = sorted(set(curves) - {tag for tag, _ in known.values()}, key=lambda tag: (tag.startswith(PER_CLASS), tag))
    return made + [Chart(tag, {"": _finite(curves[tag])}) for tag in rest]


def heading(chart: Chart) -> Text:
    """Its title, and each curve's colour, name and newest value."""
    text = Text(printable(chart.title), style="bold")
    for label, (_, values) in chart.series.items():
        newest = f" {values[-1]:.4g}" if values else ""
        text.append(f"  {label}{newest}", style=f"not bold color({_color(label)})")
    return text


def draw(chart: Chart, width: int, height: int, logarithmic: bool = False) -> Text:
    """A chart of so many characters and lines; none where that is too few.

    logarithmic: the axis upwards; values <= 0 are left out.
    """
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        return Text("")
    kept: dict[str, tuple[list[float], list[float]]] = {}
    for label, (xs, ys) in chart.series.items():
        drawn = [
            (x, math.log10(y) if logarithmic else y) for x, y in zip(xs, ys, strict=True) if y > 0 or not logarithmic
        ]
        if points := thin(drawn, _DOTS * width, itemgetter(1), itemgetter(0)):
            kept[label] = [float(x) for x, _ in points], [y for _, y in points]
    if not kept:
        return Text("no points yet", style="dim")

    import plotext

    across, up = _range(xs for xs, _ in kept.values()), _range(ys for _, ys in kept.values())
    plotext.terminal.limit(False, False)  # the page says how much room there is
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    for label, (places, heights) in kept.items():
        marker = plotext.marker("braille", _color(label))
        signal = figure.signal(_to_unit(places, across), _to_unit(heights, up), marker=marker)
        if len(places) > 1:
            signal.lines()
        figure.draw(signal)
    figure.ruler("x").lim(0, 1)
    figure.ruler("y").lim(0, 1)
    steps = {round(value): place for place, value in _ticks(across, max(width // 16, 2))}
    figure.ruler("x").ticks(list(steps.values()), [f"{step:,}" for step in steps])
    values = _ticks(up, max(height // 3, 2))
    figure.ruler("y").ticks([place for place, _ in values], _labels([value for _, value in values], logarithmic))
    return Text.from_ansi(str(figure.build().string()))


def _labels(values: Sequence[float], logarithmic: bool) -> list[str]:
    """Numbers, with as many digits as tell them apart."""
    if logarithmic:
        return [f"{10 ** min(value, _LARGEST):.3g}" for value in values]
    return next(
        labels
        for digits in range(3, 18)
        if len(set(labels := [f"{value:.{digits}g}" for value in values])) == len(values) or digits == 17
    )


def _range(series: Iterable[Sequence[float]]) -> tuple[float, float]:
    """The lowest and the highest of all values; something around them where they are equal."""
    values = [value for one in series for value in (min(one), max(one))]
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) / 2 or 1.0
        return low - margin, high + margin
    return low, high


def _to_unit(values: Sequence[float], within: tuple[float, float]) -> list[float]:
    """Where values are in a range, 0 to 1, without overflow."""
    low, high = within
    size = high / 2 - low / 2
    return [(value / 2 - low / 2) / size for value in values]


def _ticks(within: tuple[float, float], count: int) -> list[tuple[float, float]]:
    """Evenly spaced places, 0 to 1, and the values that are there."""
    low, high = within
    return [(part / (count - 1), low * (1 - part / (count - 1)) + high * (part / (count - 1))) for part in range(count)]


def _finite(points: Sequence[Point], unit: float = 1.0) -> tuple[list[int], list[float]]:
    kept = [(step, value) for step, value in by_step((p.step, p.value / unit) for p in points) if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _color(label: str) -> int:
    return _COLORS.get(label, _COLORS["val"])
