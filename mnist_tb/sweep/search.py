"""A sweep's space, sampler and pruner in Optuna's words, and its values back."""

from __future__ import annotations

import json
import zlib
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from mnist_tb.sweep.plan import Choices, Plan, Range


def distribution(space: Choices | Range) -> BaseDistribution:
    """A key's space in Optuna's words."""
    if not isinstance(space, Range):
        return CategoricalDistribution([to_optuna(value) for value in space])
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(float(space.low), float(space.high), log=space.log)


def to_optuna(value: Any) -> Any:
    """A choice as Optuna can keep it: lists and groups as their JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def from_optuna(space: Choices | Range, stored: Any) -> Any:
    """The value of a key that Optuna has kept."""
    if isinstance(space, Range):
        return stored
    return next(value for value in space if to_optuna(value) == stored and type(to_optuna(value)) is type(stored))


def sampler(plan: Plan, number: int, place: int) -> BaseSampler:
    """Of one key of one trial, and seeded by both: random points are the same whoever draws them, and however often."""
    seed = zlib.crc32(f"{plan.sampler.seed} {number} {place}".encode())
    if plan.sampler.name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=plan.sampler.startup, multivariate=True, constant_liar=True)
    return RandomSampler(seed=seed)


def pruner(plan: Plan) -> BasePruner:
    """What stops trials that do worse than others; its steps are epochs, those of all seeds in a row."""
    name, steps = plan.pruner.name, plan.epochs * len(plan.seeds)
    if name == "median":
        # Optuna counts steps from 0: the last epoch of the warm-up is step `warmup` here.
        return MedianPruner(n_startup_trials=plan.pruner.startup, n_warmup_steps=plan.pruner.warmup + 1)
    return HyperbandPruner(min_resource=1, max_resource=steps) if name == "hyperband" else NopPruner()
