"""From a configuration to a finished run: what comes before and after the training loop, in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mnist_tb.config.hyperparameters import fallback_name
from mnist_tb.config.load import dump_config, flat_config, replace_config
from mnist_tb.config.schema import Config, Data
from mnist_tb.data.datasets import Dataset, load_dataset, total_steps
from mnist_tb.engine import kernels, process
from mnist_tb.engine.device import memory_errors, resolve_auto, use_device
from mnist_tb.engine.distributed import Distributed, PeerError, init_distributed
from mnist_tb.environment.log import EnvironmentLog
from mnist_tb.environment.notify import Notifier
from mnist_tb.errors import InputError, Pruned, TrainingError, command_line
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import CNN, build, in_precision
from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run, create_run
from mnist_tb.runs.notes import Notes, edit_notes
from mnist_tb.tracking import charts
from mnist_tb.tracking.console import Silent, Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.train import train
from mnist_tb.training import signals
from mnist_tb.training.checkpoint import AsyncCheckpointer, rewind
from mnist_tb.training.context import TrainingContext, always
from mnist_tb.training.results import (
    best_model,
    check_data,
    finish,
    first_line,
    first_status,
    initial_metrics,
    say_what_is_not_tracked,
)
from mnist_tb.training.resume import ResumeOptions, read_to_resume
from mnist_tb.training.state import check_checkpoint


def _load(config: Data, terminal: Terminal) -> Dataset:
    return load_dataset(config, terminal.say)


@dataclass(frozen=True)
class TrialContext:
    """What a run belongs to, where it is one of a sweep's.

    number: of its folder. facts: further keys of its metrics.json. should_continue: as in `TrainingContext`.
    load: gives it its dataset.
    """

    number: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    should_continue: Callable[[int, float], bool] = always
    load: Callable[[Data, Terminal], Dataset] = _load


PACKAGE = Path(__file__).parent
"""The code that trains."""
_NO_TRIAL, _AS_IT_WAS, _NO_NOTES = TrialContext(), ResumeOptions(), Notes()


def launch(
    config: Config,
    logdir: Path,
    terminal: Terminal,
    trial: TrialContext = _NO_TRIAL,
    init_from: Run | None = None,
    notes: Notes = _NO_NOTES,
    notifier: Notifier | None = None,
) -> Run:
    """Train, evaluate on completion, and leave a finished run in the log folder.

    init_from: a run whose best weights the training begins with, and nothing else. notifier: tells how it ends.
    Wrong input is found before the run's folder is made: InputError. TrainingError is for what fails later; the run is
    then marked as failed, and as interrupted where the user stops it. A run that its sweep prunes is marked so and
    returned as it is. Started by torchrun, all processes do the same, but only the main process writes.
    """
    with (
        init_distributed(signals.has_come, config.data.download_seconds) as distributed,
        EnvironmentLog(PACKAGE if distributed.is_main else None, notifier) as environment,
    ):
        # The data, the device and the model, before anything is written.
        _tune_process()
        terminal = terminal if distributed.is_main else Silent()
        config, dataset = _load_everywhere(config, terminal, trial, distributed)
        config = resolve_auto(config, distributed.local_rank)
        with memory_errors():
            device = use_device(config)
            dataset, model = dataset.to(device), build(config.model.channels, config.seed, device)
            if init_from is not None:
                model.load_state_dict(best_model(init_from, config).state_dict())

            # The run's folder; from here on, its metrics.json says how it ended.
            facts = {**initial_metrics(config, dataset, model), "processes": distributed.size, **trial.facts}
            facts |= {} if init_from is None else {"init_from": str(init_from.path)}
            text = dump_config(config)
            with ExitStack() as held:
                run = distributed.broadcast_from_main(
                    lambda: create_run(logdir, config.name, text, facts, trial.number, held)
                )
                if distributed.is_main:
                    edit_notes(run, notes.tags, note=notes.note)
                with suppress(Pruned), _resume_hint(run):
                    _train_and_finish(config, run, dataset, model, terminal, None, trial, distributed, environment)
    return run


def resume(
    run: Run,
    terminal: Terminal,
    options: ResumeOptions = _AS_IT_WAS,
    trial: TrialContext = _NO_TRIAL,
    notifier: Notifier | None = None,
) -> bool:
    """Resume a run from its last checkpoint, in its own folder; False where it is complete and nothing was done.

    The number of processes may be another than before.
    Raises as `launch` does, and InputError where the run, its checkpoint or its data are missing, broken or in use.
    """
    with (
        init_distributed(signals.has_come) as distributed,
        EnvironmentLog(PACKAGE if distributed.is_main else None, notifier) as environment,
        run.in_use() if distributed.is_main else nullcontext(),
    ):
        _tune_process()
        terminal = terminal if distributed.is_main else Silent()
        config, known, checkpoint = distributed.broadcast_from_main(lambda: read_to_resume(run, options))
        complete = known.get("status") == "completed"
        if complete and (checkpoint is None or checkpoint.get("epoch") == config.train.epochs):
            return False
        config = resolve_auto(config, distributed.local_rank)
        dataset = distributed.local_main_process_first(lambda: trial.load(config.data.without_fallback, terminal))
        check_data(run, known, dataset)
        with memory_errors():
            device = use_device(config)
            dataset, model = dataset.to(device), build(config.model.channels, config.seed, device)
            if checkpoint is not None:
                check_checkpoint(checkpoint, model, run.last_checkpoint)
            if distributed.is_main:
                write_atomically(run.config, dump_config(config).encode())
                run.update_metrics(config=flat_config(config), processes=distributed.size)
            with suppress(Pruned), _resume_hint(run):
                _train_and_finish(config, run, dataset, model, terminal, checkpoint, trial, distributed, environment)
    return True


def _tune_process() -> None:
    process.tune_malloc()
    process.set_switch_interval()
    torch.backends.cudnn.deterministic = True  # the same seed gives the same weights


def _load_everywhere(
    config: Config, terminal: Terminal, trial: TrialContext, distributed: Distributed
) -> tuple[Config, Dataset]:
    """The dataset, and the configuration with what it has become; the main process decides that for all."""
    loaded: list[Dataset] = []

    def load_and_resolve() -> Config:
        loaded.append(trial.load(config.data, terminal))
        return _name_fallback(config, loaded[0], terminal)

    resolve_auto(config, distributed.local_rank)  # say that a device is missing before anything is downloaded
    config = distributed.broadcast_from_main(load_and_resolve)
    dataset = distributed.local_main_process_first(lambda: loaded[0] if loaded else trial.load(config.data, terminal))
    if dataset.name != config.data.name:
        raise InputError(f"{config.data.name} is on the main machine, but not on this one: see --data-root")
    return config, dataset


def _name_fallback(config: Config, dataset: Dataset, terminal: Terminal) -> Config:
    """Write the fallback into the configuration, and warn, where the data are not those that were asked for."""
    if dataset.fallback_reason is None:
        return config
    terminal.warn(
        f"Training on {dataset.name}, not on {config.data.name}",
        f"{config.data.name} cannot be downloaded: {dataset.fallback_reason}\n"
        f"This run's results are those of the built-in {dataset.name}. With the files at hand: --data-root FOLDER.",
    )
    name = fallback_name(config.name, dataset.name)
    return replace_config(config, {"name": name, "data.name": dataset.name, "data.fallback": None})


def _train_and_finish(
    config: Config,
    run: Run,
    dataset: Dataset,
    model: CNN,
    terminal: Terminal,
    checkpoint: dict[str, Any] | None,
    trial: TrialContext,
    distributed: Distributed,
    environment: EnvironmentLog,
) -> None:
    """Train in the run's folder, from the beginning or from a checkpoint, and finish the run."""
    is_main = distributed.is_main
    compute_model = in_precision(model, config.precision)
    with _status(run, terminal) if is_main else nullcontext(), kernels.threads_for(compute_model):
        # What was written after the checkpoint is taken back: every point is written once.
        if is_main:
            rewind(run, checkpoint)
        step, seconds = (0, 0.0) if checkpoint is None else (int(checkpoint["step"]), float(checkpoint["seconds"]))
        folder = run.path if config.tracking.enabled and is_main else None
        first_step = 0 if checkpoint is None else step + 1
        with (
            EventWriter(folder, first_step) as writer,
            AsyncCheckpointer() as checkpointer,
            terminal,
            environment.recording(run, writer, step, config.tracking.code, config.tracking.system_seconds),
        ):
            terminal.say(first_line(config, run, dataset, compute_model, distributed, checkpoint))
            live = Live(writer, first_status(config, dataset), seconds, run)
            with _end_in_events(writer, live):
                # What is known before the first step.
                with signals.deferred():  # a second at most; torch.fx turns an interruption into an error of its own
                    live.update(step, now=True)
                    if checkpoint is None:
                        charts.beginning(writer, config, dataset, model)
                        say_what_is_not_tracked(config, model, terminal)
                terminal.begin(total_steps(config, len(dataset.train)))

                # The training, and the result of its best weights.
                context = TrainingContext(
                    config, run, dataset, writer, terminal, live, checkpointer, distributed, trial.should_continue
                )
                trained = train(context, model, checkpoint)
                checkpointer.wait()
                finish(context, model, trained)


# ---- How it ends


@contextmanager
def _resume_hint(run: Run) -> Iterator[None]:
    """Add how to resume to the error about a lost process."""
    try:
        yield
    except PeerError as error:
        hint = f"The run resumes from its last checkpoint with: {command_line('resume', run.path)}"
        raise PeerError(f"{error}\n{hint}") from None


@contextmanager
def _status(run: Run, terminal: Terminal) -> Iterator[None]:
    """Write the true status to metrics.json at the end, and say how to resume a run that is not complete."""
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
            terminal.say(f"Stopped; resume with: {command_line('resume', run.path)}")
        raise
    run.update_metrics(status="completed", ended=time.time())


@contextmanager
def _end_in_events(writer: EventWriter, live: Live) -> Iterator[None]:
    """Write the end of the run to the event file.

    For HParams a run that was interrupted or pruned stays open: TensorBoard keeps the first end that it reads, and the
    run may be resumed.
    """
    try:
        yield
    except Pruned:
        live.end("pruned")
        raise
    except Exception as error:
        with suppress(TrainingError):
            writer.status("failed")
            live.end("failed", str(error))
        raise
    except BaseException:
        with suppress(TrainingError):
            live.end("interrupted")
        raise
    writer.status("completed")
    live.end("completed")
