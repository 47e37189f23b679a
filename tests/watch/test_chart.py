"""Charts of characters: every size, every number."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_tb.events.reader import Point
from mnist_tb.watch.chart import Chart, charts, draw, heading

BRAILLE = {chr(code) for code in range(0x2800, 0x2900)}


def points(tag: str, *values: float) -> list[Point]:
    return [Point(tag, step, 0.0, value) for step, value in enumerate(values)]


def test_losses_together_then_accuracies_then_the_rest() -> None:
    curves = {
        tag: points(tag, 1.0, 0.5)
        for tag in ("accuracy_per_class/0", "lr", "accuracy/val", "loss/val", "loss/train", "grad_norm")
    }
    made = charts(curves)
    assert [chart.title for chart in made] == ["loss", "accuracy", "grad_norm", "lr", "accuracy_per_class/0"]
    assert list(made[0].series) == ["train", "val"]
    assert charts(curves, {("accuracy", "test"): "lr"})[1].series.keys() == {"val", "test"}
    assert charts({}) == []


def test_only_finite_values_of_which_the_last_of_a_step_counts() -> None:
    curve = [*points("a", 1.0, math.nan, 3.0, math.inf), Point("a", 0, 1.0, 9.0)]
    assert charts({"a": curve})[0].series[""] == ([0, 2], [9.0, 3.0])


def test_its_heading_says_the_newest_values() -> None:
    head = heading(Chart("loss", {"train": ([0, 1], [1.0, 0.12345]), "val": ([], [])}))
    assert head.plain == "loss  train 0.1235  val"


def test_a_falling_curve_falls_and_its_axes_are_labelled() -> None:
    text = draw(Chart("loss", {"train": (list(range(101)), [100.0 - x for x in range(101)])}), 60, 12).plain
    lines = text.splitlines()
    columns = [[place for place, sign in enumerate(line) if sign in BRAILLE] for line in lines]
    drawn = [places for places in columns if places]
    assert len(drawn) == 9  # of twelve lines; two are the frame, one the labels
    assert all(max(above) <= min(below) + 1 for above, below in itertools.pairwise(drawn))
    assert lines[1].strip().startswith("100┤")
    assert [word for word in lines[-1].split() if word] == ["0", "50", "100"]
    assert {len(line) for line in lines} == {60}


def test_a_logarithmic_axis_makes_a_line_of_a_decay_and_leaves_out_zero() -> None:
    decay = [math.exp(-step / 10) for step in range(100)]
    text = draw(Chart("loss", {"train": (list(range(101)), [*decay, 0.0])}), 60, 12, logarithmic=True).plain
    drawn = [[place for place, sign in enumerate(line) if sign in BRAILLE] for line in text.splitlines()]
    widths = [len(places) for places in drawn if places]
    assert len(widths) == 9
    assert all(3 <= width <= 8 for width in widths)
    assert draw(Chart("a", {"": ([0], [-1.0])}), 60, 12, logarithmic=True).plain == "no points yet"


def test_labels_tell_close_values_apart() -> None:
    text = draw(Chart("a", {"": ([0, 1], [0.99990, 0.99995])}), 60, 12).plain
    labels = [line.partition("┤")[0].strip() for line in text.splitlines() if "┤" in line]
    assert len(set(labels)) == len(labels) == 4


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.floats(allow_nan=False, allow_infinity=False)), max_size=20),
    st.integers(0, 210), st.integers(0, 60), st.booleans(),
)  # fmt: skip
def test_no_number_and_no_size_is_too_much(
    values: list[tuple[int, float]], width: int, height: int, logarithmic: bool
) -> None:
    kept = sorted(dict(values).items())
    chart = Chart("a", {"train": ([step for step, _ in kept], [value for _, value in kept])})
    text = draw(chart, width, height, logarithmic).plain
    lines = text.splitlines()
    if lines and text != "no points yet":
        assert height - 1 <= len(lines) <= height
        assert max(map(len, lines)) <= width


def test_nothing_is_printed_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What plotext says of values that are too close together would land in the page."""
    for value in (1.0, 1e300, 5e-324):
        draw(Chart("a", {"": ([1, 2], [value, value])}), 60, 12)
        draw(Chart("a", {"": ([1, 2], [value, value])}), 60, 12, logarithmic=True)
    assert capsys.readouterr() == ("", "")
