"""Whether a difference is statistically significant: numbers in, a `Difference` out. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Difference:
    """One mean or fraction minus another, with its confidence interval.

    p: how often chance alone makes a difference as large. It is None where nothing can be said; low and high are
    infinite then. level: the confidence of the interval, such as 0.95. significant: whether p is below 1 - level,
    and so the interval excludes 0. is_equal: whether nothing differs at all.
    """

    value: float
    low: float
    high: float
    p: float | None
    level: float
    is_equal: bool = False

    @property
    def significant(self) -> bool | None:
        return None if self.p is None else self.p < 1 - self.level


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample standard deviation (n - 1 in the denominator), or None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def welch(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Difference:
    """The mean of ours minus that of theirs, by Welch's t-test: two samples with unequal variances, such as over seeds.

    t = (m1 - m2) / se with se² = s1²/n1 + s2²/n2, and degrees of freedom after Welch and Satterthwaite,
    se⁴ / ((s1²/n1)²/(n1 - 1) + (s2²/n2)²/(n2 - 1)). Nothing can be said with fewer than two values on a side, or
    where all values of each side are equal.
    B. L. Welch, Biometrika 34 (1947) 28–35, https://doi.org/10.1093/biomet/34.1-2.28; scipy.stats.ttest_ind with
    equal_var=False gives the same.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

    value = statistics.fmean(ours) - statistics.fmean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return _unknown(value, level)
    parts = [statistics.variance(sample) / len(sample) for sample in (ours, theirs)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return _unknown(value, level)
    freedom = error**4 / sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (ours, theirs), strict=True))
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return Difference(value, value - half, value + half, p, level)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool], level: float = 0.95) -> Difference:
    """Our accuracy minus theirs on the same images, by McNemar's exact test. ours, theirs: which images are correct.

    Only the images on which the two disagree count: b that only ours has correct, c that only theirs has. Without a
    difference, b is binomial with b + c trials of probability 1/2; p is two-sided.
    Q. McNemar, Psychometrika 12 (1947) 153–157, https://doi.org/10.1007/BF02295996.
    The interval is of the same test: it excludes 0 if and only if the difference is significant; see `_least`.
    """
    import numpy as np

    one, other = np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(f"{one.size} images against {other.size}")
    if not one.size:
        return _unknown(math.nan, level)
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    p = min(1.0, 2 * float(_heads(max(b, c), min(b, c))[-1]))
    low, high = _least(b, c, (1 - level) / 2) / one.size, -_least(c, b, (1 - level) / 2) / one.size
    return Difference((b - c) / one.size, max(low, -1.0), min(high, 1.0), p, level, is_equal=b == c == 0)


def _heads(tails: int, most: int) -> np.ndarray:
    """How probable it is that a coin shows at most 0, 1, …, `most` heads before so many tails: float64 [most + 1].

    The last is P(Binomial(tails + most, 1/2) ≤ most).
    """
    import numpy as np

    if not tails:
        return np.ones(most + 1)
    heads = np.arange(most + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, tails + most)))])  # of factorials
    return np.cumsum(np.exp(logs[heads + tails - 1] - logs[tails - 1] - logs[heads] - (heads + tails) * math.log(2)))


def _least(b: int, c: int, tail: float) -> float:
    """The lower limit of how much larger the expected b is than the expected c; it is missed with probability `tail`.

    b and c are taken as Poisson numbers. The limit is the quantile `tail` of X - Y, where X is Gamma(b) and Y is
    Gamma(c + 1) distributed: the melded interval of M. P. Fay, M. A. Proschan and E. Brittain, Biometrics 71 (2015)
    146–156, https://doi.org/10.1111/biom.12231. P(X ≤ Y) is the exact test's, P(Binomial(b + c, 1/2) ≥ b), so that the
    limit is above 0 if that is less than `tail`. For matched pairs: M. P. Fay and K. Lumbard, Statistics in Medicine
    40 (2021) 1147–1159, https://doi.org/10.1002/sim.8829.
    """
    import numpy as np

    at_zero = float(_heads(b, c)[-1])
    is_above = at_zero < tail
    most = b - 1 if is_above else c
    at_most = _heads(c + 1 if is_above else b, most)[::-1]
    counts = np.arange(most + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])

    def probit(x: float) -> float:
        """Of P(X - Y ≤ x), or of P(Y - X ≥ x): events of one process until the other has had some, and x longer."""
        if not x:
            return _probit(at_zero)
        share = float(np.exp(counts * math.log(x) - x - factorials) @ at_most)
        return _probit(1 - share if is_above else share)

    rest = -math.log(tail)
    end = float(b) if is_above else c + 1 + math.sqrt(2 * (c + 1) * rest) + rest  # Y exceeds it with less than `tail`
    found = _root(probit, _probit(tail), 0.0, end)
    return found if is_above else -found


def _probit(p: float) -> float:
    return statistics.NormalDist().inv_cdf(min(max(p, 1e-300), 1 - 1e-16))


def _root(function: Callable[[float], float], wanted: float, a: float, b: float) -> float:
    """Where a nearly linear function has some value, by the Illinois method. a, b: the values there are around it."""
    at_a, at_b = function(a) - wanted, function(b) - wanted
    middle = b
    for _ in range(100):
        if at_a == at_b:
            break
        middle = (a * at_b - b * at_a) / (at_b - at_a)
        value = function(middle) - wanted
        if abs(value) < 1e-7:
            break
        if (value < 0) == (at_b < 0):
            at_a /= 2
        else:
            a, at_a = b, at_b
        b, at_b = middle, value
    return middle


def seeds_needed(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95, power: float = 0.8) -> int | None:
    """How many seeds each side needs for Welch's t-test to find a difference as large as the one seen.

    power: the probability of finding it, if the variances are those seen. None where nothing can be said, or where more
    than 1,000 are needed. By the noncentral t distribution, with the degrees of freedom of `welch`:
    S.-L. Jan and G. Shieh, Behavior Research Methods 43 (2011) 1014–1022, https://doi.org/10.3758/s13428-011-0116-x.
    """
    from scipy.special import nctdtr, stdtrit

    if min(len(ours), len(theirs)) < 2:
        return None
    value = abs(statistics.fmean(ours) - statistics.fmean(theirs))
    variances = statistics.variance(ours), statistics.variance(theirs)
    if value == 0 or sum(variances) == 0:
        return None
    for count in range(2, 1_001):
        error = math.sqrt(sum(variances) / count)
        freedom = (count - 1) * sum(variances) ** 2 / sum(variance**2 for variance in variances)
        critical = float(stdtrit(freedom, (1 + level) / 2))
        if 1 - float(nctdtr(freedom, value / error, critical)) >= power:
            return count
    return None


def _unknown(value: float, level: float) -> Difference:
    return Difference(value, -math.inf, math.inf, None, level)
