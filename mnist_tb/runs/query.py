"""The runs in a log folder, each summarised: native ones by their metrics.json, others by their event files.

Imports no torch, and reads one small file for each native run: a thousand of them take a moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tb.config import strict_yaml
from mnist_tb.config.hyperparameters import seed_of
from mnist_tb.config.load import with_defaults
from mnist_tb.errors import InputError
from mnist_tb.events.curves import NOTHING_TOLD, Told, best_result, find_curves
from mnist_tb.events.records import Damage, open_regular
from mnist_tb.events.status import FAILED, KILLED, RUNNING, UNKNOWN
from mnist_tb.runs.folder import Run, find_run, is_trackers, list_run_folders
from mnist_tb.runs.notes import Notes, read_notes
from mnist_tb.runs.values import mapping, number, plain, time, whole

if TYPE_CHECKING:
    from mnist_tb.events.reader import Contents

_LARGEST_YAML = 2**20
"""Bytes of a hparams.yaml that are read."""


@dataclass(frozen=True)
class RunSummary:
    """What is known of one run; the rest is None.

    native: whether it has a metrics.json, written by mnist_tb. status: one of `events.status`: a state, killed (its
    metrics.json says running, but no process has it) or unknown. epochs: how many are planned. Accuracies from 0 to 1
    and losses in nats are of the weights with the best validation result. seconds: of training. started: seconds since
    1970. init_from: the run whose weights it began with.
    """

    name: str
    path: Path
    native: bool
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
    init_from: str | None = None
    notes: Notes = field(default_factory=Notes)

    @property
    def seed(self) -> int | str | float | None:
        """As `seed_of` its settings."""
        return seed_of(self.settings)

    @property
    def data(self) -> str:
        """What it was tested on, in words: runs on different data are not comparable."""
        if self.dataset is None:
            return "data not known"
        return self.dataset if self.test_images is None else f"{self.dataset}, {self.test_images:,} test images"


@dataclass(frozen=True)
class Problem:
    """A sentence about what could not be read. lost: whether more is missing than the end of a truncated file."""

    text: str
    lost: bool = True


@dataclass(frozen=True)
class RunList:
    """Runs, native ones by their numbers and then the others, and what could not be read."""

    runs: list[RunSummary]
    problems: list[Problem]


def list_runs(logdir: Path, told: Told = NOTHING_TOLD) -> RunList:
    """Every run in a log folder. Raises InputError where there is no such folder.

    told: which curve of other programs' runs, and of those of a Tracker, is which; the rest is guessed.
    """
    found = RunList([], [])
    for name, run in find_runs(logdir):
        add_summary(found, run, name, told)
    return found


def find_runs(logdir: Path) -> list[tuple[str, Run]]:
    """Every run in a log folder, with its name. Raises InputError where there is no such log folder."""
    if not logdir.is_dir():
        raise InputError(f"{logdir}: no such log folder")
    numbered = [(run.name, run) for run in list_run_folders(logdir)]
    return numbered + [(name, Run(logdir / name)) for name in _foreign_folders(logdir, {name for name, _ in numbered})]


def select_runs(logdir: Path, which: Iterable[str], told: Told = NOTHING_TOLD) -> RunList:
    """The runs that are named as in `find_run`, or by a path in the log folder. Raises InputError.

    told: as in `list_runs`.
    """
    found = RunList([], [])
    for name, run in find_selected(logdir, which):
        add_summary(found, run, name, told)
    return found


def find_selected(logdir: Path, which: Iterable[str]) -> list[tuple[str, Run]]:
    """The runs that are named as in `select_runs`, each with its name. Raises InputError."""
    found = []
    seen = set()
    for name in which:
        inside = logdir / name
        is_foreign = not Path(name).is_absolute() and ".." not in Path(name).parts and _is_foreign(inside)
        run = Run(inside) if is_foreign else find_run(logdir, name)
        if (path := run.path.resolve()) not in seen:  # the same run twice is one run
            seen.add(path)
            found.append((name if is_foreign else run.name, run))
    return found


def add_summary(
    found: RunList, run: Run, name: str, told: Told = NOTHING_TOLD, contents: Contents | None = None
) -> None:
    """Add what is known of one run, or a problem. contents: its event files', if somebody has read them already."""
    try:
        if run.metrics.exists():
            found.runs.append(_native_run(run, name, told, found.problems))
        else:
            found.runs.append(_foreign_run(run, name, told, found.problems, contents))
    except (InputError, OSError) as error:
        found.problems.append(Problem(str(error)))
    except Exception as error:  # whatever a file says, it costs its own run only
        found.problems.append(Problem(f"{run.path}: cannot be read: {type(error).__name__}: {error}"))


def _foreign_folders(logdir: Path, native: set[str]) -> list[str]:
    """The other folders with event files, by their path in the log folder, which is their name in TensorBoard."""
    names = []
    for folder, below, files in os.walk(logdir):
        at_top = Path(folder) == logdir
        below[:] = sorted(name for name in below if not name.startswith(".") and not (at_top and name in native))
        if any("tfevents" in name for name in files):
            names.append(os.path.relpath(folder, logdir))
    return names


def _is_foreign(folder: Path) -> bool:
    return not (folder / "metrics.json").exists() and any(folder.glob("*tfevents*"))


