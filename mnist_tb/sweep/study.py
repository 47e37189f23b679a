"""The trials of a sweep, stored by Optuna in a journal or in PostgreSQL, and assigned so that each is run once.

A trial that is neither finished nor locked by a process has lost its worker: the next worker to look claims it.
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
from optuna.trial import FrozenTrial, TrialState

from mnist_tb.config.hyperparameters import format_value, varying
from mnist_tb.config.load import with_defaults
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.sweep.locks import Locks
from mnist_tb.sweep.plan import Plan
from mnist_tb.sweep.search import from_optuna, pruner, sampler, suggest, to_optuna
from mnist_tb.sweep.storage import close_storage, open_storage

_PLAN, _ID, _ACCURACIES, _SECONDS, _ERROR, _ATTEMPTS = "plan", "id", "accuracies", "seconds", "error", "attempts"
_MAX_ATTEMPTS = 5
"""How often a trial is attempted at the same progress before it is marked as failed."""


@dataclass(frozen=True)
class Counts:
    """How many of the sweep's trials are in each state. left: not started yet."""

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
    """A finished trial.

    state: complete, pruned or failed. accuracies: seed → validation accuracy, 0 to 1. error: why it failed, or empty.
    seconds: training time of all seeds.
    """

    number: int
    state: str
    point: Mapping[str, Any]
    accuracies: Mapping[int, float]
    error: str
    seconds: float


class ClaimedTrial:
    """A trial that this process has claimed.

    `should_continue` and the methods that finish it raise TrainingError if the claim may have been lost.
    """

    def __init__(self, trial: optuna.Trial, plan: Plan, locks: Locks) -> None:
        self._trial = trial
        self._plan = plan
        self._locks = locks
        self._reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self.point: dict[str, Any] = {}
        for index, (key, space) in enumerate(plan.space.items()):
            trial.study.sampler = sampler(plan, trial.number, index)
            self.point[key] = from_optuna(space, suggest(trial, key, space))

    @property
    def number(self) -> int:
        return self._trial.number

    def should_continue(self, seed: int, epochs: int, accuracy: float) -> bool:
        """Report the validation accuracy of one seed's training after some epochs; False if it should be pruned."""
        self._locks.check()
        if self._plan.pruner.name == "none":
            return True
        step = self._plan.seeds.index(seed) * self._plan.epochs + epochs
        if step not in self._reported:
            self._trial.report(accuracy, step)
            self._reported.add(step)
        return not self._trial.should_prune()

    def record_attempt(self, progress: int) -> bool:
        """Record that an attempt starts; False if there were too many at the same progress, in updates."""
        attempts = [*self._trial.user_attrs.get(_ATTEMPTS, []), progress][-_MAX_ATTEMPTS - 1 :]
        if len(attempts) > _MAX_ATTEMPTS and len(set(attempts)) == 1:
            return False
        self._trial.set_user_attr(_ATTEMPTS, attempts)
        return True

    def reset_attempts(self) -> None:
        """Forget all attempts: the trial was interrupted for a reason other than its point."""
        self._trial.set_user_attr(_ATTEMPTS, [])

    def complete(self, accuracies: Mapping[int, float], seconds: float) -> None:
        """Mark it as complete. accuracies, seconds: as in `Result`."""
        self._trial.set_user_attr(_SECONDS, seconds)
        self._trial.set_user_attr(_ACCURACIES, {str(seed): value for seed, value in accuracies.items()})
        self._finish(TrialState.COMPLETE, sum(accuracies.values()) / len(accuracies))

    def prune(self) -> None:
        """Mark it as pruned."""
        self._finish(TrialState.PRUNED)

    def fail(self, error: str) -> None:
        """Mark it as failed: no worker tries it again."""
        self._trial.set_user_attr(_ERROR, error)
        self._finish(TrialState.FAIL)

    def release(self) -> None:
        """Give up the claim. If the trial is not finished, another worker can claim it."""
        self._locks.release(self.number)

    def _finish(self, state: TrialState, value: float | None = None) -> None:
        self._locks.check()
        self._trial.study.tell(self.number, value, state, skip_if_finished=True)


