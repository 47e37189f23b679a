"""What a file says, as far as it can be used: another program may have written anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mnist_tb.config.hyperparameters import flatten

_LONGEST_TEXT = 200
_YEAR_9999 = 253_370_764_800


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys → numbers, strings, booleans and lists of those; of anything else, its beginning as text."""
    plain = {}
    for key, value in flatten(values).items():
        parts = value if isinstance(value, list) else [value]
        is_plain = all(part is None or isinstance(part, (bool, int, float, str)) for part in parts)
        plain[key] = value if is_plain else repr(value)[:_LONGEST_TEXT]
    return plain


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
