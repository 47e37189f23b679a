"""Whether a difference is statistically significant: numbers in, a `Difference` out. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One mean or fraction minus another, with its confidence interval.

    p: how often chance alone makes a difference as large. It is None where nothing can be said; low and high are
    infinite then. level: the confidence of the interval, such as 0.95. significant: whether p is below 1 - level.
    """

    value: float
    low: float
    high: float
    p: float | None
    level: float

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
    The interval is Wald's with half a count added to each of the four cells: A. Agresti and Y. Min, Statistics in
    Medicine 24 (2005) 729–740, https://doi.org/10.1002/sim.1781.
    """
    import numpy as np
    from scipy.special import bdtr, ndtri

    one, other = np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(f"{one.size} images against {other.size}")
    if not one.size:
        return _unknown(math.nan, level)
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    p = min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0
    count, more, less = one.size + 2, b + 0.5, c + 0.5
    middle = (more - less) / count
    half = float(ndtri((1 + level) / 2)) * math.sqrt((more + less) - (more - less) ** 2 / count) / count
    return Difference((b - c) / one.size, middle - half, middle + half, p, level)


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
