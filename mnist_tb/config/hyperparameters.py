"""A run's settings as flat values, `{"train.lr": 0.001, …}`: those that decide its result, and short names for them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import sys
import unicodedata
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from mnist_tb.config.schema import LONGEST_NAME, Config
from mnist_tb.errors import InputError

Settings = Mapping[str, Any]

SEED = "seed"
_INCIDENTAL = {
    "name",
    SEED,
    "data.root",
    "data.download",
    "data.mirror",
    "data.download_seconds",
    "data.fallback",
    "tracking.enabled",
    "tracking.scalars_every",
    "tracking.histograms_every",
    "tracking.images_every",
    "tracking.weights_every",
    "tracking.code",
    "tracking.system_seconds",
    "tracking.projector",
    "tracking.checkpoint_seconds",
}
"""What does not decide the result: where files are, what is written how often; and the seed, which repeats it."""

_SHORT = {
    "train.batch_size": "bs",
    "train.epochs": "ep",
    "train.evaluate_every": "ev",
    "optimizer.weight_decay": "wd",
    "optimizer.momentum": "m",
    "schedule.warmup": "wu",
    "model.channels": "ch",
    "data.validation": "val",
    "data.split_seed": "split",
    SEED: "s",
}
_VALUE_ALONE = ("optimizer.name", "schedule.name", "averaging.name", "data.name", "device", "precision")
"""Settings whose values speak for themselves."""
_LONGEST_LIST = 100
_LARGEST = sys.float_info.max


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups → dotted keys, in the same order. A group is a mapping, a dataclass or a Namespace."""
    flat: dict[str, Any] = {}
    for key, value in (_group(values) or {}).items():
        if _group(value) is None:
            flat[f"{prefix}{key}"] = value
        else:
            flat |= flatten(value, f"{prefix}{key}.")
    return flat


def plain_settings(values: Any, *, strict: bool) -> dict[str, Any]:
    """Somebody's settings, flat, as numbers, strings, booleans, None and lists of these.

    What NumPy and torch call a number is Python's: np.float32(0.1) → 0.1. Paths and bytes become text.
    values: as for `flatten`. strict: what is none of these, or not finite, raises an InputError; else it becomes text.
    """
    return {key: _setting(key, value, strict) for key, value in flatten(values).items()}


def hyperparameters(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result, but for the seed: runs that share them are repetitions."""
    return {key: value for key, value in settings.items() if key not in _INCIDENTAL}


def seed_of(settings: Settings) -> int | str | float | None:
    """The seed, of whatever program; None where there is none, or it is no single value."""
    seed = settings.get(SEED)
    return seed if isinstance(seed, (int, str, float)) else None


def differences(settings: Settings, others: Settings) -> dict[str, Any]:
    """The settings whose value differs in `others`, or is missing there."""
    return {key: value for key, value in settings.items() if key not in others or others[key] != value}


def short_name(settings: Settings) -> str:
    """A short name for some settings: `{"train.lr": 0.003, "optimizer.name": "sgd"}` → `lr3e-3-sgd`.

    Different settings give different names, those of other programs too: `{"lr": 0.003, "net": "a-b"}` →
    `lr=3e-3-net="a-b"`.
    """
    return "-".join(_word(key, value) for key, value in settings.items())


def sanitize_name(text: str) -> str:
    """A text as a run's name, `été` as `ete`; empty where nothing is left of it."""
    letters = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    return re.sub(r"[^A-Za-z0-9._-]", "-", letters).lstrip("-._")[:LONGEST_NAME].rstrip("-.")


def fallback_name(name: str, dataset: str) -> str:
    """The name of a run that was trained on another dataset than it was named for: `lr3e-3` → `lr3e-3-digits`."""
    short = name.removesuffix(f"-{dataset}").removesuffix(dataset)
    return f"{short[: LONGEST_NAME - 1 - len(dataset)]}-{dataset}" if short else dataset


def format_value(value: Any) -> str:
    """A value as a person writes it: 0.003 → `3e-3`, [16, 32] → `16-32`."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return "-".join(format_value(part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def finite_or_none(value: Any) -> Any:
    """A value as JSON can have it: within nested mappings and lists, floats that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_or_none(part) for key, part in value.items()}
    return [finite_or_none(part) for part in value] if isinstance(value, (list, tuple)) else value


