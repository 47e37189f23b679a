"""The trials of a sweep, kept by Optuna in a journal or in PostgreSQL, and shared out so that each is done once.

A trial that no process has a lock on, and that is not finished, has lost its worker: the next one to look takes it on.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from mnist_tb.config import hyperparameters as settings
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import Run, listing
from mnist_tb.sweep.locks import Locks
from mnist_tb.sweep.plan import Plan
from mnist_tb.sweep.search import distribution, from_optuna, pruner, sampler, to_optuna
from mnist_tb.sweep.storage import close_storage, open_storage

_PLAN, _ID, _ACCURACIES, _SECONDS, _ERROR, _ATTEMPTS = "plan", "id", "accuracies", "seconds", "error", "attempts"
_FRUITLESS = 5
"""Workers that a trial may end, one after another, without having come any further."""


@dataclass(frozen=True)
class Counts:
    """How many of the sweep's trials are in each state. left: neither finished nor begun."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    left: int = 0

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True)
class Result:
    """A finished trial. state: complete, pruned or failed. accuracies: seed → accuracy on validation, 0 to 1.

    seconds: of training.
    """

    number: int
    state: str
    point: Mapping[str, Any]
    accuracies: Mapping[int, float]
    error: str
    seconds: float


class Held:
    """A trial that is this process's to do."""

    def __init__(self, trial: optuna.Trial, plan: Plan, locks: Locks) -> None:
        self._trial = trial
        self._plan = plan
        self._locks = locks
        self._reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        params = {}
        for place, (key, space) in enumerate(plan.space.items()):
            trial.study.sampler = sampler(plan, trial.number, place)
            params[key] = trial._suggest(key, distribution(space))
        self.point = {key: from_optuna(plan.space[key], value) for key, value in params.items()}

    @property
    def number(self) -> int:
        return self._trial.number

    def go_on(self, seed: int, epochs: int, accuracy: float) -> bool:
        """Tell the accuracy on validation of one seed's training after some epochs; False where it is to be pruned."""
        self._locks.check()
        if self._plan.pruner.name == "none":
            return True
        step = self._plan.seeds.index(seed) * self._plan.epochs + epochs
        if step not in self._reported:
            self._trial.report(accuracy, step)
            self._reported.add(step)
        return not self._trial.should_prune()

    def attempt(self, progress: int) -> bool:
        """Note that the work begins; False where it has ended its worker too often at the same progress, in steps."""
        before = [*self._trial.user_attrs.get(_ATTEMPTS, []), progress][-_FRUITLESS - 1 :]
        if len(before) > _FRUITLESS and len(set(before)) == 1:
            return False
        self._trial.set_user_attr(_ATTEMPTS, before)
        return True

    def forgive(self) -> None:
        """Forget the attempts: that it was stopped is not the trial's fault."""
        self._trial.set_user_attr(_ATTEMPTS, [])

    def complete(self, accuracies: Mapping[int, float], seconds: float) -> None:
        """It is done, with each seed's accuracy on validation, in so many seconds of training in all."""
        self._trial.set_user_attr(_SECONDS, seconds)
        self._trial.set_user_attr(_ACCURACIES, {str(seed): value for seed, value in accuracies.items()})
        self._tell(TrialState.COMPLETE, sum(accuracies.values()) / len(accuracies))

    def pruned(self) -> None:
        """It was stopped."""
        self._tell(TrialState.PRUNED)

    def failed(self, error: str) -> None:
        """It cannot be done."""
        self._trial.set_user_attr(_ERROR, error)
        self._tell(TrialState.FAIL)

    def release(self) -> None:
        """Leave it to others, finished or not."""
        self._locks.release(self.number)

    def _tell(self, state: TrialState, value: float | None = None) -> None:
        self._locks.check()
        self._trial.study.tell(self.number, value, state, skip_if_finished=True)


