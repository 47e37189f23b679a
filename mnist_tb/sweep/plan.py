"""What a sweep is to do: read from a YAML file, checked, and turned into configurations. Imports neither torch nor
Optuna."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import load as configuration
from mnist_tb.config import presets, strict_yaml
from mnist_tb.config.hyperparameters import SEED
from mnist_tb.config.schema import LONGEST_NAME, Config, Group, RunName
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import is_numbered

_OWN = {
    "name": "each run is named for its values",
    SEED: "the seeds that each point is trained with are listed under seeds",
}


class Sampler(Group):
    """Who chooses the points. startup: how many are random before TPE has enough to learn from."""

    name: Literal["tpe", "random", "grid"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup: Annotated[int, Field(ge=1)] = 10


class Pruner(Group):
    """Who stops trainings that do worse than the others did. startup, warmup: of median: trials that are complete, and
    epochs of a trial, before any is stopped."""

    name: Literal["none", "median", "hyperband"] = "none"
    startup: Annotated[int, Field(ge=1)] = 5
    warmup: Annotated[int, Field(ge=0)] = 1


class _Bounds(Group):
    """A range as the file has it."""

    low: float
    high: float
    log: bool = False


class Range(_Bounds):
    """All numbers from low to high, both included; whole ones only, where the key has whole numbers."""

    whole: Annotated[bool, Field(exclude=True)] = False


class _File(Group):
    """The keys of a sweep's file."""

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
    """A sweep. space: dotted key → its choices or its range. trials: how many points in all, on all machines."""

    name: str
    base: Config
    space: Mapping[str, Choices | Range]
    trials: int
    seeds: tuple[int, ...]
    sampler: Sampler
    pruner: Pruner

    def grid(self, number: int) -> dict[str, Any]:
        """The point of trial `number` where the sampler is a grid: the last key goes round first."""
        choices = [space for space in self.space.values() if not isinstance(space, Range)]
        values = next(itertools.islice(itertools.product(*choices), number, None))
        return dict(zip(self.space, values, strict=True))

    def config(self, point: Mapping[str, Any], seed: int) -> Config:
        """The configuration of one run: a point with one of the seeds."""
        words = settings.words({key: rounded(value) for key, value in point.items()})
        name = re.sub(r"[^A-Za-z0-9._-]", "-", words if len(self.seeds) == 1 else f"{words}-s{seed}")
        return configuration.changed(self.base, {**point, SEED: seed, "name": name[:LONGEST_NAME].strip("-.")})

    def run_number(self, trial: int, seed: int) -> int:
        """Of the folder of a trial's run, so that whoever goes on with the trial finds it."""
        return trial * len(self.seeds) + self.seeds.index(seed) + 1

    @property
    def epochs(self) -> int:
        """The most that any training has."""
        space = self.space.get("train.epochs")
        if space is None:
            return self.base.train.epochs
        return int(space.high) if isinstance(space, Range) else max(space)

    def identity(self) -> dict[str, Any]:
        """What must be the same for two workers to be at the same sweep, as JSON has it: all but its length and where
        the data are."""
        space = {key: value.model_dump() if isinstance(value, Range) else [*value] for key, value in self.space.items()}
        sampled = {"space": space, "seeds": [*self.seeds]}
        groups = {"sampler": self.sampler.model_dump(), "pruner": self.pruner.model_dump()}
        fixed = settings.deciding(configuration.flat(self.base))
        fixed.pop("device")  # machines may differ
        return {**fixed, **sampled, **settings.flatten(groups)}


@dataclass(frozen=True)
class Task:
    """What a worker is told. folder: of the sweep. storage: as in `Study`. index: from 0."""

    plan: Plan
    folder: Path
    storage: str | None
    index: int


