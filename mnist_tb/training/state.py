"""All that a training changes as it goes, and how it becomes a checkpoint and comes back from one, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnist_tb.engine.train_step import GraphUpdater, Updater
from mnist_tb.errors import InputError
from mnist_tb.model import CNN
from mnist_tb.training.checkpoint import snapshot
from mnist_tb.training.metrics_window import Means, Window

_KEYS = {"optimizer", "order", "window", "epoch", "batch", "step", "seconds", "best", "news", "events"}


@dataclass(frozen=True)
class Best:
    """The weights that did best on validation, how well, and when: after `step` updates, in epoch `epoch` (from 1)."""

    weights: dict[str, Tensor]
    loss: float
    accuracy: float
    epoch: int
    step: int


@dataclass(frozen=True)
class Point:
    """A point of the training curves, after update `step`, batch `batch` (from 1) of epoch `epoch` (from 0).

    size: how many updates it is the mean of. means: waits until the numbers have left the device.
    """

    epoch: int
    batch: int
    step: int
    size: int
    means: Callable[[], Means]


@dataclass
class State:
    """What training changes.

    epoch, step: how many are complete; batch: how many of the epoch under way.
    order: draws each epoch's order of the images; drawn: its state before the epoch under way.
    seconds: of training, in all processes before this one.
    point: the last point of the curves, not yet written. news: what the run's metrics.json has been told.
    """

    model: CNN
    update: Updater | GraphUpdater
    order: torch.Generator
    window: Window
    drawn: Tensor
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    point: Point | None = None
    best: Best | None = None
    news: dict[str, Any] = field(default_factory=dict)

    def looked_at(self) -> tuple[CNN, CNN]:
        """The model and network that are evaluated and kept: of the averaged weights, where there is an average."""
        average = self.update.average
        if average is None:
            return self.model, self.update.network
        average.refresh()
        return average.model, average.network

    def dump(self, seconds: float) -> dict[str, Any]:
        """All of it as tensors on the CPU and plain values, which later updates do not reach.

        seconds: of training so far. The point that waits must have been written before.
        """
        assert self.point is None, "a point would be lost"
        best = None if self.best is None else {**vars(self.best)}
        dumped: dict[str, Any] = snapshot(
            {
                "model": self.model.state_dict(),
                "optimizer": self.update.optimizer.state_dict(),
                "average": {} if self.update.average is None else self.update.average.state_dict(),
                "order": self.drawn,
                "window": self.window.dump(),
                "epoch": self.epoch,
                "batch": self.batch,
                "step": self.step,
                "seconds": seconds,
                "best": best,
                "news": self.news,
            }
        )
        return dumped

    def restore(self, saved: Mapping[str, Any], place: object) -> None:
        """Become what was dumped. Raises InputError, naming the place it is from, where it is of another training."""
        try:
            self._put(self.model.state_dict(), saved["model"])
            self._put(self.update.optimizer.state_dict(), saved["optimizer"])
            self.update.refresh()
            if self.update.average is not None:
                self.update.average.load_state_dict(saved["average"])
            self.drawn = saved["order"]
            self.order.set_state(self.drawn)
            self.window.restore(saved["window"], self.update.gradient.device)
            self.epoch, self.batch, self.step = (int(saved[key]) for key in ("epoch", "batch", "step"))
            self.seconds, self.news = float(saved["seconds"]), dict(saved["news"])
            self.best = None if saved["best"] is None else Best(**saved["best"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise InputError(
                f"{place}: is the checkpoint of another network or version; it does not fit the run"
            ) from None

    @staticmethod
    def check(saved: Mapping[str, Any], model: CNN, place: object) -> None:
        """Raise InputError, naming the place it is from, where a checkpoint is not of this network."""
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        found = saved.get("model")
        fits = isinstance(found, Mapping) and {k: getattr(v, "shape", None) for k, v in found.items()} == shapes
        if not fits or not saved.keys() >= _KEYS:
            raise InputError(f"{place}: is the checkpoint of another network or version; it does not fit the run")

    @staticmethod
    def _put(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        if into.keys() != values.keys() or any(into[key].shape != values[key].shape for key in into):
            raise ValueError
        for key, tensor in into.items():
            tensor.copy_(values[key])
