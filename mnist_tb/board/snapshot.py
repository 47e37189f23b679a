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


def order(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Running ones first, then the newest."""
    return sorted(runs, key=lambda run: (run["state"] != RUNNING, -(run["started"] or 0.0), run["run"]))


class Snapshot:
    """Remembers in which answer each run last changed, so that a page gets only what it has not seen.

    Whether a run is silent is told by this machine's clock alone: how long ago its newest status came in here.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = uuid.uuid4().hex  # a page that outlives the server must discard its numbers
        self._number = 0
        self._runs: list[dict[str, Any]] = []
        self._seen: dict[str, tuple[str, int]] = {}
        self._clock = clock
        self._heard: dict[str, tuple[float, float]] = {}  # run → when it wrote its status, and when that was here

    def take(self, runs: Sequence[dict[str, Any]]) -> None:
        """All runs as they are now; those that run say when they wrote that."""
        self._runs = order([shown for run in runs if (shown := self._shown(run)) is not None])
        contents = {run["run"]: json.dumps(run, sort_keys=True) for run in self._runs}
        changed = [name for name, text in contents.items() if self._seen.get(name, ("", 0))[0] != text]
        if changed or self._seen.keys() != contents.keys():
            self._number += 1
        kept = {name: self._seen[name] for name in contents if name in self._seen}
        self._seen = {**kept, **{name: (contents[name], self._number) for name in changed}}

    def answer(self, since: int) -> dict[str, Any]:
        """The answer's number, the names of all runs in order, and the runs that changed after answer `since`.

        quiet: for how many seconds nothing was heard of a run that has not ended.
        """
        now = self._clock()
        return {
            "server": self._server,
            "number": self._number,
            "names": [run["run"] for run in self._runs],
            "runs": [
                {**run, "quiet": now - self._heard[run["run"]][1]} if run["state"] in (RUNNING, SILENT) else run
                for run in self._runs
                if self._seen[run["run"]][1] > since
            ],
        }

    def _shown(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """The run in its true state; None while TensorBoard reads on: half-way there, one that has ended seems to run.

        One that is alive writes no faster than time goes by; what is read of one that has ended comes all at once.
        """
        name, now = run["run"], self._clock()
        if run["state"] != RUNNING:
            self._heard.pop(name, None)
            return run
        written, heard = self._heard.get(name, (None, now))
        is_alive = written is not None and 0 < run["written"] - written <= now - heard + READ_SECONDS
        if run["written"] != written:
            heard = now
            self._heard[name] = run["written"], now
        if name not in self._seen and not is_alive and now - heard < READ_SECONDS:
            return None
        return {**run, "state": SILENT} if now - heard > SILENT_SECONDS else run
