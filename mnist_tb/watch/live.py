"""The runs of a log folder as they change, for somebody who looks again and again. Imports no torch.

A run that has not changed costs one look at the date of its files; of one that has, only what is new is read.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnist_tb.events import records
from mnist_tb.events.curves import NOTHING_TOLD, Told, in_fractions
from mnist_tb.events.reader import Contents, Reader
from mnist_tb.events.status import RUNNING, Status, status_from_json
from mnist_tb.runs.folder import Run
from mnist_tb.runs.query import Problem, RunList, RunSummary, add_summary, find_runs, find_selected

_POINTS = 1_000
"""How many points of a curve are kept; a wide terminal shows 400."""
_MOST_READERS = 64


@dataclass(frozen=True)
class LiveRun:
    """A run at one moment. said: what its training last said of itself, while it runs; None of other programs'."""

    summary: RunSummary
    said: Status | None = None

    @property
    def is_running(self) -> bool:
        return self.summary.status == RUNNING

    @property
    def fraction(self) -> float | None:
        """How much of it is done, 0 to 1; None where nobody said how long it is to be."""
        if self.said is not None and self.said.steps:
            return min((self.summary.step or 0) / self.said.steps, 1.0)
        epoch, epochs = self.summary.epoch, self.summary.epochs
        return min(epoch / epochs, 1.0) if epoch is not None and epochs else None


class LiveRuns:
    """All runs of a log folder, which need not exist yet, or those that are named.

    which: as in `select_runs`; `last` is the newest at any moment. told: as in `list_runs`. waiting: how many runs are
    there that have not been read yet. watched: the names of those that are named, or were seen to run.
    """

    def __init__(self, logdir: Path, which: Sequence[str] = (), told: Told = NOTHING_TOLD) -> None:
        self.waiting = 0
        self.watched: set[str] = set()
        self._logdir, self._which, self._told = logdir, which, told
        self._known: dict[str, tuple[Any, RunList, LiveRun | None]] = {}
        self._readers: OrderedDict[Path, Reader] = OrderedDict()

    @property
    def problems(self) -> list[Problem]:
        """What could not be read."""
        return [problem for _, found, _ in self._known.values() for problem in found.problems]

    def update(self, seconds: float = float("inf")) -> list[LiveRun]:
        """The runs as they are now: those that run first, then the newest.

        seconds: how long to read; what is left is read by the next calls, the newest first, one by each at least.
        Raises InputError where a run that is named does not exist.
        """
        until = time.monotonic() + seconds
        named = self._find()
        known: dict[str, tuple[Any, RunList, LiveRun | None]] = {}
        self.waiting = 0
        is_first = True
        for name, run in reversed(named):
            before = self._known.get(name)
            mark = _mark(run)
            is_running = before is not None and before[2] is not None and before[2].is_running
            if before is not None and before[0] == mark and not is_running:
                known[name] = before
            elif before is None and not is_first and time.monotonic() > until:
                self.waiting += 1
            else:
                is_first &= before is not None  # one is read by each call, however long it takes to look for them
                known[name] = mark, *self._read(name, run)
        self._known = known
        runs = [live for _, _, live in known.values() if live is not None]
        self.watched |= {live.summary.name for live in runs if self._which or live.is_running}
        return sorted(runs, key=_order)

    def contents(self, run: RunSummary) -> Contents:
        """The curves of a run up to now; of one with more than 1,000 points, 1,000 to 2,000, evenly spaced."""
        return self._contents(run.path)

    def _contents(self, folder: Path) -> Contents:
        reader = self._reader(folder)
        reader.update()
        return reader.contents

    def _find(self) -> list[tuple[str, Run]]:
        if self._which:
            return find_selected(self._logdir, self._which)
        return find_runs(self._logdir) if self._logdir.is_dir() else []

    def _read(self, name: str, run: Run) -> tuple[RunList, LiveRun | None]:
        found = RunList([], [])
        add_summary(found, run, name, self._told, self._contents)
        if not found.runs:
            return found, None
        summary = found.runs[0]
        if not summary.native or summary.status != RUNNING:
            return found, LiveRun(summary)
        contents = self.contents(summary)
        said = None if contents.said is None else status_from_json(contents.said[0])
        return found, LiveRun(summary if said is None else _newer(summary, in_fractions(said), contents), said)

    def _reader(self, path: Path) -> Reader:
        reader = self._readers.pop(path, None) or Reader(path, _POINTS)
        self._readers[path] = reader  # the last one to be forgotten
        if len(self._readers) > _MOST_READERS:
            self._readers.popitem(last=False)
        return reader


def _newer(summary: RunSummary, said: Status, contents: Contents) -> RunSummary:
    """metrics.json is written after each epoch, the status every few seconds, the curves as soon as they are known."""
    steps = [curve[-1].step for curve in contents.curves.values()]
    return replace(
        summary,
        step=max([said.step, summary.step or 0, *steps]),
        val_accuracy=said.val_accuracy if summary.val_accuracy is None else summary.val_accuracy,
        val_loss=said.val_loss if summary.val_loss is None else summary.val_loss,
        seconds=said.seconds,
        images_per_second=said.images_per_second,
    )


def _mark(run: Run) -> Any:
    """What changes whenever something that a summary shows does."""
    stats = []
    for path in (run.metrics, run.home / "notes.json"):
        try:
            stat = os.stat(path)
            stats.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stats.append((0, 0, 0))
    if stats[0] != (0, 0, 0):
        return stats
    try:
        return records.sizes(run.path)
    except OSError:
        return None


def _order(run: LiveRun) -> tuple[Any, ...]:
    return not run.is_running, -(run.summary.started or 0.0), run.summary.name
