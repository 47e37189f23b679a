"""Means over the updates since the last point of the training curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Means:
    """Of one window. loss: in nats per image; accuracy: 0 to 1, both while the weights moved.

    lr, grad_norm: of the last update.
    first_bad: the first update, counted from 0, whose loss is no finite number, and its learning rate; None for none.
    """

    loss: float
    accuracy: float
    lr: float
    grad_norm: float
    images_per_second: float
    first_bad: tuple[int, float] | None


class Window:
    """Gathers losses and hits on their device; nothing here waits for that but `first_bad`."""

    def __init__(self) -> None:
        self._empty()

    def _empty(self) -> None:
        self._losses: list[Tensor] = []
        self._hits: list[Tensor] = []
        self._counts: list[int] = []
        self._lrs: list[float] = []
        self._seconds = 0.0
        self._since: float | None = time.perf_counter()

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: Tensor, hits: Tensor, count: int, lr: float) -> None:
        """One update: its mean loss over `count` images, how many of them were right, and its learning rate."""
        self._losses.append(loss)
        self._hits.append(hits)
        self._counts.append(count)
        self._lrs.append(lr)

    def pause(self) -> None:
        """Stop the clock, for an evaluation in between."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        """Start the clock again."""
        self._since = time.perf_counter()

    def dump(self) -> dict[str, Any]:
        """All that has been added, for a checkpoint."""
        empty = torch.empty(0)
        return {
            "losses": torch.stack(self._losses) if self._losses else empty,
            "hits": torch.stack(self._hits) if self._hits else empty,
            "counts": list(self._counts),
            "lrs": list(self._lrs),
            "seconds": self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since),
        }

    def restore(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Become what was dumped, with the clock stopped."""
        self._losses, self._hits = list(saved["losses"].to(device)), list(saved["hits"].to(device))
        self._counts, self._lrs = [int(c) for c in saved["counts"]], [float(lr) for lr in saved["lrs"]]
        self._seconds, self._since = float(saved["seconds"]), None

    def first_bad(self) -> tuple[int, float] | None:
        """As in `Means`, of the updates added so far."""
        return _first_bad(torch.stack(self._losses).tolist(), self._lrs) if self._losses else None

    def close(self, gradient: Tensor) -> Callable[[], Means]:
        """The means of all updates added, weighted by their images, and an empty window from here on.

        gradient: of the last update, any shape. The numbers leave the device while it goes on computing; the function
        returned waits for them.
        """
        self.pause()
        size, counts, lrs, seconds = len(self), self._counts, self._lrs, self._seconds
        hits = torch.stack(self._hits).float()  # exact to 16 million images a batch
        read = _leave_device(torch.cat([torch.stack(self._losses), hits, torch.linalg.vector_norm(gradient)[None]]))
        self._empty()

        def means() -> Means:
            numbers = read()
            losses, images = numbers[:size], sum(counts)
            return Means(
                loss=sum(loss * count for loss, count in zip(losses, counts, strict=True)) / images,
                accuracy=sum(numbers[size : 2 * size]) / images,
                lr=lrs[-1],
                grad_norm=numbers[-1],
                images_per_second=images / seconds,
                first_bad=_first_bad(losses, lrs),
            )

        return means


def _first_bad(losses: list[float], lrs: list[float]) -> tuple[int, float] | None:
    bad = next((i for i, loss in enumerate(losses) if not -float("inf") < loss < float("inf")), None)
    return None if bad is None else (bad, lrs[bad])


def _leave_device(numbers: Tensor) -> Callable[[], list[float]]:
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
