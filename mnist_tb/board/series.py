"""What only the Live tab reads, from TensorBoard's data provider: a run's newest status, bytes such as weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tensorboard.data import provider

from mnist_tb.events import status, tags
from mnist_tb.events.curves import in_fractions
from mnist_tb.events.status import Status

Where = Mapping[str, Any]
"""The arguments of a data provider that say which experiment is asked for."""


def newest(source: provider.DataProvider, where: Where, runs: Sequence[str] | None, tag: str) -> dict[str, Any]:
    """Run → the newest datum of a tag, of those runs that have one; None: all runs."""
    only = provider.RunTagFilter(runs=runs, tags=[tag])
    found = source.read_tensors(**where, plugin_name=status.PLUGIN, downsample=1, run_tag_filter=only)
    return {run: series[tag][-1] for run, series in found.items() if series.get(tag)}


def statuses(
    source: provider.DataProvider, where: Where, runs: Sequence[str] | None = None
) -> dict[str, tuple[Status, float]]:
    """Run → its newest status, and when it was written, seconds since 1970; without those that have none."""
    found = newest(source, where, runs, tags.LIVE_STATUS).items()
    known = {run: (status.status_from_json(content(datum)), datum.wall_time) for run, datum in found}
    return {run: (in_fractions(said), wall_time) for run, (said, wall_time) in known.items() if said is not None}


def notes_of(source: provider.DataProvider, where: Where) -> dict[str, dict[str, Any]]:
    """Run → its tags and its note, of the runs that have any."""
    found = {}
    for run, datum in newest(source, where, None, tags.LIVE_NOTES).items():
        with suppress(ValueError, RecursionError):
            said = json.loads(content(datum))
            if isinstance(said, dict) and isinstance(said.get("tags"), list) and isinstance(said.get("note"), str):
                found[run] = {"tags": [str(tag) for tag in said["tags"]], "note": said["note"]}
    return found


def content(datum: Any) -> bytes:
    """The bytes of a string tensor; empty where it is something else."""
    value = datum.numpy.reshape(-1)
    return bytes(value[0]) if len(value) and isinstance(value[0], bytes) else b""
