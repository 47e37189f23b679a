"""Plain tensors and dicts; atomic save."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from mnist_tb.errors import InputError
from mnist_tb.runs import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts of tensors and plain values so that the path always holds a whole checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed. Raises InputError where it is missing or broken."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice on files that are none of ours
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise InputError(f"{path}: is no checkpoint of mnist_tb, or it is broken") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: is no checkpoint of mnist_tb: it holds a {type(state).__name__}")
    return state