class Study:
    """The trials of one sweep, as one process sees them; a context manager, which closes the storage.

    Errors of the storage are Optuna's: see `storage.storage_errors`.
    """

    def __init__(self, plan: Plan, folder: Path, storage: str | None) -> None:
        """folder, storage: as in `open_storage`.

        Raises InputError if the storage cannot be opened, or contains another sweep of this name.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan = plan
        self._locks, self._storage = open_storage(plan.name, folder, storage)
        try:
            self._create_or_load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the storage, and release all trials."""
        close_storage(self._storage)
        self._locks.close()

    def _create_or_load(self) -> None:
        """Create Optuna's study, or load the existing one and check that it is the same sweep."""
        plan = self._plan
        with self._locks.study_lock():
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=plan.name,
                direction="maximize",
                pruner=pruner(plan),
                load_if_exists=True,
            )
            existing = self._study.user_attrs.get(_PLAN)
            identity = json.loads(json.dumps(plan.identity()))
            if existing is None:
                self._study.set_user_attr(_ID, uuid.uuid4().hex)
                self._study.set_user_attr(_PLAN, identity)
                return
            known = {*existing, *identity}  # of these, what was added to the schema since then had its default
            existing = {key: value for key, value in with_defaults(existing).items() if key in known}
            if existing != identity:
                key = varying([existing, identity])[0]
                raise InputError(
                    f"sweep {plan.name}: it was started with {key} {format_value(existing.get(key))}, not"
                    f" {format_value(identity.get(key))}; give this one another `name` in its file, or another --logdir"
                )

    @property
    def id(self) -> str:
        """Distinguishes this sweep from others of the same name."""
        return str(self._study.user_attrs[_ID])

    def find_run(self, folder: Path, number: int) -> Run | None:
        """The run of that number in the sweep's folder, if any. Raises InputError if it belongs to another sweep."""
        found = next(iter(list_run_folders(folder, str(number))), None)
        if found is not None:
            facts = found.read_metrics().get("sweep")
            if not isinstance(facts, dict) or facts.get("id") != self.id:
                raise InputError(
                    f"{found.path}: is not a run of this sweep: move it away, or give the sweep another name"
                )
        return found

    def claim(self) -> ClaimedTrial | None:
        """Claim a trial that has lost its worker, or a new one; None if there is none at the moment."""
        with self._locks.study_lock():
            trial = self._choose()
        return None if trial is None else ClaimedTrial(trial, self._plan, self._locks)

    def _choose(self) -> optuna.Trial | None:
        """A trial to run, its lock acquired."""
        trials = self._study.get_trials(deepcopy=False)
        running = [trial.number for trial in trials[: self._plan.trials] if trial.state == TrialState.RUNNING]
        for number in self._locks.unclaimed(running):
            if self._locks.acquire(number):
                study_id = self._storage.get_study_id_from_name(self._plan.name)
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
                if not self._storage.get_trial(trial_id).state.is_finished():
                    return optuna.Trial(self._study, trial_id)
                self._locks.release(number)  # its worker has finished it since `get_trials`
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        if not waiting and len(trials) >= self._plan.trials:
            return None
        if self._plan.sampler.name == "grid" and not waiting:
            point = {key: to_optuna(value) for key, value in self._plan.grid_point(len(trials)).items()}
            self._study.enqueue_trial(point)  # if this process is killed before `ask`, the next worker gets it
        trial = self._study.ask()
        self._locks.acquire(trial.number)
        return trial

    def counts(self) -> Counts:
        """How many trials are in each state."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)[: self._plan.trials]]
        started = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
        complete, pruned, failed, running = (states.count(state) for state in started)
        left = self._plan.trials - complete - pruned - failed - running
        return Counts(complete, pruned, failed, running, left)

    def results(self) -> list[Result]:
        """The finished trials, in the order of their numbers."""
        trials = self._study.get_trials(deepcopy=False)[: self._plan.trials]
        return [self._result(trial) for trial in trials if trial.state.is_finished()]

    def importances(self) -> dict[str, float]:
        """How much each key decides whether a trial is among the best, as shares of 1; empty with too few results.

        PED-ANOVA: Watanabe, Bansal and Hutter 2023, https://arxiv.org/abs/2304.10255
        """
        # scikit-learn, where it is installed, comes with it: a second that no worker is to wait
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len({trial.value for trial in complete}) < 2 or len(complete) < 4:
            return {}
        with warnings.catch_warnings(action="ignore"):  # about keys that have only one value
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
