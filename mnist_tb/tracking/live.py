"""Writes the status of a training for the Live tab, at most once a second; and its notes, if they have changed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mnist_tb.errors import InputError
from mnist_tb.events.curves import fields
from mnist_tb.events.status import Status
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run
from mnist_tb.runs.notes import Notes, read_notes, write_notes

_EVERY_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
"""How often a status is repeated, so that a training between two of its points is not taken for killed."""
_MOST_TAGS = 200
"""So many tags are remembered that say nothing here, and so many that may be curves which the status shows."""


class Live:
    """A run's Status, and when it was last written. The event writer's thread writes it too. Call from any thread."""

    def __init__(
        self,
        writer: EventWriter,
        status: Status,
        seconds: float = 0.0,
        run: Run | None = None,
        diverged: Callable[[str, int, float], Any] | None = None,
    ) -> None:
        """seconds: for which the run has been trained before. run: whose notes are written; None for none.

        diverged: hears tag, step and value of the first loss that is NaN or infinite.
        """
        self._writer = writer
        self.status = status
        self.step = status.step
        self._changes: dict[str, Any] = {}  # what is to be in the next status that is written
        self._fields: dict[str, str | None] = {}  # tag → its field in the status, or None
        self._meant: list[str] = []  # the tags that may have a field
        self._changing = threading.RLock()
        self._due = 0.0  # when that is, by time.perf_counter; 0 before the first one
        self._began = time.perf_counter() - seconds
        self._run = run
        self._notes = Notes()
        self._diverged = diverged
        self._training: tuple[float, int] | None = None  # when the training began, and after how many updates
        self.last_point = 0.0
        """When `see` was last called, by time.monotonic."""
        writer.every.append(self.beat)

    @property
    def seconds(self) -> float:
        """For which the run has been trained."""
        return time.perf_counter() - self._began

    def see(self, step: int, values: Iterable[tuple[str, Any]]) -> None:
        """Points of curves of any name, from `summaries.number`: those that the status shows are in the next one."""
        if not self._writer.enabled:
            return
        with self._changing:
            self.last_point = time.monotonic()
            if step > self.step:
                self.step = step
            for tag, value in values:
                field = self._fields.get(tag, "")
                if field == "":
                    field = self._meet(tag)
                if field is not None:
                    self._changes[field] = value
                    if self._diverged and type(value) is float and not math.isfinite(value) and field.endswith("loss"):
                        self._diverged(tag, step, value)
                        self._diverged = None

    def update(self, step: int, now: bool = False, **changes: Any) -> None:
        """Set what has changed after `step` updates; write it if a second has passed, or `now`."""
        if not self._writer.enabled:
            return
        clock = time.perf_counter()
        with self._changing:
            if self._training is None and changes.get("phase") == "training":
                self._training = clock, step
            self.step = step
            self._changes.update(changes)
            if now or clock >= self._due:
                self._write(clock)

    def beat(self) -> None:
        """Write what has changed, if it is due; and repeat what has not, now and then."""
        clock = time.perf_counter()
        if not self._changing.acquire(timeout=0.5):  # a signal has interrupted who has it, and waits for this thread
            return
        try:
            is_new = self._changes or self.step != self.status.step
            if clock >= self._due and (is_new or 0 < self._due <= clock - HEARTBEAT_SECONDS + _EVERY_SECONDS):
                self._write(clock)
        finally:
            self._changing.release()

    def end(self, state: str, error: str = "") -> None:
        """Write how the run ended: completed, interrupted, pruned or failed."""
        self.update(self.step, now=True, state=state, phase=state, error=error)

    def _meet(self, tag: str) -> str | None:
        """The field of a new curve, which may be more fitting than another one for it."""
        if not fields([tag]):
            if len(self._fields) < _MOST_TAGS:
                self._fields[tag] = None
            return None
        if len(self._meant) < _MOST_TAGS:
            self._meant.append(tag)
            self._fields = {**dict.fromkeys([*self._fields, *self._meant]), **fields(self._meant)}
        return self._fields.get(tag)

    def _write(self, clock: float) -> None:
        self._due = clock + _EVERY_SECONDS
        step = self.step
        times: dict[str, Any] = {"step": step, "seconds": self.seconds, "remaining": self._remaining(clock, step)}
        changes, self._changes = self._changes, {}
        for name in [name for name, value in changes.items() if hasattr(value, "detach")]:
            value = changes.pop(name)
            with suppress(Exception):  # of a device, which may have failed
                changes[name] = float(value)
        self.status = replace(self.status, **changes, **times)
        self._writer.live_data(step, LIVE_STATUS, self.status.to_json().encode(errors="backslashreplace"))
        if self._run is not None:
            with suppress(InputError):  # somebody has edited it by hand
                self._update_notes(step, read_notes(self._run))

    def _update_notes(self, step: int, notes: Notes) -> None:
        if notes != self._notes:
            self._notes = notes
            write_notes(self._writer, step, notes)

    def _remaining(self, clock: float, step: int) -> float | None:
        if self._training is None or step <= self._training[1]:
            return None
        since, first = self._training
        return (clock - since) / (step - first) * (self.status.steps - step)
