"""From a configuration to a finished run: everything around the training loop, in its order."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mnist_tb import config as configuration
from mnist_tb import data, events, hardware, kernels, memory, reporting, runs
from mnist_tb.checkpoint import Saver
from mnist_tb.checkpoint import load as load_checkpoint
from mnist_tb.data import Dataset
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.live import Live
from mnist_tb.model import CNN, build, in_precision
from mnist_tb.runs import Run
from mnist_tb.schema import Config
from mnist_tb.scoring import check_data, finish, first_status, run_config, steps_of
from mnist_tb.state import State
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import EventWriter
from mnist_tb.train import Job, keep_best, train


def launch(config: Config, logdir: Path, terminal: Terminal) -> Run:
    """Train, evaluate on completion, and leave a finished run below the log folder.

    Everything the user can have wrong is found before the run's folder is made. Raises InputError for that and
    TrainingError for what fails later; the run is then marked failed, and interrupted where the user stopped it.
    """
    config = _prepare(config)
    dataset = data.load(config.data, terminal.say)
    config = _resolve_data(config, dataset, terminal)
    with _memory_errors():
        dataset = dataset.to(torch.device(config.device))
        model = build(config.model.channels, config.seed, torch.device(config.device))
        facts = reporting.facts(config, dataset, model, _versions())
        run = runs.create(logdir, config.name, configuration.dump(config), facts)
        with run.in_use():
            _work(config, run, dataset, model, terminal, None)
    return run


def resume(run: Run, terminal: Terminal, epochs: int | None, device: str | None, data_root: str | None) -> bool:
    """Go on with a run from its last checkpoint, in its own folder; False where it is complete and nothing was done.

    epochs: how many there are to be in all, more than before extends the run. epochs, device, data_root: None leaves
    them as they were.
    Raises as `launch` does, and InputError where the run, its checkpoint or its data are missing, broken or in use.
    """
    with run.in_use():
        known = run.read_metrics()
        config = _prepare(run_config(run, device, data_root))
        if epochs is not None and epochs < config.train.epochs:
            raise InputError(f"--epochs {epochs}: the run has {config.train.epochs} already; it can only become longer")
        if epochs is not None:
            config = configuration.changed(config, {"train.epochs": epochs})
        saved = load_checkpoint(run.last_checkpoint) if run.last_checkpoint.exists() else None
        complete = known.get("status") == "completed"
        if complete and (saved is None or saved.get("epoch") == config.train.epochs):
            return False
        dataset = data.load(config.data)
        check_data(run, known, dataset)
        with _memory_errors():
            dataset = dataset.to(torch.device(config.device))
            model = build(config.model.channels, config.seed, torch.device(config.device))
            if saved is not None:
                State.check(saved, model, run.last_checkpoint)
            runs.write_atomically(run.config, configuration.dump(config).encode())
            run.update_metrics(config=configuration.flat(config))
            _work(config, run, dataset, model, terminal, saved)
    return True


def _prepare(config: Config) -> Config:
    memory.keep_freed_memory()
    memory.take_short_turns()
    torch.backends.cudnn.deterministic = True  # the same seed gives the same weights
    return hardware.resolve(config)


def _work(
    config: Config, run: Run, dataset: Dataset, model: CNN, terminal: Terminal, saved: dict[str, Any] | None
) -> None:
    """Train in the run's folder, from the beginning or from a checkpoint, and finish the run."""
    with _status(run, terminal):
        _go_back(run, saved)
        step, seconds = (0, 0.0) if saved is None else (int(saved["step"]), float(saved["seconds"]))
        folder = run.path if config.tracking.enabled else None
        with EventWriter(folder, 0 if saved is None else step + 1) as tracker, Saver() as saver, terminal:
            terminal.say(_first_line(config, run, dataset, model, saved))
            live = Live(tracker, first_status(config, dataset), seconds)
            with _end_in_events(tracker, live):
                live.update(step, now=True)
                if saved is None:
                    reporting.beginning(tracker, config, dataset, model)
                terminal.begin(steps_of(config, dataset))
                job = Job(config, run, dataset, tracker, terminal, live, saver)
                trained = train(job, model, saved)
                saver.wait()
                finish(job, model, trained)


def _go_back(run: Run, saved: Mapping[str, Any] | None) -> None:
    """Take from the run's files what came after a checkpoint, or after the beginning. Raises OSError."""
    run.restart_metrics()
    if saved is None or saved["best"] is None:
        run.best_checkpoint.unlink(missing_ok=True)
    events.trim(run.path, {} if saved is None else saved["events"])
    if saved is not None:
        keep_best(run, saved)


def _first_line(config: Config, run: Run, dataset: Dataset, model: CNN, saved: dict[str, Any] | None) -> str:
    hardware = f"on {config.device} in {config.precision}"
    if config.device == "cpu" and kernels.find(in_precision(model, config.precision)) is None:
        hardware += ", by torch alone: no kernels could be compiled for it"
    again = "" if saved is None else f", from step {int(saved['step']):,}"
    return f"Run {run.path}: {dataset.name}, {len(dataset.train):,} images, {hardware}{again}"


def _resolve_data(config: Config, dataset: Dataset, terminal: Terminal) -> Config:
    """Write into the configuration what the data became, and say it where that is not what was asked for."""
    if dataset.fallback_reason is None:
        return config
    terminal.warn(
        f"Training on {dataset.name}, not on {config.data.name}",
        f"{config.data.name} cannot be downloaded: {dataset.fallback_reason}\n"
        f"This run's results are those of the built-in {dataset.name}. With the files at hand: --data-root FOLDER.",
    )
    short = config.name.removesuffix(f"-{dataset.name}").removesuffix(dataset.name)
    name = f"{short[: 39 - len(dataset.name)]}-{dataset.name}" if short else dataset.name
    return configuration.changed(config, {"name": name, "data.name": dataset.name, "data.fallback": None})


@contextmanager
def _status(run: Run, terminal: Terminal) -> Iterator[None]:
    """Afterwards, the true status in metrics.json, and how to go on where the run is not complete."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))  # the latter: nobody reads our output any more
        status = "interrupted" if stopped else "failed"
        with suppress(OSError, TrainingError):  # the disk may be what failed; the first error is the one to tell
            run.update_metrics(status=status, error=str(error) or status, ended=time.time())
        if isinstance(error, KeyboardInterrupt):
            terminal.say(f"Stopped; it goes on with: mnist-tb resume {run.path}")
        raise
    run.update_metrics(status="completed", ended=time.time())


@contextmanager
def _end_in_events(tracker: EventWriter, live: Live) -> Iterator[None]:
    """Afterwards, the end of the run in the event file.

    An interrupted run's end stays open for HParams: TensorBoard keeps the first end it reads, and the run may go on.
    """
    try:
        yield
    except Exception as error:
        with suppress(TrainingError):
            tracker.status("failed")
            live.end("failed", str(error))
        raise
    except BaseException:
        with suppress(TrainingError):
            live.end("interrupted")
        raise
    tracker.status("completed")
    live.end("completed")


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn torch's several ways of saying that the memory is full into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
        if not full:
            raise
        raise TrainingError("the memory is full: try a smaller train.batch_size or model.channels") from None


def _versions() -> dict[str, str]:
    packages = ("mnist-tb", "torch", "torchvision", "tensorboard")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
