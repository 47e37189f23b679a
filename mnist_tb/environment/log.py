"""Keeps what surrounds a training, beside it: what it is made with, what the machine does, what it prints."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mnist_tb.environment.console import ConsoleLog
from mnist_tb.environment.notify import Notifier, end_message
from mnist_tb.environment.snapshot import gather_recent, record
from mnist_tb.environment.summary import facts
from mnist_tb.environment.system import Sensors
from mnist_tb.environment.texts import code, escape, table
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.events.tags import ENVIRONMENT_TEXT
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run

SYSTEM_SECONDS = 5.0
_PATIENCE = 10.0
"""Seconds for which a run's end waits for what it is made with."""


class EnvironmentLog:
    """Writes environment.json, code.patch, console.log and the curves under `system/`, on other threads.

    Its first part is over before the run is there: from its making on it keeps what is printed, and asks git. A context
    manager, which in the end tells who wants to be told. A failure costs only what it is about: the training goes on.
    """

    def __init__(self, source: Path | None, notifier: Notifier | None = None) -> None:
        """source: a folder of the code that trains, or None to keep nothing, as in all processes but the main one."""
        self._notifier = notifier
        self._run: Run | None = None
        self._writer: EventWriter | None = None
        self._thread: threading.Thread | None = None
        self._sensors = Sensors(0.0)
        self._last_step = 0
        self._source = source
        self._console = None if source is None else ConsoleLog()

    def __enter__(self) -> EnvironmentLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def start(
        self, run: Run, writer: EventWriter, step: int, with_code: bool = True, system_seconds: float = SYSTEM_SECONDS
    ) -> None:
        """The run is there, at `step`, to write to; returns at once.

        with_code: whether its code is kept. system_seconds: between two points of the curves under `system/`, or 0.
        """
        if self._source is None or self._console is None:
            return
        self._run, self._writer, self._last_step = run, writer, writer.first_step - 1
        self._console.attach(run.path)
        self._sensors = Sensors(system_seconds)
        work = (self._source, run, writer, step, with_code)
        self._thread = threading.Thread(target=self._work, args=work, name="environment", daemon=True)
        self._thread.start()
        writer.every.append(self._tick)

    def finish(self) -> None:
        """The writer is about to be closed: wait for what is under way, not for ever."""
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    @contextmanager
    def recording(
        self, run: Run, writer: EventWriter, step: int, with_code: bool, system_seconds: float
    ) -> Iterator[None]:
        """From `start` to `finish`."""
        self.start(run, writer, step, with_code, system_seconds)
        try:
            yield
        finally:
            self.finish()

    def close(self, error: BaseException | None = None) -> None:
        """The run is over, as its metrics.json says. error: that ended it, for console.log."""
        self.finish()
        if self._console is not None:
            if isinstance(error, Exception):
                known = isinstance(error, (InputError, TrainingError))
                self._console.add(f"Error: {error}\n" if known else "".join(traceback.format_exception(error)))
            self._console.close()
        if self._run is not None and self._notifier is not None and self._notifier.enabled:
            self._notifier.tell(*end_message(self._run))

    def _work(self, source: Path, run: Run, writer: EventWriter, step: int, with_code: bool) -> None:
        with suppress(Exception):  # whatever this machine is like, its description is not worth a training
            found, patch = gather_recent(source, with_code)
            record(run, found, patch)
            writer.texts(step, {ENVIRONMENT_TEXT: environment_text(found)})

    def _tick(self) -> None:
        """On the writing thread, twice a second."""
        assert self._console is not None
        assert self._writer is not None
        self._console.flush()
        if (now := self._writer.last_step) > self._last_step and (reading := self._sensors.due()):  # one point a step
            self._last_step = now
            self._writer.scalars(now, reading)


def environment_text(found: Mapping[str, Any]) -> str:
    """The page of the Text tab: Markdown."""
    rows = [(name, code(text)) for name, text in facts(found)]
    rows += [(code(name), code(value)) for name, value in found.get("variables", {}).items()]
    packages = [(escape(name), str(version)) for name, version in found.get("packages", {}).items()]
    return f"{table(('made with', ''), rows)}\n\n{table(('package', 'version'), packages)}"
