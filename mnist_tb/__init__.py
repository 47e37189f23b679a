"""Train a small CNN on MNIST, tracked with TensorBoard; and `Tracker`, which does the same for another training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_tb.tracking.tracker import Tracker

__version__ = "0.1.0"
__all__ = ["Tracker"]


def __getattr__(name: str) -> Any:
    if name == "Tracker":  # imports torch, which the commands that need none are not to wait for
        from mnist_tb.tracking.tracker import Tracker

        return Tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
