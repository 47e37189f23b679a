"""Plain tensors and dicts: atomic save, checked load, and a thread that saves beside the training."""

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
from mnist_tb.runs.folder import write_atomically

_DIGEST = "sha256"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors and plain values, so that the path always holds a whole checkpoint.

    The tensors are on the CPU. A digest of them all goes with them: a bit that flips on the disk is seen on loading.
    """
    save_plain(path, {**state, _DIGEST: _digest(state)})


def save_plain(path: Path, state: Mapping[str, Any]) -> None:
    """The same without a digest, for others to load."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed. Raises InputError where it is missing or broken."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice on files that are none of ours
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such checkpoint") from None
    except Exception:  # there is no end to what bytes that are no checkpoint make torch raise
        raise InputError(f"{path}: is no checkpoint of mnist_tb, or it is broken") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: is no checkpoint of mnist_tb: it holds a {type(state).__name__}")
    if state.pop(_DIGEST, None) != _digest(state):
        raise InputError(
            f"{path}: is no checkpoint of mnist_tb, or it is broken: its digest is not that of its contents"
        )
    return state


def snapshot(value: Any) -> Any:
    """A copy on the CPU that later updates do not reach: tensors within nested dicts and lists are copied."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(part) for key, part in value.items()}
    return [snapshot(part) for part in value] if isinstance(value, (list, tuple)) else value


class Saver:
    """Saves on a thread of its own, one checkpoint after the other; a context manager that waits for the last one.

    An error there is raised by the next call, or at the end. numpy takes the place of torch on this thread, for the
    reason told in `figures`.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "saver")
        self._last: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:  # else the first error tells more than what it left behind
            self.wait()

    def submit(self, work: Callable[[], None]) -> None:
        """Have the work done there, after what was submitted before. Raises the error that came of that."""
        self.wait()
        self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Until all is saved. Raises the error that came of it."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


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
