"""A run's best weights, scored: at the end of its training, and whenever somebody asks."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image

from mnist_tb.config import load as configuration
from mnist_tb.config.schema import Config
from mnist_tb.data import datasets as data
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.engine import device as hardware
from mnist_tb.errors import InputError
from mnist_tb.evaluate import Evaluation, evaluate, features, penultimate, predict
from mnist_tb.events.status import Status
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import CNN, build, in_precision
from mnist_tb.runs.folder import Run, save_predictions, write_atomically
from mnist_tb.tracking import charts as reporting
from mnist_tb.tracking import projector
from mnist_tb.tracking import weights_export as exported
from mnist_tb.tracking.console import Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.train import Job, Trained, draw_samples
from mnist_tb.training.checkpoint import Saver, load, save_plain

_PROJECTED = 2_000
"""Test images in the Projector tab."""
_SHOWN = 24
"""Images on the final sheet."""


def evaluate_run(run: Run, split: str, device: str, data_root: str | None) -> tuple[Dataset, Evaluation]:
    """Evaluate a run's best weights on `train`, `validation` or `test`, on the run's own data; writes nothing.

    Raises InputError where the run, its data or its weights are missing, broken or do not belong together.
    """
    metrics = run.read_metrics()
    config = hardware.resolve(run_config(run, device, data_root))
    dataset = data.load(config.data).to(torch.device(config.device))
    check_data(run, metrics, dataset)
    model = best_model(run, config)
    return dataset, evaluate(in_precision(model, config.precision), dataset, getattr(dataset, split))


def add_evaluation(run: Run, split: str, dataset: Dataset, evaluation: Evaluation) -> None:
    """Add an evaluation of the best weights to metrics.json, and to the event file a test result it has not got yet.

    Raises OSError where the run cannot be written.
    """
    config = hardware.resolve(run_config(run, str(dataset.test.labels.device), None))
    if split == "test" and "test" not in run.read_metrics() and config.tracking.enabled:
        step = int(load(run.best_checkpoint)["step"])
        model = best_model(run, config)
        network = in_precision(model, config.precision)
        with EventWriter(run.path) as tracker:
            live = Live(tracker, first_status(config, dataset))
            job = Job(config, run, dataset, tracker, Terminal(), live, Saver())
            _report_result(job, model, network, evaluation, step)
    key = "val" if split == "validation" else split
    run.update_metrics(**{key: reporting.evaluation_numbers(evaluation, dataset.classes)})


def check_data(run: Run, metrics: dict[str, object], dataset: Dataset) -> None:
    found, known = (dataset.name, reporting.image_counts(dataset)), (metrics.get("dataset"), metrics.get("images"))
    if found != known:
        raise InputError(
            f"{run.path}: the data found are {found[0]} with {found[1]} images, but the run was trained on {known[0]}"
            f" with {known[1]}"
        )


def run_config(run: Run, device: str | None, data_root: str | None) -> Config:
    """The run's configuration, its device or data elsewhere. Raises InputError, also where it is of another program."""
    if "kind" in run.read_metrics():
        raise InputError(f"{run.path}: is a run of another program; only that program can go on with it or evaluate it")
    options: list[tuple[str, str, object]] = [("evaluate", "data.fallback", None)]
    if device is not None:
        options.append(("--device", "device", device))
    if data_root is not None:
        options += [("--data-root", "data.root", data_root), ("--data-root", "data.download", False)]
    return configuration.load(run.config, options=options)


def best_model(run: Run, config: Config) -> CNN:
    """A run's best weights, on the configured device. Raises InputError where they are missing or do not fit."""
    model = build(config.model.channels, config.seed, torch.device(config.device))
    best = load(run.best_checkpoint)
    try:
        model.load_state_dict(best["model"])
        int(best["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError):
        raise InputError(f"{run.best_checkpoint}: the weights do not fit the network in {run.config}") from None
    return model


def finish(job: Job, model: CNN, trained: Trained) -> None:
    """Put the best weights back, score them on the test set, and leave everything that a run leaves."""
    model.load_state_dict(trained.best.weights)
    network = in_precision(model, job.config.precision)
    if not job.team.first:
        evaluate(network, job.dataset, job.dataset.test, job.team)
        return
    plain = {name: value.cpu().contiguous() for name, value in trained.best.weights.items()}
    save_plain(job.run.weights, plain)
    steps = steps_of(job.config, job.dataset)
    job.live.update(steps, now=True, phase="test")
    evaluation = evaluate(network, job.dataset, job.dataset.test, job.team)
    job.live.update(
        steps, test_loss=evaluation.loss, test_accuracy=evaluation.accuracy, test_images=len(evaluation.labels)
    )
    _report_result(job, model, network, evaluation, trained.best.step)
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


def _report_result(job: Job, model: CNN, network: CNN, evaluation: Evaluation, step: int) -> None:
    """The result in pictures and numbers: results.png, predictions.npy, the projector's files and the event file."""
    dataset = job.dataset
    samples = draw_samples(dataset.test, _SHOWN, job.config.seed, "samples shown")
    probabilities = predict(network, dataset, samples.images).softmax(1).cpu()
    shown = Split(samples.images.cpu(), samples.labels.cpu())
    layers = [layer[0] for layer in features(model, dataset, samples.images[:1])]
    pictures = reporting.result_pictures(
        dataset, shown, probabilities, evaluation, model.conv1.weight.detach().cpu(), layers
    )
    encoded = io.BytesIO()
    Image.fromarray(reporting.result_sheet(pictures)).save(encoded, format="png")
    write_atomically(job.run.results, encoded.getvalue())
    save_predictions(job.run, evaluation.labels.numpy(), evaluation.probabilities.numpy())
    if job.config.tracking.projector and job.tracker.enabled:
        part = Split(dataset.test.images[:_PROJECTED], dataset.test.labels[:_PROJECTED])
        points = projector.reduced(penultimate(model, dataset, part.images))
        guesses = evaluation.predictions[:_PROJECTED]
        projector.write(job.run, part.images.cpu(), part.labels.cpu(), guesses, points, dataset.classes)
    reporting.result(job.tracker, step, dataset, evaluation, pictures)
    if job.tracker.enabled:
        job.tracker.weights(step, exported.encode(model.state_dict(), dataset.classes, dataset.mean, dataset.std))


def first_status(config: Config, dataset: Dataset) -> Status:
    steps = steps_of(config, dataset)
    return Status(
        dataset=dataset.name,
        device=config.device,
        precision=config.precision,
        epochs=config.train.epochs,
        batches=steps // config.train.epochs,
        steps=steps,
    )


def steps_of(config: Config, dataset: Dataset) -> int:
    """How many updates the whole training takes."""
    return config.train.epochs * math.ceil(len(dataset.train) / config.train.batch_size)
