"""One process of a sweep: takes a trial, trains its runs, tells the result, takes the next."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import time
from contextlib import suppress

import torch

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config.schema import Data
from mnist_tb.data import datasets as data
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import device as hardware
from mnist_tb.errors import InputError, InUseError, MemoryFullError, PointError, TrainingError
from mnist_tb.launch import Part, launch, resume
from mnist_tb.runs.folder import Run
from mnist_tb.sweep.plan import Task, rounded, short
from mnist_tb.sweep.storage import storage_errors
from mnist_tb.sweep.study import Held, Study
from mnist_tb.system import terminate_self, when_parent_ends
from mnist_tb.tracking.console import Silent, Terminal
from mnist_tb.training.checkpoint import load as load_checkpoint

_WAIT = 0.5
"""Seconds between two looks for a trial, while others have the last ones."""
_LATER = 5.0
"""Seconds until one that cannot be done at the moment is tried again."""


class Quiet(Silent):
    """Says of a run only what must not be overlooked, and that once."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def warn(self, title: str, message: str) -> None:
        """One line, the first time."""
        if title not in self._warned:
            self._warned.add(title)
            print(f"WARNING: {title}: {message}", flush=True)


class Worker:
    """Trains one trial after the other, until all of the sweep's are finished, by whomever."""

    def __init__(self, task: Task, study: Study) -> None:
        self._task = task
        self._plan = task.plan
        self._terminal = Quiet()
        self._load = functools.lru_cache(maxsize=2)(self._read)
        self._study = study

    def work(self) -> None:
        """Raises as `launch` does, but for what is the trial's own fault: it has then failed."""
        while True:
            held = self._study.claim()
            if held is not None:
                time.sleep(self._try(held))
            elif self._study.counts().finished == self._plan.trials:
                return
            else:
                time.sleep(_WAIT)

    def _try(self, held: Held) -> float:
        """Do a trial and let go of it; the seconds to wait then, where it cannot be done at the moment."""
        try:
            self._do(held)
        except MemoryFullError as error:  # others beside it may be why: a few times more, here or elsewhere
            print(error, flush=True)
            return _LATER
        except InUseError:
            held.forgive()
            return _LATER
        except BaseException:
            with suppress(TrainingError), storage_errors():
                held.forgive()
            raise
        finally:
            held.release()
        return 0

    def _do(self, held: Held) -> None:
        began = time.perf_counter()
        numbers = {seed: self._plan.run_number(held.number, seed) for seed in self._plan.seeds}
        begun = {seed: self._study.run(self._task.folder, number) for seed, number in numbers.items()}
        if not held.attempt(sum(_step(run) for run in begun.values() if run is not None)):
            error = "it ended its worker again and again, without coming any further"
            held.failed(error)
            return self._say(held, f"failed: {error}", began)
        accuracies, seconds = {}, 0.0
        for seed in self._plan.seeds:
            try:
                run = self._train(held, seed, begun[seed])
            except PointError as error:
                held.failed(str(error))
                return self._say(held, f"failed: {error}", began)
            metrics = run.read_metrics()
            if metrics["status"] == "pruned":
                held.pruned()
                return self._say(held, f"pruned after epoch {metrics['epoch']}", began)
            accuracies[seed] = float(metrics["val"]["accuracy"])
            seconds += float(metrics["train_seconds"])
        held.complete(accuracies, seconds)
        shown = " ".join(f"{accuracy:.2%}" for accuracy in accuracies.values())
        return self._say(held, f"{shown} on validation", began)

    def _train(self, held: Held, seed: int, begun: Run | None) -> Run:
        """A run from its beginning, or from where it stopped."""
        part = Part(
            number=self._plan.run_number(held.number, seed),
            facts={"sweep": {"name": self._plan.name, "trial": held.number, "id": self._study.id}},
            go_on=lambda epochs, accuracy: held.go_on(seed, epochs, accuracy),
            load=self._load,
        )
        if begun is None:
            return launch(self._plan.config(held.point, seed), self._task.folder, self._terminal, part)
        if begun.read_metrics().get("status") != "pruned":  # else it was before its worker could tell
            resume(begun, self._terminal, device=self._plan.base.device, part=part)
        return begun

    def _read(self, config: Data, terminal: Terminal) -> Dataset:
        return data.load(config, terminal.say)

    def _say(self, held: Held, how: str, began: float) -> None:
        point = ", ".join(f"{short(key)} {settings.shown(rounded(value))}" for key, value in held.point.items())
        seconds = time.perf_counter() - began
        line = f"Trial {held.number + 1} of {self._plan.trials}: {point}: {how}, {seconds:.1f} s\n"
        sys.stdout.write(line)  # in one piece: workers share the terminal
        sys.stdout.flush()


def gpu(index: int, visible: str | None, count: int) -> str:
    """The one of `count` GPUs that worker `index` is to see, by its name in CUDA_VISIBLE_DEVICES, if that is set."""
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[index % count]


def _step(run: Run) -> int:
    """How far a run has come; a checkpoint that is broken is taken away, so that the run begins anew."""
    try:
        return int(load_checkpoint(run.last_checkpoint)["step"]) if run.last_checkpoint.exists() else 0
    except InputError as error:
        print(f"{error}; the run begins anew", flush=True)
        run.last_checkpoint.unlink()
        return 0


def run(task: Task) -> None:
    """Work on a sweep as one of its processes."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    gpus = torch.cuda.device_count()
    if gpus and task.plan.base.device in ("auto", "cuda"):  # before CUDA is first used
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu(task.index, os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
    hardware.resolve(task.plan.base)  # a device that is not there is the sweep's fault, not a trial's
    with storage_errors(), Study(task.plan, task.folder, task.storage) as study:
        Worker(task, study).work()


def _run_quietly(task: Task) -> None:
    try:
        run(task)
    except KeyboardInterrupt:  # the parent says it
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    import click

    from mnist_tb.cli.main import main

    try:
        told = pickle.load(sys.stdin.buffer)  # from the parent, which is this program
    except EOFError:
        raise InputError("this module is started by mnist-tb sweep") from None
    when_parent_ends(terminate_self)  # after a checkpoint
    sys.exit(main(click.Command("worker", callback=lambda: _run_quietly(told)), []))
