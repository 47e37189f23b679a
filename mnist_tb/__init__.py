"""Train a small CNN on MNIST, tracked with TensorBoard; `Tracker` and `SummaryWriter`, for your own trainings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tb.analysis.loading import load_runs
    from mnist_tb.integrations.summary_writer import SummaryWriter
    from mnist_tb.integrations.tracker import Tracker

__version__ = "1.0.0"
__all__ = ["SummaryWriter", "Tracker", "load_runs"]

_PUBLIC = {
    "Tracker": "integrations.tracker",
    "SummaryWriter": "integrations.summary_writer",
    "load_runs": "analysis.loading",
}
"""Imported when they are asked for: torch is slow to import, and the commands that need none are not to wait."""


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
