"""A run's settings as flat values, `{"train.lr": 0.001, …}`: those that decide its result, and short names for them."""

from __future__ import annotations

import json
import math
import re
import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mnist_tb.config.plain import Settings, flatten, nested, plain_settings
from mnist_tb.config.schema import LONGEST_NAME, Config

__all__ = [
    "SEED", "Settings", "differences", "fallback_name", "finite_or_none", "flatten", "format_value", "from_hparam",
    "hyperparameters", "nested", "plain_settings", "sanitize_name", "seed_of", "short_name", "short_names",
    "to_hparam", "varying",
]  # fmt: skip

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


def from_hparam(value: Any) -> Any:
    """What `to_hparam` was given, as far as it can be told: 64.0 → 64, `true` → True, `16 32` → [16, 32]."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[value]
    parts = value.split(" ") if isinstance(value, str) else []
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return value
    return [from_hparam(number) for number in numbers] if len(numbers) > 1 else value


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


def short_names(rows: Sequence[Settings]) -> list[str]:
    """A short name for each row, of the settings that vary; empty where a row has none.

    If one is too long, of those that most rows do not have: a recipe such as best.yaml changes ten at once, and the
    others are not to be called by what they leave as it is.
    """
    keys = varying(rows)
    own = [{key: row.get(key) for key in keys} if row else {} for row in rows]
    found = [short_name(row) for row in own]
    if all(len(name) <= LONGEST_NAME for name in found):
        return found
    usual = {key: statistics.mode(format_value(row.get(key)) for row in rows) for key in keys}
    return [short_name({key: value for key, value in row.items() if format_value(value) != usual[key]}) for row in own]
