"""What a file or a user says of a run, as far as it can be used, and the results of its curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product
from struct import pack, unpack
from typing import Any

from mnist_tb.config.plain import flatten, plain_setting, shortest
from mnist_tb.errors import InputError
from mnist_tb.events.curves import Key, own_tag
from mnist_tb.events.tags import ACCURACY_VAL

_LONGEST_TEXT = 200
_LARGEST = 3e38
"""That 32 bits have."""
_YEAR_9999 = 253_370_764_800


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys → numbers, strings, booleans and lists of those; of anything else, its beginning as text."""
    found = {}
    for key, value in flatten(values).items():
        plain = value if isinstance(value, float) else plain_setting(value)
        if isinstance(plain, str) and not isinstance(value, str):
            plain = plain[:_LONGEST_TEXT]
        found[key] = _as_given(plain) if isinstance(plain, float) and abs(plain) < _LARGEST else plain
    return found


def _as_given(value: float) -> float:
    """The number of a few digits that somebody gave, where 32 bits were kept of it: 0.1, not 0.10000000149."""
    kept = pack("<f", value)
    return shortest(value, lambda each: pack("<f", each) == kept, 7) if unpack("<f", kept)[0] == value else value


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None


def whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def time(value: Any) -> float | None:
    """Seconds since 1970, if they are of a year that the calendar has."""
    seconds = number(value)
    return seconds if seconds is not None and 0 <= seconds < _YEAR_9999 else None


def read_told(texts: Iterable[str]) -> dict[Key, str]:
    """Which tag is which, told as `accuracy/val=valid_acc`. Raises InputError where that is not what a text says."""
    told: dict[Key, str] = {}
    known = product(("loss", "accuracy"), ("train", "val", "test"))
    keys = {own_tag(key): key for key in known}
    for text in texts:
        ours, separator, tag = text.partition("=")
        if not separator or not tag or ours not in keys:
            raise InputError(
                f"--metric {text}: write it as {ACCURACY_VAL}=TAG; before the = is one of {', '.join(keys)}"
            )
        told[keys[ours]] = tag
    return told


def best_result(accuracies: Mapping[int, float], losses: Mapping[int, float]) -> tuple[float | None, float | None]:
    """The highest accuracy and the loss at the same step; if there is no accuracy, the lowest loss.

    Each is step → value; values that are not finite are left out.
    """
    accuracies, losses = _finite(accuracies), _finite(losses)
    if not accuracies:
        return None, min(losses.values(), default=None)
    step = max(accuracies, key=lambda step: accuracies[step])
    return accuracies[step], losses.get(step)


def last_result(accuracies: Mapping[int, float], losses: Mapping[int, float]) -> tuple[float | None, float | None]:
    """The last accuracy and the loss at its step; if there is no accuracy, the last loss. Else as `best_result`."""
    accuracies, losses = _finite(accuracies), _finite(losses)
    step = max(accuracies or losses, default=-1)
    return accuracies.get(step), losses.get(step)


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in values.items() if math.isfinite(value)}
