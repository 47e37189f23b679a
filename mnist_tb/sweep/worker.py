"""One process of a sweep: claims a trial, trains its runs, stores the result, and claims the next."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import time
from contextlib import suppress

import torch

from mnist_tb.config.hyperparameters import format_value
from mnist_tb.config.names import printable
from mnist_tb.config.numbers import percent
from mnist_tb.config.schema import Data
from mnist_tb.data.datasets import Dataset, load_dataset
from mnist_tb.engine.device import resolve_auto
from mnist_tb.engine.process import terminate_self, when_parent_ends
from mnist_tb.errors import InputError, InUseError, MemoryFullError, PointError, TrainingError
from mnist_tb.launch import TrialContext, launch, resume
from mnist_tb.runs.folder import Run
from mnist_tb.sweep.plan import Task, rounded, short
from mnist_tb.sweep.storage import storage_errors
from mnist_tb.sweep.study import ClaimedTrial, Study
from mnist_tb.tracking.console import Silent, Terminal
from mnist_tb.training import signals
from mnist_tb.training.checkpoint import load as load_checkpoint
from mnist_tb.training.resume import ResumeOptions
from mnist_tb.training.signals import Deferral

_POLL_SECONDS = 0.5
"""Between two looks for a trial while other workers run the last ones."""
_RETRY_SECONDS = 5.0
"""Before the next claim, after a trial that cannot be run at the moment."""


class WarningsOnly(Silent):
    """A terminal that prints only warnings, each of them once."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def warn(self, title: str, message: str) -> None:
        """Print a warning on one line, unless one with this title was printed before."""
        if title not in self._warned:
            self._warned.add(title)
            print(printable(f"WARNING: {title}: {message}"), flush=True)


class Worker:
    """Runs one trial after another until all trials of the sweep are finished, by this or other workers."""

    def __init__(self, task: Task, study: Study) -> None:
        self._task = task
        self._plan = task.plan
        self._terminal = WarningsOnly()
        self._load = functools.lru_cache(maxsize=2)(self._load_dataset)
        self._study = study

    def work(self) -> None:
        """Raises as `launch` does, except for errors caused by a trial's point: they mark the trial as failed.

        A signal ends it between two updates of a training or between two trials, never while the storage is locked.
        """
        with signals.deferred() as asked:
            while not asked.requested:
                claimed = self._study.claim()
                if claimed is not None:
                    _sleep(self._attempt(claimed), asked)
                elif self._study.counts().finished == self._plan.trials:
                    return
                else:
                    _sleep(_POLL_SECONDS, asked)

    def _attempt(self, claimed: ClaimedTrial) -> float:
        """Run a trial and release it. Returns the seconds to wait before the next claim."""
        try:
            self._run(claimed)
        except MemoryFullError as error:  # other programs may be the cause: retried a few times, here or elsewhere
            print(printable(str(error)), flush=True)
            return _RETRY_SECONDS
        except InUseError:
            claimed.reset_attempts()
            return _RETRY_SECONDS
        except BaseException:
            with suppress(TrainingError), storage_errors():
                claimed.reset_attempts()
            raise
        finally:
            claimed.release()
        return 0

    def _run(self, claimed: ClaimedTrial) -> None:
        started = time.perf_counter()
        numbers = {seed: self._plan.run_number(claimed.number, seed) for seed in self._plan.seeds}
        existing = {seed: self._study.find_run(self._task.folder, number) for seed, number in numbers.items()}
        if not claimed.record_attempt(sum(_progress(run) for run in existing.values() if run is not None)):
            error = "its workers ended again and again without making progress"
            claimed.fail(error)
            return self._report(claimed, f"failed: {error}", started)
        accuracies, seconds = {}, 0.0
        for seed in self._plan.seeds:
            try:
                run = self._train(claimed, seed, existing[seed])
            except PointError as error:
                claimed.fail(str(error))
                return self._report(claimed, f"failed: {error}", started)
            metrics = run.read_metrics()
            if metrics["status"] == "pruned":
                claimed.prune()
                return self._report(claimed, f"pruned after epoch {metrics['epoch']}", started)
            accuracies[seed] = float(metrics["val"]["accuracy"])
            seconds += float(metrics["train_seconds"])
            if seed != self._plan.seeds[-1]:  # a trial of several can take many minutes
                self._report(claimed, f"{percent(accuracies[seed])}% on validation", started, f"seed {seed} of trial")
        claimed.complete(accuracies, seconds)
        percentages = " ".join(f"{percent(accuracy)}%" for accuracy in accuracies.values())
        return self._report(claimed, f"{percentages} on validation", started)

    def _train(self, claimed: ClaimedTrial, seed: int, existing: Run | None) -> Run:
        """Train a run from the beginning, or from where it stopped."""
        trial = TrialContext(
            number=self._plan.run_number(claimed.number, seed),
            facts={"sweep": {"name": self._plan.name, "trial": claimed.number, "id": self._study.id}},
            should_continue=lambda epochs, accuracy: claimed.should_continue(seed, epochs, accuracy),
            load=self._load,
        )
        if existing is None:
            return launch(self._plan.config(claimed.point, seed), self._task.folder, self._terminal, trial)
        if existing.read_metrics().get("status") != "pruned":  # else its worker ended before it could store that
            resume(existing, self._terminal, ResumeOptions(device=self._plan.base.device), trial=trial)
        return existing

    def _load_dataset(self, config: Data, terminal: Terminal) -> Dataset:
        return load_dataset(config, terminal.say)

    def _report(self, claimed: ClaimedTrial, outcome: str, started: float, part: str = "Trial") -> None:
        """Print how a trial, or a part of it, has ended, and how long after the trial began."""
        point = ", ".join(f"{short(key)} {format_value(rounded(value))}" for key, value in claimed.point.items())
        seconds = time.perf_counter() - started
        line = f"{part} {claimed.number + 1} of {self._plan.trials}: {point}: {outcome}, {seconds:.1f} s\n"
        sys.stdout.write(line)  # in a single write: workers share the terminal
        sys.stdout.flush()


