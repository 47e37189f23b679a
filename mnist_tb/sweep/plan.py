"""The plan of a sweep: read from a YAML file, validated, and turned into configurations.

Imports neither torch nor Optuna.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mnist_tb.config import presets, strict_yaml
from mnist_tb.config.hyperparameters import SEED, flatten, hyperparameters, sanitize_name, short_name
from mnist_tb.config.load import explain_errors, flat_config, load_config, replace_config
from mnist_tb.config.redaction import hide_text
from mnist_tb.config.schema import LONGEST_NAME, Config, Group, RunName
from mnist_tb.errors import InputError, command_line, did_you_mean

_RESERVED = {
    "name": "each run is named after its values",
    SEED: "the seeds that each point is trained with are listed under seeds",
}
"""Keys that the sweep itself sets for each run → why they can be neither set nor searched over."""


class Sampler(Group):
    """How points are chosen. startup: the number of random points before TPE begins."""

    name: Literal["tpe", "random", "grid"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup: Annotated[int, Field(ge=1)] = 10


class Pruner(Group):
    """How trainings that do worse than others are stopped early.

    startup, warmup: for the median pruner: how many trials must be complete, and how many epochs a trial must have,
    before it can be stopped.
    """

    name: Literal["none", "median", "hyperband"] = "none"
    startup: Annotated[int, Field(ge=1)] = 5
    warmup: Annotated[int, Field(ge=0)] = 1


class _Bounds(Group):
    """A range as it is written in the file."""

    low: float
    high: float
    log: bool = False


class Range(_Bounds):
    """The numbers from low to high, both included; only integers if the key is an integer."""

    integer: Annotated[bool, Field(exclude=True)] = False


class _File(Group):
    """The keys of a sweep file."""

    name: RunName | None = None
    base: Annotated[str, Field(min_length=1)] = "default"
    set: dict[str, Any] = Field(default_factory=dict)
    space: Annotated[dict[str, Any], Field(min_length=1)]
    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(strict=False, min_length=1)] = (0,)
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()


Choices = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep. space: dotted key → its choices or range. trials: the number of points in total, on all machines."""

    name: str
    base: Config
    space: Mapping[str, Choices | Range]
    trials: int
    seeds: tuple[int, ...]
    sampler: Sampler
    pruner: Pruner

    def grid_point(self, number: int) -> dict[str, Any]:
        """The point of trial `number` of a grid; the last key varies fastest."""
        choices = [space for space in self.space.values() if not isinstance(space, Range)]
        values = next(itertools.islice(itertools.product(*choices), number, None))
        return dict(zip(self.space, values, strict=True))

    def config(self, point: Mapping[str, Any], seed: int) -> Config:
        """The configuration of one run: a point, trained with one of the seeds."""
        text = short_name({key: rounded(value) for key, value in point.items()})
        name = sanitize_name(text if len(self.seeds) == 1 else f"{text}-s{seed}").lstrip("-.")
        return replace_config(self.base, {**point, SEED: seed, "name": name})

    def run_number(self, trial: int, seed: int) -> int:
        """The number in the folder name of a trial's run: fixed, so that any worker that resumes the trial finds it."""
        return trial * len(self.seeds) + self.seeds.index(seed) + 1

    @property
    def epochs(self) -> int:
        """The largest number of epochs of any training."""
        space = self.space.get("train.epochs")
        if space is None:
            return self.base.train.epochs
        return int(space.high) if isinstance(space, Range) else max(space)

    def identity(self) -> dict[str, Any]:
        """What all workers of a sweep must agree on, JSON-compatible: not its length, the device or the data's path."""
        space = {key: value.model_dump() if isinstance(value, Range) else [*value] for key, value in self.space.items()}
        points = {"space": space, "seeds": [*self.seeds]}
        groups = {"sampler": self.sampler.model_dump(), "pruner": self.pruner.model_dump()}
        fixed = hyperparameters(flat_config(self.base))
        fixed.pop("device")  # may differ between machines
        return {**fixed, **points, **flatten(groups)}


@dataclass(frozen=True)
class Task:
    """What a worker receives. folder: of the sweep. storage: as in `open_storage`. index: of the worker, from 0."""

    plan: Plan
    folder: Path
    storage: str | None
    index: int


