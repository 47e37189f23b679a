"""Curves of whatever program: which one is which, its best point, and fewer points of it. Imports no TensorBoard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from mnist_tb.errors import InputError
from mnist_tb.events.tags import (
    ACCURACY_TEST,
    ACCURACY_TRAIN,
    ACCURACY_VAL,
    LOSS_TEST,
    LOSS_TRAIN,
    LOSS_VAL,
    PER_CLASS,
)

T = TypeVar("T")
Key = tuple[str, str]
"""The kind and the split of a curve: (`accuracy`, `val`)."""
Told = Mapping[Key, str]
"""Which tag is which."""
_OURS = {
    ("loss", "train"): LOSS_TRAIN,
    ("loss", "val"): LOSS_VAL,
    ("loss", "test"): LOSS_TEST,
    ("accuracy", "train"): ACCURACY_TRAIN,
    ("accuracy", "val"): ACCURACY_VAL,
    ("accuracy", "test"): ACCURACY_TEST,
}
NOTHING_TOLD: Told = {}
_KINDS = {"loss": "loss", "accuracy": "acc"}
_SPLITS = {"val": "val|dev|eval", "test": "test"}


def find_curves(tags: Iterable[str], told: Told = NOTHING_TOLD) -> dict[Key, str]:
    """(`loss` or `accuracy`, split) → the tag of that curve, of whatever program; splits: `train`, `val`, `test`.

    told: the tags of some, which are not guessed where a run has them. Where a curve has another name than here, it is
    the shortest tag that speaks of the kind and of the split; what speaks of no split is of the training.
    """
    known = sorted((tag for tag in tags if not tag.startswith(PER_CLASS)), key=lambda tag: (len(tag), tag))
    found = {key: tag for key, tag in _OURS.items() if tag in known}
    found |= {key: tag for key, tag in told.items() if tag in known}
    for kind, pattern in _KINDS.items():
        rest = [
            tag
            for tag in known
            if tag not in [*_OURS.values(), *told.values()] and re.search(pattern, tag, re.IGNORECASE)
        ]
        for split, words in _SPLITS.items():
            named = [tag for tag in rest if re.search(words, tag, re.IGNORECASE)]
            rest = [tag for tag in rest if tag not in named]
            if named:
                found.setdefault((kind, split), named[0])
        if rest:
            found.setdefault((kind, "train"), rest[0])
    return found


def read_told(texts: Iterable[str]) -> dict[Key, str]:
    """Which tag is which, told as `accuracy/val=valid_acc`. Raises InputError where that is not what a text says."""
    told: dict[Key, str] = {}
    keys = {tag: key for key, tag in _OURS.items()}
    for text in texts:
        ours, separator, tag = text.partition("=")
        if not separator or not tag or ours not in keys:
            raise InputError(
                f"--metric {text}: write it as {ACCURACY_VAL}=TAG; before the = is one of {', '.join(keys)}"
            )
        told[keys[ours]] = tag
    return told


def own_tag(key: Key) -> str:
    """The tag by which a curve is known here: (`accuracy`, `val`) → `accuracy/val`."""
    return _OURS[key]


def find_tag(tag: str, tags: Iterable[str], told: Told = NOTHING_TOLD) -> str | None:
    """The one of `tags` that is known here as `tag`, such as `accuracy/val`; else `tag` itself, if it is among them."""
    known = list(tags)
    meant = next((found for key, found in find_curves(known, told).items() if _OURS[key] == tag), tag)
    return meant if meant in known else None


def by_step(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Points in the order of their steps; of several at a step, the one that was written last."""
    return sorted(dict(points).items())


def thin(points: Sequence[T], limit: int) -> Sequence[T]:
    """At most `limit` of some points, evenly spaced, always with the last one."""
    every = max(-(-len(points) // limit), 1)
    return points[(len(points) - 1) % every :: every] if points else points


def best_result(accuracies: Mapping[int, float], losses: Mapping[int, float]) -> tuple[float | None, float | None]:
    """The highest accuracy and the loss at the same step; where there is no accuracy, the lowest loss.

    Each is step → value; values that are not finite are left out.
    """
    finite_losses = {step: value for step, value in losses.items() if math.isfinite(value)}
    finite = {step: value for step, value in accuracies.items() if math.isfinite(value)}
    if not finite:
        return None, min(finite_losses.values(), default=None)
    step = max(finite, key=lambda step: finite[step])
    return finite[step], finite_losses.get(step)


class RunningResult:
    """`best_result` of two curves whose points come one by one; or, with `last`, their values at the last step.

    It keeps a few numbers, however many come. Values that are not finite are left out.
    """

    def __init__(self, last: bool = False) -> None:
        self._last = last
        self._accuracy: tuple[int, float] | None = None
        self._its_loss: float | None = None
        self._newest_loss: tuple[int, float] | None = None
        self._loss: tuple[int, float] | None = None  # that counts where there is no accuracy

    def add(self, kind: str, step: int, value: float) -> None:
        """A point. kind: `accuracy` or `loss`."""
        if not math.isfinite(value):
            return
        best, newest = self._accuracy, self._newest_loss
        if kind == "loss":
            self._newest_loss = step, value
            if best is not None and best[0] == step:
                self._its_loss = value
            if self._loss is None or (step >= self._loss[0] if self._last else value < self._loss[1]):
                self._loss = step, value
        elif best is None or (step >= best[0] if self._last else value > best[1]):
            self._accuracy = step, value
            if best is None or best[0] != step:
                self._its_loss = newest[1] if newest is not None and newest[0] == step else None

    def result(self) -> dict[str, float]:
        """`accuracy`, and the `loss` at the same step, as far as they are known; without an accuracy the loss alone."""
        if self._accuracy is None:
            return {} if self._loss is None else {"loss": self._loss[1]}
        found = {"accuracy": self._accuracy[1], "loss": self._its_loss}
        return {kind: value for kind, value in found.items() if value is not None}
