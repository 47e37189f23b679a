"""A sweep on this machine: starts its workers, supervises them, and reports on them."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mnist_tb.data.files import provide
from mnist_tb.engine.process import available_cores, end_child, reap_child, start_child
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.runs.folder import is_ours
from mnist_tb.sweep.plan import Plan, Task
from mnist_tb.sweep.study import Counts, Study

_MAX_RESTARTS = 10
"""How many workers in a row may be killed without a trial being finished."""


def sweep(
    plan: Plan, study: Study, folder: Path, storage: str | None, workers: int, say: Callable[[str], None]
) -> None:
    """Run what is left of a sweep in worker processes, and wait until all of it is finished, here and elsewhere.

    folder: of the sweep. storage: as in `open_storage`. workers: the number of processes. say: prints one line.
    Raises KeyboardInterrupt if the user stops it, and InputError or TrainingError if a worker fails; in each case after
    the other workers have saved their checkpoints.
    """
    if is_ours(folder):
        raise InputError(f"{folder}: is a run's folder: give the sweep another name")
    before = study.counts()
    if before.finished < plan.trials:
        threads = max(available_cores() // min(workers, plan.trials), 1)  # the same after a restart
        workers = min(workers, plan.trials - before.finished)
        say(_first_line(plan, folder, before, workers, threads))
        if "data.name" not in plan.space:  # else a worker brings what its trials need
            provide(plan.base.data, say)  # once, and not by every worker
        tasks = [pickle.dumps(Task(plan, folder, storage, index)) for index in range(workers)]
        try:
            _watch(tasks, threads, study, say)
        except KeyboardInterrupt:
            done = study.counts()
            say(f"Stopped: {done.finished} of {plan.trials} trials are finished; the same command continues the sweep.")
            raise


def _first_line(plan: Plan, folder: Path, before: Counts, workers: int, threads: int) -> str:
    seeds = f", {len(plan.seeds)} seeds each" if len(plan.seeds) > 1 else ""
    done = f", {before.finished} of them finished before" if before.finished else ""
    processes = f"{workers} worker{'s' if workers > 1 else ''}, {threads} thread{'s' if threads > 1 else ''} each"
    return f"Sweep {plan.name}: {plan.trials} trials{seeds}{done}; {processes}, in {folder}"


def _watch(tasks: list[bytes], threads: int, study: Study, say: Callable[[str], None]) -> None:
    """Wait until all workers have finished. One that is killed is replaced; one that fails ends them all."""
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
                if code == 2:  # the worker has printed the reason
                    raise InputError("the sweep has stopped; once this is fixed, the same command continues it")
                if code == 1:
                    raise TrainingError("the sweep has stopped; the same command continues it")
                if code != 0:
                    now = study.counts().finished
                    killed, finished = (killed + 1 if now == finished else 1), now
                    if killed > _MAX_RESTARTS:
                        raise TrainingError(f"{killed} workers were killed without finishing a trial")
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    say(f"Worker {index + 1} was killed ({how}); another one takes its place")
                    running[index] = _start(tasks[index], threads)
    finally:
        _stop(list(running.values()))


def _start(task: bytes, threads: int) -> subprocess.Popen[bytes]:
    """Start a worker. Ctrl-C reaches it only once, through this process."""
    process = start_child([sys.executable, "-m", "mnist_tb.sweep.worker"], OMP_NUM_THREADS=str(threads))
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has already ended, which `_watch` notices
        process.stdin.write(task)
        process.stdin.flush()
    return process


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Have workers save their checkpoints and end, and wait for them."""
    for process in processes:
        end_child(process)
    for process in processes:
        reap_child(process)
