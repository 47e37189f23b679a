"""A sweep on this machine: starts its workers, watches over them, and says what came of it."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mnist_tb.errors import InputError, TrainingError
from mnist_tb.sweep.plan import Plan, Task
from mnist_tb.sweep.study import Counts, Study
from mnist_tb.system import available_cores, end_child, reap_child, start_child

_RESTARTS = 10
"""Workers that may be killed, one after another, without a trial having been finished in between."""


def sweep(
    plan: Plan, study: Study, folder: Path, storage: str | None, workers: int, say: Callable[[str], None]
) -> None:
    """Have `workers` processes do what is left of a sweep, and wait until all of it is finished, here and elsewhere.

    Raises KeyboardInterrupt, after the workers have saved where they are, where the user stops it; InputError and
    TrainingError where a worker could not go on, after the others have saved.
    """
    if (folder / "metrics.json").exists():
        raise InputError(f"{folder}: is a run's folder: give the sweep another name")
    before = study.counts()
    if before.finished < plan.trials:
        threads = max(available_cores() // min(workers, plan.trials), 1)  # as many as before the sweep was stopped
        workers = min(workers, plan.trials - before.finished)
        say(_beginning(plan, folder, before, workers, threads))
        tasks = [pickle.dumps(Task(plan, folder, storage, index)) for index in range(workers)]
        try:
            _watch(tasks, threads, study, say)
        except KeyboardInterrupt:
            done = study.counts()
            say(f"Stopped: {done.finished} of {plan.trials} trials are finished; the same command goes on.")
            raise


def _beginning(plan: Plan, folder: Path, before: Counts, workers: int, threads: int) -> str:
    seeds = f", {len(plan.seeds)} seeds each" if len(plan.seeds) > 1 else ""
    there = f", {before.finished} of them finished before" if before.finished else ""
    processes = f"{workers} worker{'s' if workers > 1 else ''}, {threads} thread{'s' if threads > 1 else ''} each"
    return f"Sweep {plan.name}: {plan.trials} trials{seeds}{there}; {processes}, in {folder}"


def _watch(tasks: list[bytes], threads: int, study: Study, say: Callable[[str], None]) -> None:
    """Until every worker has ended of itself. One that was killed is replaced; one that failed ends them all."""
    running: dict[int, subprocess.Popen[bytes]] = {}
    killed, finished = 0, study.counts().finished
    try:
        for index, task in enumerate(tasks):
            running[index] = _start(task, threads)
        while running:
            time.sleep(0.1)
            for index, process in [*running.items()]:
                code = process.poll()
                if code is None:
                    continue
                reap_child(running.pop(index))
                if code == 2:  # it has said why
                    raise InputError("the sweep has stopped, and goes on with the same command once this is right")
                if code == 1:
                    raise TrainingError("the sweep has stopped; the same command goes on")
                if code != 0:
                    now = study.counts().finished
                    killed, finished = (killed + 1 if now == finished else 1), now
                    if killed > _RESTARTS:
                        raise TrainingError(f"{killed} workers were killed without finishing a trial")
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    say(f"Worker {index + 1} was killed ({how}); another one takes its place")
                    running[index] = _start(tasks[index], threads)
    finally:
        _stop(list(running.values()))


def _start(task: bytes, threads: int) -> subprocess.Popen[bytes]:
    """A worker: Ctrl-C reaches it once, through this process."""
    process = start_child([sys.executable, "-m", "mnist_tb.sweep.worker"], OMP_NUM_THREADS=str(threads))
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already: that is seen soon enough
        process.stdin.write(task)
        process.stdin.flush()
    return process


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Have workers save and end, and wait for them."""
    for process in processes:
        end_child(process)
    for process in processes:
        reap_child(process)
