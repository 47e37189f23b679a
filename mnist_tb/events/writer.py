"""The writer of event files: every call returns at once; one thread draws, encodes and writes.

A file is a sequence of records (see `events.records`), each an `Event` protocol buffer of TensorBoard's.
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2

from mnist_tb.errors import TrainingError
from mnist_tb.events import records, summaries, tags
from mnist_tb.events.summaries import Picture

if TYPE_CHECKING:
    import torch


Entry = list[tuple[str, Any]] | Callable[[], Any]
"""What is queued: the tags and values of scalars; or a function that makes an event, or is called at a mark."""


class EventWriter:
    """Writes one run's event file; a context manager that flushes and closes it. Without a folder it writes nothing.

    step, in all calls: the number of completed optimiser updates.
    An error of the writing thread (disk full, folder gone) is raised as TrainingError by the next call, or at the end.
    Call from any thread. After a fork the child's calls do nothing: the thread, and the file, are the parent's.

    start: the first step that will be written, 0 or where a run is resumed; TensorBoard discards what it has read of
    the run from there on. None adds to the run.
    """

    FLUSH_SECONDS = 0.5
    """How often the queue is written: half a second is less than TensorBoard takes to show it."""
    HEARTBEAT_SECONDS = 10.0
    """How often the last status is repeated, so that a training between two of its points is not taken for killed."""
    LIMIT = 1024
    """How many calls may be queued before the next one waits for the disk."""

    def __init__(self, folder: Path | None, start: int | None = None) -> None:
        self._queue: deque[tuple[int, float | None, Entry]] = deque()  # step, seconds since 1970 or None for a mark
        self._last_status: tuple[int, str] | None = None
        self._last_status_time = 0.0
        self._wake = threading.Event()
        self._drained = threading.Condition()
        self._closing = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.path: Path | None = None
        self.first_step = start or 0
        self.last_step = self.first_step - 1  # that has been written
        if folder is not None:
            self._other_sizes = records.sizes(folder)
            self.path = folder / records.new_name(self._other_sizes)
            try:
                self._file = open(self.path, "xb", buffering=0)
            except OSError as error:
                raise TrainingError(f"{self.path}: cannot be written: {error.strerror}") from None
            self._thread = threading.Thread(target=self._work, name="event writer", daemon=True)
            self._thread.start()
            _writers.add(self)
            self._enqueue(0, lambda: event_pb2.Event(file_version="brain.Event:2"))
            if start is not None:
                log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._enqueue(start, lambda: event_pb2.Event(session_log=log))

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TrainingError:
            if error is None:  # else the first error says more than those that follow from it
                raise

    @property
    def enabled(self) -> bool:
        return self._thread is not None

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor], wall_time: float | None = None) -> None:
        """One point on each named curve. Tensors hold one number, on any device, and must not change afterwards.

        wall_time: when it was, seconds since 1970; now, if None.
        """
        self._enqueue(step, list(values.items()), wall_time)

    def points(self, step: int, values: list[tuple[str, Any]], wall_time: float | None = None) -> None:
        """As `scalars`; the list belongs to the writer from now on."""
        self._enqueue(step, values, wall_time)

    def event(self, step: int, make: Callable[[], event_pb2.Event], wall_time: float | None = None) -> None:
        """Any event, from a function that makes it on the writing thread."""
        self._enqueue(step, make, wall_time)

    def histograms(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """The distribution of each tensor's elements, NaN and infinities left out. The tensors are copied here."""
        copies = {tag: value.detach().clone() for tag, value in values.items()}
        self._enqueue_summary(
            step, lambda: [v for tag, value in copies.items() for v in summaries.histogram(tag, value)]
        )

    def images(self, step: int, pictures: Mapping[str, Callable[[], Picture]]) -> None:
        """Pictures, each from a function that draws it on the writing thread."""
        pictures = dict(pictures)
        self._enqueue_summary(step, lambda: [summaries.image(tag, draw()) for tag, draw in pictures.items()])

    def pr_curves(self, step: int, tables: Mapping[str, torch.Tensor]) -> None:
        """Precision-recall curves, each a table from `metrics.precision_recall`, on the CPU."""
        tables = dict(tables)
        self._enqueue_summary(step, lambda: [summaries.pr_curve(tag, table) for tag, table in tables.items()])

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        texts = dict(texts)
        self._enqueue_summary(step, lambda: [summaries.text(tag, text) for tag, text in texts.items()])

    def graph(self, graph: graph_pb2.GraphDef) -> None:
        """The network for the Graphs tab; once a run."""
        content = graph.SerializeToString()
        self._enqueue(0, lambda: event_pb2.Event(graph_def=content))

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """The Custom Scalars tab: category → chart title → tags drawn on one chart; once a run."""
        self._enqueue_summary(0, lambda: [summaries.layout(charts)])

    def hparams(self, values: Mapping[str, Any], group: str) -> None:
        """The run's hyperparameters, for the HParams tab; once a run. Runs of one group share a row, as repetitions.

        No experiment summary is written: TensorBoard then unites the hyperparameters of all runs, so that one that came
        later has its column too, and takes the live scalars as metrics.
        """
        values = dict(values)
        self._enqueue_summary(0, lambda: summaries.hparams(values, group))

    def status(self, state: str) -> None:
        """How the run ended: completed or failed. TensorBoard keeps the first end that it reads, so call it once."""
        self._enqueue_summary(0, lambda: [summaries.end(state)])

    def live(self, step: int, text: str) -> None:
        """The status of the training, as JSON, for the Live tab; no other tab shows it."""
        self._last_status, self._last_status_time = (step, text), time.monotonic()
        self._enqueue(step, lambda: _status_event(text))

    def live_data(self, step: int, tag: str, content: bytes) -> None:
        """What the Live tab alone reads, from `weights_export`: networks to try images on, and images."""
        self._enqueue_summary(step, lambda: [summaries.live(tag, content)])

    def notes(self, step: int, labels: Sequence[str], note: str) -> None:
        """A run's tags (here labels) and its note, Markdown, for the Live tab and the Text tab."""
        content = json.dumps({"tags": list(labels), "note": note}, ensure_ascii=False)
        self.live_data(step, tags.LIVE_NOTES, content.encode())
        text = "\n\n".join(line for line in [" ".join(f"`{label}`" for label in labels), *note.splitlines()] if line)
        self.texts(step, {tags.NOTES_TEXT: text or "no notes"})

    def mark(self) -> Callable[[], dict[str, int]]:
        """Mark this place in what is written.

        Returns a function that waits until all that came before it is on the disk, and returns the length in bytes of
        each of the run's event files at that place; it may be called on another thread. It raises TrainingError where
        that cannot be written.
        """
        if self._thread is None:
            return dict
        done = threading.Event()
        found: dict[str, int] = {}

        def reach() -> None:
            os.fsync(self._file.fileno())
            found.update(self._other_sizes)
            found[os.path.basename(self._file.name)] = self._file.tell()
            done.set()

        def wait() -> dict[str, int]:
            assert self._thread is not None
            while not done.wait(0.05):
                self._wake.set()
                self._raise_error()
                if not self._thread.is_alive():
                    raise TrainingError(f"{self.path}: is closed, and cannot be written any more")
            return found

        self._queue.append((0, None, reach))
        self._wake.set()
        return wait

    def flush(self) -> dict[str, int]:
        """Wait until all that was logged is on the disk; returns and raises as the function of `mark` does."""
        return self.mark()()

    def close(self) -> None:
        """Write what is left and close the file. Raises TrainingError where something could not be written."""
        if self._thread is not None and not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self._file.close()
            self._raise_error()

    def _enqueue_summary(self, step: int, values: Callable[[], Any]) -> None:
        self._enqueue(step, lambda: event_pb2.Event(summary=summary_pb2.Summary(value=values())))

    def _enqueue(self, step: int, made: Entry, wall_time: float | None = None) -> None:
        if self._thread is None:
            return
        if self._error is not None:
            self._raise_error()
        if len(self._queue) >= self.LIMIT:
            self._wake.set()
            with self._drained:
                self._drained.wait_for(lambda: len(self._queue) < self.LIMIT or self._error is not None)
        if step > self.last_step:
            self.last_step = step
        self._queue.append((step, time.time() if wall_time is None else wall_time, made))

    def _raise_error(self) -> None:
        if self._error is not None:
            reason = getattr(self._error, "strerror", None) or f"{type(self._error).__name__}: {self._error}"
            raise TrainingError(f"{self.path}: writing the events failed: {reason}") from self._error

    def _work(self) -> None:
        """The writing thread: every half second, the whole queue in one write."""
        try:
            while not (self._closing and not self._queue):
                self._wake.wait(self.FLUSH_SECONDS)
                if not self._closing:
                    self._wake.clear()
                    self._repeat_status()
                self._write_all()
        except Exception as error:  # it must reach the user, who is on the other thread
            self._error = error
            with self._drained:
                self._drained.notify_all()

    def _repeat_status(self) -> None:
        """Queue the last status once more. Without waiting for room in the queue, which only this thread makes."""
        if self._last_status is not None and time.monotonic() - self._last_status_time > self.HEARTBEAT_SECONDS:
            step, text = self._last_status
            self._last_status_time = time.monotonic()
            self._queue.append((step, time.time(), lambda: _status_event(text)))

    def _write_all(self) -> None:
        lines: list[bytes] = []
        while self._queue:
            step, wall_time, made = self._queue.popleft()
            if isinstance(made, list):
                lines.append(records.record(summaries.scalars_event(step, wall_time or 0.0, made)))
                continue
            if wall_time is None:  # a mark: what came before it is written first
                self._write(lines)
                made()
                continue
            event = made()
            event.step, event.wall_time = step, wall_time
            lines.append(records.record(event.SerializeToString()))
        with self._drained:
            self._drained.notify_all()
        self._write(lines)

    def _write(self, lines: list[bytes]) -> None:
        content = memoryview(b"".join(lines))
        while content:
            content = content[self._file.write(content) :]
        lines.clear()


def _status_event(text: str) -> Any:
    value = summaries.live(tags.LIVE_STATUS, text.encode())
    return event_pb2.Event(summary=summary_pb2.Summary(value=[value]))


_writers: weakref.WeakSet[EventWriter] = weakref.WeakSet()


def _forget() -> None:
    for writer in _writers:
        writer._thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
