"""Writes the status of a training for the Live tab, at most once a second; and its notes, where they have changed."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mnist_tb.errors import InputError
from mnist_tb.events.status import Status
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run
from mnist_tb.runs.notes import Notes, read_notes

_EVERY_SECONDS = 1.0
_NUMBERS = (
    "loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "lr", "images_per_second", "steps",
)  # fmt: skip


class Live:
    """A run's Status, and when it was last written. Call from the thread of the event writer."""

    def __init__(self, writer: EventWriter, status: Status, seconds: float = 0.0, run: Run | None = None) -> None:
        """seconds: for which the run has been trained before. run: whose notes are written; None for none."""
        self._writer = writer
        self._status = status
        self.changes: dict[str, Any] = {}
        """What is to be in the next status that is written."""
        self.due = float("-inf")
        """When that is, by time.perf_counter."""
        self._began = time.perf_counter() - seconds
        self._run = run
        self._notes = Notes()
        self._training: tuple[float, int] | None = None  # when the training began, and after how many updates

    def update(self, step: int, now: bool = False, **changes: Any) -> None:
        """Set what has changed after `step` updates; write it if a second has passed, or `now`."""
        if not self._writer.enabled:
            return
        clock = time.perf_counter()
        if self._training is None and changes.get("phase") == "training":
            self._training = clock, step
        self.changes.update(changes, step=step)
        if now or clock >= self.due:
            self.due = clock + _EVERY_SECONDS
            times: dict[str, Any] = {"seconds": clock - self._began, "remaining": self._remaining(clock, step)}
            self._status = replace(self._status, **self.changes, **times)
            self.changes.clear()
            self._writer.live(step, self._status.to_json())
            if now and self._run is not None:
                with suppress(InputError):  # somebody has edited it by hand
                    self._update_notes(step, read_notes(self._run))

    def _update_notes(self, step: int, notes: Notes) -> None:
        if notes != self._notes:
            self._notes = notes
            self._writer.notes(step, notes.tags, notes.note)

    def carry_on(self, before: Live) -> None:
        """The numbers of another one, of the same run, until there are new ones."""
        self.changes |= {name: getattr(before._status, name) for name in _NUMBERS}

    def end(self, state: str, error: str = "") -> None:
        """Write how the run ended: completed, interrupted, pruned or failed."""
        self.update(self.changes.get("step", self._status.step), now=True, state=state, phase=state, error=error)

    def _remaining(self, clock: float, step: int) -> float | None:
        if self._training is None or step <= self._training[1]:
            return None
        since, first = self._training
        return (clock - since) / (step - first) * (self._status.steps - step)
