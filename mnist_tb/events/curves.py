"""Curves of whatever program: which one is which, and fewer points of it. Imports no TensorBoard."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from mnist_tb.events import tags as own
from mnist_tb.events.status import Status

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Key = tuple[str, str]
"""The kind and the split of a curve: (`accuracy`, `val`)."""
Told = Mapping[Key, str]
"""Which tag is which."""
_TABLE = {
    ("loss", "train"): (own.LOSS_TRAIN, "loss"),
    ("loss", "val"): (own.LOSS_VAL, "val_loss"),
    ("loss", "test"): (own.LOSS_TEST, "test_loss"),
    ("accuracy", "train"): (own.ACCURACY_TRAIN, "accuracy"),
    ("accuracy", "val"): (own.ACCURACY_VAL, "val_accuracy"),
    ("accuracy", "test"): (own.ACCURACY_TEST, "test_accuracy"),
    ("lr", "train"): (own.LR, "lr"),
    ("images_per_second", "train"): (own.THROUGHPUT, "images_per_second"),
}
"""Kind and split → this program's tag, and the field of `Status`."""
_MEANINGS = {
    "loss": "loss",
    "accuracy": "accuracy acc acc1 top1",
    "lr": "lr",
    "images_per_second": "imagespersecond",
    "train": "train training",
    "val": "val valid validation dev eval evaluation",
    "test": "test testing",
    "": "epoch epochs step steps batch batches minibatch iteration iterations iter iters update updates per vs on end"
    " avg average mean total overall global running current metric metrics score performance scalar scalars chart"
    " charts throughput set data dataset split dataloader idx 0 sparse categorical binary multiclass crossentropy"
    " optimizer optim adam adamw sgd rmsprop pg0",
}
"""What words say of a curve; the last are those that say nothing. With any other word it is of another quantity."""
_MEANING = {word: meaning for meaning, words in _MEANINGS.items() for word in words.split()}
_PHRASES = {
    "learning rate": "lr",
    "images per second": "imagespersecond",
    "cross entropy": "crossentropy",
    "top 1": "top1",
    "acc 1": "acc1",
}
_OURS = {key: tag for key, (tag, _) in _TABLE.items()}
_KINDS = ("loss", "accuracy")
_ROUNDING = 1.001
"""So much an accuracy of 1 may exceed it, added up in few bits."""
NOTHING_TOLD: Told = {}


def find_curves(tags: Iterable[str], told: Told = NOTHING_TOLD) -> dict[Key, str]:
    """(`loss` or `accuracy`, split) → the tag of that curve, of whatever program; splits: `train`, `val`, `test`.

    told: the tags of some, which are not guessed where a run has them. Where a curve has another name than here, it is
    the shortest tag that speaks of the kind and of the split; what speaks of no split is of the training.
    """
    return {(kind, split): tag for (kind, split), tag in _find(tags, told).items() if kind in _KINDS}


def find_measured(curves: Mapping[str, Iterable[Any]], told: Told = NOTHING_TOLD) -> dict[Key, tuple[str, float]]:
    """As `find_curves`, by the points too, each with a `value`: the tag, and the unit of its values.

    That is 1 but for accuracies in percent, as those are that exceed 1: 100. What exceeds 100 is no accuracy.
    """
    found = {}
    for key, tag in find_curves(curves, told).items():
        largest = max((point.value for point in curves[tag] if math.isfinite(point.value)), default=0.0)
        if unit := _unit(largest) if key[0] == "accuracy" else 1.0:
            found[key] = tag, unit
    return found


def _unit(accuracy: float) -> float | None:
    return next((unit for unit in (1.0, 100.0) if accuracy <= unit * _ROUNDING), None)


def in_fractions(said: Status) -> Status:
    """A status with accuracies from 0 to 1, by the same rule: a Tracker's says what it was given."""
    changed: dict[str, Any] = {}
    for (kind, _), (_, field) in _TABLE.items():
        if kind == "accuracy" and (value := getattr(said, field)) is not None:
            unit = _unit(value)
            changed[field] = value / unit if unit else None
    return replace(said, **changed)


def fields(tags: Iterable[str], told: Told = NOTHING_TOLD) -> dict[str, str]:
    """Tag → the field of `Status` that it is the curve of; found as in `find_curves`."""
    return {tag: _TABLE[key][1] for key, tag in _find(tags, told).items()}


def _find(tags: Iterable[str], told: Told) -> dict[Key, str]:
    known = sorted(set(tags), key=lambda tag: (len(tag), tag))
    found = {key: tag for key, tag in _OURS.items() if tag in known}
    found |= {key: tag for key, tag in told.items() if tag in known}
    for tag in known:
        key = _read(tag)
        if key is not None and tag not in _OURS.values() and tag not in told.values():
            found.setdefault(key, tag)
    return found


@functools.lru_cache(maxsize=4096)
def _read(tag: str) -> Key | None:
    """The kind and split that the words of a tag speak of; None if any speaks of something else."""
    words = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", " ", tag).lower()
    for phrase, word in _PHRASES.items():
        words = re.sub(rf"\b{phrase}\b", word, words)
    said = {_MEANING.get(word, "something else") for word in words.split()} - {""}
    splits = said & {"train", "val", "test"}
    if len(said - splits) != 1 or len(splits) > 1:
        return None
    (kind,), (split,) = said - splits, splits or {"train"}
    return (kind, split) if (kind, split) in _TABLE else None


def own_tag(key: Key) -> str:
    """The tag by which a curve is known here: (`accuracy`, `val`) → `accuracy/val`."""
    return _OURS[key]


def by_step(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Points in the order of their steps; of several at a step, the one that was written last."""
    return sorted(dict(points).items())


def thin(
    points: Sequence[T],
    limit: int,
    value: Callable[[T], float | None] | None = None,
    step: Callable[[T], float] | None = None,
) -> Sequence[T]:
    """At most `limit` of some points, always with the last one; at least 4.

    value: what is drawn of a point. step: where it lies; without it, evenly. From its first point on the curve is cut
    into buckets of one width, a power of two. Of each the minimum, the maximum and the first value that is not finite
    are kept; without `value`, the first point. As a curve grows, what is kept of a bucket that is full stays, until the
    width doubles; then it is a part of what was kept before.
    """
    if len(points) <= limit:
        return points
    import numpy as np  # slow to import

    places = np.array(range(len(points)) if step is None else [step(one) for one in points], np.int64)
    offsets = np.maximum(places - places[0], 0)
    values = np.zeros(len(points)) if value is None else np.array([value(one) for one in points], float)
    values[~np.isfinite(values)] = np.nan
    bits = next(bits for bits in count() if np.count_nonzero(np.diff(offsets >> bits)) < limit - 1)
    kept = np.arange(len(points))
    while len(kept) >= limit:
        kept = kept[_extremes(offsets[kept] >> bits, values[kept])]
        bits += 1
    return [points[at] for at in dict.fromkeys([*kept.tolist(), len(points) - 1])]


def _extremes(buckets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The places, ascending, of the points that are kept. buckets: of each point; values: NaN where not finite."""
    import numpy as np

    is_next = np.diff(buckets, prepend=buckets[:1]) != 0
    number, first = np.cumsum(is_next), np.append(0, np.flatnonzero(is_next))
    gaps = np.flatnonzero(np.isnan(values))
    gaps = gaps[np.unique(number[gaps], return_index=True)[1]]
    extremes = [np.lexsort((signed, number))[first] for signed in (values, -values)]  # stable: of equal ones the first
    return np.unique(np.concatenate([*extremes, gaps]))