def _native_run(run: Run, name: str, told: Told, problems: list[Problem]) -> RunSummary:
    metrics = run.read_metrics()
    if not isinstance(metrics.get("config"), dict):
        raise InputError(f"{run.metrics}: has no settings")
    settings = plain(metrics["config"])
    is_own = not is_trackers(metrics)  # else it is of a training with other settings and curves
    if is_own:
        settings = with_defaults(settings)
    status = str(metrics.get("status", UNKNOWN))
    if status == RUNNING and not run.is_in_use():
        status = KILLED
    images, val, test = (mapping(metrics.get(key)) for key in ("images", "val", "test"))
    error, origin, notes = metrics.get("error"), metrics.get("init_from"), _notes(run, problems)
    summary = RunSummary(
        name=name,
        path=run.path,
        native=True,
        status=status,
        dataset=str(metrics["dataset"]) if metrics.get("dataset") else None,
        test_images=whole(images.get("test")),
        settings=settings,
        epoch=whole(metrics.get("epoch")),
        epochs=whole(settings.get("train.epochs", settings.get("epochs"))),
        step=whole(metrics.get("step")),
        val_accuracy=number(val.get("accuracy")),
        val_loss=number(val.get("loss")),
        test_accuracy=number(test.get("accuracy")),
        test_loss=number(test.get("loss")),
        seconds=number(metrics.get("train_seconds")),
        images_per_second=number(metrics.get("images_per_second")),
        started=time(metrics.get("started")),
        error=str(error) if status == FAILED and error else None,
        init_from=str(origin) if origin else None,
        notes=notes,
    )
    return summary if is_own or not told else replace(summary, **_told_results(run, told, problems))


def _notes(run: Run, problems: list[Problem]) -> Notes:
    try:
        return read_notes(run)
    except InputError as error:
        problems.append(Problem(str(error), lost=False))
        return Notes()


def _told_results(run: Run, told: Told, problems: list[Problem]) -> dict[str, Any]:
    """The results that a Tracker's event files hold in the curves that were told."""
    from mnist_tb.events import reader

    contents = reader.read(run.path)
    problems += damage_problems(run.path, contents.damage)
    results = _results(contents, {key: tag for key, tag in told.items() if tag in contents.curves})
    return {key: value for key, value in results.items() if value is not None}


def _foreign_run(
    run: Run, name: str, told: Told, problems: list[Problem], contents: Contents | None = None
) -> RunSummary:
    """A run of another program, read from its event files; damage to them is added to the problems."""
    from mnist_tb.events import reader  # slow to import: TensorBoard's protocol buffers

    if not any(run.path.glob("*tfevents*")):
        raise InputError(f"{run.path}: is not a run: it has neither metrics.json nor event files")
    contents = reader.read(run.path) if contents is None else contents
    problems += damage_problems(run.path, contents.damage)
    steps = [point.step for curve in contents.curves.values() for point in curve]
    lasted = None if contents.first is None or contents.last is None else contents.last - contents.first
    return RunSummary(
        name=name,
        path=run.path,
        native=False,
        status=contents.status,
        settings={**plain(contents.settings), **_yaml_settings(run.path, problems)},
        step=max(steps, default=None),
        **_results(contents, find_curves(contents.curves, told)),
        seconds=number(lasted),
        started=time(contents.first),
    )


def damage_problems(folder: Path, damage: Mapping[str, Damage | str]) -> list[Problem]:
    """Sentences about the damage to a run's event files that `events.reader` has found."""
    return [_problem(folder / name, found) for name, found in damage.items()]


def _problem(path: Path, found: Damage | str) -> Problem:
    if isinstance(found, str):
        return Problem(f"{path}: cannot be read: {found}")
    parts = [f"{found.broken} broken record{'s' if found.broken > 1 else ''}"] if found.broken else []
    parts += ["it ends in the middle of a record"] if found.truncated else []
    return Problem(f"{path}: {' and '.join(parts)}; the rest was read", lost=found.broken > 0)


def _results(contents: Contents, tags: Told) -> dict[str, Any]:
    """The best validation and test results of the curves that these tags name, by the fields of a summary."""
    found = {}
    for split in ("val", "test"):
        curves = (contents.curves.get(tags.get((kind, split), ""), []) for kind in ("accuracy", "loss"))
        accuracies, losses = ({point.step: point.value for point in curve} for curve in curves)
        found[f"{split}_accuracy"], found[f"{split}_loss"] = best_result(accuracies, losses)
    return found


def _yaml_settings(folder: Path, problems: list[Problem]) -> dict[str, Any]:
    """The settings in Lightning's hparams.yaml, if there is one; what cannot be read is added to the problems."""
    path = folder / "hparams.yaml"
    try:
        with open_regular(path) as file:
            text = file.read(_LARGEST_YAML).decode()
        values = strict_yaml.read_value(text, str(path))
    except FileNotFoundError:
        return {}
    except (InputError, OSError, UnicodeDecodeError) as error:
        sentence = str(error) if isinstance(error, InputError) else f"{path}: cannot be read: {error}"
        problems.append(Problem(sentence, lost=False))
        return {}
    return plain(values) if isinstance(values, dict) else {}
