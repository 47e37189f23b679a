"""A sweep's search space, sampler and pruner as Optuna's, and Optuna's values as the sweep's."""

from __future__ import annotations

import json
import zlib
from typing import Any

from optuna import Trial
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from mnist_tb.sweep.plan import Choices, Plan, Range


def suggest(trial: Trial, key: str, space: Choices | Range) -> Any:
    """A trial's value for a key, as Optuna stores it; the same value every time."""
    if not isinstance(space, Range):
        return trial.suggest_categorical(key, [to_optuna(value) for value in space])
    if space.integer:
        return trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(key, float(space.low), float(space.high), log=space.log)


def to_optuna(value: Any) -> Any:
    """A choice as Optuna can store it: lists and groups as JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def from_optuna(space: Choices | Range, stored: Any) -> Any:
    """The value of a key that Optuna has stored."""
    if isinstance(space, Range):
        return stored
    return next(value for value in space if to_optuna(value) == stored and type(to_optuna(value)) is type(stored))


def sampler(plan: Plan, number: int, index: int) -> BaseSampler:
    """The sampler for trial `number` and the key at `index` of the space.

    It is seeded by both, so that random points do not depend on which process draws them, or how often.
    """
    seed = zlib.crc32(f"{plan.sampler.seed} {number} {index}".encode())
    if plan.sampler.name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=plan.sampler.startup, multivariate=True, constant_liar=True)
    return RandomSampler(seed=seed)


def pruner(plan: Plan) -> BasePruner:
    """The pruner of a sweep. Its steps are epochs, counted through all seeds of a trial."""
    name, steps = plan.pruner.name, plan.epochs * len(plan.seeds)
    if name == "median":
        # Optuna counts steps from 0: the last warm-up epoch is step `warmup` here.
        return MedianPruner(n_startup_trials=plan.pruner.startup, n_warmup_steps=plan.pruner.warmup + 1)
    return HyperbandPruner(min_resource=1, max_resource=steps) if name == "hyperband" else NopPruner()