def to_hparam(value: Any) -> float | str:
    """A value for HParams: numbers stay numbers; booleans, which it would turn into 1.0 and 0.0, become text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else format_value(value)


def varying(rows: Sequence[Settings]) -> list[str]:
    """The keys whose values differ between rows, in the order in which they first appear; a missing key is a value."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if any(row.get(key, _Missing) != rows[0].get(key, _Missing) for row in rows)]


class _Missing:
    """The value of a missing key."""


def _word(key: str, value: Any) -> str:
    """Of its own settings the name holds words, letters then numbers; of all others `key=value`, quoted where needed.

    So it can be read back: a word ends at a hyphen before a letter or a quote.
    """
    is_alone = key in _VALUE_ALONE and value != "auto"  # which both a device and a precision can be
    if (isinstance(value, str) and not is_alone) or not _is_own(key, value):
        return f"{_quoted(key)}={_quoted(value)}"
    return ("" if is_alone else _SHORT.get(key, key.rpartition(".")[2])) + format_value(value)


def _is_own(key: str, value: Any) -> bool:
    """Whether a configuration of this program can have this setting."""
    group, _, leaf = key.rpartition(".")
    try:
        Config.model_validate({group: {leaf: value}} if group else {leaf: value})
    except ValidationError:
        return False
    return True


def _quoted(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_quoted, value))}]"
    if value is None or isinstance(value, (bool, int, float)):
        return format_value(value)
    is_word = re.fullmatch(r"(?!(true|false|none|nan|inf)$)[^\W\d][\w.]*", str(value))
    return str(value) if is_word else json.dumps(str(value))


def _number(value: float) -> str:
    plain = repr(value).removesuffix(".0")
    mantissa, _, exponent = f"{value:e}".partition("e")
    if not exponent or float(f"{mantissa}e{exponent}") != value:
        return plain
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return scientific if len(scientific) < len(plain) else plain


def _group(value: Any) -> Mapping[Any, Any] | None:
    """What has settings within it, as a mapping; None for a single setting."""
    if isinstance(value, Namespace):
        return vars(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    return value if isinstance(value, Mapping) else None


def _setting(key: str, value: Any, strict: bool) -> Any:
    plain = value
    with contextlib.suppress(Exception):  # of any kind: it is somebody's object
        plain = _plain(value)
    parts = plain if isinstance(plain, list) else [plain]
    if not all(part is None or type(part) in (bool, int, float, str) for part in parts):
        refusal = f"a {type(value).__name__}; settings are numbers, strings, booleans or lists of these"
    elif not all(-_LARGEST <= part <= _LARGEST for part in parts if isinstance(part, (int, float))):
        refusal = f"{plain}; settings are finite numbers"
    else:
        return plain
    if strict:
        raise InputError(f"config: {key} is {refusal}")
    with contextlib.suppress(Exception):
        return str(plain)
    return type(value).__name__


def _plain(value: Any) -> Any:
    """A value as YAML and JSON have it; what they do not have stays as it is."""
    if isinstance(value, Enum):
        return _plain(value.value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and callable(getattr(value, "item", None)):  # NumPy's, torch's and others'
        if math.prod(shape) == 1:
            return _shortest(value)
        return [_plain(part) for part in value] if len(shape) == 1 and shape[0] <= _LONGEST_LIST else value
    if isinstance(value, str):  # a path may hold what UTF-8 has not
        return str(value).encode(errors="backslashreplace").decode()
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Set):
        return sorted(map(_plain, value), key=lambda part: (type(part).__name__, part))
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, PurePath) else value


def _shortest(value: Any) -> Any:
    """The one number in an array or tensor, with the fewest digits that make the same one in its own precision."""
    number = value.item()
    if not isinstance(number, float) or not math.isfinite(number):
        return number
    shorter = (float(f"{number:.{digits}g}") for digits in range(1, 17))
    return next((each for each in shorter if value == getattr(value.dtype, "type", float)(each)), number)
