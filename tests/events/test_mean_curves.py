"""Seeds of one configuration as one curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_tb.events.configurations import mean_curve

POINTS = st.lists(st.tuples(st.integers(0, 50), st.floats(-10, 10)), min_size=1, max_size=12)


def test_seeds_with_the_same_steps() -> None:
    found = mean_curve([[[(0, 0.1), (10, 0.5)]], [[(0, 0.3), (10, 0.9)]]])
    assert found is not None
    assert (found.steps, found.seeds, found.is_cut) == ([0, 10], 2, False)
    assert found.mean == pytest.approx([0.2, 0.7])
    assert found.deviation == pytest.approx([np.std([0.1, 0.3], ddof=1), np.std([0.5, 0.9], ddof=1)])


def test_steps_between_are_interpolated_and_the_mean_ends_with_the_first_seed() -> None:
    found = mean_curve([[[(0, 0.0), (4, 4.0), (8, 8.0)]], [[(2, 0.0), (6, 4.0)]]])
    assert found is not None
    assert found.steps == [2, 4, 6]
    assert found.mean == pytest.approx([1.0, 3.0, 5.0])
    assert (found.is_cut, found.last) == (True, 8)


def test_repeats_of_a_seed_are_one_value() -> None:
    """However often a seed is repeated, mean and band are those of the seeds."""
    one, other = [(0, 1.0), (5, 2.0)], [(0, 3.0), (5, 6.0)]
    expected = mean_curve([[one], [other]])
    assert mean_curve([[one, one, one], [other, other]]) == expected


def test_a_repeat_that_has_not_come_far_does_not_cut_its_seed() -> None:
    one, other = [(0, 1.0), (5, 2.0), (9, 4.0)], [(0, 3.0), (5, 6.0), (9, 8.0)]
    assert mean_curve([[one, one[:2]], [other]]) == mean_curve([[one], [other]])
    apart = mean_curve([[[(0, 1.0), (2, 1.0)], [(6, 2.0), (8, 2.0)]], [[(0, 1.0), (4, 1.0), (8, 1.0)]]])
    assert apart is not None
    assert (apart.steps, apart.mean) == ([0, 2, 4, 6, 8], [1.0, 1.0, None, 1.5, 1.5])


def test_one_seed_has_no_band() -> None:
    found = mean_curve([[[(0, 1.0)], [(0, 2.0)]]])
    assert found is not None
    assert (found.mean, found.deviation, found.seeds) == ([1.5], [None], 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_gap_and_no_more(bad: float) -> None:
    found = mean_curve([[[(0, 1.0), (2, 1.0), (4, bad), (6, 1.0), (8, 1.0)]], [[(0, 3.0), (3, 3.0), (8, 3.0)]]])
    assert found is not None
    assert found.steps == [0, 2, 3, 4, 6, 8]
    assert found.mean == [2.0, 2.0, None, None, 2.0, 2.0]
    assert [value is None for value in found.deviation] == [False, False, True, True, False, False]


def test_of_several_points_at_a_step_the_last_one_counts() -> None:
    found = mean_curve([[[(0, 9.0), (0, 1.0), (1, 2.0)]]])
    assert found is not None
    assert found.mean == [1.0, 2.0]


def test_single_points_at_different_steps_are_a_single_point() -> None:
    """As the test results of seeds whose best epochs are different ones."""
    found = mean_curve([[[(860, 0.98)]], [[(1720, 0.99)]]])
    assert found is not None
    assert (found.steps, found.is_cut) == ([1290], False)
    assert found.mean == pytest.approx([0.985])


def test_a_spike_is_among_the_rows() -> None:
    found = mean_curve([[[(step, 7.0 if step == 501 else 0.0) for step in range(1_000)]]])
    assert found is not None
    assert (501, 7.0, None) in found.rows(50)
    assert len(found.rows(50)) <= 50


def test_without_curves_or_a_common_step_there_is_no_mean() -> None:
    assert mean_curve([]) is None
    assert mean_curve([[[]], []]) is None
    apart = mean_curve([[[(0, 1.0), (1, 1.0)]], [[(5, 1.0), (6, 1.0)]]])
    assert apart is not None
    assert (apart.steps, apart.is_cut) == ([], True)


@given(st.lists(st.lists(POINTS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_mean_lies_between_the_seeds_and_their_order_does_not_matter(
    seeds: list[list[list[tuple[int, float]]]],
) -> None:
    found, turned = mean_curve(seeds), mean_curve(seeds[::-1])
    assert found is not None
    assert turned is not None
    assert found.steps == turned.steps
    values = [value for curves in seeds for points in curves for _, value in points]
    for mean, other, deviation in zip(found.mean, turned.mean, found.deviation, strict=True):
        if mean is None:  # between two repeats of a seed, neither of which reaches here
            assert max(map(len, seeds)) > 1
            continue
        assert min(values) - 1e-9 <= mean <= max(values) + 1e-9
        assert mean == pytest.approx(other, abs=1e-9)
        assert deviation is None if len(seeds) == 1 else deviation is not None and deviation >= 0
