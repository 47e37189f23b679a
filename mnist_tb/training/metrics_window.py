"""Averages over the updates since the last point of the training curves, gathered without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mnist_tb.errors import PointError
from mnist_tb.metrics import WindowMetrics


class MetricsWindow:
    """Gathers what updates return, on their device; its clock measures the images per second, and begins stopped.

    Nothing here waits for the device but `first_nonfinite`.
    """

    def __init__(self) -> None:
        self._clear()
        self.pause()
        self._seconds = 0.0

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._num_correct: list[Tensor] = []
        self._sizes: list[int] = []
        self._lrs: list[float] = []
        self._seconds = 0.0
        self._since: float | None = time.perf_counter()

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: Tensor, num_correct: Tensor, size: int, lr: float) -> None:
        """Add one update: the mean loss over `size` images, how many predictions were correct, the learning rate."""
        self._losses.append(loss)
        self._num_correct.append(num_correct)
        self._sizes.append(size)
        self._lrs.append(lr)

    def pause(self) -> None:
        """Stop the clock, for an evaluation in between."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        """Start the clock again."""
        self._since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """All that has been added, for a checkpoint."""
        empty = torch.empty(0)
        return {
            "losses": torch.stack(self._losses) if self._losses else empty,
            "hits": torch.stack(self._num_correct) if self._num_correct else empty,
            "counts": list(self._sizes),
            "lrs": list(self._lrs),
            "seconds": self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since),
        }

    def load_state_dict(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` gave, with the clock stopped."""
        self._losses, self._num_correct = list(saved["losses"].to(device)), list(saved["hits"].to(device))
        self._sizes, self._lrs = [int(size) for size in saved["counts"]], [float(lr) for lr in saved["lrs"]]
        self._seconds, self._since = float(saved["seconds"]), None

    def first_nonfinite(self) -> tuple[int, float] | None:
        """As in `WindowMetrics`, of the updates added so far."""
        return _first_nonfinite(torch.stack(self._losses).tolist(), self._lrs) if self._losses else None

    def close(self, gradient: Tensor) -> Callable[[], WindowMetrics]:
        """Begin a new window, and return a function that gives the averages of this one, weighted by images.

        gradient: of the last update, any shape. The numbers leave the device while it goes on computing; the function
        waits for them.
        """
        self.pause()
        size, sizes, lrs, seconds = len(self), self._sizes, self._lrs, self._seconds
        num_correct = torch.stack(self._num_correct).float()  # exact up to 16 million images a batch
        norm = torch.linalg.vector_norm(gradient)[None]
        read = _copy_from_device(torch.cat([torch.stack(self._losses), num_correct, norm]))
        self._clear()

        def metrics() -> WindowMetrics:
            numbers = read()
            losses, images = numbers[:size], sum(sizes)
            return WindowMetrics(
                loss=sum(loss * count for loss, count in zip(losses, sizes, strict=True)) / images,
                accuracy=sum(numbers[size : 2 * size]) / images,
                lr=lrs[-1],
                grad_norm=numbers[-1],
                images_per_second=images / seconds,
                first_nonfinite=_first_nonfinite(losses, lrs),
            )

        return metrics


def raise_if_diverged(first_nonfinite: tuple[int, float] | None, previous_steps: int) -> None:
    """Raise PointError where a window, which begins after `previous_steps` updates, has a loss that is not finite."""
    if first_nonfinite is not None:
        index, lr = first_nonfinite
        raise diverged("training", previous_steps + index + 1, lr)


def diverged(which: str, step: int, lr: float | None = None) -> PointError:
    """The error of a loss, `training` or `validation`, that is not finite any more."""
    rate = "" if lr is None else f" (learning rate {lr:g})"
    return PointError(f"the {which} loss is NaN or infinite at step {step}{rate}: try a smaller train.lr")


def _first_nonfinite(losses: list[float], lrs: list[float]) -> tuple[int, float] | None:
    index = next((i for i, loss in enumerate(losses) if not -float("inf") < loss < float("inf")), None)
    return None if index is None else (index, lrs[index])


def _copy_from_device(numbers: Tensor) -> Callable[[], list[float]]:
    """Start copying a vector to the CPU; the function returned waits until it is there."""
    if not numbers.is_cuda:
        return numbers.tolist
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        values: list[float] = copy.tolist()
        return values

    return read
