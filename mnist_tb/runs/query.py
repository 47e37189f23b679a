"""The runs in a log folder, each summarised: native ones by their metrics.json, others by their event files.

Imports no torch, and reads one small file for each native run: a thousand of them take a moment.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tb.config import foreign_yaml
from mnist_tb.config.hyperparameters import seed_of
from mnist_tb.config.load import with_defaults
from mnist_tb.config.plain import plain_setting
from mnist_tb.errors import InputError
from mnist_tb.events import records
from mnist_tb.events.curves import NOTHING_TOLD, Told, find_measured
from mnist_tb.events.records import Damage, open_regular
from mnist_tb.events.status import FAILED, KILLED, RUNNING, UNKNOWN
from mnist_tb.events.tags import THROUGHPUT
from mnist_tb.runs.files import read_ours, write_atomically
from mnist_tb.runs.folder import Run, find_run, folders, is_ours, is_trackers, list_run_folders
from mnist_tb.runs.notes import Notes, read_notes
from mnist_tb.runs.values import best_result, last_result, mapping, number, plain, time, whole

if TYPE_CHECKING:
    from mnist_tb.events.reader import Contents

Read = Callable[[Path], "Contents"]
"""Gives what a folder's event files contain."""

_KEPT = "results.json"
"""What a listing has read of a Tracker's event files, so that the next one need not, as long as they are the same."""
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
    numbered = {run.name: run for run in list_run_folders(logdir)}
    others = {
        path: Run(logdir / path)
        for path, below, files in folders(logdir)
        if path not in numbered
        and (
            any("tfevents" in name for name in files)
            or (("metrics.json" in files or records.OWN in below) and is_ours(logdir / path))
        )
    }
    return list((numbered | others).items())


def select_runs(logdir: Path, which: Iterable[str], told: Told = NOTHING_TOLD) -> RunList:
    """The runs that are named as in `find_run`, or by a path in the log folder. Raises InputError.

    told: as in `list_runs`.
    """
    found = RunList([], [])
    for name, run in find_selected(logdir, which):
        add_summary(found, run, name, told)
    return found


def find_selected(logdir: Path, which: Iterable[str]) -> list[tuple[str, Run]]:
    """The runs that are named as in `select_runs`, each with its name, as in `find_runs`. Raises InputError."""
    found = []
    seen = set()
    top = os.path.abspath(logdir)
    for name in which:
        inside = logdir / name
        is_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        is_foreign = is_inside and any(inside.glob("*tfevents*")) and not is_ours(inside)
        run = Run(inside) if is_foreign else find_run(logdir, name)
        if (path := run.path.resolve()) not in seen:  # the same run twice is one run
            seen.add(path)
            place = os.path.relpath(os.path.abspath(run.path), top)
            found.append((run.name if place.startswith("..") else place, run))
    return found


def add_summary(found: RunList, run: Run, name: str, told: Told = NOTHING_TOLD, read: Read | None = None) -> None:
    """Add what is known of one run, or a problem. read: gives what its event files contain, if it has to be known."""
    try:
        metrics: dict[str, Any] | None = read_ours(run.metrics)
        if "mnist-tb" not in mapping(mapping(metrics).get("versions")):  # else that is proof enough
            metrics = run.read_metrics() if is_ours(run.path) else None
        if metrics is not None and not isinstance(metrics.get("config"), dict):
            raise InputError(f"{run.metrics}: has no settings")
        if metrics is not None and not is_trackers(metrics):
            found.runs.append(_trained_run(run, name, metrics, found.problems))
        else:
            found.runs.append(_run_by_curves(run, name, metrics, told, found.problems, read))
    except (InputError, OSError) as error:
        found.problems.append(Problem(str(error)))
    except Exception as error:  # whatever a file says, it costs its own run only
        found.problems.append(Problem(f"{run.path}: cannot be read: {type(error).__name__}: {error}"))


