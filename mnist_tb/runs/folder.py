"""The run folder: created, found, listed, read back. One run is one folder `0007-name` in the log folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mnist_tb.config.hyperparameters import finite_or_none
from mnist_tb.errors import InputError, InUseError, TrainingError
from mnist_tb.events.records import own_folder
from mnist_tb.runs.files import is_temporary, read_json, write_atomically
from mnist_tb.runs.locks import is_locked, locked, sync_folder

_FOLDER = re.compile(r"^(\d{4,})-(.+)$")
_UNFINISHED = ".unfinished-run"
_ATTEMPTS, _ATTEMPT_SECONDS = 20, 0.02
_MOST_NAMED = 5
_KEYS_OF_THE_TRAINING = (
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
    """A run's folder, and the paths of what is in it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def home(self) -> Path:
        """The folder of all its files but the event files; see `own_folder`."""
        return own_folder(self.path)

    @property
    def config(self) -> Path:
        return self.home / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.home / "metrics.json"

    @property
    def results(self) -> Path:
        return self.path / "results.png"

    @property
    def weights(self) -> Path:
        return self.path / "mnist_cnn.pth"

    @property
    def predictions(self) -> Path:
        return self.home / "predictions.npy"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    def read_metrics(self) -> dict[str, Any]:
        """The contents of metrics.json. Raises InputError where it is missing or broken."""
        metrics = read_json(self.metrics)
        if metrics is None:
            raise InputError(f"{self.path}: is not a run: it has no metrics.json")
        return metrics

    def write_metrics(self, metrics: dict[str, Any], home: Path | None = None) -> None:
        """Replace metrics.json in one step: at every instant the whole old or the whole new one can be read.

        home: the folder that it is to be in from now on, if not this one.
        Numbers that are not finite become null: JSON has none.
        """
        text = json.dumps(finite_or_none(metrics), indent=2, ensure_ascii=False, allow_nan=False)
        content = text.encode(errors="backslashreplace") + b"\n"  # which are JSON's escapes
        write_atomically(self.metrics if home is None else home / "metrics.json", content)

    def update_metrics(self, **changes: Any) -> None:
        """Set some keys of metrics.json and keep the others, also while another process does the same.

        Raises OSError, also where the file is gone, and TrainingError where it is broken.
        """
        with locked(self.home):
            try:
                known = self.read_metrics()
            except InputError as error:  # it was valid before
                os.stat(self.metrics)
                raise TrainingError(str(error)) from None
            self.write_metrics({**known, **changes})

    def restart_metrics(self, **changes: Any) -> None:
        """Mark the run as running, and remove the keys that its training has written; set some others."""
        with locked(self.home):
            known = {key: value for key, value in self.read_metrics().items() if key not in _KEYS_OF_THE_TRAINING}
            self.write_metrics({**known, **changes, "status": "running"})

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Reserve the run for this process. Raises InputError if another process uses it, or it is not a run."""
        if not self._locked_folder.is_dir():
            raise InputError(f"{self.path}: is not a run: it has no folder of checkpoints")
        with reserved(self._locked_folder, self.path):
            yield

    def is_in_use(self) -> bool:
        """Whether a process is using the run."""
        return is_locked(self._locked_folder)

    def remove_temporaries(self) -> None:
        """Remove what processes left that were killed while they wrote a file. To be called with the run reserved."""
        for folder in (self.path, self._locked_folder, self.path / "projector"):
            for path in folder.glob(".*"):
                if is_temporary(path.name) and path.is_file():
                    path.unlink()

    @property
    def _locked_folder(self) -> Path:
        return self.home / "checkpoints"


@contextlib.contextmanager
def reserved(folder: Path, run: Path) -> Iterator[None]:
    """Hold the lock of a run, which is on its folder of checkpoints. Raises InUseError if another process has it.

    The lock is the operating system's: it ends with the process, however that ends.
    `is_in_use` of another process has it for an instant, and must not be taken for a training.
    """
    with contextlib.ExitStack() as held:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                held.enter_context(locked(folder, wait=False))
                break
            time.sleep(_ATTEMPT_SECONDS)
        else:
            raise InUseError(f"{run}: this run is in use by another process; wait until it has ended")
        yield


def create_run(
    logdir: Path,
    name: str,
    config: str,
    metrics: dict[str, Any],
    number: int | None = None,
    held: contextlib.ExitStack | None = None,
) -> Run:
    """Create a run's folder, named by a number, if None the highest so far plus one, and the name.

    It appears complete, with its configuration and first metrics, so that the run can be resumed whenever it is killed.
    Two trainings that start at once get different numbers: the log folder is locked meanwhile.
    held: receives the lock of `Run.in_use`, before anybody can see the run, and take it for one that was killed.
    Raises InputError where the log folder cannot be created or written, TrainingError where the disk fails or is full.
    """
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        with locked(logdir):
            unfinished = Run(logdir / _UNFINISHED)
            if unfinished.path.is_symlink():
                unfinished.path.unlink()  # nothing is written to where a link leads
            shutil.rmtree(unfinished.path, ignore_errors=True)  # left by a process that was killed here
            unfinished.last_checkpoint.parent.mkdir(parents=True)
            write_atomically(unfinished.config, config.encode())
            unfinished.write_metrics(metrics)
            taken = [used for entry in os.listdir(logdir) if (used := run_number(entry)) is not None]
            run = Run(logdir / f"{max(taken, default=0) + 1 if number is None else number:04d}-{name}")
            if held is not None and sys.platform != "win32":
                held.enter_context(unfinished.in_use())
            unfinished.path.rename(run.path)
            if held is not None and sys.platform == "win32":  # where a folder that is open cannot be renamed
                held.enter_context(run.in_use())
            sync_folder(logdir)
            return run
    except OSError as error:
        kind = TrainingError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else InputError
        raise kind(f"{logdir}: no run can be created here: {error.strerror}; choose another --logdir") from None


def find_run(logdir: Path, which: str, trained: bool = False) -> Run:
    """The run that a path, a folder's name, a number such as `7`, or `last` stands for.

    A folder in the log folder, such as a sweep's, may come before these: `lr/7`.
    trained: whether `last` is the last training of this program, and not of a Tracker.
    Raises InputError, which names the newest runs, where there is none.
    """
    if "/" in which or which in (".", ".."):
        if Path(which).is_dir():
            return Run(Path(which))
        folder, _, name = which.rpartition("/")
        if name and ".." not in Path(which).parts and not Path(which).is_absolute() and (logdir / folder).is_dir():
            return find_run(logdir / folder, name, trained)
        raise InputError(f"{which}: no such run folder")
    found = list_run_folders(logdir)
    if which == "last" and found:
        return (_last_trained(found) if trained else None) or found[-1]
    for run in found:
        if which == run.name or which.lstrip("0") == str(run_number(run.name)):
            return run
    if _is_name(which) and (logdir / which / "metrics.json").is_file():  # named by a SummaryWriter of ours
        return Run(logdir / which)
    newest = "there are" if len(found) <= _MOST_NAMED else f"the last {_MOST_NAMED} of {len(found)} are"
    there = f"{newest} {', '.join(run.name for run in found[-_MOST_NAMED:])}" if found else "it has no runs yet"
    sweeps = sorted(path.parent.name for path in logdir.glob("*/0001-*"))
    there += f"; those of a sweep are named as {sweeps[0]}/{which}" if sweeps and which.isdecimal() else ""
    raise InputError(f"{logdir}: no run called {which!r}; {there}")


def _is_name(which: str) -> bool:
    """Whether a file can have this name, as far as Linux asks."""
    return 0 < len(which.encode(errors="replace")) < 256 and "\0" not in which


def is_trackers(metrics: Mapping[str, Any]) -> bool:
    """Whether a run's metrics.json is a Tracker's: this program can neither resume nor evaluate that run."""
    return "kind" in metrics


def _last_trained(runs: list[Run]) -> Run | None:
    """The last run that is not known to be a Tracker's."""
    for run in reversed(runs):
        try:
            if not is_trackers(run.read_metrics()):
                return run
        except InputError:  # broken: whoever asks for it is told so
            return run
    return None


def list_run_folders(logdir: Path) -> list[Run]:
    """All run folders in a log folder, by their numbers; none where there is no such folder."""
    if not logdir.is_dir():
        return []
    numbered = [
        (number, path) for path in logdir.iterdir() if (number := run_number(path.name)) is not None and path.is_dir()
    ]
    return [Run(path) for _, path in sorted(numbered)]


def run_number(name: str) -> int | None:
    """The number in the name of a run's folder, 7 in `0007-name`; None for another folder's."""
    match = _FOLDER.match(name)
    return int(match[1]) if match else None


def package_versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of some packages, as metrics.json has them."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
