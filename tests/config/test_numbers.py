"""How results are written: never all right that is not, and never nothing that is something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_tb.config.numbers import duration, loss_text, percent


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.9921, "99.21"), (0.99996, "99.996"), (1.0, "100.00"), (0.0, "0.00"), (4e-5, "0.004"), (0.125, "12.50")],
)
def test_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@given(st.integers(1, 100_000), st.data())
def test_a_percentage_is_whole_only_if_all_images_are_right(images: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, images))
    assert (percent(right / images) == "100.00") == (right == images)
    assert (percent(right / images) == "0.00") == (right == 0)


def test_others() -> None:
    assert [loss_text(value) for value in (0.03123, 12_345_678.0, float("nan"))] == ["0.0312", "1.23e+07", "nan"]
    assert [duration(each) for each in (3.2, 61, 3_900)] == ["3 s", "1 min 1 s", "1 h 5 min"]
