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


def images(b: int, c: int, count: int = 1_000) -> tuple[list[bool], list[bool]]:
    """Of so many images, b that only the first has right, and c that only the second has."""
    rest = [True] * (count - b - c)
    return [True] * b + [False] * c + rest, [False] * b + [True] * c + rest


def test_mcnemar_by_hand() -> None:
    """Of ten images ours alone has 5 right, theirs alone 1: p = 2 (C(6,0) + C(6,1)) / 2⁶ = 14/64."""
    found = mcnemar(*images(5, 1, 10))
    assert found.value == pytest.approx(0.4)
    assert found.p == pytest.approx(14 / 64)
    assert not found.significant
    assert found.low < 0


@pytest.mark.parametrize(("b", "c"), [(1, 0), (0, 4), (9, 2), (2, 9), (100, 60), (300, 310), (900, 20), (4_000, 1)])
@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_the_interval_is_the_difference_of_two_gamma_distributions(b: int, c: int, level: float) -> None:
    """Which of Gamma(b) and Gamma(c + 1) is larger by how much, integrated numerically."""
    found = mcnemar(*images(b, c, 10_000), level)
    for more, fewer, limit in ((b, c, found.low), (c, b, -found.high)):
        below = stats.gamma(fewer + 1)
        y = np.linspace(below.ppf(1e-12), below.isf(1e-12), 20_001)
        x = limit * 10_000 + y
        at_most = stats.gamma.cdf(x, more) if more else (x >= 0).astype(float)
        assert np.trapezoid(at_most * below.pdf(y), y) == pytest.approx((1 - level) / 2, rel=1e-2)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 1 - 0.05 / 999])
def test_the_verdict_and_the_interval_agree(level: float) -> None:
    """For all b + c up to 120: significant if and only if the interval excludes 0."""
    for b, c in ((b, total - b) for total in range(121) for b in range(total + 1)):
        found = mcnemar(*images(b, c, 200), level)
        assert found.significant == (found.low > 0 or found.high < 0), (b, c)
        assert found.low <= found.value <= found.high


def test_welchs_verdict_and_interval_agree() -> None:
    numbers = random.Random(5)
    for _ in range(5_000):
        ours, theirs = ([numbers.gauss(mean, 1) for _ in range(numbers.randint(2, 6))] for mean in (0, 2))
        found = welch(ours, theirs, numbers.choice([0.5, 0.9, 0.95, 0.999]))
        assert found.significant == (found.low > 0 or found.high < 0)


def test_mcnemar_agrees_with_the_binomial_test() -> None:
    numbers = np.random.default_rng(3)
    for _ in range(50):
        ours, theirs = numbers.random(200) < 0.9, numbers.random(200) < 0.85
        b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        assert mcnemar(ours, theirs).p == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_mcnemar_at_its_ends() -> None:
    same = mcnemar([True, False], [True, False])
    assert (same.value, same.p, same.significant, same.is_equal) == (0.0, 1.0, False, True)
    assert mcnemar([], []).p is None
    with pytest.raises(ValueError, match="2 images against 1"):
        mcnemar([True, True], [True])


@pytest.mark.parametrize("second", [0.94, 0.9, 0.6])
def test_the_interval_covers_as_often_as_it_says(second: float) -> None:
    """Of 2,000 images one network has 95 % right, the other one fewer: the true difference is within 95 % of the time.

    Three in four of the images that the better one has wrong are too hard for the other one too.
    """
    numbers, covered = np.random.default_rng(7), 0
    for _ in range(1_000):
        right = numbers.random(2_000) < 0.95
        also = numbers.random(2_000) < np.where(right, (second - 0.0125) / 0.95, 0.25)
        found = mcnemar(right, also)
        covered += found.low <= 0.95 - second <= found.high
    assert covered >= 940