def _facts(run: Run, metrics: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """What a metrics.json of ours says of any run, by the fields of a summary."""
    status, error = str(metrics.get("status", UNKNOWN)), metrics.get("error")
    return {
        "native": True,
        "status": KILLED if status == RUNNING and not run.is_in_use() else status,
        "dataset": str(metrics["dataset"]) if metrics.get("dataset") else None,
        "step": whole(metrics.get("step")),
        "seconds": number(metrics.get("train_seconds")),
        "started": time(metrics.get("started")),
        "error": str(error) if status == FAILED and error else None,
        "notes": _notes(run, problems),
    }


def _trained_run(run: Run, name: str, metrics: Mapping[str, Any], problems: list[Problem]) -> RunSummary:
    """A run of `mnist-tb train`, by its metrics.json."""
    settings = with_defaults(plain(metrics["config"]))
    images, val, test = (mapping(metrics.get(key)) for key in ("images", "val", "test"))
    origin = metrics.get("init_from")
    return RunSummary(
        name=name,
        path=run.path,
        test_images=whole(images.get("test")),
        settings=settings,
        epoch=whole(metrics.get("epoch")),
        epochs=whole(settings.get("train.epochs")),
        val_accuracy=number(val.get("accuracy")),
        val_loss=number(val.get("loss")),
        test_accuracy=number(test.get("accuracy")),
        test_loss=number(test.get("loss")),
        images_per_second=number(metrics.get("images_per_second")),
        init_from=str(origin) if origin else None,
        **_facts(run, metrics, problems),
    )


def _notes(run: Run, problems: list[Problem]) -> Notes:
    try:
        return read_notes(run)
    except InputError as error:
        problems.append(Problem(str(error), lost=False))
        return Notes()


def _run_by_curves(
    run: Run, name: str, metrics: Mapping[str, Any] | None, told: Told, problems: list[Problem], read: Read | None
) -> RunSummary:
    """A run of a Tracker or of another program: its results are what its curves say; damage is added to the problems.

    metrics: its metrics.json, of a Tracker's.
    """
    from mnist_tb.events import reader  # slow to import: TensorBoard's protocol buffers

    sizes = records.sizes(run.path)
    if metrics is None and not sizes:
        raise InputError(f"{run.path}: is not a run: it has neither metrics.json nor event files")
    if metrics is None:
        contents = (read or reader.read)(run.path)
        problems += damage_problems(run.path, contents.damage)
        settings = {**plain(contents.settings), **_yaml_settings(run.path, problems)}
        said = _said_by_curves(contents, told)
        return RunSummary(name=name, path=run.path, native=False, status=contents.status, settings=settings, **said)
    facts, settings = _facts(run, metrics, problems), plain(metrics["config"])
    kept = {} if told else read_ours(run.home / _KEPT)
    said = dict(mapping(kept.get("said")))
    if kept.get("sizes") != sizes or not said:
        contents = (read or reader.read)(run.path)
        problems += damage_problems(run.path, contents.damage)
        said = _said_by_curves(contents, told)
        if not told and not contents.damage and facts["status"] != RUNNING:
            with suppress(OSError):  # it is another's folder, and is read again next time
                write_atomically(run.home / _KEPT, json.dumps({"sizes": sizes, "said": said}).encode())
    steps = [step for step in (said.get("step"), facts["step"]) if step is not None]
    facts["step"] = max(steps, default=None)
    known = {**said, **{key: value for key, value in facts.items() if value is not None}}
    return RunSummary(name=name, path=run.path, settings=settings, epochs=whole(settings.get("epochs")), **known)


def _said_by_curves(contents: Contents, told: Told) -> dict[str, Any]:
    """What event files say of a run, by the fields of a summary; numbers or None."""
    speeds = [point.value for point in contents.curves.get(THROUGHPUT, ()) if math.isfinite(point.value)]
    return {
        "step": max((curve[-1].step for curve in contents.curves.values()), default=None),
        **_results(contents, told),
        "images_per_second": speeds[-1] if speeds else None,
        "seconds": None if contents.first is None or contents.last is None else number(contents.last - contents.first),
        "started": time(contents.first),
    }


def damage_problems(folder: Path, damage: Mapping[str, Damage | str]) -> list[Problem]:
    """Sentences about the damage to a run's event files that `events.reader` has found."""
    return [_problem(folder / name, found) for name, found in damage.items()]


def _problem(path: Path, found: Damage | str) -> Problem:
    if isinstance(found, str):
        return Problem(f"{path}: cannot be read: {found}")
    parts = [f"{found.broken} broken record{'s' if found.broken > 1 else ''}"] if found.broken else []
    parts += ["it ends in the middle of a record"] if found.truncated else []
    return Problem(f"{path}: {' and '.join(parts)}; the rest was read", lost=found.broken > 0)


def _results(contents: Contents, told: Told) -> dict[str, Any]:
    """The best validation result and the last test result of the curves, by a summary's fields."""
    found = {}
    tags = find_measured(contents.curves, told)
    for split, result in (("val", best_result), ("test", last_result)):  # a test is no choice
        curves = (tags.get((kind, split), ("", 1.0)) for kind in ("accuracy", "loss"))
        steps = ({point.step: point.value / unit for point in contents.curves.get(tag, ())} for tag, unit in curves)
        values = result(*steps)
        found[f"{split}_accuracy"], found[f"{split}_loss"] = map(_as_logged, values)
    return found


def _as_logged(value: float | None) -> float | None:
    """The shorter number of which a file with 32 bits has kept this one: 0.1, not 0.10000000149."""
    shorter = None if value is None else float(f"{value:.7g}")
    return value if shorter is None or struct.pack("<f", shorter) != struct.pack("<f", value) else shorter


def _yaml_settings(folder: Path, problems: list[Problem]) -> dict[str, Any]:
    """The settings in Lightning's hparams.yaml, if there is one; what cannot be read is added to the problems."""
    path = folder / "hparams.yaml"
    try:
        with open_regular(path) as file:
            text = file.read(_LARGEST_YAML).decode()
        values = foreign_yaml.read_value(text, str(path))
    except FileNotFoundError:
        return {}
    except (InputError, OSError, UnicodeDecodeError) as error:
        sentence = str(error) if isinstance(error, InputError) else f"{path}: cannot be read: {error}"
        problems.append(Problem(sentence, lost=False))
        return {}
    return {key: plain_setting(value) for key, value in plain(values).items()} if isinstance(values, dict) else {}
