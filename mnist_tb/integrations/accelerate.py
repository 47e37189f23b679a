"""Hugging Face's Accelerator: `Accelerator(log_with=TrackerTracker("runs", "mine"))`. Needs the extra `accelerate`."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import install_line

try:
    from accelerate.state import PartialState
    from accelerate.tracking import TensorBoardTracker, on_main_process
except ImportError as error:
    raise ImportError(f"{__name__} needs Accelerate: {install_line('accelerate')}") from error

from mnist_tb.integrations.summary_writer import RunWriter
from mnist_tb.integrations.tracker import Options


class TrackerTracker(TensorBoardTracker):
    """Accelerate's TensorBoardTracker, whose every training is a run, from `init_trackers` to `end_training`.

    What is logged after that goes on with the run; a step that is not given is the last one.
    """

    name = "mnist_tb"
    requires_logging_directory = False

    def __init__(self, logdir: str | Path = "runs", name: str = "accelerate", **options: Unpack[Options]) -> None:
        """As for `Tracker`."""
        super().__init__(name, Path(logdir).absolute(), **options)  # wherever the program goes from here
        self._writer: RunWriter | None = None
        self._is_used, self._times, self._step = False, 1, 0
        self._call: list[Any] = []

    @property
    def writer(self) -> RunWriter:
        """The `SummaryWriter` of the run; its `tracker` is the `Tracker`. In other processes its calls do nothing."""
        if self._writer is None:
            if PartialState().is_main_process:
                self._writer = RunWriter.in_logdir(self.logging_dir_param, self.run_name, **self.init_kwargs)
            else:
                self._writer = RunWriter.idle(str(self.logging_dir_param))
        self._is_used = True
        return self._writer

    @property
    def logging_dir(self) -> str:
        """The run's folder."""
        return str(self.writer.log_dir)

    @on_main_process
    def start(self) -> None:
        """A training begins: a run of its own. Called again before that is used, it is the same one's."""
        if self._writer is not None and not self._is_used and self._writer.is_open:
            self._times += 1
            return
        if self._writer is not None:
            self._writer.close()
        self._writer, self._times, self._step = None, 1, 0
        _ = self.writer
        self._is_used = False

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The settings, nested or flat. What is no plain value is kept as text."""
        self.writer.settings(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **named: Any) -> None:
        """Points on curves, nested ones as `eval/loss`; texts go to the Text tab. Of all else one warning a key."""
        self._step = self._step if step is None else int(step)
        if not self._is_again(values, step):
            self.writer.log(values, self._step, **named)

    @on_main_process
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **named: Any) -> None:
        """As TensorBoardTracker's."""
        super().log_images(values, self._step if step is None else step, **named)

    def _is_again(self, values: Mapping[str, Any], step: int | None) -> bool:
        """Whether it is the last call once more: an Accelerator makes each as often as `init_trackers` was called."""
        if self._times == 1:
            return False
        call, last = [step, values, *values.values()], self._call
        self._call = call
        return len(call) == len(last) and all(map(operator.is_, call, last))
