"""All that a Tracker holds open: the run's files, its event writer, its status, what surrounds it; and how it ends."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_tb.config.hyperparameters import hyperparameters, seed_of, short_name
from mnist_tb.config.names import printable
from mnist_tb.environment import exits
from mnist_tb.environment.log import EnvironmentLog
from mnist_tb.environment.notify import Notifier
from mnist_tb.environment.snapshot import main_folder
from mnist_tb.environment.texts import config_text
from mnist_tb.errors import TrainingError
from mnist_tb.events.status import COMPLETED, FAILED, INTERRUPTED, RUNNING, Status
from mnist_tb.events.tags import CONFIG_TEXT
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.tracked import RunFiles
from mnist_tb.tracking.live import Live

_PATIENCE = 1.0
"""Seconds for which the end of a Tracker that is no longer in use holds up the program."""
_INTERRUPTED_BY = (130, 143)
"""Exit codes of programs that Ctrl-C and SIGTERM have ended."""


class Recording:
    """A run while this process writes it."""

    live: Live
    has_settings: bool
    """Whether HParams has them."""
    has_news: bool = False
    """Whether there are settings that are in no event file."""

    def __init__(
        self,
        open_files: Callable[[], RunFiles],
        notifier: Notifier,
        before: Recording | None = None,
        suffix: str = "",
        may_vanish: bool = False,
    ) -> None:
        """open_files: opens the folder. before: the part of the run that this process has written already.

        suffix, may_vanish: as for `EventWriter`. If it fails, nothing is left open.
        Raises what `open_files` does, and TrainingError.
        """
        with contextlib.ExitStack() as undo:
            self._environment = undo.enter_context(EnvironmentLog(main_folder(), notifier))
            self.files = undo.enter_context(open_files())
            run, asked = self.files.run, self.files.asked
            writer = EventWriter(run.path, self.files.start, self.files.id, suffix, may_vanish)
            self.writer = undo.enter_context(writer)
            self._environment.start(run, self.writer, self.files.step, asked.code, asked.system_seconds)
            status = Status(dataset=asked.dataset, steps=asked.steps, seed=seed_of(self.files.settings))
            if before is not None:
                status = replace(before.live.status, state=RUNNING, error="")
            self.live = Live(self.writer, status, self.files.seconds, run, _teller(notifier, self.files))
            self.live.update(self.files.step, now=True, phase="training")
            undo.pop_all()
        self.has_settings = before is not None and before.has_settings
        self._may_vanish, self._shown = may_vanish, dict(self.files.settings)
        self._ending, self._is_told = threading.RLock(), False
        self._began = time.monotonic()
        self._state: dict[str, Any] | None = None  # of the end
        self._error_before = exits.last_error()
        _open.add(self)
        exits.note_exits(True)
        if multiprocessing.parent_process() is not None:  # which ends without atexit
            multiprocessing.util.Finalize(None, _end_all, exitpriority=0)

    def add_settings(self, settings: Mapping[str, Any]) -> None:
        """Settings, flat, which join those of before; what HParams shows already stays. Raises TrainingError."""
        try:
            self.files.add_settings({**settings, **self._shown})
        except TrainingError:
            if not self._is_gone:
                raise
        self.live.update(self.live.step, seed=seed_of(self.files.settings))
        self.has_news = True

    def write_settings(self) -> None:
        """Write the settings to the event file. HParams takes the first that it reads, and no more."""
        deciding = hyperparameters(self.files.settings)
        if not self.has_settings:
            self.writer.hparams(deciding, group=short_name(deciding) or self.files.run.name)
        self.writer.texts(0, {CONFIG_TEXT: config_text(self.files.settings)})
        self.has_settings, self.has_news, self._shown = True, False, dict(self.files.settings)

    def state_dict(self) -> dict[str, Any]:
        """As `Tracker.state_dict`."""
        if not self.writer.enabled:
            raise TrainingError(f"{self.files.run.path}: a fork has no state to resume from: the run is its parent's")
        return self._state or self._state_with(self.writer.flush)

    def end(self, error: BaseException | None) -> None:
        """Close the run; again, or in a fork, it does nothing. error: that ended it, or a SystemExit.

        Raises TrainingError if something could not be written, unless there is an error already.
        """
        if not self.writer.enabled:
            return
        with self._ending:  # whatever interrupts it, the next one ends what is left
            if self not in _open:
                return
            failed = self._close_events(*_how(error))
            state, reason = (FAILED, str(failed)) if failed is not None and error is None else _how(error)
            changes: dict[str, Any] = {} if state == COMPLETED else {"error": reason or state}
            changes |= {"status": state, "step": self.live.step, "train_seconds": self.live.seconds}
            try:
                self.files.end(ended=time.time(), **changes)
            except TrainingError as found:
                failed = failed or (None if self._is_gone else found)
            self._environment.close(failed or error)
            _open.discard(self)
            exits.note_exits(bool(_open))
        if failed is not None and error is None:  # else the first error says more than those that follow from it
            raise failed

    def _close_events(self, state: str, reason: str) -> TrainingError | None:
        try:
            self._environment.finish()
            if self.has_news:
                self.write_settings()
            if not self._is_told:
                if state != INTERRUPTED and self.has_settings:
                    self.writer.status(state)
                self.live.end(state, reason)
                self._is_told = True
            self.writer.close()
            self._state = self._state_with(self.writer.lengths)
        except Exception as found:
            return found if isinstance(found, TrainingError) else TrainingError(f"{type(found).__name__}: {found}")
        return None

    def end_unheard(self, error: BaseException | None) -> None:
        """The same, if nobody can hear that something could not be written."""
        try:
            self.end(error)
        except TrainingError as failed:
            print(printable(str(failed)), file=sys.stderr)

    def end_lost(self) -> None:
        """The Tracker is gone, and nobody has closed it: on a thread, as any thread can be the one that finds this.

        The program's own waits for it, if not for ever: after `del tracker` the folder is nobody's.
        """
        if self.writer.enabled and self in _open:
            ending = threading.Thread(target=self.end_with_program, name="end of a run")
            ending.start()
            if threading.current_thread() is threading.main_thread():
                ending.join(_PATIENCE)

    def end_with_program(self) -> None:
        """The program ends, or what has the Tracker, and nobody has closed it."""
        since = max(self.live.last_point, self._began)  # what is logged after an exit says that it was none
        self.end_unheard(exits.ending(since, self._error_before))

    @property
    def is_open(self) -> bool:
        return self in _open

    @property
    def _is_gone(self) -> bool:
        """Whether somebody has removed the folder, which he may."""
        return self._may_vanish and not self.files.run.path.is_dir()

    def _state_with(self, lengths: Callable[[], dict[str, int]]) -> dict[str, Any]:
        """lengths: called last, so that nothing is missing that the step counts."""
        return {"run": self.files.id, "step": self.live.step, "seconds": self.live.seconds, "events": lengths()}


def open_in(folder: Path) -> Recording | None:
    """The run in a folder, given as an absolute path, while this process writes it."""
    return next((each for each in tuple(_open) if each.files.run.path == folder), None)


def _teller(notifier: Notifier, files: RunFiles) -> Callable[[str, int, float], Any]:
    run = files.run
    return lambda tag, step, value: notifier.tell(f"{run.name}: {tag} is {value}", f"at step {step:,}\n{run.path}", 0)


def _how(error: BaseException | None) -> tuple[str, str]:
    """The status of a run that an error has ended, and the reason."""
    if isinstance(error, SystemExit):
        if error.code in (None, 0, False):
            return COMPLETED, ""
        if error.code in _INTERRUPTED_BY:
            return INTERRUPTED, ""
        return FAILED, error.code if isinstance(error.code, str) else f"exit code {error.code}"
    if error is None:
        return COMPLETED, ""
    return (FAILED if isinstance(error, Exception) else INTERRUPTED), str(error) or type(error).__name__


_open: set[Recording] = set()


def _end_all() -> None:
    for recording in tuple(_open):
        recording.end_with_program()


atexit.register(_end_all)
