"""What a file says, as far as it can be used: another program may have written anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from struct import pack, unpack
from typing import Any

from mnist_tb.config.plain import flatten, plain_setting, shortest

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
