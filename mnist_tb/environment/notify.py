"""Tells somebody how a run ended, by Apprise: e-mail, chat, telephone, or any address that takes JSON."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from mnist_tb.config.numbers import duration, percent
from mnist_tb.errors import InputError, command_line, install_line
from mnist_tb.events.status import INTERRUPTED
from mnist_tb.runs.folder import Run
from mnist_tb.runs.query import RunList, add_summary

VARIABLE = "MNIST_TB_NOTIFY"
"""The environment variable with further addresses, separated by spaces."""
_PATIENCE = 10.0
"""Seconds that telling may take; then it is given up."""


class Notifier:
    """Where to send what is to be told. Without an address it does nothing."""

    def __init__(self, urls: Sequence[str] = ()) -> None:
        """urls: as Apprise names them, such as `mailto://…`, `slack://…`, `json://host/path`; and those of
        MNIST_TB_NOTIFY. Raises InputError where one of them is none, or Apprise is not installed."""
        self._apprise: Any = None
        wanted = [*urls, *os.environ.get(VARIABLE, "").split()]
        if not wanted:
            return
        try:
            import apprise
        except ImportError:
            raise InputError(f"--notify and {VARIABLE} need Apprise: {install_line('notify')}") from None
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it says addresses, and what cannot be reached
        self._apprise = apprise.Apprise()
        for number, url in enumerate(wanted, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
                is_known = self._apprise.add(url)
            if not is_known:  # the address is not repeated: it may have a password
                what = f"--notify, address {number}" if number <= len(urls) else VARIABLE
                raise InputError(f"{what}: is not an address that Apprise knows, such as json://localhost:8000")

    @property
    def enabled(self) -> bool:
        return self._apprise is not None

    def tell(self, title: str, text: str, patience: float = _PATIENCE) -> bool:
        """Send it; waits for so many seconds at most. Whether it has arrived everywhere by then; nothing is raised."""
        if self._apprise is None:
            return True
        arrived: list[bool] = []
        thread = threading.Thread(target=self._send, args=(title, text, arrived), name="notify", daemon=True)
        thread.start()
        thread.join(patience)
        return arrived == [True]

    def _send(self, title: str, text: str, arrived: list[bool]) -> None:
        try:
            arrived.append(bool(self._apprise.notify(title=title, body=text, body_format="text")))
        except Exception:  # each service has its own ways to fail
            arrived.append(False)


def end_message(run: Run) -> tuple[str, str]:
    """Title and text about how a run ended, as comparisons show it."""
    found = RunList([], [])
    add_summary(found, run, run.name)
    if not found.runs:
        return f"{run.name}: ended", "\n".join(problem.text for problem in found.problems)
    (known,) = found.runs
    lines = [] if known.error is None else [known.error]
    lines += [] if known.test_accuracy is None else [f"test accuracy {percent(known.test_accuracy)}%"]
    lines += [] if known.seconds is None else [f"{duration(known.seconds)} of training"]
    if known.status == INTERRUPTED:
        lines.append(f"It resumes with: {command_line('resume', run.path)}")
    return f"{run.name}: {known.status}", "\n".join([*lines, str(run.path)])
