"""The command watch: runs as they change, as a page in the terminal, as lines, or as JSON. It imports no torch."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_tb.cli.options import json_option, logdir_option, metric_option, say
from mnist_tb.errors import TrainingError
from mnist_tb.events.status import FAILED, KILLED

if TYPE_CHECKING:
    from mnist_tb.watch.live import LiveRun, LiveRuns

_EVERY_SECONDS = 1.0
_SILENCE_SECONDS = 10.0
"""After so long a line says how far a run is that has not ended an epoch."""
_BAD = (FAILED, KILLED)
_NOW = ("phase", "steps", "loss", "accuracy", "lr", "remaining")


@click.command("watch")
@click.argument("run", nargs=-1)
@click.option("--until-end", is_flag=True, help="End as soon as none of them runs; exit code 1 where one has failed.")
@json_option
@metric_option
@logdir_option
def watch_command(run: tuple[str, ...], until_end: bool, as_json: bool, told: tuple[str, ...], logdir: Path) -> None:
    """Watch all runs, or each RUN, in the terminal: states, progress, charts.

    If the output goes elsewhere, it is a line for each run, and another when one begins, goes on or ends; with --json,
    a JSON object.
    """
    from mnist_tb.runs.values import read_told
    from mnist_tb.watch.live import LiveRuns

    metrics = read_told(told)
    runs = LiveRuns(logdir, run, metrics)
    runs.update(0)  # complains of a run that does not exist
    if as_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        last = _follow(runs, logdir, as_json, until_end)
    else:
        from mnist_tb.watch.page import show_page

        last = show_page(runs, logdir, until_end, metrics)
    bad = [each.summary for each in last if each.summary.name in runs.watched and each.summary.status in _BAD]
    if until_end and bad:
        raise TrainingError(", ".join(f"{summary.name}: {summary.status}" for summary in bad))


def _follow(runs: LiveRuns, logdir: Path, as_json: bool, until_end: bool) -> list[LiveRun]:
    """Print how each run is, and then what is news, for ever or until none of the runs runs; returns all of them."""
    from mnist_tb.watch.words import line

    if not logdir.exists():
        say(f"{logdir}: is not there yet; its runs appear as they begin.", err=True)
    said: dict[str, tuple[Any, int | None, float]] = {}
    while True:
        found = runs.update()
        for run in reversed(found):
            name, step, now = run.summary.name, run.summary.step, time.monotonic()
            news = run.summary.status, run.summary.epoch
            before, its_step, when = said.get(name, (None, None, 0.0))
            if news != before or (step != its_step and now > when + _SILENCE_SECONDS):
                said[name] = news, step, now
                say(json.dumps(to_dict(run)) if as_json else line(run))
        if until_end and not any(run.is_running for run in found):
            return found
        time.sleep(_EVERY_SECONDS)


def to_dict(run: LiveRun) -> dict[str, Any]:
    """As `LoadedRun.to_dict`, and what a training says while it runs; numbers that are not finite are None."""
    from mnist_tb.analysis.loading import LoadedRun
    from mnist_tb.config.hyperparameters import finite_or_none

    now = {key: getattr(run.said, key, None) for key in _NOW}
    known: dict[str, Any] = finite_or_none({**LoadedRun(run.summary).to_dict(), **now})
    return known
