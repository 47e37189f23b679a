"""Tells how the runs on a page end, and which fall silent: a killed training can tell nobody itself."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mnist_tb.events.status import COMPLETED, FAILED, INTERRUPTED, RUNNING, SILENT

Tell = Callable[[str, str], Any]
"""Hears a title and a text; raises nothing."""

_EVERY_SECONDS = 2.0
_PATIENCE = 20.0


class Endings:
    """The states of all runs as they were last seen. TensorBoard finds them one by one: old ones are no news."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._states: dict[str, str] = {}
        self._first: dict[str, float] = {}  # run → when it had written what was seen of it first
        self._began = time.time()

    def see(self, runs: list[dict[str, Any]]) -> None:
        """The runs that have changed, as the page gets them."""
        for run in runs:
            name, state, written = run["run"], run["state"], run.get("written") or 0.0
            before = self._states.get(name)
            self._states[name] = state
            was_heard = written != self._first.setdefault(name, written)  # else it may long have been killed
            is_news = written > self._began if before is None or not was_heard else before == RUNNING
            if before != state and is_news and state in (COMPLETED, FAILED, INTERRUPTED, SILENT):
                self._tell(f"{name}: {state}", _words(run))


def tell_endings(address: str, token: str | None, tell: Tell, ended: threading.Event) -> None:
    """Ask the page at this address what has changed, until `ended` is set. token: of the page."""
    seen, number = Endings(tell), 0
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is not told the token
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    while not ended.wait(_EVERY_SECONDS):
        request = urllib.request.Request(f"{address}data/plugin/live/runs?since={number}", headers=headers)
        with (
            suppress(OSError, ValueError, KeyError),  # it has just ended, or was too busy
            opener.open(request, timeout=_PATIENCE) as answer,
        ):
            found = json.load(answer)
            number = found["number"]
            seen.see(found["runs"])


def _words(run: dict[str, Any]) -> str:
    accuracy = run.get("test_accuracy")
    lines = [
        run.get("error") or "",
        "nothing was heard of its process for half a minute" if run["state"] == SILENT else "",
        f"test accuracy {accuracy:.2%}" if isinstance(accuracy, float) else "",
        f"step {run['step']:,}" if isinstance(run.get("step"), int) else "",
    ]
    return "\n".join(line for line in lines if line)
