"""Each statistic against cases worked by hand, and against scipy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from mnist_tb.analysis.significance import mcnemar, mean_and_deviation, welch


def test_mean_and_deviation_by_hand() -> None:
    """2, 4, 9: mean 5, deviations -3, -1, 4, squares 26, over n - 1 = 2: variance 13."""
    assert mean_and_deviation([2.0, 4.0, 9.0]) == (5.0, pytest.approx(math.sqrt(13)))
    assert mean_and_deviation([7.0]) == (7.0, None)


def test_welch_by_hand() -> None:
    """1, 2, 3 against 4, 6, 8, 10.

    WindowMetrics 2 and 7; variances 1 and 20/3; se² = 1/3 + 5/3 = 2, t = -5/√2. Degrees of freedom
    2² / ((1/3)²/2 + (5/3)²/3) = 4 / (1/18 + 25/27) = 216/53 = 4.0755. Student's 97.5 % point there, between those of
    4 (2.7764) and 5 (2.5706) degrees, is 2.7571.
    """
    found = welch([1.0, 2.0, 3.0], [4.0, 6.0, 8.0, 10.0])
    assert found.value == -5
    half = (found.high - found.low) / 2
    assert half / math.sqrt(2) == pytest.approx(stats.t.ppf(0.975, 216 / 53))
    assert 2.5706 < half / math.sqrt(2) < 2.7764
    assert found.p == pytest.approx(2 * stats.t.sf(5 / math.sqrt(2), 216 / 53))
    assert found.significant


def test_welch_agrees_with_scipy() -> None:
    numbers = random.Random(3)
    for _ in range(50):
        ours = [numbers.gauss(0, 1) for _ in range(numbers.randint(2, 9))]
        theirs = [numbers.gauss(0.5, 3) for _ in range(numbers.randint(2, 9))]
        level = numbers.choice([0.9, 0.95, 0.999])
        found, known = welch(ours, theirs, level), stats.ttest_ind(ours, theirs, equal_var=False)
        interval = known.confidence_interval(level)
        assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, known.pvalue))
        assert found.significant == (known.pvalue < 1 - level)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_welch_does_not_claim_what_it_cannot_know(ours: list[float], theirs: list[float]) -> None:
    found = welch(ours, theirs)
    assert (found.p, found.significant, found.low, found.high) == (None, None, -math.inf, math.inf)
    assert found.value == sum(ours) / len(ours) - sum(theirs) / len(theirs)


def test_mcnemar_by_hand() -> None:
    """Of ten images both have 4 right, ours alone 5, theirs alone 1, none 0.

    p = 2 (C(6,0) + C(6,1)) / 2⁶ = 14/64. With half a count more in each cell: middle (5.5 - 1.5) / 12 = 1/3, and
    se = √(7 - 16/12) / 12.
    """
    ours = [True] * 4 + [True] * 5 + [False]
    theirs = [True] * 4 + [False] * 5 + [True]
    found = mcnemar(ours, theirs)
    assert found.value == pytest.approx(0.4)
    assert found.p == pytest.approx(14 / 64)
    half = 1.959964 * math.sqrt(7 - 16 / 12) / 12
    assert (found.low, found.high) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert not found.significant


def test_mcnemar_agrees_with_the_binomial_test() -> None:
    numbers = np.random.default_rng(3)
    for _ in range(50):
        ours, theirs = numbers.random(200) < 0.9, numbers.random(200) < 0.85
        b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        assert mcnemar(ours, theirs).p == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_mcnemar_at_its_ends() -> None:
    same = mcnemar([True, False], [True, False])
    assert (same.value, same.p, same.significant) == (0.0, 1.0, False)
    assert mcnemar([], []).p is None
    with pytest.raises(ValueError, match="2 images against 1"):
        mcnemar([True, True], [True])


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Two networks right at 95 and 94 % of 2,000 images: the true difference is within in about 95 % of 1,000 tries."""
    numbers = np.random.default_rng(7)
    covered = 0
    for _ in range(1_000):
        found = mcnemar(numbers.random(2_000) < 0.95, numbers.random(2_000) < 0.94)
        covered += found.low <= 0.01 <= found.high
    assert 930 <= covered <= 970
