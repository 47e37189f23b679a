"""Hugging Face's Accelerator: `Accelerator(log_with=TrackerTracker("runs", "mine"))`. Needs the extra `accelerate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_tb.errors import install_line

try:
    from accelerate.tracking import GeneralTracker, on_main_process
except ImportError as error:
    raise ImportError(f"{__name__} needs Accelerate: {install_line('accelerate')}") from error

from mnist_tb.integrations.adapter import Adapter


class TrackerTracker(GeneralTracker):
    """One run of an `Accelerator`, from its making to `end_training`."""

    name = "mnist_tb"
    requires_logging_directory = False

    def __init__(
        self,
        logdir: str | Path = "runs",
        name: str = "accelerate",
        *,
        steps: int = 0,
        dataset: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        notify: Sequence[str] = (),
    ) -> None:
        """As for `Tracker`."""
        super().__init__()
        self._logdir, self._run_name = Path(logdir), name
        self._named: dict[str, Any] = {"steps": steps, "dataset": dataset, "tags": tags, "note": note, "notify": notify}
        self._tracker: Adapter | None = None
        self._step = 0

    @property
    def tracker(self) -> Adapter:
        """The `Tracker`; its run begins with the first call."""
        if self._tracker is None:
            self._tracker = Adapter(self._logdir, self._run_name, everywhere=True, **self._named)
        return self._tracker

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
        if self._tracker is not None:
            self._tracker.close()
