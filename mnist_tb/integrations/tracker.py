"""Track your own training: one run, one row, its status and the Live tab, as for `mnist-tb train`.

    with Tracker("runs", "mlp", {"lr": 0.1, "batch_size": 128}, steps=1000, dataset="fashion_mnist") as tracker:
        for step, (images, labels) in enumerate(batches, 1):
            ...
            tracker.scalars(step, {"loss/train": loss, "accuracy/train": accuracy})

See it with `mnist-tb board`, compare it with `mnist-tb compare`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike
from torch import nn

from mnist_tb.config.hyperparameters import Settings, checked_settings, flatten, hyperparameters, seed_of, short_name
from mnist_tb.config.load import check_run_name
from mnist_tb.environment.log import SYSTEM_SECONDS, EnvironmentLog
from mnist_tb.environment.notify import Notifier
from mnist_tb.environment.snapshot import main_folder
from mnist_tb.errors import TrainingError
from mnist_tb.events import records
from mnist_tb.events.outcome import Outcome
from mnist_tb.events.status import Status
from mnist_tb.events.summaries import Picture
from mnist_tb.events.tags import CONFIG_TEXT
from mnist_tb.events.texts import config_text
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, create_run, first_metrics
from mnist_tb.runs.notes import edit_notes, make_notes
from mnist_tb.runs.predictions import save_predictions
from mnist_tb.tracking import figures, graph
from mnist_tb.tracking.charts import LAYOUT
from mnist_tb.tracking.live import Live

Charts = Mapping[str, Mapping[str, Sequence[str]]]
Image = Picture | torch.Tensor | Callable[[], Picture]


class Tracker:
    """A run of your own training in a log folder; a context manager that records how it ended.

    The folder is there at once, with config.yaml and metrics.json. Calls return at once; one thread writes the events.
    Where nobody closes the run before the program ends, it is completed, or failed by the error that ends the program.
    step, in all calls: completed optimiser updates. Curves may have any name; those named as here (`loss/train`,
    `accuracy/val`, …) also appear in the Live tab and in comparisons.
    Call from any thread; several that write the same curve agree on its steps. In a fork, as of a DataLoader, and under
    torchrun in all processes but that of rank 0, calls do nothing, and there is no `run`.
    Errors of the writing thread (disk full) are raised as TrainingError by the next call.
    """

    _start: int | None = 0
    _has_settings = True
    _everywhere = False

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
        notify: addresses of Apprise's that are told how the run ends, and of a loss that is NaN; see docs/live.md.
        Raises InputError where the name, a tag, the configuration or the log folder cannot be used.
        """
        self._notes, self._notifier = make_notes(tags, note), Notifier(notify)
        flat = checked_settings(flatten(config or {}))
        self._step, self._pid, self._began = 0, os.getpid(), time.perf_counter()
        self._outcome = Outcome(self._tell_of_divergence)
        self._changing, self._lock = threading.Lock(), contextlib.ExitStack()
        self._is_open = self._everywhere or os.environ.get("RANK", "0") == "0"
        if not self._is_open:
            self._writer = EventWriter(None)
            return
        self._environment = EnvironmentLog(main_folder(), self._notifier)
        self.run = self._create(Path(logdir), name, config or {}, first_metrics(flat, dataset))
        self._writer = EventWriter(self.run.path, self._start)
        self._environment.start(self.run, self._writer, max((self._start or 0) - 1, 0), code, system_seconds)
        status = Status(phase="training", dataset=dataset, steps=steps, seed=seed_of(flat))
        self._live = Live(self._writer, status, run=self.run)
        self._write_beginning(name, flat, LAYOUT if charts is None else charts)
        atexit.register(self._close_at_exit)

    def _create(self, logdir: Path, name: str, config: Mapping[str, Any], facts: dict[str, Any]) -> Run:
        """The run's folder, which is ours until the lock is closed."""
        check_run_name(name)
        plain = json.loads(json.dumps(config))  # tuples become lists
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        try:
            run = create_run(logdir, name, text, facts, held=self._lock)
            edit_notes(run, self._notes.tags, note=self._notes.note)
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
        if not self._is_open or os.getpid() != self._pid:  # a fork of ours: the run is its parent's
            return
        self._is_open = False
        atexit.unregister(self._close_at_exit)
        try:
            if error is None:
                self._end("completed", "")
            else:  # the first error says more than those that follow from it
                with contextlib.suppress(TrainingError, OSError):
                    self._end("failed" if isinstance(error, Exception) else "interrupted", str(error))
        finally:
            self._environment.close(error)

    def close(self) -> None:
        """The run is complete; for where a `with` block does not fit, such as a notebook."""
        self.__exit__(None, None, None)

    def _close_at_exit(self) -> None:
        try:
            self.__exit__(None, getattr(sys, "last_value", None), None)
        except (TrainingError, OSError) as error:
            print(f"{self.run.path}: {error}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """What `resume` needs, plain numbers and strings: save it in your checkpoint, after the step that is in it.

        Waits until all that was logged is on the disk.
        """
        if not self._is_open:
            return {}
        seconds, results = time.perf_counter() - self._began, self._outcome.state_dict()
        return {"step": self._step, "seconds": seconds, "results": results, "events": self._writer.flush()}

    @classmethod
    def resume(
        cls, run: str | Path, state: Mapping[str, Any], *, steps: int = 0, notify: Sequence[str] = ()
    ) -> Tracker:
        """Go on with a run of yours where `state`, from `state_dict`, was taken; every point is written once.

        run: its folder. What was logged after that is removed from its files. steps, notify: as for a new run.
        Raises InputError where it is not a run, or somebody has it.
        """
        return _Resumed(Path(run), state, steps, notify)

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """One point on each named curve. Tensors hold one number; those of curves that Live shows are read here.

        Raises TypeError or ValueError where a value is no number, or the step is no whole one.
        """
        self._points(step, [(tag, _as_number(value, tag in self._outcome.fields)) for tag, value in values.items()])

    def _points(self, step: int, values: list[tuple[str, Any]], wall_time: float | None = None) -> None:
        self._writer.points(step := index(step), values, wall_time)
        if not self._is_open:
            return
        with self._changing:
            live, fields, evaluated = self._live, self._outcome.fields, False
            self._step = max(self._step, step)
            for tag, value in values:
                if tag in fields:
                    live.changes[fields[tag]] = value
                    evaluated |= self._outcome.add(step, tag, value)
            if evaluated or time.perf_counter() >= live.due:
                live.update(self._step, now=evaluated)

    def _tell_of_divergence(self, tag: str, step: int, value: float) -> None:
        self._notifier.tell(f"{self.run.name}: {tag} is {value}", f"at step {step:,}\n{self.run.path}", 0)

    def histograms(self, step: int, values: Mapping[str, torch.Tensor] | nn.Module) -> None:
        """The distribution of each tensor's elements, or of all parameters of a module, as `weights/<parameter>`."""
        if isinstance(values, nn.Module):
            values = {f"weights/{name}": parameter for name, parameter in values.named_parameters()}
        self._writer.histograms(step, values)

    def images(self, step: int, pictures: Mapping[str, Image]) -> None:
        """Pictures: uint8 [height, width, 3] or [height, width], or a function that draws one on the writing thread.

        `predictions/test` and `results/test` are shown in the Live tab.
        """
        self._writer.images(step, {tag: figures.as_function(picture) for tag, picture in pictures.items()})

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        self._writer.texts(step, texts)

    def graph(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        """The layers of a model without data-dependent control flow, for an input of this shape; once a run."""
        if self._is_open:
            self._writer.graph(graph.draw(model, input_shape))

    def predictions(self, labels: torch.Tensor | ArrayLike, probabilities: torch.Tensor | ArrayLike) -> None:
        """The class of each test sample, int [N], and the probabilities, [N, C], for McNemar's test between runs."""
        if self._is_open:
            given = (v.detach().cpu() if isinstance(v, torch.Tensor) else v for v in (labels, probabilities))
            save_predictions(self.run, *map(np.asarray, given))

    def _end(self, state: str, error: str) -> None:
        changes = {
            "status": state,
            "ended": time.time(),
            "step": self._step,
            "train_seconds": time.perf_counter() - self._began,
            **self._outcome.metrics(),
        }
        try:
            self._live.changes["step"] = self._step
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


class _Resumed(Tracker):
    """A run that is there already, cut back to a state."""

    def __init__(self, folder: Path, state: Mapping[str, Any], steps: int, notify: Sequence[str]) -> None:
        self._state, self._start = state, int(state.get("step", -1)) + 1
        known = Run(folder).read_metrics()
        super().__init__(
            folder.parent,
            folder.name,
            known.get("config"),
            steps=steps,
            dataset=known.get("dataset") or "",
            notify=notify,
        )

    def _create(self, logdir: Path, name: str, config: Mapping[str, Any], facts: dict[str, Any]) -> Run:
        run = Run(logdir / name)
        try:
            self._lock.enter_context(run.in_use())
            records.trim(run.path, self._state.get("events", {}))
            run.restart_metrics()
        except BaseException as error:
            self._environment.close(error)
            raise
        return run

    def _write_beginning(self, name: str, flat: Settings, charts: Charts) -> None:
        self._step = int(self._state.get("step", 0))
        self._began -= self._state.get("seconds", 0.0)
        self._outcome.load_state_dict(self._state.get("results", {}))
        self._live.update(self._step, now=True, phase="training")


def _as_number(value: Any, now: bool) -> Any:
    """A tensor is read now, or later by the writing thread; it leaves the graph that autograd keeps for it."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value.item() if now else value
    return float(value)