def load(path: str | Path, overrides: Iterable[str] = (), options: Iterable[tuple[str, str, Any]] = ()) -> Plan:
    """Read a sweep's file. path: as in `presets.find`. overrides, options: of its base, as in `config.load`.

    Raises InputError naming the file and line, or the option, the key, and what would be right.
    """
    path = presets.find(path)
    document = strict_yaml.read(path)
    places = document.places
    values = {"name": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:LONGEST_NAME], **document.values}
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        raise InputError(configuration.explain(error, places, str(path), _suggest)) from None
    if file.name is None:
        raise InputError(f"{places[('name',)]}: name must be a text, not nothing (null)")
    try:
        base = presets.find(file.base, beside=path)
    except InputError as error:
        raise InputError(f"{places.get(('base',), path)}: base: {error}") from None
    if not base.is_file():
        raise InputError(f"{places.get(('base',), path)}: base: {base} is no file")
    if is_numbered(file.name):
        raise InputError(f"{places.get(('name',), path)}: {file.name} would be taken for a run: give the sweep a name")
    preset = [
        (places.get(("set", *key.split(".")), str(path)), key, value)
        for key, value in settings.flatten(file.set).items()
    ]
    # A trial on other data than the sweep's would be compared with the rest: no falling back.
    known = [*options, (str(path), "data.fallback", None)]
    config = configuration.load(base, overrides, known, preset=preset)
    fixed = [(f"--set {text}", text.partition("=")[0].strip()) for text in overrides]
    for place, key in (*((f"{place}: set.{key}", key) for place, key, _ in preset), *fixed):
        if key in file.space or key in _OWN:
            raise InputError(f"{place}: {_OWN.get(key, 'the sweep searches over it')}")
    usual = configuration.flat(config)
    space = {key: _space(key, value, usual, places, path) for key, value in file.space.items()}
    for key, part in space.items():  # all at once, before anything is trained
        for value in _ends(part) if isinstance(part, Range) else part:
            configuration.load(base, overrides, [*known, (_place(key, places, path), key, value)], preset=preset)
    if file.pruner.name != "none" and config.train.evaluate_every == 0:
        raise InputError(f"{places[('pruner',)]}: pruner: with train.evaluate_every 0 there is nothing to prune by")
    if len(set(file.seeds)) < len(file.seeds):
        raise InputError(f"{places[('seeds',)]}: seeds: one stands there twice")
    trials = _trials(file, space, places, path)
    return Plan(file.name, config, space, trials, file.seeds, file.sampler, file.pruner)


def _ends(part: Range) -> tuple[float, float]:
    return (int(part.low), int(part.high)) if part.whole else (part.low, part.high)


def _space(
    key: str, value: Any, usual: Mapping[str, Any], places: Mapping[tuple[str, ...], str], path: Path
) -> Choices | Range:
    place = _place(key, places, path)
    inside = [other for other in usual if other.startswith(f"{key}.")]
    if inside:
        raise InputError(f"{place}: space.{key} is a group of keys: write {inside[0]}")
    if key in usual and (key in _OWN or key == "device" or not settings.deciding({key: None})):
        raise InputError(f"{place}: space.{key} cannot be searched over: {_OWN.get(key, 'it decides no result')}")
    if isinstance(value, list) and value:
        if any(one == other and type(one) is type(other) for one, other in itertools.combinations(value, 2)):
            raise InputError(f"{place}: space.{key}: a value stands there twice")
        return tuple(value)
    if not isinstance(value, dict):
        raise InputError(f"{place}: space.{key} must be a list of values or {{low: …, high: …, log: …}}, not {value!r}")
    try:
        found = _Bounds.model_validate(value)
    except ValidationError as error:
        told = configuration.explain(error, places, place, lambda _: "; it has low, high, log", ("space", key))
        raise InputError(told) from None
    if not found.low < found.high:
        raise InputError(f"{place}: space.{key}: low {found.low:g} must be less than high {found.high:g}")
    if found.log and found.low <= 0:
        raise InputError(f"{place}: space.{key}: with log, low must be greater than 0, not {found.low:g}")
    whole = isinstance(usual.get(key), int) and not isinstance(usual[key], bool)
    if whole and not (found.low.is_integer() and found.high.is_integer()):
        raise InputError(f"{place}: space.{key}: low and high must be whole numbers")
    return Range(**found.model_dump(), whole=whole)


def _trials(
    file: _File, space: Mapping[str, Choices | Range], places: Mapping[tuple[str, ...], str], path: Path
) -> int:
    if file.sampler.name != "grid":
        if file.trials is None:
            raise InputError(f"{path}: trials is missing: how many points the sampler {file.sampler.name} is to try")
        return file.trials
    for key, part in space.items():
        if isinstance(part, Range):
            raise InputError(f"{_place(key, places, path)}: space.{key} must be a list of values: the sampler is grid")
    points = math.prod(len(part) for part in space.values() if not isinstance(part, Range))
    if file.trials not in (None, points):
        raise InputError(
            f"{places[('trials',)]}: trials: the grid has {points} points, not {file.trials}; leave it out"
        )
    return points


def _place(key: str, places: Mapping[tuple[str, ...], str], path: Path) -> str:
    return places.get(("space", key), str(path))


def _suggest(key: str) -> str:
    return f"; the keys are {', '.join(_File.model_fields)}"


def short(key: str) -> str:
    """A key as a table or a line has it."""
    return key.removeprefix("train.")


def rounded(value: Any) -> Any:
    """A number as a name or a line has it: to three figures."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
