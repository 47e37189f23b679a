"""Hugging Face's Accelerator: `Accelerator(log_with=TrackerTracker("runs", "mine"))`. Needs the extra `accelerate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import install_line

try:
    from accelerate.tracking import GeneralTracker, on_main_process
except ImportError as error:
    raise ImportError(f"{__name__} needs Accelerate: {install_line('accelerate')}") from error

from mnist_tb.integrations.stages import Stages
from mnist_tb.integrations.tracker import Options, Tracker


class TrackerTracker(GeneralTracker):
    """One run of an `Accelerator`, from its making to `end_training`."""

    name = "mnist_tb"
    requires_logging_directory = False

    def __init__(self, logdir: str | Path = "runs", name: str = "accelerate", **options: Unpack[Options]) -> None:
        """As for `Tracker`."""
        super().__init__()
        self._stages, self._step = Stages(logdir, name, options), 0

    @on_main_process
    def start(self) -> None:
        """A training begins: a run of its own, which the first call makes."""
        self._stages.anew()
        self._step = 0

    @property
    def tracker(self) -> Tracker:
        """The `Tracker`. What is logged after `end_training` goes on with its run."""
        return self._stages.tracker

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """The settings."""
        self.tracker.settings(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **named: Any) -> None:
        """Points on curves; texts go to the Text tab."""
        self._step = self._step if step is None else step
        texts = {tag: value for tag, value in values.items() if isinstance(value, str)}
        if texts:
            self.tracker.texts(self._step, texts)
        self.tracker.scalars(self._step, {tag: value for tag, value in values.items() if tag not in texts})

    @on_main_process
    def finish(self) -> None:
        """The run is complete."""
        self._stages.end()
