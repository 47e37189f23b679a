"""Which runs count, which are one configuration, its name and its mean curve: for tables, report, figure and Live."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from mnist_tb.config.hyperparameters import Settings, hyperparameters, short_names
from mnist_tb.events.curves import by_step, thin
from mnist_tb.events.status import COMPLETED, UNKNOWN

if TYPE_CHECKING:
    import numpy as np

BAND = "one standard deviation over the seeds to either side"
"""What the band around a mean is: the sample standard deviation, n - 1 in the denominator."""


class Known(Protocol):
    """What is known of a run. data: what it was tested on, in words. seed: None where it is not known."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def seed(self) -> int | str | float | None: ...
    @property
    def status(self) -> str: ...


Run = TypeVar("Run", bound=Known)
Points = Sequence[tuple[int, float]]
"""Step and value."""


@dataclass(frozen=True)
class Group(Generic[Run]):
    """A run, or the runs of one configuration. counts: whether it may be the best, and is tested."""

    runs: tuple[Run, ...]
    counts: bool

    @property
    def seeds(self) -> list[list[Run]]:
        """As `by_seed`."""
        return by_seed(self.runs)


def groups(runs: Iterable[Run], by_configuration: bool, unfinished: bool = False) -> list[Group[Run]]:
    """Runs by their data and configuration, or each by itself. Finished and unfinished ones are never together.

    Finished runs count. unfinished: all count. A run that says nothing of its settings is by itself.
    """
    found: dict[tuple[bool, str, str | int], list[Run]] = {}
    for number, run in enumerate(runs):
        counts = unfinished or is_finished(run)
        same = _configuration(run.settings) if by_configuration and run.settings else number
        found.setdefault((counts, run.data, same), []).append(run)
    return [Group(tuple(members), counts) for (counts, _, _), members in found.items()]


def is_finished(run: Known) -> bool:
    """Whether a run is completed, or nothing says that it is not: another program's."""
    return run.status in (COMPLETED, UNKNOWN)


def _configuration(settings: Settings) -> str:
    """The same text for the same settings: 1 and 1.0 are the same, and the seed does not matter."""
    whole = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in hyperparameters(settings).items()
    }
    return json.dumps(whole, sort_keys=True, default=str)


def names(configurations: Sequence[Group[Any]]) -> list[str]:
    """What each is called, everywhere: the settings in which it differs from others on the same data, else a run.

    The name says that a group is unfinished, and where there are several data, which one is meant.
    """
    rows: dict[str, list[Settings]] = {}
    for one in configurations:
        rows.setdefault(one.runs[0].data, []).append(hyperparameters(one.runs[0].settings))
    short = {data: iter(short_names(same)) for data, same in rows.items()}
    found = []
    for one in configurations:
        run = one.runs[0]
        parts = [next(short[run.data]) or run.name, *([] if one.counts else ["unfinished"])]
        found.append(", ".join([*parts, run.data] if len(rows) > 1 else parts))
    return found


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

    def rows(self, limit: int) -> list[tuple[int, float | None, float | None]]:
        """Step, mean and deviation of at most so many points, chosen as in `thin`."""
        return [*thin([*zip(self.steps, self.mean, self.deviation, strict=True)], limit, itemgetter(1), itemgetter(0))]


def by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of one configuration, those with the same seed together: repeats of a seed are no new evidence.

    A run whose seed is not known is by itself.
    """
    found: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        found.setdefault(("run", number) if run.seed is None else ("seed", run.seed), []).append(run)
    return list(found.values())


def about_means(means: Iterable[tuple[str, Iterable[MeanCurve]]]) -> str:
    """What a reader of mean curves has to know, in words. means: what each configuration is called, and its curves."""
    named = [(name, mean) for name, curves in means for mean in curves]
    if not any(mean.seeds > 1 for _, mean in named):
        return ""
    cut = dict.fromkeys(name for name, mean in named if mean.is_cut)
    ends = f" Its seeds differ in length, so it ends with the shortest: {', '.join(cut)}." if cut else ""
    return f"A line is the mean over a configuration's seeds, the band {BAND}.{ends}"


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
