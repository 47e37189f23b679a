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
from mnist_tb import data, reporting, runs
from mnist_tb.checkpoint import load as load_checkpoint
from mnist_tb.checkpoint import save as save_checkpoint
from mnist_tb.config import Config
from mnist_tb.data import Dataset
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.evaluate import Evaluation, evaluate, predict
from mnist_tb.model import CNN, build
from mnist_tb.runs import Run
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
    config = resolve_hardware(config)
    device = torch.device(config.device)
    dataset = data.load(config.data, terminal.say)
    config = _resolve_data(config, dataset, terminal)
    dataset = dataset.to(device)
    model = build(config.model.channels, config.seed, device)
    run = runs.create(logdir, config.name)
    run.write_metrics(reporting.facts(config, dataset, model, _versions()))
    runs.write_atomically(run.config, configuration.dump(config).encode())
    terminal.say(
        f"Run {run.path}: {dataset.name}, {len(dataset.train):,} images, on {config.device} in {config.precision}"
    )
    with _tracked(run, config.tracking.enabled) as tracker, terminal:
        reporting.beginning(tracker, config, dataset, model, run.name)
        terminal.begin(config.train.epochs * math.ceil(len(dataset.train) / config.train.batch_size))
        job = Job(config, run, dataset, tracker, terminal)
        _finish(job, model, train(job, model))
    return run


def evaluate_run(run: Run, split: str, device: str, data_root: str | None) -> tuple[Dataset, Evaluation]:
    """Evaluate a run's best weights on `train`, `validation` or `test`, on the run's own data.

    The numbers are added to metrics.json; to the event file too, where that has no test result yet.
    Raises InputError where the run, its data or its weights are missing or broken.
    """
    metrics = run.read_metrics()
    config = configuration.load(run.config, options={"device": device, "data.fallback": None})
    if data_root is not None:
        config = configuration.changed(config, {"data.root": data_root, "data.download": False})
    config = resolve_hardware(config)
    dataset = data.load(config.data).to(torch.device(config.device))
    model = build(config.model.channels, config.seed, torch.device(config.device))
    best = load_checkpoint(run.best_checkpoint)
    try:
        model.load_state_dict(best["model"])
    except (KeyError, RuntimeError, TypeError):
        raise InputError(f"{run.best_checkpoint}: the weights do not fit the network in {run.config}") from None
    evaluation = evaluate(model, dataset, getattr(dataset, split), config.precision)
    if split == "test" and "test" not in metrics and config.tracking.enabled:
        with Tracker(run.path) as tracker:
            _report_result(Job(config, run, dataset, tracker, Terminal()), model, evaluation, int(best["step"]))
    key = "val" if split == "validation" else split
    run.update_metrics(**{key: reporting.evaluation_numbers(evaluation, dataset.classes)})
    return dataset, evaluation


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
    name = f"{config.name[: 39 - len(dataset.name)]}-{dataset.name}"
    return configuration.changed(config, {"name": name, "data.name": dataset.name, "data.fallback": None})


@contextmanager
def _tracked(run: Run, enabled: bool) -> Iterator[Tracker]:
    """A tracker, and afterwards the true status in both places: the event file and metrics.json.

    An interrupted run's end stays open in the event file: TensorBoard keeps the first end it reads, and the run may
    go on.
    """
    try:
        with Tracker(run.path if enabled else None) as tracker:
            try:
                yield tracker
                tracker.status("completed")
            except Exception:
                with suppress(TrainingError):
                    tracker.status("failed")
                raise
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError, InputError):  # the disk may be what failed; the first error is the one to tell
            run.update_metrics(status=status, error=str(error) or status, ended=time.time())
        raise
    run.update_metrics(status="completed", ended=time.time())


def _finish(job: Job, model: CNN, trained: Trained) -> None:
    """Put the best weights back, score them on the test set, and leave everything that a run leaves."""
    model.load_state_dict(trained.best.weights)
    plain = {name: value.cpu().contiguous() for name, value in trained.best.weights.items()}
    save_checkpoint(job.run.weights, plain)
    evaluation = evaluate(model, job.dataset, job.dataset.test, job.config.precision)
    _report_result(job, model, evaluation, trained.best.step)
    classes = job.dataset.classes
    job.run.update_metrics(
        best_epoch=trained.best.epoch,
        best_step=trained.best.step,
        val=reporting.evaluation_numbers(trained.best.validation, classes),
        test=reporting.evaluation_numbers(evaluation, classes),
        train_seconds=trained.seconds,
        images_per_second=trained.images_per_second,
    )
    title = f"Test set of {job.dataset.name}, best weights (epoch {trained.best.epoch})"
    job.terminal.evaluated(title, evaluation, classes)
    job.terminal.say(f"Test: loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.2%}")
    job.terminal.say(f"Trained in {trained.seconds:.1f} s, {trained.images_per_second:,.0f} images/s")


def _report_result(job: Job, model: CNN, evaluation: Evaluation, step: int) -> None:
    """The result in pictures and numbers: results.png and the event file."""
    samples = draw_samples(job.dataset.test, _SHOWN, job.config.seed, "samples shown")
    probabilities = predict(model, job.dataset, samples.images, job.config.precision).softmax(1).cpu()
    sheet = reporting.result_sheet(job.dataset, samples, probabilities, evaluation)
    Image.fromarray(sheet).save(job.run.results)
    reporting.result(job.tracker, step, job.dataset, evaluation, sheet)


def _versions() -> dict[str, str]:
    packages = ("mnist-tb", "torch", "torchvision", "tensorboard")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
