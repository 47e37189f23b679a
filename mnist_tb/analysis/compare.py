"""Rows in, comparisons out: one line a run or a group of seeds, and whether its difference from the first is real.

Imports no torch. Runs on different data come into sections of their own: they are never ranked against each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_tb.analysis import significance
from mnist_tb.analysis.significance import Difference
from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import strict_yaml
from mnist_tb.config.hyperparameters import SEED
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import PREDICTION, Run
from mnist_tb.runs.query import Row

METRICS = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
_ABOUT = ("status", "epochs", "seconds", "images_per_second")
SORTS = ("val_accuracy", "test_accuracy", "val_loss", "test_loss", "seconds", "images_per_second", "started", "name")
_RISING = ("val_loss", "test_loss", "seconds", "name")
LEVEL = 0.95


@dataclass(frozen=True)
class Line:
    """A run, or the runs of one configuration with different seeds. values: what is shown, in the order of columns.

    difference: of the test accuracy from the section's first line; None on that line, and where nothing is known.
    """

    values: dict[str, Any]
    rows: tuple[Row, ...]
    difference: Difference | None


@dataclass(frozen=True)
class Section:
    """The lines of one dataset, the best first. varying: the settings in which they differ."""

    data: str
    varying: list[str]
    lines: list[Line]
    grouped: bool


def where(rows: Iterable[Row], conditions: Iterable[str]) -> list[Row]:
    """The rows of which `key=value` holds: a setting, by its whole name or its end (`lr`), or a fact such as `status`.

    Raises InputError where a condition is not written so, or no run has the key.
    """
    rows = list(rows)
    for condition in conditions:
        key, separator, text = condition.partition("=")
        key = key.strip()
        if not separator or not key:
            raise InputError(f"--where {condition}: write it as key=value, such as --where lr=0.001")
        wanted = strict_yaml.read_value(text, f"--where {condition}")
        names = {name for row in rows for name in row.settings if name == key or name.endswith(f".{key}")}
        facts = {"status", "dataset", "name", "test_images"} if not names else set()
        if not names and key not in facts:
            there = sorted({name for row in rows for name in row.settings} | facts)
            raise InputError(f"--where {condition}: no run has {key}; there are {', '.join(there)}")
        rows = [
            row
            for row in rows
            if any(_same(row.settings[name], wanted, text) for name in names if name in row.settings)
            or (not names and _same(getattr(row, key), wanted, text))
        ]
    return rows


def compare(rows: Sequence[Row], sort: str = "val_accuracy", group: bool = False) -> list[Section]:
    """The rows in sections of the same data, the most runs first; within each the best first, the others against it."""
    kinds: dict[tuple[str, int | None] | None, list[Row]] = {}
    for row in rows:
        kinds.setdefault(None if row.dataset is None else (row.dataset, row.test_images), []).append(row)
    in_order = sorted(kinds.values(), key=len, reverse=True)
    return [_section(kind, sort, group) for kind in in_order]


def _section(rows: Sequence[Row], sort: str, group: bool) -> Section:
    groups = _by_configuration(rows) if group else [(row,) for row in rows]
    groups.sort(key=lambda members: _rank(members, sort))
    told = [_told(members[0], group) for members in groups]
    varying = settings.varying(told)
    differences = _against_first(groups, group)
    lines = [
        Line(_values(members, {key: chosen.get(key) for key in varying}, group, difference), members, difference)
        for members, chosen, difference in zip(groups, told, differences, strict=True)
    ]
    return Section(rows[0].data, varying, lines, group)


def _by_configuration(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps(settings.deciding(row.settings), sort_keys=True, default=str)
        groups.setdefault(key, []).append(row)
    return [tuple(members) for members in groups.values()]


def _told(row: Row, group: bool) -> dict[str, Any]:
    """The settings that tell it from others: its seed too, but in a group."""
    seed = {} if group or row.seed is None else {SEED: row.seed}
    return {**settings.deciding(row.settings), **seed}


def _rank(members: Sequence[Row], sort: str) -> tuple[bool, Any]:
    if sort == "name":
        return False, members[0].name
    known = [value for row in members if (value := getattr(row, sort)) is not None]
    if not known:
        return True, 0.0
    mean = math.fsum(known) / len(known)
    return False, mean if sort in _RISING else -mean


def _values(
    members: Sequence[Row], chosen: Mapping[str, Any], group: bool, difference: Difference | None
) -> dict[str, Any]:
    first = members[0]
    values: dict[str, Any] = {}
    if group:
        values |= {"runs": [row.name for row in members], "n": len(members), **chosen}
        for key in (*METRICS, "seconds", "images_per_second"):
            known = [value for row in members if (value := getattr(row, key)) is not None]
            mean, deviation = significance.mean_and_deviation(known) if known else (None, None)
            values |= {key: mean, f"{key}_deviation": deviation}
    else:
        values |= {"run": first.name, **chosen, **{key: getattr(first, key) for key in (*METRICS, *_ABOUT)}}
    found = {} if difference is None else vars(difference)
    return {
        **values,
        "difference": found.get("value"),
        "low": _finite(found.get("low")),
        "high": _finite(found.get("high")),
        "p": found.get("p"),
        "real": None if difference is None else difference.real,
    }


def _against_first(groups: Sequence[tuple[Row, ...]], group: bool) -> list[Difference | None]:
    """Each against the first, so that the chance of one wrong claim among them all is that of one test (Bonferroni)."""
    level = 1 - (1 - LEVEL) / max(1, len(groups) - 1)
    differ: Callable[[Sequence[Row], Sequence[Row], float], Difference | None] = _over_seeds if group else _same_images
    return [None, *(differ(members, groups[0], level) for members in groups[1:])]


def _over_seeds(members: Sequence[Row], first: Sequence[Row], level: float) -> Difference | None:
    ours, theirs = ([r.test_accuracy for r in rows if r.test_accuracy is not None] for rows in (members, first))
    return significance.welch(ours, theirs, level) if ours and theirs else None


def _same_images(members: Sequence[Row], first: Sequence[Row], level: float) -> Difference | None:
    """By the stored predictions, if both have them and were tested on the same images in the same order."""
    one, other = (_right(rows[0]) for rows in (members, first))
    if one is None or other is None or one[0] != other[0]:
        return None
    return significance.mcnemar(one[1], other[1], level)


def _right(row: Row) -> tuple[bytes, Any] | None:
    """The true labels, as bytes, and which of them the run has right, bool [N]."""
    import numpy as np

    if row.test_accuracy is None or not row.ours:
        return None
    try:
        with open(Run(row.path).predictions, "rb") as file:
            table = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # none, or broken
        return None
    if table.dtype != np.dtype(PREDICTION):
        return None
    return table["label"].tobytes(), table["label"] == table["prediction"]


def _same(value: Any, wanted: Any, text: str) -> bool:
    return value == wanted or settings.shown(value) == text.strip()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
