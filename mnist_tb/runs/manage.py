"""Runs are annotated, renamed and removed, never outside their log folder. Imports no torch."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mnist_tb.config import strict_yaml
from mnist_tb.config.load import check_run_name
from mnist_tb.errors import InputError, InUseError
from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run, find_run, is_ours, is_trackers, run_number
from mnist_tb.runs.locks import locked
from mnist_tb.runs.notes import Notes, edit_notes, read_notes, write_notes

_REMOVED = ".removed-"


def run_in_logdir(logdir: Path, which: str) -> Run:
    """A run whose folder is in the log folder itself. Raises InputError for anything else."""
    run = find_run(logdir, which)
    if run.path.parent.resolve() != logdir.resolve() or not is_ours(run.path):
        raise InputError(f"{which}: is not a run in {logdir}; only those are renamed or removed")
    return run


def annotate(run: Run, add: Sequence[str] = (), remove: Sequence[str] = (), note: str | None = None) -> Notes:
    """Change a run's tags and note, as `edit_notes`; where nobody trains it, also in its event files.

    A training that is running takes them with its next status, after ten seconds at most. Raises InputError, OSError,
    and TrainingError where the events cannot be written.
    """
    before = read_notes(run)
    notes = edit_notes(run, add, remove, note)
    if notes == before:
        return notes
    with suppress(InUseError), run.in_use():
        from mnist_tb.events.writer import EventWriter

        with EventWriter(run.path) as writer:
            write_notes(writer, 0, notes)
    return notes


def rename(logdir: Path, run: Run, name: str) -> Run:
    """Give a run another name after its number; TensorBoard follows. Raises InputError, and OSError."""
    check_run_name(name)
    if run_number(run.path) is None:
        raise InputError(f"{run.path}: has no number, and keeps the name that its program gave it")
    target = Run(logdir / f"{run.name.partition('-')[0]}-{name}")
    if target.path == run.path:
        return run
    with locked(logdir):
        if target.path.exists() or target.path.is_symlink():
            raise InputError(f"{target.path}: this run exists already")
        if run.path.is_symlink():  # the link is renamed, not what it points to
            run.path.rename(target.path)
            return target
        with run.in_use():
            run.path.rename(target.path)
            if target.config.exists():
                _name_in_config(target, name)
    return target


def _name_in_config(run: Run, name: str) -> None:
    """Where a training of this program has its name; a Tracker's settings are somebody's own."""
    known = run.read_metrics() if run.metrics.exists() else {}
    if is_trackers(known):
        return
    if "name" in strict_yaml.read(run.config).values:
        text = run.config.read_text(encoding="utf-8")
        changed = re.sub(r"^name: .*$", f"name: {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
        write_atomically(run.config, changed.encode())
    if isinstance(known.get("config"), dict) and "name" in known["config"]:
        run.update_metrics(config={**known["config"], "name": name})


def remove(logdir: Path, run: Run) -> None:
    """Delete a run's folder; of a link, only the link. Raises InputError where a process is using it, and OSError.

    It disappears from the listing at once; a removal that is killed is completed by the next one.
    """
    with locked(logdir):
        if run.path.is_symlink():
            run.path.unlink()
            return
        if run.last_checkpoint.parent.is_dir():
            with run.in_use():
                hidden = _hide(logdir, run)
        else:
            hidden = _hide(logdir, run)
        for path in {hidden, *logdir.glob(f"{_REMOVED}*")}:
            if not path.is_symlink():
                shutil.rmtree(path)


def _hide(logdir: Path, run: Run) -> Path:
    free = (logdir / f"{_REMOVED}{run.name}.{number}" for number in itertools.count())
    return run.path.rename(next(path for path in free if not path.exists() and not path.is_symlink()))
