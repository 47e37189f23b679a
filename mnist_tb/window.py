"""Means over the updates since the last point of the training curves."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Means:
    """Of one window. loss: in nats per image; accuracy: 0 to 1, both while the weights moved."""

    loss: float
    accuracy: float
    images_per_second: float


class Window:
    """Gathers losses and hits on their device; only `first_bad` and `close` wait for them."""

    def __init__(self) -> None:
        self._empty()

    def _empty(self) -> None:
        self._losses: list[Tensor] = []
        self._hits: list[Tensor] = []
        self._counts: list[int] = []
        self._lrs: list[float] = []
        self._seconds = 0.0
        self._since = time.perf_counter()

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: Tensor, hits: Tensor, count: int, lr: float) -> None:
        """One update: its mean loss over `count` images, how many of them were right, and its learning rate."""
        self._losses.append(loss)
        self._hits.append(hits)
        self._counts.append(count)
        self._lrs.append(lr)

    @property
    def last_lr(self) -> float:
        """The learning rate of the update added last."""
        return self._lrs[-1]

    def pause(self) -> None:
        """Stop the clock, for an evaluation in between."""
        self._seconds += time.perf_counter() - self._since

    def resume(self) -> None:
        """Start the clock again."""
        self._since = time.perf_counter()

    def first_bad(self) -> tuple[int, float] | None:
        """The first update, counted from 0, whose loss is no finite number, and its learning rate; None for none."""
        if not self._losses:
            return None
        bad = (~torch.stack(self._losses).isfinite()).nonzero().flatten().tolist()
        return (bad[0], self._lrs[bad[0]]) if bad else None

    def close(self) -> Means:
        """The means of all updates added, weighted by their images, and an empty window from here on."""
        losses = torch.stack(self._losses).double().cpu()
        counts = torch.tensor(self._counts, dtype=torch.float64)
        hits = torch.stack(self._hits).sum().item()
        self.pause()
        means = Means(
            loss=float((losses * counts).sum() / counts.sum()),
            accuracy=hits / sum(self._counts),
            images_per_second=sum(self._counts) / self._seconds,
        )
        self._empty()
        return means
