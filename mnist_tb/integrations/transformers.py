"""Hugging Face's Trainer: `Trainer(…, callbacks=[TrackerCallback("runs", "mine")])`. Needs the extra `transformers`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mnist_tb.errors import install_line

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(f"{__name__} needs Transformers: {install_line('transformers')}") from error

from mnist_tb.integrations.adapter import Adapter

_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed")
_PLACE = re.compile("dir|path|hub|token|log|report|tqdm|run_name|_rank")


class TrackerCallback(TrainerCallback):
    """One run of a `Trainer`: its arguments as settings, what it logs as curves, status, the Live tab.

    An evaluation after the training goes on with the same run. An error in the training ends the program, or is told by
    leaving a `with` block of this callback.
    """

    def __init__(
        self,
        logdir: str | Path = "runs",
        name: str = "transformers",
        *,
        dataset: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        notify: Sequence[str] = (),
    ) -> None:
        """As for `Tracker`."""
        self._logdir, self._name = Path(logdir), name
        self._named: dict[str, Any] = {"dataset": dataset, "tags": tags, "note": note, "notify": notify}
        self._tracker: Adapter | None = None
        self._before: Adapter | None = None
        self.folder: Path | None = None

    def __enter__(self) -> TrackerCallback:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._end(error)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self._open(state).settings({**_arguments(args), "model": _architecture(given.get("model"))})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> None:
        if state.is_world_process_zero:
            numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
            self._open(state).scalars(state.global_step, numbers)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._end(None)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if self._tracker is not None and not control.should_training_stop and state.global_step >= state.max_steps:
            self._end(None)  # an evaluation by itself, after the training

    def _open(self, state: TrainerState) -> Adapter:
        if self._tracker is None:
            self._tracker = Adapter(
                self._logdir, self._name, self.folder, after=self._before, steps=state.max_steps, **self._named
            )
            self.folder = self._tracker.run.path
        return self._tracker

    def _end(self, error: BaseException | None) -> None:
        if self._tracker is not None:
            self._tracker.__exit__(None, error, None)
            self._tracker, self._before = None, self._tracker


def _arguments(args: TrainingArguments) -> dict[str, Any]:
    """What matters in every training, and what else is not its default; but for places and tokens."""
    values = {field.name: (getattr(args, field.name), field.default) for field in fields(args) if field.init}
    return {
        name: value
        for name, (value, default) in values.items()
        if name in _ALWAYS
        or (value != default and isinstance(value, (bool, int, float, str)) and not _PLACE.search(name))
    }


def _architecture(model: Any) -> dict[str, Any]:
    """What of a model's configuration is not its default."""
    config = getattr(model, "config", None)
    found = {} if config is None else config.to_diff_dict()
    return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str))}
