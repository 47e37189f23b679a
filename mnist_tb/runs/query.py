"""All runs below a log folder, read back into rows: ours from their metrics.json, others' from their event files.

Imports no torch, and reads of each of our runs one small file only: a thousand of them take a moment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import load as configuration
from mnist_tb.config.hyperparameters import SEED
from mnist_tb.config.schema import Config
from mnist_tb.errors import InputError
from mnist_tb.events.records import Damage
from mnist_tb.runs import folder as runs
from mnist_tb.runs.folder import Run

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Row:
    """One run. What is not known of it is None.

    ours: whether it has a metrics.json. status: running, completed, interrupted, pruned, failed, killed (its
    metrics.json says running, but no process has it), or unknown. epochs: how many it is to have. accuracies from 0 to
    1, losses in nats, of the weights that were best on validation. seconds: of training. started: seconds since 1970.
    """

    name: str
    path: Path
    ours: bool
    status: str = UNKNOWN
    dataset: str | None = None
    test_images: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    started: float | None = None
    error: str | None = None

    @property
    def seed(self) -> int | None:
        return self.settings.get(SEED)

    @property
    def data(self) -> str:
        """What it was tested on, for a person: rows of different data are not comparable."""
        if self.dataset is None:
            return "data not known"
        return self.dataset if self.test_images is None else f"{self.dataset}, {self.test_images:,} test images"


@dataclass(frozen=True)
class Problem:
    """A sentence about what could not be read. lost: whether that is more than the end of a file that was cut off."""

    text: str
    lost: bool = True


@dataclass(frozen=True)
class Overview:
    """The rows, oldest number first, others' runs after them, and what could not be read."""

    rows: list[Row]
    problems: list[Problem]


def survey(logdir: Path) -> Overview:
    """Every run below a log folder. Raises InputError where there is no such folder."""
    if not logdir.is_dir():
        raise InputError(f"{logdir}: no such log folder")
    found = Overview([], [])
    numbered = runs.listing(logdir)
    for run in numbered:
        _add(found, run, run.name)
    for name in _others(logdir, {run.name for run in numbered}):
        _add(found, Run(logdir / name), name)
    return found


def chosen(logdir: Path, which: Iterable[str]) -> Overview:
    """The runs that are named, each as in `runs.find`, or by a path below the log folder. Raises InputError."""
    found = Overview([], [])
    for name in which:
        inside = logdir / name
        others = not Path(name).is_absolute() and ".." not in Path(name).parts and _has_events(inside)
        run = Run(inside) if others else runs.find(logdir, name)
        _add(found, run, name if others else run.name)
    return found


def _add(found: Overview, run: Run, name: str) -> None:
    try:
        found.rows.append(_ours(run, name) if run.metrics.exists() else _foreign(run, name, found.problems))
    except (InputError, OSError) as error:
        found.problems.append(Problem(str(error)))


def _others(logdir: Path, ours: set[str]) -> list[str]:
    """The folders that hold event files and are none of our runs, by their path below, as TensorBoard has them."""
    names = []
    for folder, below, files in os.walk(logdir):
        at_top = Path(folder) == logdir
        below[:] = sorted(name for name in below if not name.startswith(".") and not (at_top and name in ours))
        if any("tfevents" in name for name in files):
            names.append(os.path.relpath(folder, logdir))
    return names


def _has_events(folder: Path) -> bool:
    return not (folder / "metrics.json").exists() and any(folder.glob("*tfevents*"))


def _ours(run: Run, name: str) -> Row:
    metrics = run.read_metrics()
    values = metrics.get("config")
    if not isinstance(values, dict):
        values = _older(run)
    if "kind" not in metrics:  # else it is of another program, which has other settings
        values = {**_defaults(), **values}
    status = str(metrics.get("status", UNKNOWN))
    if status == "running" and not run.is_in_use():
        status = "killed"
    images, val, test = (_mapping(metrics.get(key)) for key in ("images", "val", "test"))
    error = metrics.get("error")
    return Row(
        name=name,
        path=run.path,
        ours=True,
        status=status,
        dataset=str(metrics["dataset"]) if metrics.get("dataset") else None,
        test_images=_whole(images.get("test")),
        settings=values,
        epoch=_whole(metrics.get("epoch")),
        epochs=_whole(values.get("train.epochs", values.get("epochs"))),
        step=_whole(metrics.get("step")),
        val_accuracy=_number(val.get("accuracy")),
        val_loss=_number(val.get("loss")),
        test_accuracy=_number(test.get("accuracy")),
        test_loss=_number(test.get("loss")),
        seconds=_number(metrics.get("train_seconds")),
        images_per_second=_number(metrics.get("images_per_second")),
        started=_number(metrics.get("started")),
        error=str(error) if status == "failed" and error else None,
    )


def _older(run: Run) -> dict[str, Any]:
    """The settings of a run whose metrics.json does not have them yet."""
    return configuration.flat(configuration.load(run.config))


@cache
def _defaults() -> dict[str, Any]:
    return configuration.flat(Config())


def _foreign(run: Run, name: str, problems: list[Problem]) -> Row:
    """A run of another program, from its event files; what is wrong with them is added to the problems."""
    from mnist_tb.events import reader as reading

    if not any(run.path.glob("*tfevents*")):
        raise InputError(f"{run.path}: is no run, it has neither metrics.json nor event files")
    contents = reading.read(run.path)
    problems += damaged(run.path, contents.damage)
    curves = contents.curves
    best = {kind: _best(curves, *tags) for kind, tags in reading.validation_and_test(curves).items()}
    (val_accuracy, val_loss), (test_accuracy, test_loss) = best["val"], best["test"]
    steps = [point.step for curve in curves.values() for point in curve]
    lasted = None if contents.first is None or contents.last is None else contents.last - contents.first
    return Row(
        name=name,
        path=run.path,
        ours=False,
        status=contents.status,
        settings={**contents.settings, **_yaml_settings(run.path)},
        step=max(steps, default=None),
        val_accuracy=val_accuracy,
        val_loss=val_loss,
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        seconds=lasted,
        started=contents.first,
    )


def damaged(folder: Path, damage: Mapping[str, Damage | str]) -> list[Problem]:
    """What is wrong with a run's event files, as `reading` has found it."""
    return [_problem(folder / name, found) for name, found in damage.items()]


def _problem(path: Path, found: Damage | str) -> Problem:
    if isinstance(found, str):
        return Problem(f"{path}: cannot be read: {found}")
    parts = [f"{found.broken} broken record{'s' if found.broken > 1 else ''}"] if found.broken else []
    parts += ["it ends in the middle of a record"] if found.truncated else []
    return Problem(f"{path}: {' and '.join(parts)}; the rest was read", lost=found.broken > 0)


def _best(curves: Mapping[str, Any], accuracy: str | None, loss: str | None) -> tuple[float | None, float | None]:
    """The highest accuracy and the loss at the same step, or the lowest loss where there is no accuracy."""
    losses = {p.step: p.value for p in curves.get(loss or "", ()) if math.isfinite(p.value)}
    finite = [p for p in curves.get(accuracy or "", ()) if math.isfinite(p.value)]
    if finite:
        best = max(finite, key=lambda p: p.value)
        return best.value, losses.get(best.step)
    return None, min(losses.values(), default=None)


def _yaml_settings(folder: Path) -> dict[str, Any]:
    """What Lightning leaves beside its event files: hparams.yaml, plain values only."""
    try:
        values = yaml.safe_load((folder / "hparams.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return settings.flatten(values) if isinstance(values, dict) and all(isinstance(k, str) for k in values) else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
