"""Runs in, comparisons out: a line for each run or group of seeds, and whether it differs significantly from the first.

Imports no torch. Runs on different data are in different sections: they are never ranked against each other.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mnist_tb.analysis import significance
from mnist_tb.analysis.significance import Difference
from mnist_tb.config import strict_yaml
from mnist_tb.config.hyperparameters import SEED, format_value, hyperparameters, varying
from mnist_tb.errors import InputError, did_you_mean
from mnist_tb.events import configurations
from mnist_tb.events.configurations import Group, by_seed
from mnist_tb.runs.folder import Run
from mnist_tb.runs.predictions import read_predictions
from mnist_tb.runs.query import RunSummary

METRICS = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
_ABOUT = ("status", "epochs", "seconds", "images_per_second")
SORTS = ("val_accuracy", "test_accuracy", "val_loss", "test_loss", "seconds", "images_per_second", "started", "name")
_LOWER_IS_BETTER = ("val_loss", "test_loss", "seconds", "name")
LEVEL = 0.95


@dataclass(frozen=True)
class Line(Group[RunSummary]):
    """A run, or the runs of one configuration with different seeds. values: column → value.

    difference: of the test accuracy from that of the first line; None on that line, and where there is nothing to test.
    """

    values: dict[str, Any]
    difference: Difference | None


@dataclass(frozen=True)
class Section:
    """The lines of one dataset, in the order of `sort`, those that do not count last.

    varying: the settings that differ between them. seeds_needed: where the first two groups do not differ
    significantly, how many seeds each would need for that.
    """

    data: str
    varying: list[str]
    lines: list[Line]
    grouped: bool
    sort: str
    seeds_needed: int | None = None

    @property
    def counted(self) -> list[Line]:
        return [line for line in self.lines if line.counts]

    @property
    def first(self) -> str:
        """What the first line is: the best, if the order is that of a result."""
        is_ranked = self.sort in METRICS and self.lines[0].values.get(self.sort) is not None
        return "best" if is_ranked and self.lines[0].counts else "first"


def line_names(sections: Sequence[Section]) -> list[str]:
    """What each line is called, one section after the other."""
    lines = [line for section in sections for line in section.lines]
    grouped = any(section.grouped for section in sections)
    return configurations.names(lines) if grouped else [line.runs[0].name for line in lines]


def where(runs: Iterable[RunSummary], conditions: Iterable[str]) -> list[RunSummary]:
    """The runs that have `key=value`: a setting, by its whole name or its last part (`lr`), or a fact such as `status`.

    `tag=good`: those that have this tag among others. `name=first`: also those called `0007-first`.

    Raises InputError where a condition has another form, or no run has the key.
    """
    every = list(runs)
    kept = [True] * len(every)
    for condition in conditions:
        key, separator, text = condition.partition("=")
        key = key.strip()
        if not separator or not key:
            raise InputError(f"--where {condition}: write it as key=value, such as --where lr=0.001")
        names = {name for run in every for name in run.settings if name == key or name.endswith(f".{key}")}
        if not names and key not in _FACTS:
            known = sorted({name for run in every for name in run.settings}.union(_FACTS))
            raise InputError(f"--where {condition}: no run has {key}{did_you_mean(key, known)}")
        try:
            wanted, wrong = strict_yaml.read_value(text, f"--where {condition}"), None
        except InputError as error:  # but a name that there is need not be YAML
            wanted, wrong = text.strip(), error
        meant = [any(_is_equal(value, wanted, text) for value in _values_of(run, key, names)) for run in every]
        if wrong and not any(meant):
            raise wrong
        kept = [before and now for before, now in zip(kept, meant, strict=True)]
    return [run for run, keep in zip(every, kept, strict=True) if keep]


def _values_of(run: RunSummary, key: str, names: Iterable[str]) -> list[Any]:
    """What a run has under a key. names: the settings that it can mean."""
    facts = _FACTS[key](run) if key in _FACTS else ()
    return [*facts, *(run.settings[name] for name in names if name in run.settings)]


_FACTS: dict[str, Callable[[RunSummary], Iterable[Any]]] = {
    "status": lambda run: [run.status],
    "dataset": lambda run: [run.dataset],
    "test_images": lambda run: [run.test_images],
    "name": lambda run: [run.name, run.path.name, re.sub(r"^\d{4,}-", "", run.path.name)],
    "tag": lambda run: run.notes.tags,
}


def select(runs: Iterable[RunSummary], conditions: Iterable[str], last: int | None) -> list[RunSummary]:
    """Of the runs that meet the conditions, as `where` has them, the `last` ones to begin; None: all."""
    found = where(runs, conditions)
    return found if last is None else sorted(found, key=lambda run: run.started or 0.0)[-last:]


def compare(
    runs: Sequence[RunSummary], sort: str = "val_accuracy", group: bool = False, unfinished: bool = False
) -> list[Section]:
    """Runs in sections of the same data, the largest first; in each, the best run first and the others against it.

    unfinished: whether runs that are not finished count as well. Else they are last, and are not tested.
    """
    by_data: dict[tuple[str, int | None] | None, list[RunSummary]] = {}
    for run in _told_apart(runs):
        by_data.setdefault(None if run.dataset is None else (run.dataset, run.test_images), []).append(run)
    sections = sorted(by_data.values(), key=len, reverse=True)
    return [_section(configurations.groups(same, group, unfinished), sort, group) for same in sections]


def _told_apart(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Runs of different names: where folders share one, it is their path from the folder that holds all runs."""
    counts = Counter(run.name for run in runs)
    if len(counts) == len(runs):
        return [*runs]
    shared = os.path.commonpath([os.path.abspath(run.path) for run in runs])
    return [run if counts[run.name] == 1 else replace(run, name=os.path.relpath(run.path, shared)) for run in runs]


