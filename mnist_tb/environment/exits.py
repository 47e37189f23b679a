"""How a program ends: Python says so of errors, not of exit codes."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, NoReturn

_python_exit = sys.exit
_last: tuple[Any, float] = (None, -1.0)  # the last code of sys.exit, and when it was called, by time.monotonic


def note_exits(is_wanted: bool) -> None:
    """Note the codes of sys.exit, or no more; not if another program does the like."""
    if sys.exit in (_python_exit, _noted_exit):
        sys.exit = _noted_exit if is_wanted else _python_exit


def last_error() -> Any:
    """The error that has ended the program, or a line of it."""
    return getattr(sys, "last_value", None)


def ending(since: float, before: Any) -> BaseException | None:
    """What ends the program: an error, or a SystemExit; None if it is neither.

    since: by time.monotonic; an exit before that was no end. before: an error that was no end.
    """
    code, when = _last
    if code and when > since:
        return SystemExit(code)
    error = last_error()
    is_old = error is before or error is None or error.__traceback__ is None
    return None if is_old or _is_interactive() else error


def _noted_exit(code: Any = None, /) -> NoReturn:
    global _last
    if threading.current_thread() is threading.main_thread():
        _last = code, time.monotonic()
    _python_exit(code)


def _is_interactive() -> bool:
    """Whether an error ends a line or a cell, and not the program."""
    ipython = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or bool(ipython and ipython.get_ipython())
