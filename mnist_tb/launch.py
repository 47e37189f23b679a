"""From a configuration to a finished run: everything around the training loop, in its order."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mnist_tb.config import load as configuration
from mnist_tb.config.schema import Config, Data
from mnist_tb.data import datasets as data
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import device as hardware
from mnist_tb.engine import kernels
from mnist_tb.engine import process as memory
from mnist_tb.engine.distributed import PeerError, Team, meet
from mnist_tb.errors import InputError, MemoryFullError, Pruned, TrainingError
from mnist_tb.events import records as events
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import CNN, build, in_precision
from mnist_tb.runs import folder as runs
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import charts as reporting
from mnist_tb.tracking.console import Silent, Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.train import Job, keep_best, train
from mnist_tb.training.checkpoint import Saver
from mnist_tb.training.checkpoint import load as load_checkpoint
from mnist_tb.training.results import check_data, finish, first_status, run_config, steps_of
from mnist_tb.training.state import State


def _load(config: Data, terminal: Terminal) -> Dataset:
    return data.load(config, terminal.say)


@dataclass(frozen=True)
class Part:
    """What a run is part of, where it is part of a sweep.

    number: of its folder. facts: further keys of its metrics.json. go_on: as in `Job`. load: gives its data.
    """

    number: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    go_on: Callable[[int, float], bool] = lambda epochs, accuracy: True
    load: Callable[[Data, Terminal], Dataset] = _load


_ALONE = Part()


def launch(config: Config, logdir: Path, terminal: Terminal, part: Part = _ALONE) -> Run:
    """Train, evaluate on completion, and leave a finished run below the log folder.

    Everything the user can have wrong is found before the run's folder is made. Raises InputError for that and
    TrainingError for what fails later; the run is then marked failed, and interrupted where the user stopped it.
    A run that its part stops is marked pruned, and returned as it is. In a process that is one of several the same
    happens in all of them, but only the first one writes.
    """
    with meet(config.data.download_seconds) as team:
        _prepare()
        terminal = terminal if team.first else Silent()
        config, dataset = _read(config, terminal, part, team)
        config = hardware.resolve(config, team.local)
        with _memory_errors():
            dataset = dataset.to(torch.device(config.device))
            model = build(config.model.channels, config.seed, torch.device(config.device))
            facts = {**reporting.facts(config, dataset, model, _versions()), "processes": team.size, **part.facts}
            text = configuration.dump(config)
            run = team.by_first(lambda: runs.create(logdir, config.name, text, facts, part.number))
            with run.in_use() if team.first else nullcontext(), suppress(Pruned), _lost(run):
                _work(config, run, dataset, model, terminal, None, part, team)
    return run


def resume(
    run: Run,
    terminal: Terminal,
    epochs: int | None = None,
    device: str | None = None,
    data_root: str | None = None,
    part: Part = _ALONE,
) -> bool:
    """Go on with a run from its last checkpoint, in its own folder; False where it is complete and nothing was done.

    epochs: how many there are to be in all, more than before extends the run. epochs, device, data_root: None leaves
    them as they were. The number of processes may be another than it was.
    Raises as `launch` does, and InputError where the run, its checkpoint or its data are missing, broken or in use.
    """
    with meet() as team, run.in_use() if team.first else nullcontext():
        _prepare()
        terminal = terminal if team.first else Silent()
        config, known, saved = team.by_first(lambda: _interrupted(run, epochs, device, data_root))
        complete = known.get("status") == "completed"
        if complete and (saved is None or saved.get("epoch") == config.train.epochs):
            return False
        config = hardware.resolve(config, team.local)
        dataset = team.in_turn(lambda: part.load(config.data, terminal))
        check_data(run, known, dataset)
        with _memory_errors():
            dataset = dataset.to(torch.device(config.device))
            model = build(config.model.channels, config.seed, torch.device(config.device))
            if saved is not None:
                State.check(saved, model, run.last_checkpoint)
            if team.first:
                runs.write_atomically(run.config, configuration.dump(config).encode())
                run.update_metrics(config=configuration.flat(config), processes=team.size)
            with suppress(Pruned), _lost(run):
                _work(config, run, dataset, model, terminal, saved, part, team)
    return True


def _interrupted(
    run: Run, epochs: int | None, device: str | None, data_root: str | None
) -> tuple[Config, dict[str, Any], dict[str, Any] | None]:
    """What there is of a run: its configuration, its metrics, and its last checkpoint if it has one."""
    known = run.read_metrics()
    config = run_config(run, device, data_root)
    if epochs is not None and epochs < config.train.epochs:
        raise InputError(f"--epochs {epochs}: the run has {config.train.epochs} already; it can only become longer")
    if epochs is not None:
        config = configuration.changed(config, {"train.epochs": epochs})
    return config, known, load_checkpoint(run.last_checkpoint) if run.last_checkpoint.exists() else None


def _prepare() -> None:
    memory.keep_freed_memory()
    memory.take_short_turns()
    torch.backends.cudnn.deterministic = True  # the same seed gives the same weights


def _read(config: Config, terminal: Terminal, part: Part, team: Team) -> tuple[Config, Dataset]:
    """The data, and the configuration that says what they became: the first process's word counts for all."""
    found: list[Dataset] = []

    def by_first() -> Config:
        found.append(part.load(config.data, terminal))
        return _resolve_data(config, found[0], terminal)

    hardware.resolve(config, team.local)  # a device that is not there is said before anything is downloaded
    config = team.by_first(by_first)
    dataset = team.in_turn(lambda: found[0] if found else part.load(config.data, terminal))
    if dataset.name != config.data.name:
        raise InputError(f"this machine cannot get {config.data.name}, which the first one has: see --data-root")
    return config, dataset


