"""A run's settings as flat values, `{"train.lr": 0.001, …}`: those that decide its result, and short names for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mnist_tb.errors import InputError

Settings = Mapping[str, Any]

LONGEST_NAME = 40
"""Characters in a run's name."""
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
    "batch_size": "bs",
    "weight_decay": "wd",
    "momentum": "m",
    SEED: "s",
}
_VALUE_ALONE = ("optimizer.name", "schedule.name", "averaging.name", "data.name", "device", "precision")
"""Settings whose values speak for themselves."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups → dotted keys, in the same order."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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

    Different values give different names.
    """
    return "-".join(_word(key, value) for key, value in settings.items())


def sanitize_name(text: str) -> str:
    """A text as part of a folder's name: letters, digits, dots, underscores and hyphens, 40 at most."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:LONGEST_NAME].rstrip("-.")


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
    if key in _VALUE_ALONE and value is not None:
        return format_value(value)
    return _SHORT.get(key, key.rpartition(".")[2]) + format_value(value)


def _number(value: float) -> str:
    plain = repr(value).removesuffix(".0")
    mantissa, _, exponent = f"{value:e}".partition("e")
    if not exponent or float(f"{mantissa}e{exponent}") != value:
        return plain
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return scientific if len(scientific) < len(plain) else plain


def checked_settings(flat: dict[str, Any]) -> dict[str, Any]:
    """Settings of somebody's training, tuples as lists. Raises InputError where one cannot be compared or written."""
    for key, value in flat.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
            raise InputError(
                f"config: {key} is a {type(value).__name__}; settings are numbers, strings, booleans or lists of these"
            )
        if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
            raise InputError(f"config: {key} is {value}; settings are finite numbers")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}