def _section(groups: list[Group[RunSummary]], sort: str, group: bool) -> Section:
    groups.sort(key=lambda one: (not one.counts, *_rank(one.runs, sort)))
    settings = [_distinguishing(one.runs[0], group) for one in groups]
    keys = varying(settings)
    differences = _from_first(groups, group)
    lines = [
        Line(one.runs, one.counts, _values(one, {key: own.get(key) for key in keys}, group, difference), difference)
        for one, own, difference in zip(groups, settings, differences, strict=True)
    ]
    needed = _seeds_needed(groups, differences) if group else None
    return Section(groups[0].runs[0].data, keys, lines, group, sort, needed)


def _seeds_needed(groups: Sequence[Group[RunSummary]], differences: Sequence[Difference | None]) -> int | None:
    if len(groups) < 2 or differences[1] is None or differences[1].significant is not False:
        return None
    ours, theirs = (_by_seed(one.runs, "test_accuracy") for one in groups[:2])
    return significance.seeds_needed(ours, theirs, differences[1].level)


def _distinguishing(run: RunSummary, group: bool) -> dict[str, Any]:
    """The settings that distinguish a run from others: its seed too, unless it is in a group."""
    seed = {} if group or run.seed is None else {SEED: run.seed}
    return {**hyperparameters(run.settings), **seed}


def _rank(members: Sequence[RunSummary], sort: str) -> tuple[bool, Any]:
    if sort == "name":
        return False, members[0].name
    known = _by_seed(members, sort)
    if not known:
        return True, 0.0
    mean = math.fsum(known) / len(known)
    return False, mean if sort in _LOWER_IS_BETTER else -mean


def _values(
    one: Group[RunSummary], settings: Mapping[str, Any], group: bool, difference: Difference | None
) -> dict[str, Any]:
    """Column → value: results first, then settings."""
    members = one.runs
    if group:
        first: dict[str, Any] = {"runs": [run.name for run in members], "n": _num_seeds(members)}
        results: dict[str, Any] = {}
        for key in (*METRICS, "seconds", "images_per_second"):
            known = _by_seed(members, key)
            mean, deviation = significance.mean_and_deviation(known) if known else (None, None)
            results |= {key: mean, f"{key}_deviation": deviation}
    else:
        first = {"run": members[0].name}
        results = {key: getattr(members[0], "epoch" if key == "epochs" else key) for key in (*METRICS, *_ABOUT)}
    found = {} if difference is None else vars(difference)
    tested = {
        "difference": found.get("value"),
        "low": _finite(found.get("low")),
        "high": _finite(found.get("high")),
        "p": found.get("p"),
        "significant": None if difference is None else difference.significant,
    }
    return {**first, "counts": one.counts, **results, **tested, **settings}


def _from_first(groups: Sequence[Group[RunSummary]], group: bool) -> list[Difference | None]:
    """The differences from the first, at a level at which all claims together are as safe as one (Bonferroni).

    What cannot be tested, such as a single seed, is no claim.
    """
    first = _evidence(groups[0], group)
    known = [None if first is None else _evidence(one, group) for one in groups[1:]]
    pairs = [None if one is None or first is None or one[0] != first[0] else (one[1], first[1]) for one in known]
    claims = sum(pair is not None and min(map(len, pair)) > 1 for pair in pairs)
    level = 1 - (1 - LEVEL) / max(1, claims)
    test: Callable[[Any, Any, float], Difference] = significance.welch if group else significance.mcnemar
    return [None, *(None if pair is None else test(*pair, level) for pair in pairs)]


def _evidence(one: Group[RunSummary], group: bool) -> tuple[bytes, Any] | None:
    """What is tested, after what it must share with what it is tested against. None where it is not tested.

    Of a group, the test accuracies of its seeds. Of a run, which of the test images it predicts, after their labels.
    """
    if not one.counts:
        return None
    if not group:
        return _labels_and_correct(one.runs[0])
    accuracies = _by_seed(one.runs, "test_accuracy")
    return (b"", accuracies) if accuracies else None


def _by_seed(members: Sequence[RunSummary], metric: str) -> list[float]:
    """One value for each seed: its repeats are averaged. Runs without the metric are left out."""
    known = [run for run in members if getattr(run, metric) is not None]
    repeats = [[getattr(run, metric) for run in runs] for runs in by_seed(known)]
    return [math.fsum(values) / len(values) for values in repeats]


def _num_seeds(members: Sequence[RunSummary]) -> int:
    """How many values the test uses: of the test accuracy, or if no run has one, of the first metric that is known."""
    counts = (len(_by_seed(members, metric)) for metric in ("test_accuracy", *METRICS))
    return next((count for count in counts if count), 0)


def _labels_and_correct(run: RunSummary) -> tuple[bytes, Any] | None:
    """The labels of the test images, as bytes, and which of them the run predicts, bool [N]."""
    if run.test_accuracy is None or not run.native:
        return None
    table = read_predictions(Run(run.path))
    if table is None:
        return None
    return table["label"].tobytes(), table["label"] == table["prediction"]


def _is_equal(value: Any, wanted: Any, text: str) -> bool:
    return value == wanted or format_value(value) in (text, text.strip())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
