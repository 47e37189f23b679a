"""What was set for a run, as flat values `{"train.lr": 0.001, …}`: what decides its result, and short words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]

SEED = "seed"
_ASIDE = ("name", SEED, "data.root", "data.download", "data.mirror", "data.download_seconds", "data.fallback",
          "tracking.")  # fmt: skip
"""Not what decides the result: where files are, how often something is written; and the seed, which repeats it."""

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
"""Their values say by themselves what they are."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups → dotted keys, in their order."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def deciding(settings: Settings) -> dict[str, Any]:
    """Those settings that can decide the result, but for the seed."""
    return {key: value for key, value in settings.items() if not key.startswith(_ASIDE)}


def differences(settings: Settings, others: Settings) -> dict[str, Any]:
    """What is set otherwise than in `others`, or is not there at all."""
    return {key: value for key, value in settings.items() if key not in others or others[key] != value}


def words(settings: Settings) -> str:
    """A short name for some settings: `{"train.lr": 0.003, "optimizer.name": "sgd"}` → `lr3e-3-sgd`.

    Different values have different words.
    """
    return "-".join(_word(key, value) for key, value in settings.items())


def shown(value: Any) -> str:
    """A value as a person writes it: 0.003 → `3e-3`, [16, 32] → `16-32`."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return "-".join(shown(part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def hparam(value: Any) -> float | str:
    """For TensorBoard. Numbers stay numbers; it would turn booleans into 1.0 and 0.0, so they become texts."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else shown(value)


def varying(rows: Sequence[Settings]) -> list[str]:
    """The keys in which some rows differ, a key that is not there counted as a value, in the order of their coming."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if any(row.get(key, _Nothing) != rows[0].get(key, _Nothing) for row in rows)]


class _Nothing:
    """What a key that is not there has for a value."""


def _word(key: str, value: Any) -> str:
    if key in _VALUE_ALONE and value is not None:
        return shown(value)
    return _SHORT.get(key, key.rpartition(".")[2]) + shown(value)


def _number(value: float) -> str:
    plain = repr(value).removesuffix(".0")
    mantissa, _, exponent = f"{value:e}".partition("e")
    if not exponent or float(f"{mantissa}e{exponent}") != value:
        return plain
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return scientific if len(scientific) < len(plain) else plain
