"""The writer of event files: every call checks and converts what it is given, and returns at once; one thread writes.

A file is a sequence of records (see `events.records`), each an `Event` protocol buffer of TensorBoard's.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2

from mnist_tb.errors import TrainingError
from mnist_tb.events import records, summaries

if TYPE_CHECKING:
    import torch

OPEN, CLOSED, FAILED, ELSEWHERE, GONE = "open", "closed", "failed", "elsewhere", "gone"
"""Open: what a call is given is written. Closed: a call raises. Failed: a call raises what has failed. Elsewhere, as in
a fork, or without a folder: a call does nothing. Gone, as is the folder: the same."""

Entry = bytes | tuple[str, Callable[[], bytes]] | Callable[[], Any]
"""What is queued: an encoded event; its name and what encodes it on the writing thread; or what is called at a mark."""

_LOG, _NO_LOCK = logging.getLogger(__name__), nullcontext()
_OVERHEAD, _CHUNK = 200, 2**20  # bytes of an entry besides its content; written at once, or enough to wake the thread
_POLL_SECONDS = 0.002  # between two looks at what the writing thread has done


class EventWriter:
    """Writes one run's event file; a context manager that flushes and closes it. Without a folder it writes nothing.

    step, in all calls: the number of completed optimiser updates. wall_time: seconds since 1970; now, if None.
    A call raises TypeError or ValueError if it is given what cannot be written, and TrainingError if the writer is
    closed, or the file cannot be written (disk full). What a call has accepted is written, whatever comes after it.
    Call from any thread. After a fork the child's calls do nothing: the thread, and the file, are the parent's.

    start: the first step that will be written, 0 or where a run is resumed; TensorBoard discards what it has read of
    the run from there on. None adds to the run. owner: see `records.OWNER`. suffix: of the file's name, before that.
    may_vanish: if somebody removes the folder, that is said once, and calls do nothing; else it is a failure.
    every: called twice a second on the writing thread, to log what is due; nothing that they raise is heard.
    """

    FLUSH_SECONDS = 0.5  # less than TensorBoard takes to show what is written
    LIMIT = 2**26
    """Bytes in the queue beyond which the next call waits for the disk. A tensor of more than a quarter is not queued:
    its histogram is made by the call."""

    def __init__(
        self,
        folder: Path | None,
        start: int | None = None,
        owner: str = records.OWNER,
        suffix: str = "",
        may_vanish: bool = False,
    ) -> None:
        self._queue: deque[tuple[int, Entry]] = deque()  # bytes that it takes, and the entry
        self._queued = self._written = self._length = 0  # bytes: ever in the queue, out of it again, in the file
        self._lock = threading.RLock()  # of those that call: a signal may interrupt one, so this thread's needs none
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._state = ELSEWHERE
        self._error: BaseException | None = None
        self._said: set[str] = set()
        self.every: list[Callable[[], Any]] = []
        self.path: Path | None = None
        self.first_step = start or 0
        self.last_step = self.first_step - 1  # that has been logged
        if folder is None:
            return
        others = records.sizes(folder)
        self._own_sizes = {name: others[name] for name in records.owned(others, owner)}
        self.path = folder / records.new_name(others, f"{suffix}.{owner}")
        self._may_vanish = may_vanish
        try:
            self._file = open(self.path, "xb", buffering=0)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._state = OPEN
        self._thread = threading.Thread(target=self._work, name="event writer", daemon=True)
        self._thread.start()
        _writers.add(self)
        self.event(0, event_pb2.Event(file_version="brain.Event:2"))
        if start is not None:
            self.event(start, event_pb2.Event(session_log={"status": event_pb2.SessionLog.START}))

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The first error says more than those that follow from it.
        with nullcontext() if error is None else suppress(TrainingError):
            self.close()

    @property
    def enabled(self) -> bool:
        """Whether it writes, or has written, in this process."""
        return self._state is not ELSEWHERE

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor], wall_time: float | None = None) -> None:
        """One point on each named curve. Values are numbers, or tensors and arrays that hold one, on any device."""
        if self._state is not ELSEWHERE:
            self.points(step, summaries.numbers(values), wall_time)

    def points(self, step: int, values: list[tuple[str, Any]], wall_time: float | None = None) -> None:
        """The same, of values from `summaries.number`, in a list that belongs to the writer from now on."""
        if self._state is ELSEWHERE:
            return
        step, when = index(step), time.time() if wall_time is None else wall_time
        if all([type(value) is float for _, value in values]):  # noqa: C419 - a list is twice as fast
            self._put(step, summaries.scalars_event(step, when, values))
        else:  # on a device, whose kernels may still be running: the writing thread waits for them
            make = lambda: summaries.scalars_event(step, when, [(tag, float(value)) for tag, value in values])  # noqa: E731
            self._put(step, (values[0][0], make))

    def event(self, step: int, event: event_pb2.Event, wall_time: float | None = None) -> None:
        """Any event; its step and its time are set here."""
        if self._state is not ELSEWHERE:
            event.step, event.wall_time = index(step), time.time() if wall_time is None else wall_time
            self._put(event.step, event.SerializeToString())

    def later(self, step: int, what: str, size: int, make: Callable[[], Any], wall_time: float | None = None) -> None:
        """A summary's values, from a function that makes them on the writing thread; if it fails, that is said once.

        what: the name under which that is said. size: the bytes that the function holds.
        """
        if self._state is ELSEWHERE:
            return
        step, when = index(step), time.time() if wall_time is None else float(wall_time)
        summaries.scalars_event(step, when, [(what, 0.0)])  # raises if the step or the tag cannot be written
        self._put(step, (what, lambda: _event(make(), step, when).SerializeToString()), size)

    def histograms(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """The distribution of each tensor's elements, NaN and infinities left out. Large tensors are counted here."""
        for tag, value in values.items():
            found, size = summaries.counted(value)
            if self._state is ELSEWHERE:
                return
            if size > self.LIMIT // 4:
                self.event(step, _event(summaries.histogram(tag, found)))
            else:
                kept = found.copy() if isinstance(found, np.ndarray) else found.clone()
                self.later(step, tag, size, partial(summaries.histogram, tag, kept))

    def images(self, step: int, pictures: Mapping[str, Any]) -> None:
        """Pictures: each an array or a tensor, or a function that draws it on the writing thread."""
        if self._state is not ELSEWHERE:
            for tag, given in pictures.items():
                is_drawn = callable(given) and not hasattr(given, "detach")
                picture = given if is_drawn else summaries.picture(given)
                self.later(step, tag, getattr(picture, "nbytes", 0), partial(summaries.image, tag, picture))

    def pr_curves(self, step: int, tables: Mapping[str, torch.Tensor]) -> None:
        """Precision-recall curves, each a table from `metrics.precision_recall`, on the CPU."""
        self._summary(step, summaries.pr_curve, tables)

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        self._summary(step, summaries.text, texts)

    def live_data(self, step: int, tag: str, content: bytes) -> None:
        """What the Live tab alone reads: a status as JSON; and from `weights_export` networks, and images."""
        self._summary(step, summaries.live, {tag: content})

    def graph(self, graph: graph_pb2.GraphDef) -> None:
        """The network for the Graphs tab; once a run."""
        self.event(0, event_pb2.Event(graph_def=graph.SerializeToString()))

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """The Custom Scalars tab: category → chart title → tags drawn on one chart; once a run."""
        self.event(0, _event([summaries.layout(charts)]))

    def hparams(self, values: Mapping[str, Any], group: str) -> None:
        """The run's hyperparameters, for the HParams tab; once a run. Runs of one group share a row, as repetitions.

        No experiment summary is written: TensorBoard then unites the hyperparameters of all runs, so that one that came
        later has its column too, and takes the live scalars as metrics.
        """
        self.event(0, _event(summaries.hparams(values, group)))

    def status(self, state: str) -> None:
        """How the run ended: completed or failed. TensorBoard keeps the first end that it reads, so call it once."""
        self.event(0, _event([summaries.end(state)]))

    def mark(self) -> Callable[[], dict[str, int]]:
        """Mark this place in what is written.

        Returns a function that waits until all that came before it is on the disk, and returns the length in bytes of
        each of the run's own event files at that place; it may be called on another thread. It raises TrainingError if
        that cannot be written.
        """
        found: dict[str, int] = {}

        def reach() -> None:
            os.fsync(self._file.fileno())
            found.update(self.lengths())

        def wait() -> dict[str, int]:
            while self._state not in (ELSEWHERE, GONE) and not found:
                if self._error is not None:
                    self._refuse()
                if threading.current_thread() is self._thread:
                    raise TrainingError(f"{self.path}: what draws a picture cannot wait until it is written")
                time.sleep(_POLL_SECONDS)
            return found

        if self._state is not ELSEWHERE:
            self._put(self.last_step, reach)
            self._wake.put(None)
        return wait

    def flush(self) -> dict[str, int]:
        """Wait until all that was logged is on the disk; returns and raises as the function of `mark` does."""
        return self.mark()()

    def lengths(self) -> dict[str, int]:
        """The run's own event files, and how long they are, as far as they are written."""
        return {**self._own_sizes, os.path.basename(self._file.name): self._length}

    def close(self) -> None:
        """Write what is left and close the file; again, it does nothing. Raises TrainingError if that fails."""
        if self._state is ELSEWHERE:
            return
        with self._lock:
            self._state = CLOSED if self._state is not GONE else GONE
        if not self._file.closed and threading.current_thread() is not self._thread:
            self._wake.put(None)
            self._thread.join()
            self._file.close()
            if self._error is not None:
                self._refuse()

    def _summary(self, step: int, make: Callable[[str, Any], Any], values: Mapping[str, Any]) -> None:
        if self._state is not ELSEWHERE:
            self.event(step, _event([make(tag, value) for tag, value in values.items()]))

    def _put(self, step: int, entry: Entry, size: int = 0) -> None:
        own = threading.get_ident() == self._thread.ident  # it needs no room, and no lock that it might wait for
        size = 0 if own else size + _OVERHEAD + (len(entry) if type(entry) is bytes else 0)
        while not own and self._queued - self._written >= self.LIMIT and self._state is OPEN:
            self._wake.put(None)
            time.sleep(_POLL_SECONDS)
        with _NO_LOCK if own else self._lock:
            if self._state is GONE:
                return
            if self._state is not OPEN:
                self._refuse()
            self._queue.append((size, entry))
            self._queued += size
            if step > self.last_step:
                self.last_step = step
        if self._queued - self._written > _CHUNK and self._wake.empty():
            self._wake.put(None)

    def _refuse(self) -> None:
        why = "is closed: nothing more can be logged to it"
        if self._error is not None:
            why = f"writing the events failed: {getattr(self._error, 'strerror', None) or self._error}"
        raise TrainingError(f"{self.path}: {why}") from self._error

    def _work(self) -> None:
        """The writing thread: what is due, and the whole queue, twice a second."""
        try:
            due = 0.0
            while self._state is OPEN or self._queue:  # what was accepted before it was closed is written
                with suppress(queue.Empty):
                    self._wake.get(timeout=self.FLUSH_SECONDS if self._state is OPEN else 0.0)
                if self._state is OPEN and (now := time.monotonic()) >= due:
                    due = now + self.FLUSH_SECONDS
                    os.stat(self._file.name)  # else the folder is gone
                    for call in tuple(self.every):
                        with suppress(BaseException):
                            call()
                self._write_all()
        except BaseException as error:  # it must reach the user, who is on another thread
            if self._may_vanish and isinstance(error, FileNotFoundError):
                self._state = GONE
                _say("%s: is gone: nothing more is logged to it", self.path)
            else:
                self._error = error
                self._state = FAILED if self._state is OPEN else self._state
            self._queue.clear()

    def _write_all(self) -> None:
        lines: list[bytes] = []
        done = length = 0
        for left in reversed(range(len(self._queue))):  # what comes meanwhile has its turn after what is due
            size, entry = self._queue.popleft()
            done += size
            if isinstance(entry, tuple):
                content = self._made(*entry)
            elif isinstance(entry, bytes):
                content = entry
            else:  # a mark: what came before it is written first
                self._write(lines)
                content = entry() or b""
            if content:
                lines.append(records.record(content))
                length += len(content)
            if done > _CHUNK or length > _CHUNK or not left:
                self._write(lines)
                self._written += done
                done = length = 0

    def _made(self, what: str, encode: Callable[[], bytes]) -> bytes:
        """An event, encoded; if that fails, it is said once, and what else is logged is written."""
        try:
            return encode()
        except BaseException as error:  # a drawing function may exit
            if what not in self._said:
                self._said.add(what)
                _say("%s: %s is not written: %s: %s", self.path, what, type(error).__name__, error)
            return b""

    def _write(self, lines: list[bytes]) -> None:
        content = memoryview(b"".join(lines))
        self._length += len(content)
        while content:
            content = content[self._file.write(content) :]
        lines.clear()


def _say(*arguments: Any) -> None:
    with suppress(Exception):  # of somebody's handler
        _LOG.warning(*arguments)


def _event(values: Any, step: int = 0, wall_time: float = 0.0) -> event_pb2.Event:
    return event_pb2.Event(summary=summary_pb2.Summary(value=values), step=step, wall_time=wall_time)


_writers: weakref.WeakSet[EventWriter] = weakref.WeakSet()


def _forget() -> None:
    for writer in _writers:
        writer._state = ELSEWHERE


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