def _work(
    config: Config,
    run: Run,
    dataset: Dataset,
    model: CNN,
    terminal: Terminal,
    saved: dict[str, Any] | None,
    part: Part,
    team: Team,
) -> None:
    """Train in the run's folder, from the beginning or from a checkpoint, and finish the run."""
    computing = in_precision(model, config.precision)
    with _status(run, terminal) if team.first else nullcontext(), kernels.threads_for(computing):
        if team.first:
            _go_back(run, saved)
        step, seconds = (0, 0.0) if saved is None else (int(saved["step"]), float(saved["seconds"]))
        folder = run.path if config.tracking.enabled and team.first else None
        with EventWriter(folder, 0 if saved is None else step + 1) as tracker, Saver() as saver, terminal:
            terminal.say(_first_line(config, run, dataset, model, saved, team))
            live = Live(tracker, first_status(config, dataset), seconds)
            with _end_in_events(tracker, live):
                live.update(step, now=True)
                if saved is None:
                    reporting.beginning(tracker, config, dataset, model)
                terminal.begin(steps_of(config, dataset))
                job = Job(config, run, dataset, tracker, terminal, live, saver, team, part.go_on)
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


def _first_line(
    config: Config, run: Run, dataset: Dataset, model: CNN, saved: dict[str, Any] | None, team: Team
) -> str:
    hardware = f"on {config.device} in {config.precision}"
    if team.size > 1:
        hardware = f"on {team.size} processes, {hardware}"
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
def _lost(run: Run) -> Iterator[None]:
    """Add how to go on to what is said of a process that is gone."""
    try:
        yield
    except PeerError as error:
        raise PeerError(f"{error}\nThe run goes on from its last checkpoint with: mnist-tb resume {run.path}") from None


@contextmanager
def _status(run: Run, terminal: Terminal) -> Iterator[None]:
    """Afterwards, the true status in metrics.json, and how to go on where the run is not complete."""
    try:
        yield
    except Pruned:
        run.update_metrics(status="pruned", ended=time.time())
        raise
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

    The end of one that was interrupted or pruned stays open for HParams: TensorBoard keeps the first end it reads, and
    the run may go on.
    """
    try:
        yield
    except Pruned:
        live.end("pruned")
        raise
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
        raise MemoryFullError("the memory is full: try a smaller train.batch_size or model.channels") from None


def _versions() -> dict[str, str]:
    packages = ("mnist-tb", "torch", "torchvision", "tensorboard")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
