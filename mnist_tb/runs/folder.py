"""The run folder: created, found, listed, read back. One run is one folder `0007-name` in the log folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
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
from mnist_tb.events.records import open_regular, own_folder, sizes
from mnist_tb.runs.files import is_temporary, read_json, write_atomically
from mnist_tb.runs.locks import is_locked, locked, sync_folder

_NUMBERED = re.compile(r"(\d{4,})-.+")
_OUR_VERSION = re.compile(rb'"versions":\s*\{[^}]*"mnist-tb":')
_BEGINNING = 2**16
"""Bytes of a metrics.json, in which our version is, unless the settings are very long."""
_OUR_BEGINNINGS = b'{"status":', b'{"config":'
_OUR_EVENTS = re.compile(r"tfevents.*\.(mnist_tb|[0-9a-f]{12})$")
_UNFINISHED = ".unfinished-run"
_ATTEMPTS, _ATTEMPT_SECONDS = 20, 0.02
_MOST_NAMED = 5
KEYS_OF_THE_TRAINING = (
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
            known = {key: value for key, value in self.read_metrics().items() if key not in KEYS_OF_THE_TRAINING}
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
            run = Run(logdir / (_free_name(logdir, name) if number is None else f"{number:04d}-{name}"))
            if number is not None and os.path.lexists(run.path):
                raise FileExistsError(errno.EEXIST, f"{run.name} is there already")
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
    if which == "last" and (last := _last(logdir, trained)):
        return last
    for run in list_run_folders(logdir, which):
        return run
    if which and is_ours(logdir / which):  # named by a SummaryWriter of ours
        return Run(logdir / which)
    raise InputError(f"{logdir}: no run called {which!r}; {_what_there_is(logdir, which)}")


def _what_there_is(logdir: Path, which: str) -> str:
    """The newest runs, and the folder of a sweep that may be meant."""
    found = list_run_folders(logdir)
    newest = "there are" if len(found) <= _MOST_NAMED else f"the last {_MOST_NAMED} of {len(found)} are"
    there = f"{newest} {', '.join(run.name for run in found[-_MOST_NAMED:])}" if found else "it has no runs yet"
    below = (path.parent for path in sorted(logdir.glob("*/*/metrics.json")) if which.isdecimal())
    sweep = next((folder.parent.name for folder in below if run_number(folder) is not None), None)
    return there if sweep is None else f"{there}; those of a sweep are named as {sweep}/{which}"


def is_trackers(metrics: Mapping[str, Any]) -> bool:
    """Whether a run's metrics.json is a Tracker's: this program can neither resume nor evaluate that run."""
    return "kind" in metrics


def _last(logdir: Path, trained: bool) -> Run | None:
    """The last run; if `trained`, the last that is not known to be a Tracker's, if there is one."""
    runs = (Run(path) for _, path in reversed(_numbered(logdir)) if run_number(path) is not None)
    last = next(runs, None)
    for run in itertools.chain([last], runs) if trained and last else ():
        try:
            if not is_trackers(run.read_metrics()):
                return run
        except InputError:  # broken: whoever asks for it is told so
            return run
    return last


def list_run_folders(logdir: Path, which: str | None = None) -> list[Run]:
    """The runs that this program has made in a log folder, by their numbers; none where there is no such folder.

    which: those alone of this name or number, such as `7`.
    """
    which_number = (which or "").lstrip("0")
    wanted = (path for n, path in _numbered(logdir) if which in (None, path.name) or which_number == str(n))
    return [Run(path) for path in wanted if run_number(path) is not None]


def _numbered(logdir: Path) -> list[tuple[int, Path]]:
    """Whatever is named as our runs are, by its number."""
    paths = logdir.iterdir() if logdir.is_dir() else ()
    return sorted((int(match[1]), path) for path in paths if (match := _NUMBERED.fullmatch(path.name)))


def _free_name(logdir: Path, name: str) -> str:
    """The highest number of our runs so far plus one, and the name; or the next one that nothing has."""
    last = _last(logdir, trained=False)
    first = 1 if last is None else (run_number(last.path) or 0) + 1
    names = (f"{number:04d}-{name}" for number in itertools.count(first))
    return next(name for name in names if not os.path.lexists(logdir / name))


def run_number(folder: Path) -> int | None:
    """The number of a run, 7 of `0007-name`; None of a folder that this program has not made, whatever its name."""
    match = _NUMBERED.fullmatch(folder.name)
    return int(match[1]) if match and is_ours(folder, adopted=False) else None


def folders(logdir: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every folder below one, and itself, `.`: its path from there, and the names of the folders and files in it.

    As in TensorBoard, links are followed; but not back to where they are, and not into hidden folders.
    """
    top = str(logdir)
    above: dict[str, tuple[str, ...]] = {top: (os.path.realpath(top),)}
    for folder, below, files in os.walk(top, followlinks=True):
        yield folder[len(os.path.join(top, "")) :] or ".", below[:], files
        so_far = above.pop(folder)
        for name in below[:]:
            path = os.path.join(folder, name)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(so_far[-1], name)
            above[path] = (*so_far, real)
            if real in so_far or name.startswith("."):
                below.remove(name)
        below.sort()


def is_ours(folder: Path, adopted: bool = True) -> bool:
    """Whether a folder holds a metrics.json that this program has written.

    It has our version in it. One that is damaged lies beside other files of ours. adopted: also in a user's folder.
    """
    home = own_folder(folder)
    if home != folder and not adopted:
        return False
    try:
        with open_regular(home / "metrics.json") as file:
            text = file.read(_BEGINNING)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last one of what can be no name
        return False
    except OSError:  # not a file
        text = b""
    if (has_version := _OUR_VERSION.search(text) is not None) or not os.path.isdir(home / "checkpoints"):
        return has_version
    begin = b"".join(text[:64].split())
    begins_as_ours = any(begin.startswith(own) or own.startswith(begin) for own in _OUR_BEGINNINGS)
    has_settings = home != folder or (home / "config.yaml").is_file()
    return (begins_as_ours and has_settings) or any(map(_OUR_EVENTS.search, sizes(home)))


@functools.cache
def package_versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of some packages, as metrics.json has them."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
