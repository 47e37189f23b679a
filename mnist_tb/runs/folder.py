"""The run folder: create, find, list, read back. One run is one folder `0007-name` below the log folder."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_tb.errors import InputError, InUseError, TrainingError
from mnist_tb.system import is_locked, locked, sync_folder

PREDICTION = [("label", "<i4"), ("prediction", "<i4"), ("confidence", "<f4")]
"""A row of predictions.npy, as numpy names its type."""
_FOLDER = re.compile(r"^(\d{4,})-(.+)$")
_UNFINISHED = ".unfinished-run"
_LATER = (
    "error",
    "ended",
    "test",
    "train_seconds",
    "images_per_second",
    "epoch",
    "step",
    "best_epoch",
    "best_step",
    "val",
)


@dataclass(frozen=True)
class Run:
    """A run's folder, and the names of what lies in it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def results(self) -> Path:
        return self.path / "results.png"

    @property
    def weights(self) -> Path:
        return self.path / "mnist_cnn.pth"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npy"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    def read_metrics(self) -> dict[str, Any]:
        """The contents of metrics.json. Raises InputError where it is missing or broken."""
        try:
            metrics = json.loads(self.metrics.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path}: is no run, it has no metrics.json") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{self.metrics}: cannot be read: {error}") from None
        if not isinstance(metrics, dict):
            raise InputError(f"{self.metrics}: is not a run's metrics: the top level is no mapping")
        return metrics

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Replace metrics.json in one step; whoever reads it sees the old one or the new one, whole."""
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(self.metrics, text.encode() + b"\n")

    def update_metrics(self, **changes: Any) -> None:
        """Set some keys of metrics.json and keep the rest, also where another process does the same.

        Raises OSError, also where it is no longer there, and TrainingError where it is broken.
        """
        with locked(self.path):
            try:
                known = self.read_metrics()
            except InputError as error:  # it was whole before
                os.stat(self.metrics)
                raise TrainingError(str(error)) from None
            self.write_metrics({**known, **changes})

    def restart_metrics(self) -> None:
        """Mark the run running, and take out all that came after its beginning."""
        with locked(self.path):
            known = {key: value for key, value in self.read_metrics().items() if key not in _LATER}
            self.write_metrics({**known, "status": "running"})

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the run for this process. Raises InputError where another one has it, or it is no run.

        The lock is the system's, on the folder of checkpoints: it ends with the process, however that ends.
        """
        with contextlib.ExitStack() as held:
            try:
                if not self._kept.is_dir():
                    raise InputError(f"{self.path}: is no run, it has no folder of checkpoints")
                held.enter_context(locked(self._kept, wait=False))
            except BlockingIOError:
                raise InUseError(
                    f"{self.path}: this run is in use by another process; wait until it has ended"
                ) from None
            yield

    def is_in_use(self) -> bool:
        """Whether a process has the run at the moment."""
        return is_locked(self._kept)

    @property
    def _kept(self) -> Path:
        return self.last_checkpoint.parent


def create(logdir: Path, name: str, config: str, metrics: dict[str, Any], number: int | None = None) -> Run:
    """Make a run's folder: its number, or the highest so far plus one, then the name.

    It comes into being whole, with its configuration and first metrics in it, so that it can be resumed at whatever
    instant it is killed. Two trainings that start at once get different numbers: the log folder is locked meanwhile.
    Raises InputError where the log folder cannot be made or written, TrainingError where the disk fails or is full.
    """
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        with locked(logdir):
            made = Run(logdir / _UNFINISHED)
            if made.path.is_symlink():
                made.path.unlink()  # nothing is written where a link leads to
            shutil.rmtree(made.path, ignore_errors=True)  # what a run left that was killed while it was made
            made.last_checkpoint.parent.mkdir(parents=True)
            write_atomically(made.config, config.encode())
            made.write_metrics(metrics)
            numbers = [int(match[1]) for entry in os.listdir(logdir) if (match := _FOLDER.match(entry))]
            run = Run(logdir / f"{max(numbers, default=0) + 1 if number is None else number:04d}-{name}")
            made.path.rename(run.path)
            sync_folder(logdir)
            return run
    except OSError as error:
        kind = TrainingError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else InputError
        raise kind(f"{logdir}: no run can be made here: {error.strerror}; choose another --logdir") from None


def find(logdir: Path, which: str) -> Run:
    """The run that is meant by a path, a folder's name, a number such as `7`, or `last`.

    Raises InputError, naming the nearest runs there are, where none fits.
    """
    if "/" in which or which in (".", ".."):
        if Path(which).is_dir():
            return Run(Path(which))
        raise InputError(f"{which}: no such run folder")
    found = listing(logdir)
    if which == "last" and found:
        return found[-1]
    for run in found:
        number = _FOLDER.match(run.name)
        if which in (run.name, number and number[1].lstrip("0"), number and number[1]):
            return run
    there = f"there are {', '.join(run.name for run in found[-5:])}" if found else "it has no runs yet"
    raise InputError(f"{logdir}: no run called {which!r}; {there}")


def listing(logdir: Path) -> list[Run]:
    """All run folders below a log folder, oldest number first; an absent folder has none."""
    if not logdir.is_dir():
        return []
    numbered = [
        (int(match[1]), path) for path in logdir.iterdir() if (match := _FOLDER.match(path.name)) and path.is_dir()
    ]
    return [Run(path) for _, path in sorted(numbered)]


def is_numbered(name: str) -> bool:
    """Whether a folder of this name is a run: `0007-name`."""
    return _FOLDER.match(name) is not None


def save_predictions(run: Run, labels: Any, probabilities: Any) -> None:
    """Each test image's true and predicted class and how surely, in the order of the files, for comparisons.

    labels: an integer array [N]; probabilities: a float array [N, C]. Raises OSError.
    """
    import numpy as np  # only trainings write, and they have it

    table = np.empty(len(labels), PREDICTION)
    table["label"], table["prediction"], table["confidence"] = labels, probabilities.argmax(1), probabilities.max(1)
    encoded = io.BytesIO()
    np.save(encoded, table, allow_pickle=False)
    write_atomically(run.predictions, encoded.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every instant, a power cut included, the path holds the old or the new content.

    Raises OSError that names the path; nothing is then left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    sync_folder(path.parent)
