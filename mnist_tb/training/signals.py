"""Ctrl-C and SIGTERM: both end a training cleanly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AT_ONCE_AFTER = 0.5
"""Seconds after which a second signal means a second Ctrl-C: one alone may arrive twice, for example through make."""


class Interruption:
    """A context in which the first signal raises KeyboardInterrupt in the main thread, and a second ends the process.

    number: of the first signal.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self._first: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():  # after an interruption the exit shall not be disturbed
            if signal.getsignal(number) == self._handle:  # else somebody has replaced it
                signal.signal(number, handler if self._first is None else signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self.number = now, signal.Signals(number)
            if _deferral.depth:
                _deferral.requested = True
            else:
                raise KeyboardInterrupt
        elif now - self._first > _AT_ONCE_AFTER:
            os._exit(128 + number)


class Deferral:
    """What `deferred` yields. requested: a signal has come; depth: of how many blocks, one within the other."""

    depth = 0
    requested = False


_deferral = Deferral()


def has_come() -> bool:
    """Whether a signal has come within `deferred`."""
    return _deferral.requested


@contextmanager
def deferred() -> Iterator[Deferral]:
    """Within, the first signal only sets `requested` of what is yielded, and the work ends itself.

    If the work ends without having checked, KeyboardInterrupt is raised at the end: of the outermost, where one is
    within another. For what must not be left half done: an exception that is raised between any two instructions can
    leave a lock held for ever.
    """
    if not _deferral.depth:
        _deferral.requested = False
    _deferral.depth += 1
    try:
        yield _deferral
    finally:
        _deferral.depth -= 1
    if _deferral.requested and not _deferral.depth:
        raise KeyboardInterrupt