def load_plan(path: str | Path, overrides: Iterable[str] = (), options: Iterable[tuple[str, str, Any]] = ()) -> Plan:
    """Read a sweep file.

    path: as in `presets.find`. overrides, options: for its base configuration, as in `load_config`.
    Raises InputError, which names the file and line, or the option, the key, and what would be right.
    """
    path = presets.find(path)
    document = strict_yaml.read(path)
    places = document.places
    _refuse_configuration(path, document.values)
    # Not `sanitize_name`: it also strips trailing hyphens and dots, and an existing sweep's folder keeps its name.
    values = {"name": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:LONGEST_NAME], **document.values}
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        raise InputError(explain_errors(error, places, str(path), _suggest)) from None
    if file.name is None:
        raise InputError(f"{places[('name',)]}: name must be a string, not nothing (null)")
    try:
        base = presets.find(file.base, beside=path)
    except InputError as error:
        raise InputError(f"{places.get(('base',), path)}: base: {error}") from None
    if not base.is_file():
        raise InputError(f"{places.get(('base',), path)}: base: {base} is not a file")
    preset = [(places.get(("set", *key.split(".")), str(path)), key, value) for key, value in flatten(file.set).items()]
    # No fallback dataset: a trial on other data could not be compared with the rest.
    known = [*options, (str(path), "data.fallback", None)]
    config = load_config(base, overrides, known, preset=preset)
    fixed = [(f"--set {hide_text(text)}", text.partition("=")[0].strip()) for text in overrides]
    for place, key in (*((f"{place}: set.{key}", key) for place, key, _ in preset), *fixed):
        if key in file.space or key in _RESERVED:
            raise InputError(f"{place}: {_RESERVED.get(key, 'the sweep searches over it')}")
    base_values = flat_config(config)
    space = {key: _space(key, value, base_values, places, path) for key, value in file.space.items()}
    for key, choices in space.items():  # find all errors before anything is trained
        for value in _bounds(choices) if isinstance(choices, Range) else choices:
            load_config(base, overrides, [*known, (_location(key, places, path), key, value)], preset=preset)
    if file.pruner.name != "none" and config.train.evaluate_every == 0:
        raise InputError(f"{places[('pruner',)]}: pruner: with train.evaluate_every 0 there is nothing to prune by")
    if len(set(file.seeds)) < len(file.seeds):
        raise InputError(f"{places[('seeds',)]}: seeds: a value is listed twice")
    trials = _trials(file, space, places, path)
    return Plan(file.name, config, space, trials, file.seeds, file.sampler, file.pruner)


def _refuse_configuration(path: Path, values: Mapping[str, Any]) -> None:
    if values and values.keys().isdisjoint({"base", "space", "trials", "seeds", "sampler"}):
        training = command_line("train", "--config", path)
        raise InputError(f"{path}: is a configuration, not a sweep; train it by: {training}")


def _bounds(span: Range) -> tuple[float, float]:
    return (int(span.low), int(span.high)) if span.integer else (span.low, span.high)


def _space(
    key: str, value: Any, base_values: Mapping[str, Any], places: Mapping[tuple[str, ...], str], path: Path
) -> Choices | Range:
    place = _location(key, places, path)
    inside = [other for other in base_values if other.startswith(f"{key}.")]
    if inside:
        raise InputError(f"{place}: space.{key} is a group of keys: write {inside[0]}")
    if key in base_values and (key in _RESERVED or key == "device" or not hyperparameters({key: None})):
        raise InputError(
            f"{place}: space.{key} cannot be searched over: {_RESERVED.get(key, 'it does not affect the result')}"
        )
    if isinstance(value, list) and value:
        if any(one == other and type(one) is type(other) for one, other in itertools.combinations(value, 2)):
            raise InputError(f"{place}: space.{key}: a value is listed twice")
        return tuple(value)
    if not isinstance(value, dict):
        what = f"a list of values or {{low: …, high: …, log: …}}, not {hide_text(repr(value))}"
        raise InputError(f"{place}: space.{key} must be {what}")
    try:
        found = _Bounds.model_validate(value)
    except ValidationError as error:
        message = explain_errors(error, places, place, lambda _: "; it has low, high, log", ("space", key))
        raise InputError(message) from None
    if not found.low < found.high:
        raise InputError(f"{place}: space.{key}: low {found.low:g} must be less than high {found.high:g}")
    if found.log and found.low <= 0:
        raise InputError(f"{place}: space.{key}: with log, low must be greater than 0, not {found.low:g}")
    integer = isinstance(base_values.get(key), int) and not isinstance(base_values[key], bool)
    if integer and not (found.low.is_integer() and found.high.is_integer()):
        raise InputError(f"{place}: space.{key}: low and high must be whole numbers")
    return Range(**found.model_dump(), integer=integer)


def _trials(
    file: _File, space: Mapping[str, Choices | Range], places: Mapping[tuple[str, ...], str], path: Path
) -> int:
    if file.sampler.name != "grid":
        if file.trials is None:
            raise InputError(
                f"{path}: trials is missing: the number of points for the sampler {file.sampler.name} to try"
            )
        return file.trials
    for key, choices in space.items():
        if isinstance(choices, Range):
            raise InputError(
                f"{_location(key, places, path)}: space.{key} must be a list of values: the sampler is grid"
            )
    points = math.prod(len(choices) for choices in space.values() if not isinstance(choices, Range))
    if file.trials not in (None, points):
        raise InputError(
            f"{places[('trials',)]}: trials: the grid has {points} points, not {file.trials}; leave it out"
        )
    return points


def _location(key: str, places: Mapping[tuple[str, ...], str], path: Path) -> str:
    return places.get(("space", key), str(path))


def _suggest(key: str) -> str:
    return did_you_mean(key, [*_File.model_fields])


def short(key: str) -> str:
    """A key, shortened for tables and messages."""
    return key.removeprefix("train.")


def rounded(value: Any) -> Any:
    """A value for names and messages: numbers to three significant digits."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
