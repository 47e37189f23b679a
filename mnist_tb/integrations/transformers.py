"""Hugging Face's Trainer: `Trainer(…, callbacks=[TrackerCallback("runs", "mine")])`. Needs the extra `transformers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import install_line

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(f"{__name__} needs Transformers: {install_line('transformers')}") from error

from mnist_tb.integrations.stages import Stages
from mnist_tb.integrations.tracker import Options, Tracker

_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed")
_PLACE = re.compile("dir|path|hub|token|log|report|tqdm|run_name|_rank")


class TrackerCallback(TrainerCallback):
    """One run of a `Trainer`: its arguments as settings, what it logs as curves, status, the Live tab.

    An evaluation after the training goes on with the same run. An error in the training ends the program, or is told by
    leaving a `with` block of this callback.
    """

    def __init__(self, logdir: str | Path = "runs", name: str = "transformers", **options: Unpack[Options]) -> None:
        """As for `Tracker`."""
        self._stages, self._options = Stages(logdir, name, options), options
        self._is_training = False
        self._trained: TrainerState | None = None  # what a trainer that has trained has from then on

    @property
    def folder(self) -> Path | None:
        """The folder of the last run."""
        return None if self._stages.last is None else self._stages.last.run.path

    def __enter__(self) -> TrackerCallback:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stages.end(error)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        tracker = self._open(state, anew=self._trained is not None)
        self._is_training, self._trained = True, state
        tracker.settings({**_arguments(args), "model": _architecture(given.get("model"))})

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
        self._is_training = False
        self._stages.end()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if not self._is_training:
            self._stages.end()

    def _open(self, state: TrainerState, anew: bool = False) -> Tracker:
        """Each training is a run of its own, with the evaluations around it."""
        if anew or (self._trained is not None and self._trained is not state):
            self._stages.anew()
            self._trained = None
        self._stages.options = {"steps": max(state.max_steps, 0), **self._options}
        return self._stages.tracker


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
    config: Any = getattr(model, "config", None)
    found = config.to_diff_dict() if hasattr(config, "to_diff_dict") else config if isinstance(config, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str))}
