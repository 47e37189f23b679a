"""All that training changes, and how it becomes a checkpoint and comes back from one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnist_tb.config.schema import Config
from mnist_tb.data.augment import Transforms
from mnist_tb.data.datasets import Dataset, generator
from mnist_tb.engine.distributed import Distributed
from mnist_tb.engine.train_step import CudaGraphTrainStep, TrainStep, build_train_step
from mnist_tb.errors import InputError
from mnist_tb.metrics import Evaluation, WindowMetrics
from mnist_tb.model import CNN
from mnist_tb.training.checkpoint import snapshot
from mnist_tb.training.metrics_window import MetricsWindow

_KEYS = {"optimizer", "order", "window", "epoch", "batch", "step", "seconds", "best", "news", "events"}
"""What every checkpoint has beside the model. `order` and `news` are the names of version 0.1.0, kept on the disk."""


@dataclass(frozen=True)
class Best:
    """The weights with the best validation result: after `step` updates, at the end of epoch `epoch` (from 1).

    loss: in nats. accuracy: 0 to 1.
    """

    weights: dict[str, Tensor]
    loss: float
    accuracy: float
    epoch: int
    step: int

    def is_worse_than(self, evaluation: Evaluation) -> bool:
        """By accuracy; of two that are equal, by loss."""
        return (evaluation.accuracy, -evaluation.loss) > (self.accuracy, -self.loss)


@dataclass(frozen=True)
class PendingPoint:
    """A point of the training curves that has not been logged: after update `step`, the last of `size` updates.

    epoch: from 0. batch: of that epoch, from 1. metrics: waits until the numbers have left the device.
    wall_time: when the window was closed, seconds since 1970.
    """

    epoch: int
    batch: int
    step: int
    size: int
    metrics: Callable[[], WindowMetrics]
    wall_time: float


@dataclass
class State:
    """What training changes.

    epoch, step: how many are complete. batch: how many of the current epoch are complete.
    transforms: of the images, update by update; None without augmentation.
    order: draws the order of the images, epoch by epoch. epoch_rng_state: its state before the current epoch.
    seconds: of training, in all processes before this one.
    metrics_update: what is to be written to the run's metrics.json with the next checkpoint.
    """

    master_model: CNN
    update: TrainStep | CudaGraphTrainStep
    transforms: Transforms | None
    order: torch.Generator
    window: MetricsWindow
    epoch_rng_state: Tensor
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    pending_point: PendingPoint | None = None
    best: Best | None = None
    metrics_update: dict[str, Any] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """Count the current epoch as complete."""
        self.epoch, self.batch, self.epoch_rng_state = self.epoch + 1, 0, self.order.get_state()

    def eval_model(self) -> tuple[CNN, CNN]:
        """The master model to keep and the compute model to evaluate; averaged, if that is configured."""
        average = self.update.average
        if average is None:
            return self.master_model, self.update.compute_model
        average.refresh()
        return average.master_model, average.compute_model

    def state_dict(self, seconds: float) -> dict[str, Any]:
        """A copy of it all, as tensors on the CPU and plain values, which later updates do not change.

        seconds: of training so far. No point may be pending.
        """
        assert self.pending_point is None, "a point would be lost"
        best = None if self.best is None else {**vars(self.best)}
        copied: dict[str, Any] = snapshot(
            {
                "model": self.master_model.state_dict(),
                "optimizer": self.update.optimizer.state_dict(),
                "average": {} if self.update.average is None else self.update.average.state_dict(),
                "order": self.epoch_rng_state,
                "window": self.window.state_dict(),
                "epoch": self.epoch,
                "batch": self.batch,
                "step": self.step,
                "seconds": seconds,
                "best": best,
                "news": self.metrics_update,
            }
        )
        return copied

    def load_state_dict(self, saved: Mapping[str, Any], source: object) -> None:
        """Restore what `state_dict` gave. Raises InputError, naming the source, where it is of another training."""
        try:
            _copy(saved["model"], self.master_model.state_dict())
            _copy(saved["optimizer"], self.update.optimizer.state_dict())
            self.update.refresh()
            if self.update.average is not None:
                self.update.average.load_state_dict(saved["average"])
            self.epoch_rng_state = saved["order"]
            self.order.set_state(self.epoch_rng_state)
            self.window.load_state_dict(saved["window"], self.update.gradient.device)
            self.epoch, self.batch, self.step = (int(saved[key]) for key in ("epoch", "batch", "step"))
            self.seconds, self.metrics_update = float(saved["seconds"]), dict(saved["news"])
            self.best = None if saved["best"] is None else Best(**saved["best"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise _misfit(source) from None


def new_state(config: Config, model: CNN, dataset: Dataset, distributed: Distributed) -> State:
    """The state before the first update, around a model with its initial weights."""
    order = generator(config.seed, "order of the images")
    step = build_train_step(config, model, dataset, distributed)
    device, augmentation = dataset.train.labels.device, config.augment
    count, size = len(dataset.train), config.train.batch_size
    transforms = Transforms(augmentation, count, size, config.seed, device) if augmentation.enabled else None
    return State(model, step, transforms, order, MetricsWindow(), order.get_state())


def check_checkpoint(saved: Mapping[str, Any], model: CNN, source: object) -> None:
    """Raise InputError, naming the source, where a checkpoint is not of this network."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    found = saved.get("model")
    fits = isinstance(found, Mapping) and {k: getattr(v, "shape", None) for k, v in found.items()} == shapes
    if not fits or not saved.keys() >= _KEYS:
        raise _misfit(source)


def _misfit(source: object) -> InputError:
    return InputError(f"{source}: this checkpoint is of another network or another version; it does not fit the run")


def _copy(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    if into.keys() != values.keys() or any(into[key].shape != values[key].shape for key in into):
        raise ValueError
    for key, tensor in into.items():
        tensor.copy_(values[key])
