"""HOW things reach an event file: the only module that knows the event writer.

Every call notes what is to be written and returns at once; one thread draws, encodes and writes. A file holds records
(see `events`), each an `Event` protocol buffer of TensorBoard's.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2

from mnist_tb.errors import TrainingError
from mnist_tb.events import records as events
from mnist_tb.events import status, summaries
from mnist_tb.events.summaries import Picture


class EventWriter:
    """Writes one run's event file; a context manager that flushes and closes it.

    The step is passed in every call: the number of completed optimiser updates. With no folder it writes nothing.
    An error of the writing thread (disk full, folder gone) is raised as TrainingError by the next call, or at the end.
    Call from one thread; `flush`, and what `mark` gives, from any.

    start: the first step of what a training will write here, 0 or where it goes on; TensorBoard forgets what it has
    read of the run from there on. None adds to what there is.
    """

    FLUSH_SECONDS = 0.5
    """How often what was noted is written: half a second is less than TensorBoard takes to show it."""
    LIMIT = 4096
    """How many calls may wait to be written before the next one waits for the disk."""

    def __init__(self, folder: Path | None, start: int | None = None) -> None:
        self._jobs: deque[tuple[int, float, Callable[[], Any]]] = deque()  # step, time, what makes the event
        self._wake = threading.Event()
        self._drained = threading.Condition()
        self._closing = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.path: Path | None = None
        if folder is not None:
            self._others = events.sizes(folder)
            self.path = folder / events.new_name(self._others)
            try:
                self._file = open(self.path, "xb", buffering=0)
            except OSError as error:
                raise TrainingError(f"{self.path}: cannot be written: {error.strerror}") from None
            self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
            self._thread.start()
            self._note(0, lambda: event_pb2.Event(file_version="brain.Event:2"))
            if start is not None:
                log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._note(start, lambda: event_pb2.Event(session_log=log))

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TrainingError:
            if error is None:  # else the first error tells more than what it left behind
                raise

    @property
    def enabled(self) -> bool:
        return self._thread is not None

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """One point on each named curve. Tensors hold one number, on any device, and must not change afterwards."""
        values = dict(values)
        self._note_summary(step, lambda: [summaries.scalar(tag, value) for tag, value in values.items()])

    def histograms(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """The distribution of each tensor's elements, NaN and infinities left out. The tensors are copied here."""
        copies = {tag: value.detach().clone() for tag, value in values.items()}
        self._note_summary(step, lambda: [v for tag, value in copies.items() for v in summaries.histogram(tag, value)])

    def images(self, step: int, pictures: Mapping[str, Callable[[], Picture]]) -> None:
        """Pictures, each from a function that draws it on the writing thread."""
        pictures = dict(pictures)
        self._note_summary(step, lambda: [summaries.image(tag, draw()) for tag, draw in pictures.items()])

    def pr_curves(self, step: int, tables: Mapping[str, torch.Tensor]) -> None:
        """Precision-recall curves, each a table from `metrics.precision_recall`, on the CPU."""
        tables = dict(tables)
        self._note_summary(step, lambda: [summaries.pr_curve(tag, table) for tag, table in tables.items()])

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        texts = dict(texts)
        self._note_summary(step, lambda: [summaries.text(tag, text) for tag, text in texts.items()])

    def graph(self, graph: graph_pb2.GraphDef) -> None:
        """The network for the Graphs tab; once a run."""
        content = graph.SerializeToString()
        self._note(0, lambda: event_pb2.Event(graph_def=content))

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """The Custom Scalars tab: category → chart title → tags drawn on one chart; once a run."""
        self._note_summary(0, lambda: [summaries.layout(charts)])

    def hparams(self, values: Mapping[str, Any], group: str) -> None:
        """The run's settings, for the HParams tab; once a run. Runs of one group share a row, as repetitions.

        No experiment summary is written: TensorBoard then unites the settings of all runs, so that one which came
        later has its column too, and takes the live scalars as metrics.
        """
        values = dict(values)
        self._note_summary(0, lambda: summaries.hparams(values, group))

    def status(self, state: str) -> None:
        """How the run ended: completed or failed. TensorBoard keeps the first end it reads, so call it once."""
        self._note_summary(0, lambda: [summaries.end(state)])

    def live(self, step: int, text: str) -> None:
        """How the training stands, as JSON, for the Live tab; no other tab shows it."""
        self._note_summary(step, lambda: [summaries.live(status.TAG, text.encode())])

    def weights(self, step: int, content: bytes) -> None:
        """A network for the Live tab to try drawings on, from `exported.encode`."""
        self._note_summary(step, lambda: [summaries.live(status.WEIGHTS_TAG, content)])

    def mark(self) -> Callable[[], dict[str, int]]:
        """Note that this is the place: what is noted after it does not count.

        The function returned waits until all that was noted before is on the disk, and says how long each event file of
        the run then was, in bytes; it may be called on another thread. It raises TrainingError where that cannot be
        written.
        """
        if self._thread is None:
            return dict
        done = threading.Event()
        found: dict[str, int] = {}

        def reach() -> None:
            os.fsync(self._file.fileno())
            found.update(self._others)
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

        self._jobs.append((0, 0.0, reach))
        self._wake.set()
        return wait

    def flush(self) -> dict[str, int]:
        """Have all that was noted so far on the disk; returns and raises as what `mark` gives."""
        return self.mark()()

    def close(self) -> None:
        """Write what is left and close the file. Raises TrainingError where something could not be written."""
        if self._thread is not None and not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self._file.close()
            self._raise_error()

    def _note_summary(self, step: int, values: Callable[[], Any]) -> None:
        self._note(step, lambda: event_pb2.Event(summary=summary_pb2.Summary(value=values())))

    def _note(self, step: int, make: Callable[[], Any]) -> None:
        if self._thread is None:
            return
        self._raise_error()
        if len(self._jobs) >= self.LIMIT:
            self._wake.set()
            with self._drained:
                self._drained.wait_for(lambda: len(self._jobs) < self.LIMIT or self._error is not None)
        self._jobs.append((step, time.time(), make))

    def _raise_error(self) -> None:
        if self._error is not None:
            reason = getattr(self._error, "strerror", None) or f"{type(self._error).__name__}: {self._error}"
            raise TrainingError(f"{self.path}: writing the events failed: {reason}") from self._error

    def _work(self) -> None:
        """The writing thread: every half second, everything that was noted in one write."""
        try:
            while not (self._closing and not self._jobs):
                self._wake.wait(self.FLUSH_SECONDS)
                if not self._closing:
                    self._wake.clear()
                self._write_all()
        except Exception as error:  # it must reach the user, who is on the other thread
            self._error = error
            with self._drained:
                self._drained.notify_all()

    def _write_all(self) -> None:
        records: list[bytes] = []
        while self._jobs:
            step, wall_time, make = self._jobs.popleft()
            if wall_time == 0.0:  # a mark: what was noted before it is written before it
                self._write(records)
            event = make()
            if event is not None:
                event.step, event.wall_time = step, wall_time
                records.append(events.record(event.SerializeToString()))
        with self._drained:
            self._drained.notify_all()
        self._write(records)

    def _write(self, records: list[bytes]) -> None:
        content = memoryview(b"".join(records))
        while content:
            content = content[self._file.write(content) :]
        records.clear()
