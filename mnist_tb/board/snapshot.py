"""All runs in, what a page has not seen yet out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from mnist_tb.events.status import RUNNING, SILENT

SILENT_SECONDS = 30.0
"""A process that is alive writes every ten seconds at least; one that has not for this long was killed."""
READ_SECONDS = 3.0
"""TensorBoard reads a file bit by bit: an old status that is not followed by a newer one for this long is the last."""


def state_of(state: str, age: float) -> str:
    """The state of a run that said `age` seconds ago that it is in `state`."""
    return SILENT if state == RUNNING and age > SILENT_SECONDS else state


def order(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Running ones first, then the newest."""
    return sorted(runs, key=lambda run: (run["state"] != RUNNING, -(run["started"] or 0.0), run["run"]))


class Snapshot:
    """Remembers in which answer each run last changed, so that a page gets only what it has not seen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = uuid.uuid4().hex  # a page that outlives the server must discard its numbers
        self._number = 0
        self._seen: dict[str, tuple[str, int]] = {}
        self._clock = clock
        self._unread: dict[str, tuple[float, float]] = {}  # run → when its status was written, and found

    def answer(self, runs: Sequence[dict[str, Any]], since: int) -> dict[str, Any]:
        """The answer's number, the time, the names of all runs in order, and the runs that changed after `since`."""
        runs = [run for run in runs if self._is_read(run)]
        contents = {run["run"]: json.dumps(run, sort_keys=True) for run in runs}
        changed = [name for name, text in contents.items() if self._seen.get(name, ("", 0))[0] != text]
        if changed or self._seen.keys() != contents.keys():
            self._number += 1
        kept = {name: self._seen[name] for name in contents if name in self._seen}
        self._seen = {**kept, **{name: (contents[name], self._number) for name in changed}}
        return {
            "server": self._server,
            "number": self._number,
            "now": time.time(),
            "names": [run["run"] for run in runs],
            "runs": [run for run in runs if self._seen[run["run"]][1] > since],
        }

    def _is_read(self, run: dict[str, Any]) -> bool:
        """Whether TensorBoard has read a run to its end: half-way there, one that has long completed looks silent."""
        name, now = run["run"], self._clock()
        if run["state"] != SILENT or name in self._seen:
            self._unread.pop(name, None)
            return True
        written, found = self._unread.get(name, (None, now))
        if written != run["written"]:
            self._unread[name] = (run["written"], now)
            return False
        return now - found >= READ_SECONDS
