"""Checkpoints: saved atomically, on a thread beside the training, and checked when they are loaded."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_tb.errors import InputError
from mnist_tb.runs.files import trim, write_atomically
from mnist_tb.runs.folder import Run

_DIGEST = "sha256"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values; at every instant the path holds a whole checkpoint.

    The tensors are on the CPU. A digest of everything is saved with it: a bit that flips on the disk is found on
    loading.
    """
    save_plain(path, {**state, _DIGEST: _digest(state)})


def save_plain(path: Path, state: Mapping[str, Any]) -> None:
    """The same without a digest, for other programs to load."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU; nothing in it is executed. Raises InputError where it is missing or broken."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice on files that are not ours
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except Exception:  # on bytes that are no checkpoint, torch raises all kinds
        raise InputError(f"{path}: is not a checkpoint of mnist_tb, or it is broken") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: is not a checkpoint of mnist_tb: it holds a {type(state).__name__}")
    if state.pop(_DIGEST, None) != _digest(state):
        raise InputError(
            f"{path}: is not a checkpoint of mnist_tb, or it is broken: its digest does not match its contents"
        )
    return state


def snapshot(value: Any) -> Any:
    """A copy on the CPU that later updates do not reach: tensors within nested dicts and lists are copied."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(part) for key, part in value.items()}
    return [snapshot(part) for part in value] if isinstance(value, (list, tuple)) else value


class AsyncCheckpointer:
    """Saves on a thread of its own, one checkpoint after the other; a context manager that waits for the last one.

    An error of that thread is raised by the next call, or at the end. On it numpy takes the place of torch, for the
    reason given in `tracking.figures`.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "saver")
        self._last: Future[None] | None = None

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:  # else the first error tells more than what it left behind
            self.wait()

    def save(self, run: Run, state_dict: Mapping[str, Any], written: Callable[[], Mapping[str, int]]) -> None:
        """Save a training's state as the run's last checkpoint, and the best weights and their metrics beside it.

        written: waits until all that was logged before is on the disk, and gives the length of each event file.
        Raises the error of the save before.
        """

        def work() -> None:
            save(run.last_checkpoint, {**state_dict, "events": written()})
            save_best(run, state_dict)

        self.submit(work)

    def submit(self, work: Callable[[], None]) -> None:
        """Do some work there, after what was submitted before. Raises the error of that."""
        self.wait()
        self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Wait until all is saved. Raises the error of the last save."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def save_best(run: Run, state_dict: Mapping[str, Any]) -> None:
    """Write what other programs read of a checkpoint: the best weights and the metrics. Raises OSError."""
    best = state_dict["best"]
    if best is not None:
        save(run.best_checkpoint, {"model": best["weights"], "epoch": best["epoch"], "step": best["step"]})
    run.update_metrics(**state_dict["news"])


def _digest(value: Any) -> str:
    hasher = hashlib.sha256()
    _add(value, hasher)
    return hasher.hexdigest()


def _add(value: Any, hasher: Any) -> None:
    if isinstance(value, Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)}:".encode())
        hasher.update(np.ascontiguousarray(value.detach().numpy()).tobytes())
    elif isinstance(value, Mapping):
        hasher.update(f"dict {len(value)}:".encode())
        for key in sorted(value, key=str):
            hasher.update(f"{key!r}=".encode())
            _add(value[key], hasher)
    elif isinstance(value, (list, tuple)):
        hasher.update(f"list {len(value)}:".encode())
        for part in value:
            _add(part, hasher)
    else:
        hasher.update(f"{value!r};".encode())


def rewind(run: Run, checkpoint: Mapping[str, Any] | None) -> None:
    """Remove from the run's files what came after a checkpoint, or after the beginning. Raises OSError."""
    run.remove_temporaries()
    run.restart_metrics()
    if checkpoint is None or checkpoint["best"] is None:
        run.best_checkpoint.unlink(missing_ok=True)
    trim(run.path, {} if checkpoint is None else checkpoint["events"])
    if checkpoint is not None:
        save_best(run, checkpoint)
