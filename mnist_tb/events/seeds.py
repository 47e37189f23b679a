"""Runs of one configuration with different seeds as one curve: their mean, and how far they spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mnist_tb.events.curves import by_step

if TYPE_CHECKING:
    import numpy as np

BAND = "one standard deviation over the seeds to either side"
"""What the band around a mean is: the sample standard deviation, n - 1 in the denominator."""

Run = TypeVar("Run")
Points = Sequence[tuple[int, float]]
"""Step and value."""


@dataclass(frozen=True)
class MeanCurve:
    """The mean over seeds, and the sample standard deviation; both None where a seed's value is not finite.

    deviation is None throughout where there is one seed. The curve ends where the first seed's ends: a mean over fewer
    seeds would jump there. last: the last step of the seed that goes furthest.
    """

    steps: list[int]
    mean: list[float | None]
    deviation: list[float | None]
    seeds: int
    last: int

    @property
    def is_cut(self) -> bool:
        """Whether some seed goes further than the mean."""
        return not self.steps or self.steps[-1] < self.last


def by_seed(runs: Iterable[Run], seed: Callable[[Run], Any]) -> list[list[Run]]:
    """Runs of one configuration, those with the same seed together: repeats of a seed are no new evidence.

    seed: gives a run's seed; None where it is not known, and then the run counts by itself.
    """
    found: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        own = seed(run)
        found.setdefault(("run", number) if own is None else ("seed", own), []).append(run)
    return list(found.values())


def mean_curve(seeds: Sequence[Sequence[Points]]) -> MeanCurve | None:
    """The mean curve of seeds, each of which has one curve or more: repeats of a seed are averaged into one first.

    It has a point at every step at which one of the curves has one, between the first and the last step that all seeds
    have; the others are interpolated there linearly. Curves of a single point, such as a test result after the best
    epoch, make a single point, at the mean of their steps. None without a curve.
    """
    import numpy as np

    repeats = [[_arrays(points) for points in curves if points] for curves in seeds]
    repeats = [curves for curves in repeats if curves]
    if not repeats:
        return None
    if all(len(steps) == 1 for curves in repeats for steps, _ in curves):
        middle = np.rint(np.mean([steps for curves in repeats for steps, _ in curves])).astype(np.int64).reshape(1)
        repeats = [[(middle, values) for _, values in curves] for curves in repeats]
    first = max(min(int(steps[0]) for steps, _ in curves) for curves in repeats)
    ends = [max(int(steps[-1]) for steps, _ in curves) for curves in repeats]
    steps = np.unique(np.concatenate([steps for curves in repeats for steps, _ in curves]))
    steps = steps[(steps >= first) & (steps <= min(ends))]
    with np.errstate(all="ignore"):  # whatever a foreign file holds, what is not finite is a gap
        values = np.stack([_seed(steps, curves) for curves in repeats])
        mean = np.mean(values, axis=0)
        deviation = np.std(values, axis=0, ddof=1) if len(repeats) > 1 else np.full(len(steps), np.nan)
    return MeanCurve(steps.tolist(), _finite(mean), _finite(deviation), len(repeats), max(ends))


def _seed(steps: np.ndarray, repeats: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """A seed's values at some steps: the mean over those of its repeats that reach there."""
    import numpy as np

    reach = np.stack([(steps >= own[0]) & (steps <= own[-1]) for own, _ in repeats])
    values = np.stack([_at(steps, *curve) for curve in repeats])
    mean: np.ndarray = np.where(reach, values, 0.0).sum(axis=0) / reach.sum(axis=0)  # NaN where none reaches
    return mean


def _arrays(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Steps, int64 ascending, and values."""
    import numpy as np

    steps, values = zip(*by_step(points), strict=True)
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def _at(steps: np.ndarray, own_steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A curve at some steps; where it or a neighbour that is needed is not finite, NaN. Beyond its ends: anything."""
    import numpy as np

    values = np.where(np.isfinite(values), values, np.nan)
    found = np.interp(steps, own_steps, values)
    at = np.minimum(np.searchsorted(own_steps, steps), len(own_steps) - 1)
    is_own = own_steps[at] == steps  # a point of its own stands for itself, whatever comes after it
    at_steps: np.ndarray = np.where(is_own, values[at], found)
    return at_steps


def _finite(values: np.ndarray) -> list[float | None]:
    return [value if value == value and abs(value) != float("inf") else None for value in values.tolist()]
