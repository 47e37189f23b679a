"""What the curves of a run say of it as they come: the numbers of its status, its results, and a loss that is NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mnist_tb.events import tags
from mnist_tb.events.curves import RunningResult

_FIELDS = {
    tags.LOSS_TRAIN: "loss",
    tags.ACCURACY_TRAIN: "accuracy",
    tags.LOSS_VAL: "val_loss",
    tags.ACCURACY_VAL: "val_accuracy",
    tags.LOSS_TEST: "test_loss",
    tags.ACCURACY_TEST: "test_accuracy",
    tags.LR: "lr",
    tags.THROUGHPUT: "images_per_second",
}


class Outcome:
    """It keeps a few numbers, however many points there are.

    fields: the tags of the curves that count, and their names in a `Status`.
    """

    def __init__(self, diverged: Callable[[str, int, float], Any]) -> None:
        """diverged: hears tag, step and value of the first loss that is NaN or infinite."""
        self.fields = dict(_FIELDS)
        self._results = {"val": RunningResult(), "test": RunningResult(last=True)}
        self._speed: float | None = None
        self._diverged: Callable[[str, int, float], Any] | None = diverged

    def add(self, step: int, tag: str, value: float) -> bool:
        """A point of a curve that counts. Whether it belongs to an evaluation."""
        split, _, kind = self.fields[tag].rpartition("_")
        if kind == "loss" and self._diverged is not None and not math.isfinite(value):
            self._diverged(tag, step, value)
            self._diverged = None
        if split in self._results:
            self._results[split].add(kind, step, value)
            return True
        if self.fields[tag] == "images_per_second" and math.isfinite(value):
            self._speed = value
        return False

    def metrics(self) -> dict[str, Any]:
        """For metrics.json, as far as known: the best result on validation, the last one on test, the last speed."""
        found: dict[str, Any] = {split: each.result() for split, each in self._results.items()}
        return {key: value for key, value in {**found, "images_per_second": self._speed}.items() if value}

    def state_dict(self) -> dict[str, Any]:
        return {split: vars(each).copy() for split, each in self._results.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Also of one that has been through JSON, which has no tuples."""
        for split, known in state.items():
            plain = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
            vars(self._results[split]).update(plain)
