"""Anybody's settings as flat, plain values: the same settings, however they are spelt, are the same here."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import Enum
from operator import getitem
from types import SimpleNamespace
from typing import Any

from mnist_tb.config.names import encodable
from mnist_tb.errors import InputError

Settings = Mapping[str, Any]

_SINGLE = (str, int, float, bool, type(None))
_LONGEST_LIST = 100
"""Of what is no list, but can be one."""
_DEEPEST = 50
_LARGEST = sys.float_info.max


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups → dotted keys, in the same order; a slash in a key, as Lightning's loggers write it, is a dot.

    A group is a mapping, a Namespace, a dataclass or another object of named fields, or a list of such.
    """
    return dict(_flat(values, prefix, (id(values),)))


def nested(settings: Settings) -> dict[str, Any]:
    """Flat settings in their groups, as YAML has them, however they were given; what `flatten` takes back.

    A key that begins with another one, `a.b` beside `a`, stays as it is.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, last = key.split(".")
        if any(".".join(groups[:end]) in settings for end in range(1, len(groups) + 1)):
            found[key] = value
            continue
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return found


def plain_settings(values: Any, *, strict: bool) -> dict[str, Any]:
    """Somebody's settings, flat, as numbers, strings, booleans, None and lists of these.

    What NumPy and torch call a number is Python's: np.float32(0.1) → 0.1. Paths and bytes become text.
    values: as for `flatten`. strict: what is none of these, or not finite, raises an InputError; else it becomes text,
    a class or a function its name.
    """
    return {key: plain_setting(value, key, strict) for key, value in flatten(values).items()}


def plain_setting(value: Any, key: str = "", strict: bool = False) -> Any:
    """One of them."""
    if type(value) in _SINGLE and (isinstance(value, (str, bool)) or value is None or abs(value) <= _LARGEST):
        return encodable(value) if type(value) is str else value
    plain = value
    with contextlib.suppress(Exception):  # of any kind: it is somebody's object
        plain = _plain(value)
    parts = plain if type(plain) is list else [plain]
    if not all(type(part) in _SINGLE for part in parts):
        refusal = f"a {type(value).__name__}; settings are numbers, strings, booleans or lists of these"
    elif not all(-_LARGEST <= part <= _LARGEST for part in parts if isinstance(part, (int, float))):
        refusal = f"{_as_text(plain)}; settings are finite numbers"
    else:
        return plain
    if strict:
        raise InputError(f"config: {key} is {refusal}")
    return _as_text(plain)


def shortest(value: float, is_same: Callable[[float], bool], digits: int = 17) -> float:
    """The number with the fewest digits, and less than so many, that is the same one in some precision; else itself."""
    shorter = (float(f"{value:.{count}g}") for count in range(1, digits))
    return next((each for each in shorter if is_same(each)), value)


def _flat(values: Any, prefix: str, within: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """within: what this is in; a group that is in itself is a single setting."""
    for key, value in _members(values) or ():
        own = prefix + _key(key)
        if type(value) in _SINGLE or id(value) in within or len(within) > _DEEPEST or _members(value) is None:
            yield own, value
        else:
            yield from _flat(value, f"{own}.", (*within, id(value)))


def _key(key: Any) -> str:
    if type(key) is not str:
        key = str(plain_setting(key))
    return encodable(key.replace("/", "."))


def _members(value: Any) -> list[tuple[Any, Any]] | None:
    """The names and values of what has settings within it; None for a single setting."""
    with contextlib.suppress(Exception):  # it is somebody's object
        if type(value) in _SINGLE or isinstance(value, (str, bytes, type)):
            return None
        if isinstance(value, (dict, Namespace, SimpleNamespace)):
            return list((value if isinstance(value, dict) else vars(value)).items())
        if isinstance(value, Sequence):
            is_groups = len(value) > 0 and all(_is_group(part) for part in value)
            return list(enumerate(value)) if is_groups else None
        for kind in ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__"):
            if (fields := getattr(type(value), kind, None)) is not None:
                names = [getattr(each, "name", each) for each in fields]
                return [(name, _got(getattr, value, name)) for name in names]
        if isinstance(value, Mapping):
            return [(key, _got(getitem, value, key)) for key in value]
    return None


def _is_group(value: Any) -> bool:
    return not isinstance(value, Sequence) and _members(value) is not None


def _got(get: Callable[[Any, Any], Any], value: Any, key: Any) -> Any:
    """A member; where it cannot be had, the error."""
    try:
        return get(value, key)
    except Exception as error:
        return None if isinstance(error, AttributeError) else error


def _as_text(value: Any) -> str:
    """What is no plain value, in words that are the same in each process: without the place in its memory."""
    with contextlib.suppress(Exception):
        if isinstance(name := getattr(value, "__qualname__", None), str):  # a class or a function
            return f"{value.__module__ or 'builtins'}.{name}"
        if not isinstance(value, BaseException):
            return encodable(re.sub(r" at 0x[0-9a-fA-F]+", "", str(value)))
    return type(value).__name__


def _plain(value: Any) -> Any:
    """A value as YAML and JSON have it; what they do not have stays as it is."""
    if type(value) in _SINGLE:
        return encodable(value) if type(value) is str else value  # a path may hold what UTF-8 has not
    if isinstance(value, Enum):
        return _plain(value.value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and callable(getattr(value, "item", None)):  # NumPy's, torch's and others'
        if math.prod(shape) == 1:
            return _shortest(value)
        return [_plain(part) for part in value] if len(shape) == 1 and shape[0] <= _LONGEST_LIST else value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return encodable(str(value))
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Set):
        return sorted(map(_plain, value), key=lambda part: (type(part).__name__, part))
    if isinstance(value, Mapping):
        return {_key(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and (isinstance(value, (list, tuple)) or len(value) <= _LONGEST_LIST):
        return [_plain(part) for part in value]
    return value


def _shortest(value: Any) -> Any:
    """The one number in an array or tensor, with the fewest digits that make the same one in its own precision."""
    number = value.item()
    if not isinstance(number, float) or not math.isfinite(number):
        return number
    return shortest(number, lambda each: bool(value == getattr(value.dtype, "type", float)(each)))
