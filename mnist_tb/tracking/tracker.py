"""Track your own training: one run, one row, its status and the Live tab, as for `mnist-tb train`.

    with Tracker("runs", "mlp", {"lr": 0.1, "batch_size": 128}, steps=1000, dataset="fashion_mnist") as tracker:
        for step, (images, labels) in enumerate(batches, 1):
            ...
            tracker.scalars(step, {"loss/train": loss, "accuracy/train": accuracy})

See it with `mnist-tb board`, compare it with `mnist-tb compare`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from mnist_tb.config.hyperparameters import Settings, flatten, hyperparameters, seed_of, short_name
from mnist_tb.config.load import check_run_name
from mnist_tb.environment.log import SYSTEM_SECONDS, EnvironmentLog
from mnist_tb.environment.notify import Notifier
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.events import tags
from mnist_tb.events.curves import RunningResult
from mnist_tb.events.status import Status
from mnist_tb.events.summaries import Picture
from mnist_tb.events.tags import CONFIG_TEXT
from mnist_tb.events.texts import config_text
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, create_run, package_versions, save_predictions
from mnist_tb.runs.notes import Notes, edit_notes, make_notes
from mnist_tb.tracking import graph
from mnist_tb.tracking.charts import LAYOUT
from mnist_tb.tracking.live import Live

KIND = "tracked"
"""The `kind` in metrics.json of such a run: its configuration is not one of `mnist-tb train`."""

_LIVE = {
    tags.LOSS_TRAIN: "loss",
    tags.ACCURACY_TRAIN: "accuracy",
    tags.LOSS_VAL: "val_loss",
    tags.ACCURACY_VAL: "val_accuracy",
    tags.LOSS_TEST: "test_loss",
    tags.ACCURACY_TEST: "test_accuracy",
    tags.LR: "lr",
    tags.THROUGHPUT: "images_per_second",
}
"""Curves whose last values the Live tab shows as numbers, and their names there."""

Charts = Mapping[str, Mapping[str, Sequence[str]]]
Image = Picture | torch.Tensor | Callable[[], Picture]


class Tracker:
    """A run of your own training in a log folder; a context manager that records how it ended.

    The folder is there at once, with config.yaml and metrics.json. Calls return at once; one thread writes the events.
    step, in all calls: completed optimiser updates. Curves may have any name; those named as here (`loss/train`,
    `accuracy/val`, …) also appear in the Live tab and in comparisons.
    Call from one thread. Errors of the writing thread (disk full) are raised as TrainingError by the next call.
    """

    _start: int | None = 0
    _has_settings = True

    def __init__(
        self,
        logdir: str | Path,
        name: str,
        config: Mapping[str, Any] | None = None,
        *,
        steps: int = 0,
        dataset: str = "",
        charts: Charts | None = None,
        tags: Sequence[str] = (),
        note: str = "",
        code: bool = True,
        system_seconds: float = SYSTEM_SECONDS,
        notify: Sequence[str] = (),
    ) -> None:
        """Begin a run.

        config: its settings, nested or flat: numbers, strings, booleans, and lists of those. Runs that differ only in
        `seed` are repetitions: one row of the HParams table.
        steps: how many are planned, for progress and the time left; 0 if unknown.
        dataset: what it is tested on; runs on different data are not ranked against each other.
        charts: the Custom Scalars tab, category → chart title → tags; None for the charts of `mnist-tb train`.
        tags, note: what you want to say of it; see `mnist-tb runs tag` and `note`.
        code: whether the commit and the patch of your code are kept, beside the command, the packages and the machine.
        system_seconds: between two points of the curves under `system/`; 0 for none.
        notify: addresses of Apprise's that are told how the run ends, and of a loss that is NaN; see the README.
        Raises InputError where the name, a tag, the configuration or the log folder cannot be used.
        """
        notes = make_notes(tags, note)
        flat = checked_settings(flatten(config or {}))
        self._notifier = Notifier(notify)
        self._lock = contextlib.ExitStack()
        self._environment = EnvironmentLog(_main_folder(), self._notifier)
        self.run = self._create(Path(logdir), name, config or {}, _facts(flat, dataset), notes)
        self._began = time.perf_counter()
        self._step, self._pid = 0, os.getpid()
        self._has_diverged = False
        self._fields = dict(_LIVE)
        self._results = {"val": RunningResult(), "test": RunningResult(last=True)}
        self._speed: float | None = None
        self._changing = threading.Lock()
        self._writer = EventWriter(self.run.path, self._start)
        self._environment.start(self.run, self._writer, max((self._start or 0) - 1, 0), code, system_seconds)
        status = Status(phase="training", dataset=dataset, steps=steps, seed=seed_of(flat))
        self._live = Live(self._writer, status, run=self.run)
        self._write_beginning(name, flat, LAYOUT if charts is None else charts)

    def _create(self, logdir: Path, name: str, config: Mapping[str, Any], facts: dict[str, Any], notes: Notes) -> Run:
        """The run's folder, which is ours until the lock is closed."""
        check_run_name(name)
        plain = json.loads(json.dumps(config))  # tuples become lists
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        try:
            run = create_run(logdir, name, text, facts, held=self._lock)
            edit_notes(run, notes.tags, note=notes.note)
        except BaseException as error:
            self._environment.close(error)
            raise
        return run

    def _write_beginning(self, name: str, flat: Settings, charts: Charts) -> None:
        self._writer.hparams(hyperparameters(flat), group=short_name(hyperparameters(flat)) or name)
        self._writer.texts(0, {CONFIG_TEXT: config_text(flat)})
        self._writer.layout(charts)
        self._live.update(0, now=True, phase="training")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:  # a fork of ours: the run is its parent's
            return
        try:
            if error is None:
                self._end("completed", "")
            else:  # the first error says more than those that follow from it
                with contextlib.suppress(TrainingError, OSError):
                    self._end("failed" if isinstance(error, Exception) else "interrupted", str(error))
        finally:
            self._environment.close(error)

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """One point on each named curve. Tensors hold one number; those of curves that Live shows are read here."""
        self._points(step, [(tag, float(v) if tag in self._fields else v) for tag, v in values.items()])

    def _points(self, step: int, values: list[tuple[str, Any]], wall_time: float | None = None) -> None:
        self._writer.points(step, values, wall_time)
        with self._changing:
            live, evaluated = self._live, False
            self._step = max(self._step, step)
            for tag, value in values:
                if tag in self._fields:
                    live.changes[self._fields[tag]] = value
                    evaluated |= self._note(step, tag, value)
            if evaluated or time.perf_counter() >= live.due:
                live.update(self._step, now=evaluated)

    def _note(self, step: int, tag: str, value: float) -> bool:
        """What a point says of the result. Whether it belongs to an evaluation."""
        split, _, kind = self._fields[tag].rpartition("_")
        if kind == "loss" and not self._has_diverged and not math.isfinite(value):
            self._has_diverged = True
            self._notifier.tell(f"{self.run.name}: {tag} is {value}", f"at step {step:,}\n{self.run.path}", 0)
        if split in self._results:
            self._results[split].add(kind, step, value)
            return True
        if kind == "second" and math.isfinite(value):
            self._speed = value
        return False

    def histograms(self, step: int, values: Mapping[str, torch.Tensor] | nn.Module) -> None:
        """The distribution of each tensor's elements, or of all parameters of a module, as `weights/<parameter>`."""
        if isinstance(values, nn.Module):
            values = {f"weights/{name}": parameter for name, parameter in values.named_parameters()}
        self._writer.histograms(step, values)

    def images(self, step: int, pictures: Mapping[str, Image]) -> None:
        """Pictures: uint8 [height, width, 3] or [height, width], or a function that draws one on the writing thread.

        `predictions/test` and `results/test` are shown in the Live tab.
        """
        self._writer.images(step, {tag: _as_function(picture) for tag, picture in pictures.items()})

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        self._writer.texts(step, texts)

    def graph(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        """The layers of a model without data-dependent control flow, for an input of this shape; once a run."""
        self._writer.graph(graph.draw(model, input_shape))

    def predictions(self, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        """The class of each test sample, int [N], and the probabilities, [N, C], for McNemar's test between runs."""
        save_predictions(self.run, labels.cpu().numpy(), probabilities.detach().cpu().numpy())

    def _end(self, state: str, error: str) -> None:
        changes = {
            "status": state,
            "ended": time.time(),
            "step": self._step,
            "train_seconds": time.perf_counter() - self._began,
            **{split: result for split, each in self._results.items() if (result := each.result())},
        }
        if self._speed is not None:
            changes["images_per_second"] = self._speed
        try:
            with self._lock, self._writer:
                self._environment.finish()
                if state != "interrupted" and self._has_settings:
                    self._writer.status(state)
                self._live.end(state, error)
        except TrainingError as failed:
            changes |= {"status": "failed", "error": str(failed)}
            raise
        finally:
            self.run.update_metrics(**changes, **({"error": error or state} if state != "completed" else {}))


def _main_folder() -> Path:
    """The folder of the program that runs; in an interpreter or a notebook, the present one."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return Path.cwd() if path is None else Path(path).resolve().parent


def checked_settings(flat: dict[str, Any]) -> dict[str, Any]:
    for key, value in flat.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
            raise InputError(
                f"config: {key} is a {type(value).__name__}; settings are numbers, strings, booleans or lists of these"
            )
        if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
            raise InputError(f"config: {key} is {value}; settings are finite numbers")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}


def _facts(flat: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    return {
        "status": "running",
        "kind": KIND,
        "started": time.time(),
        "dataset": dataset or None,
        "config": dict(flat),
        "versions": package_versions("mnist-tb", "torch", "tensorboard"),
    }


def _as_function(picture: Image) -> Callable[[], Picture]:
    if callable(picture) and not isinstance(picture, torch.Tensor):
        return picture
    array = np.array(picture.detach().cpu().numpy() if isinstance(picture, torch.Tensor) else picture)  # a copy
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"a picture is uint8 [height, width, 3] or [height, width], not {array.dtype} {array.shape}")
    return lambda: np.repeat(array[:, :, None], 3, 2) if grey else array