class Study:
    """The trials of one sweep, for one process; a context manager, which lets go of the storage at its end.

    Errors of the storage are Optuna's: see `storage.storage_errors`.
    """

    def __init__(self, plan: Plan, folder: Path, storage: str | None) -> None:
        """folder: of the sweep. storage: `postgresql://…`, the file of a journal, or None for the one in the folder.

        Raises InputError where the storage cannot be had, or holds another sweep under this name.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan = plan
        self._locks, self._kept = open_storage(plan.name, folder, storage)
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the storage, and of all that is held."""
        close_storage(self._kept)
        self._locks.close()

    def _join(self) -> None:
        """Have the study in the storage, which is this sweep's."""
        plan = self._plan
        with self._locks.whole():
            self._study = optuna.create_study(
                storage=self._kept,
                study_name=plan.name,
                direction="maximize",
                pruner=pruner(plan),
                load_if_exists=True,
            )
            known = self._study.user_attrs.get(_PLAN)
            mine = json.loads(json.dumps(plan.identity()))
            if known is None:
                self._study.set_user_attr(_ID, uuid.uuid4().hex)
                self._study.set_user_attr(_PLAN, mine)
            elif known != mine:
                key = settings.varying([known, mine])[0]
                raise InputError(
                    f"sweep {plan.name}: was begun with {key} {settings.shown(known.get(key))}, not"
                    f" {settings.shown(mine.get(key))}; give the sweep another name"
                )

    @property
    def id(self) -> str:
        """What tells this sweep from another of the same name."""
        return str(self._study.user_attrs[_ID])

    def run(self, folder: Path, number: int) -> Run | None:
        """This sweep's run of that number, if it is in the folder. Raises InputError where another's is."""
        found = next((run for run in listing(folder) if int(run.name.partition("-")[0]) == number), None)
        if found is not None:
            facts = found.read_metrics().get("sweep")
            if not isinstance(facts, dict) or facts.get("id") != self.id:
                raise InputError(f"{found.path}: is no run of this sweep: move it away, or give the sweep another name")
        return found

    def claim(self) -> Held | None:
        """A trial to do: one that lost its worker, or a new one; None where there is none for the moment."""
        with self._locks.whole():
            found = self._choose()
        return None if found is None else Held(found, self._plan, self._locks)

    def _choose(self) -> optuna.Trial | None:
        """The trial to do, held."""
        trials = self._study.get_trials(deepcopy=False)
        running = [trial.number for trial in trials[: self._plan.trials] if trial.state == TrialState.RUNNING]
        for number in self._locks.free(running):
            if self._locks.hold(number):
                found = optuna.Trial(self._study, trials[number]._trial_id)
                if not found.storage.get_trial(trials[number]._trial_id).state.is_finished():
                    return found
                self._locks.release(number)  # its worker has finished it since it was looked at
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        if not waiting and len(trials) >= self._plan.trials:
            return None
        if self._plan.sampler.name == "grid" and not waiting:
            point = {key: to_optuna(value) for key, value in self._plan.grid(len(trials)).items()}
            self._study.enqueue_trial(point)  # a killed worker may leave it so: the next one asks for it
        found = self._study.ask()
        self._locks.hold(found.number)
        return found

    def counts(self) -> Counts:
        """How the sweep stands."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)[: self._plan.trials]]
        begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
        complete, pruned, failed, running = (states.count(state) for state in begun)
        left = self._plan.trials - complete - pruned - failed - running
        return Counts(complete, pruned, failed, running, left)

    def results(self) -> list[Result]:
        """The finished trials, in the order of their numbers."""
        trials = self._study.get_trials(deepcopy=False)[: self._plan.trials]
        return [self._result(trial) for trial in trials if trial.state.is_finished()]

    def importances(self) -> dict[str, float]:
        """How much each key decides whether a trial is among the best, in shares of 1; empty where nothing can be said.

        PED-ANOVA: Watanabe, Bansal and Hutter 2023, https://arxiv.org/abs/2304.10255
        """
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len({trial.value for trial in complete}) < 2 or len(complete) < 4:
            return {}
        with warnings.catch_warnings(action="ignore"):  # about keys with one value
            found = get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
        return {key: float(value) for key, value in found.items() if key in self._plan.space}

    def _result(self, trial: FrozenTrial) -> Result:
        states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        return Result(
            trial.number,
            states[trial.state],
            {
                key: from_optuna(space, trial.params[key])
                for key, space in self._plan.space.items()
                if key in trial.params
            },
            {int(seed): value for seed, value in trial.user_attrs.get(_ACCURACIES, {}).items()},
            trial.user_attrs.get(_ERROR, ""),
            trial.user_attrs.get(_SECONDS, 0.0),
        )