def _sleep(seconds: float, asked: Deferral) -> None:
    """Sleep, unless a signal has come or comes."""
    end = time.monotonic() + seconds
    while not asked.requested and time.monotonic() < end:
        time.sleep(min(_POLL_SECONDS, seconds))


def gpu(index: int, visible: str | None, count: int) -> str:
    """The GPU for worker `index`, as an entry of CUDA_VISIBLE_DEVICES. visible: its present value. count: of GPUs."""
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[index % count]


def _progress(run: Run) -> int:
    """The updates that a run's checkpoint contains, or 0. A broken one is deleted, so that the run starts over."""
    try:
        return int(load_checkpoint(run.last_checkpoint)["step"]) if run.last_checkpoint.exists() else 0
    except InputError as error:
        print(printable(f"{error}; the run starts over"), flush=True)
        run.last_checkpoint.unlink()
        return 0


def run(task: Task) -> None:
    """Run trials of a sweep until all are finished. Raises as `Worker.work`; InputError if the device is missing."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    gpus = torch.cuda.device_count()
    if gpus and task.plan.base.device in ("auto", "cuda"):  # set before CUDA is first used
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu(task.index, os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
    resolve_auto(task.plan.base)  # a missing device ends the sweep, and fails no trial
    with storage_errors(), Study(task.plan, task.folder, task.storage) as study:
        Worker(task, study).work()


def _run_quietly(task: Task) -> None:
    try:
        run(task)
    except KeyboardInterrupt:  # the parent reports it
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    import click

    from mnist_tb.cli.main import main

    try:
        received = pickle.load(sys.stdin.buffer)  # trusted: the parent is this program
    except EOFError:
        raise InputError("this module is started by mnist-tb sweep") from None
    when_parent_ends(terminate_self)  # it saves a checkpoint first
    sys.exit(main(click.Command("worker", callback=lambda: _run_quietly(received)), []))
