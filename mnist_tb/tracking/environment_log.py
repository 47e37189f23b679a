"""Records what a run is made with, beside the training: git and others may take their time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mnist_tb.errors import TrainingError
from mnist_tb.events.tags import ENVIRONMENT_TEXT
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs import environment
from mnist_tb.runs.folder import Run
from mnist_tb.tracking.texts import escape, table

_PATIENCE = 10.0
"""Seconds for which a run's end waits for what it is made with."""


class EnvironmentLog:
    """A context manager: on a thread of its own it writes environment.json, code.patch and the page of the Text tab.

    A failure costs only what it is about: nobody is told, and the training goes on.
    """

    def __init__(self, run: Run | None, writer: EventWriter, step: int, source: Path, with_code: bool = True) -> None:
        """run: None to record nothing, as in all processes but the main one. source, with_code: as in `record`."""
        self._run, self._writer, self._step = run, writer, step
        self._source, self._with_code = source, with_code
        self._thread = threading.Thread(target=self._work, name="environment", daemon=True)

    def start(self) -> EnvironmentLog:
        """Begin; returns at once."""
        if self._run is not None:
            self._thread.start()
        return self

    def finish(self) -> None:
        """Wait for it, not for ever."""
        if self._run is not None:
            self._thread.join(_PATIENCE)

    def __enter__(self) -> EnvironmentLog:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def _work(self) -> None:
        assert self._run is not None
        with suppress(OSError, TrainingError):
            found = environment.record(self._run, self._source, self._with_code)
            self._writer.texts(self._step, {ENVIRONMENT_TEXT: environment_text(found)})


def environment_text(found: Mapping[str, Any]) -> str:
    """The page of the Text tab: Markdown."""
    rows = [(name, _code(text)) for name, text in environment.facts(found)]
    rows += [(_code(name), _code(value)) for name, value in found.get("variables", {}).items()]
    packages = [(escape(name), str(version)) for name, version in found.get("packages", {}).items()]
    return f"{table(('made with', ''), rows)}\n\n{table(('package', 'version'), packages)}"


def _code(text: str) -> str:
    """In a cell of a table, as it is, but for what would end the cell or itself."""
    plain = text.replace("\n", " ").replace("|", "\\|").replace("`", "'")
    return f"`{plain}`"
