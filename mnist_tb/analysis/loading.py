"""The runs of a log folder in Python: `for run in load_runs("runs"): run.curves["loss/val"].values`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mnist_tb.errors import InputError, install_line
from mnist_tb.events import reader
from mnist_tb.events.curves import by_step
from mnist_tb.runs.query import Problem, RunSummary, damage_problems, list_runs, select_runs
from mnist_tb.runs.values import read_told

if TYPE_CHECKING:
    import pandas

_FACTS = (
    "status", "dataset", "epoch", "epochs", "step", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "seconds",
    "images_per_second", "started", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A scalar over steps, ascending; of several points at a step, the one that was written last.

    steps: int64 [N]. values: float64 [N], as written, mostly 32-bit numbers; NaN and infinities among them.
    wall_times: float64 [N], seconds since 1970.
    """

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class LoadedRun:
    """A run of any program. What is known at a glance is in `summary`; event files are read when they are needed."""

    summary: RunSummary

    @property
    def name(self) -> str:
        return self.summary.name

    @property
    def path(self) -> Path:
        return self.summary.path

    @property
    def status(self) -> str:
        """`completed`, `running`, `failed`, `interrupted`, `pruned`, `killed` or `unknown`."""
        return self.summary.status

    @property
    def settings(self) -> Mapping[str, Any]:
        """Flat: `train.lr` → 0.001."""
        return self.summary.settings

    @property
    def tags(self) -> tuple[str, ...]:
        """The words that somebody gave it."""
        return self.summary.notes.tags

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """The tag of every scalar → its curve. What is damaged is left out: see `problems`."""
        return {tag: _curve(points) for tag, points in self._contents.curves.items()}

    @property
    def problems(self) -> list[Problem]:
        """What could not be read of its event files."""
        return damage_problems(self.path, self._contents.damage)

    @cached_property
    def _contents(self) -> reader.Contents:
        return reader.read(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Its name, its facts and results, its tags and its note, and its settings as `settings.<key>`."""
        facts = {name: getattr(self.summary, name) for name in _FACTS}
        notes = {"tags": list(self.tags), "note": self.summary.notes.note}
        settings = {f"settings.{key}": value for key, value in self.settings.items()}
        return {"run": self.name, "path": str(self.path), **facts, **notes, **settings}

    def to_pandas(self) -> pandas.DataFrame:
        """Every point of every curve: run, tag, step, wall_time, value. Raises InputError without pandas."""
        parts = [
            {"run": self.name, "tag": tag, "step": curve.steps, "wall_time": curve.wall_times, "value": curve.values}
            for tag, curve in self.curves.items()
        ]
        frames = [_pandas().DataFrame(part) for part in parts]
        columns = ["run", "tag", "step", "wall_time", "value"]
        return _pandas().concat(frames, ignore_index=True) if frames else _pandas().DataFrame(columns=columns)


@dataclass(frozen=True)
class LoadedRuns(Sequence[LoadedRun]):
    """Runs, by their numbers and then the others. problems: what could not be read of the folder."""

    runs: tuple[LoadedRun, ...]
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, index: int | str) -> LoadedRun: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LoadedRun]: ...
    def __getitem__(self, index: int | str | slice) -> LoadedRun | Sequence[LoadedRun]:
        """By place, or by name; by path where two share a name. Raises IndexError or KeyError."""
        if not isinstance(index, str):
            return self.runs[index]
        found = [run for run in self.runs if index in (run.name, str(run.path))]
        if len(found) > 1:
            raise KeyError(f"{index} is the name of {len(found)} runs: {', '.join(str(run.path) for run in found)}")
        if not found:
            raise KeyError(index)
        return found[0]

    def __iter__(self) -> Iterator[LoadedRun]:
        return iter(self.runs)

    def to_pandas(self) -> pandas.DataFrame:
        """A row a run, as `LoadedRun.to_dict`. Raises InputError without pandas."""
        return _pandas().DataFrame([run.to_dict() for run in self.runs])


def load_runs(logdir: str | Path, *which: str, metric: Sequence[str] = ()) -> LoadedRuns:
    """The runs of a log folder, of whatever programs; no event file of ours is read before it is needed.

    which: some of them, each a number, a name, a folder or `last`; all, if none is given.
    metric: which curve of other programs is which, as `accuracy/val=valid_acc`; the rest is guessed.
    Raises InputError where there is no such folder or run.
    """
    told = read_told(metric)
    found = select_runs(Path(logdir), which, told) if which else list_runs(Path(logdir), told)
    return LoadedRuns(tuple(map(LoadedRun, found.runs)), tuple(found.problems))


def _curve(points: Sequence[reader.Point]) -> Curve:
    kept = by_step((point.step, index) for index, point in enumerate(points))
    chosen = [points[int(index)] for _, index in kept]
    return Curve(
        np.array([point.step for point in chosen], np.int64),
        np.array([point.value for point in chosen], np.float64),
        np.array([point.wall_time for point in chosen], np.float64),
    )


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise InputError(f"to_pandas needs pandas: {install_line('pandas')}") from None
    return pandas
