"""From a configuration to a finished run: everything around the training loop, in its order."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

from mnist_tb import config as configuration
from mnist_tb import data, kernels, memory, reporting, runs
from mnist_tb.checkpoint import load as load_checkpoint
from mnist_tb.checkpoint import save as save_checkpoint
from mnist_tb.config import Config
from mnist_tb.data import Dataset
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.evaluate import Evaluation, evaluate, predict
from mnist_tb.live import Live
from mnist_tb.model import CNN, build, in_precision
from mnist_tb.runs import Run
from mnist_tb.status import Status
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import Tracker
from mnist_tb.train import Job, Trained, draw_samples, train

_SHOWN = 24
"""Images on the final sheet."""


def launch(config: Config, logdir: Path, terminal: Terminal) -> Run:
    """Train, evaluate on completion, and leave a finished run below the log folder.

    Everything the user can have wrong is found before the run's folder is made. Raises InputError for that and
    TrainingError for what fails later; the run is then marked failed, and interrupted where the user stopped it.
    """
    memory.keep_freed_memory()
    config = resolve_hardware(config)
    device = torch.device(config.device)
    torch.backends.cudnn.deterministic = True  # the same seed gives the same weights
    dataset = data.load(config.data, terminal.say)
    config = _resolve_data(config, dataset, terminal)
    with _memory_errors():
        dataset = dataset.to(device)
        model = build(config.model.channels, config.seed, device)
        run = runs.create(logdir, config.name)
        with _status(run), run.in_use(), Tracker(run.path if config.tracking.enabled else None) as tracker, terminal:
            run.write_metrics(reporting.facts(config, dataset, model, _versions()))
            runs.write_atomically(run.config, configuration.dump(config).encode())
            hardware = f"on {config.device} in {config.precision}"
            if device.type == "cpu" and kernels.find(in_precision(model, config.precision)) is None:
                hardware += ", by torch alone: no kernels could be compiled for it"
            terminal.say(f"Run {run.path}: {dataset.name}, {len(dataset.train):,} images, {hardware}")
            live = Live(tracker, _first_status(config, dataset))
            with _end_in_events(tracker, live):
                live.update(0, now=True)
                reporting.beginning(tracker, config, dataset, model, run.name)
                terminal.begin(_steps(config, dataset))
                job = Job(config, run, dataset, tracker, terminal, live)
                _finish(job, model, train(job, model))
    return run


def evaluate_run(run: Run, split: str, device: str, data_root: str | None) -> tuple[Dataset, Evaluation]:
    """Evaluate a run's best weights on `train`, `validation` or `test`, on the run's own data; writes nothing.

    Raises InputError where the run, its data or its weights are missing, broken or do not belong together.
    """
    metrics = run.read_metrics()
    config = resolve_hardware(_run_config(run, device, data_root))
    dataset = data.load(config.data).to(torch.device(config.device))
    found, known = (dataset.name, reporting.image_counts(dataset)), (metrics.get("dataset"), metrics.get("images"))
    if found != known:
        raise InputError(
            f"{run.path}: the data found are {found[0]} with {found[1]} images, but the run was trained on {known[0]}"
            f" with {known[1]}"
        )
    model = _best_model(run, config)
    return dataset, evaluate(in_precision(model, config.precision), dataset, getattr(dataset, split))


def add_evaluation(run: Run, split: str, dataset: Dataset, evaluation: Evaluation) -> None:
    """Add an evaluation of the best weights to metrics.json, and to the event file a test result it has not got yet.

    Raises OSError where the run cannot be written.
    """
    config = resolve_hardware(_run_config(run, str(dataset.test.labels.device), None))
    if split == "test" and "test" not in run.read_metrics() and config.tracking.enabled:
        step = int(load_checkpoint(run.best_checkpoint)["step"])
        network = in_precision(_best_model(run, config), config.precision)
        with Tracker(run.path) as tracker:
            live = Live(tracker, _first_status(config, dataset))
            _report_result(Job(config, run, dataset, tracker, Terminal(), live), network, evaluation, step)
    key = "val" if split == "validation" else split
    run.update_metrics(**{key: reporting.evaluation_numbers(evaluation, dataset.classes)})


def _run_config(run: Run, device: str, data_root: str | None) -> Config:
    options: list[tuple[str, str, object]] = [("--device", "device", device), ("evaluate", "data.fallback", None)]
    if data_root is not None:
        options += [("--data-root", "data.root", data_root), ("--data-root", "data.download", False)]
    return configuration.load(run.config, options=options)


def _best_model(run: Run, config: Config) -> CNN:
    model = build(config.model.channels, config.seed, torch.device(config.device))
    best = load_checkpoint(run.best_checkpoint)
    try:
        model.load_state_dict(best["model"])
        int(best["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError):
        raise InputError(f"{run.best_checkpoint}: the weights do not fit the network in {run.config}") from None
    return model


def resolve_hardware(config: Config) -> Config:
    """Replace `auto` by what this machine has. Raises InputError where the device asked for is not there."""
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name}: torch finds no CUDA GPU here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name}: there are only {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _is_bf16_fast(device) else "fp32"
    return configuration.changed(config, {"device": name, "precision": precision})


def _is_bf16_fast(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself: GPUs since Ampere, x86 CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not public, so maybe gone one day
    return any(getattr(torch.cpu, name, lambda: False)() for name in supported)


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
def _status(run: Run) -> Iterator[None]:
    """Afterwards, the true status in metrics.json, also where all failed before it was first written."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))  # the latter: nobody reads our output any more
        status = "interrupted" if stopped else "failed"
        with suppress(OSError, InputError):  # the disk may be what failed; the first error is the one to tell
            known = run.read_metrics() if run.metrics.exists() else {}
            run.write_metrics({**known, "status": status, "error": str(error) or status, "ended": time.time()})
        raise
    run.update_metrics(status="completed", ended=time.time())


