"""Hugging Face's Trainer: `Trainer(…, callbacks=[TrackerCallback("runs", "mine")])`. Needs the extra `transformers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import TrainingError, install_line

try:
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import TensorBoardCallback
except ImportError as error:
    raise ImportError(f"{__name__} needs Transformers: {install_line('transformers')}") from error

from mnist_tb.integrations.summary_writer import RunWriter
from mnist_tb.integrations.tracker import Options

_ALWAYS = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed")
_PLACE = re.compile("dir|path|hub|token|log|report|tqdm|run_name|_rank")


class TrackerCallback(TensorBoardCallback):
    """Transformers' TensorBoardCallback, whose every training is a run, with what is evaluated before and after it.

    Its arguments and the parameters of a trial are the settings; what the Trainer logs are curves, of the same names.
    An error in the training ends the program, or is told by leaving a `with` block of this callback. A training that is
    not at its end when the next one begins has failed.
    """

    tb_writer: RunWriter | None

    def __init__(self, logdir: str | Path = "runs", name: str = "transformers", **options: Unpack[Options]) -> None:
        """As for `Tracker`."""
        super().__init__()
        self._place, self._options = (Path(logdir).absolute(), name), options  # wherever the program goes from here
        self._is_training = False
        self._trained: TrainerState | None = None  # what a trainer that has trained has from then on

    @property
    def folder(self) -> Path | None:
        """The folder of the last run."""
        return None if self.tb_writer is None else Path(self.tb_writer.log_dir)

    def __enter__(self) -> TrackerCallback:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._end(error)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        writer = self._open(state, anew=self._trained is not None)
        self._is_training, self._trained = True, state
        writer.plan(max(state.max_steps, 0))
        super().on_train_begin(args, state, control, **given)
        trial = {"trial_name": state.trial_name} if state.trial_name else {}
        model = {"model": _architecture(given.get("model"))}
        writer.settings({**_arguments(args), **(state.trial_params or {}), **trial, **model})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> None:
        if state.is_world_process_zero:
            self._open(state).log(logs or {}, state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if not self._is_training:
            self._end()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any],
        **given: Any,
    ) -> None:
        self.on_log(args, state, control, metrics)
        self.on_evaluate(args, state, control)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._end()

    def _open(self, state: TrainerState, anew: bool = False) -> RunWriter:
        """The writer of this training, which is another one's in a copy."""
        anew = anew or (self._trained is not None and self._trained is not state)
        if self.tb_writer is not None and anew and self._is_training:
            self._end(TrainingError("another training began before the end of this one"))
        if self.tb_writer is None or anew or self.tb_writer.tracker is None:
            self._trained = None
            self.tb_writer = RunWriter.in_logdir(*self._place, **self._options)
        return self.tb_writer

    def _end(self, error: BaseException | None = None) -> None:
        self._is_training = False
        if self.tb_writer is not None:
            self.tb_writer.end(error)


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