@contextmanager
def _end_in_events(tracker: Tracker, live: Live) -> Iterator[None]:
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


def _first_status(config: Config, dataset: Dataset) -> Status:
    steps = _steps(config, dataset)
    return Status(
        dataset=dataset.name,
        device=config.device,
        precision=config.precision,
        epochs=config.train.epochs,
        batches=steps // config.train.epochs,
        steps=steps,
    )


def _steps(config: Config, dataset: Dataset) -> int:
    """How many updates the whole training takes."""
    return config.train.epochs * math.ceil(len(dataset.train) / config.train.batch_size)


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


def _finish(job: Job, model: CNN, trained: Trained) -> None:
    """Put the best weights back, score them on the test set, and leave everything that a run leaves."""
    model.load_state_dict(trained.best.weights)
    plain = {name: value.cpu().contiguous() for name, value in trained.best.weights.items()}
    save_checkpoint(job.run.weights, plain)
    network = in_precision(model, job.config.precision)
    steps = _steps(job.config, job.dataset)
    job.live.update(steps, now=True, phase="test")
    evaluation = evaluate(network, job.dataset, job.dataset.test)
    job.live.update(
        steps, test_loss=evaluation.loss, test_accuracy=evaluation.accuracy, test_images=len(evaluation.labels)
    )
    _report_result(job, network, evaluation, trained.best.step)
    classes = job.dataset.classes
    job.run.update_metrics(
        test=reporting.evaluation_numbers(evaluation, classes),
        train_seconds=trained.seconds,
        images_per_second=trained.images_per_second,
    )
    title = f"Test set of {job.dataset.name}, best weights (epoch {trained.best.epoch})"
    job.terminal.evaluated(title, evaluation, classes)
    job.terminal.say(f"Test: loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.2%}")
    job.terminal.say(f"Trained in {trained.seconds:.1f} s, {trained.images_per_second:,.0f} images/s")


def _report_result(job: Job, network: CNN, evaluation: Evaluation, step: int) -> None:
    """The result in pictures and numbers: results.png and the event file."""
    samples = draw_samples(job.dataset.test, _SHOWN, job.config.seed, "samples shown")
    probabilities = predict(network, job.dataset, samples.images).softmax(1).cpu()
    sheet = reporting.result_sheet(job.dataset, samples, probabilities, evaluation)
    Image.fromarray(sheet).save(job.run.results)
    reporting.result(job.tracker, step, job.dataset, evaluation, sheet)


def _versions() -> dict[str, str]:
    packages = ("mnist-tb", "torch", "torchvision", "tensorboard")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
