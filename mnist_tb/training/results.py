"""A run's best weights, evaluated: at the end of its training, and whenever somebody asks. And what a run leaves."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

from mnist_tb import metrics
from mnist_tb.config.load import flat_config, load_config, with_data_root
from mnist_tb.config.numbers import loss_text, percent
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset, Split, load_dataset, total_steps
from mnist_tb.engine import kernels
from mnist_tb.engine.device import resolve_auto, use_device
from mnist_tb.engine.distributed import Distributed
from mnist_tb.errors import InputError, command_line
from mnist_tb.evaluate import evaluate, features, penultimate, predict
from mnist_tb.events.status import Status
from mnist_tb.events.writer import EventWriter
from mnist_tb.metrics import Evaluation
from mnist_tb.model import CNN, build, in_precision, parameter_count
from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run, is_trackers, package_versions
from mnist_tb.runs.predictions import save_predictions
from mnist_tb.tracking import charts, projector
from mnist_tb.tracking.console import Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.training.checkpoint import AsyncCheckpointer, load, save_plain
from mnist_tb.training.context import TrainingContext, TrainResult, draw_samples

_PROJECTOR_IMAGES = 2_000
"""Test images in the Projector tab."""
_RESULT_IMAGES = 24
"""Test images in results.png."""


def evaluate_run(run: Run, split: str, device: str, data_root: str | None) -> tuple[Dataset, Evaluation]:
    """Evaluate a run's best weights on its `train`, `validation` or `test` split; writes nothing.

    device, data_root: as in `run_config`. Raises InputError where the run, its data or its weights are missing, broken
    or do not belong together.
    """
    known = run.read_metrics()
    config = resolve_auto(run_config(run, device, data_root))
    dataset = load_dataset(config.data.without_fallback).to(use_device(config))
    check_data(run, known, dataset)
    model = best_model(run, config)
    return dataset, evaluate(in_precision(model, config.precision), dataset, getattr(dataset, split))


def add_evaluation(run: Run, split: str, dataset: Dataset, evaluation: Evaluation) -> None:
    """Add an evaluation of the best weights to metrics.json, and to the event file a test result that it lacks.

    Raises OSError where the run cannot be written.
    """
    config = resolve_auto(run_config(run, str(dataset.test.labels.device), None))
    if split == "test" and "test" not in run.read_metrics() and config.tracking.enabled:
        step = int(load(run.best_checkpoint)["step"])
        model = best_model(run, config)
        with EventWriter(run.path) as writer:
            live = Live(writer, first_status(config, dataset))
            context = TrainingContext(config, run, dataset, writer, Terminal(), live, AsyncCheckpointer())
            _leave_result(context, model, in_precision(model, config.precision), evaluation, step)
    key = "val" if split == "validation" else split
    run.update_metrics(**{key: evaluation_numbers(evaluation, dataset.classes)})


def check_data(run: Run, known: Mapping[str, object], dataset: Dataset) -> None:
    """Raise InputError where a dataset is not the one that the run's metrics.json says it was trained on."""
    found, expected = (dataset.name, image_counts(dataset)), (known.get("dataset"), known.get("images"))
    if found != expected:
        raise InputError(
            f"{run.path}: the run was trained on {expected[0]} with {expected[1]} images, but these are {found[0]} with"
            f" {found[1]} images"
        )


def run_config(
    run: Run, device: str | None, data_root: str | None, changes: Iterable[tuple[str, str, object]] = ()
) -> Config:
    """A run's configuration, with another device and folder of data unless these are None.

    changes: option, key and value, as the options of `load_config`. Raises InputError, also where the run is another
    program's.
    """
    if is_trackers(run.read_metrics()):
        raise InputError(
            f"{run.path}: this run is not one of mnist-tb train; only the program that made it can"
            f" resume, evaluate or predict with it. Choose another by its number: {command_line('runs', 'list')}"
        )
    devices = [] if device is None else [("--device", "device", device)]
    return load_config(run.config, options=[*devices, *with_data_root(data_root), *changes])


def best_model(run: Run, config: Config) -> CNN:
    """A model with the run's best weights, on the configured device.

    Raises InputError where the weights are missing or do not fit.
    """
    if not run.best_checkpoint.exists() and "best_epoch" not in run.read_metrics():
        raise InputError(
            f"{run.path}: has no best weights yet: it ended before its first epoch did; it resumes with:"
            f" {command_line('resume', run.path)}"
        )
    model = build(config.model.channels, config.seed, use_device(config))
    best = load(run.best_checkpoint)
    try:
        model.load_state_dict(best["model"])
        int(best["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{run.best_checkpoint}: the weights do not fit the network, whose model.channels are"
            f" {list(config.model.channels)}"
        ) from None
    return model


def finish(context: TrainingContext, model: CNN, trained: TrainResult) -> None:
    """Restore the best weights, evaluate them on the test set, and write all that a run leaves."""
    model.load_state_dict(trained.best.weights)
    compute_model = in_precision(model, context.config.precision)
    dataset, best = context.dataset, trained.best
    if not context.distributed.is_main:
        evaluate(compute_model, dataset, dataset.test, context.distributed)
        return
    save_plain(context.run.weights, {name: value.cpu().contiguous() for name, value in best.weights.items()})
    steps = total_steps(context.config, len(dataset.train))
    context.live.update(steps, now=True, phase="test")
    evaluation = evaluate(compute_model, dataset, dataset.test, context.distributed)
    context.live.update(
        steps, test_loss=evaluation.loss, test_accuracy=evaluation.accuracy, test_images=len(evaluation.labels)
    )
    _leave_result(context, model, compute_model, evaluation, best.step)
    context.run.update_metrics(
        test=evaluation_numbers(evaluation, dataset.classes),
        train_seconds=trained.seconds,
        images_per_second=trained.images_per_second,
    )
    terminal = context.terminal
    title = f"Test set of {dataset.name}, best weights (epoch {best.epoch})"
    terminal.evaluated(title, evaluation, dataset.classes)
    terminal.say(f"Test: loss {loss_text(evaluation.loss)}, accuracy {percent(evaluation.accuracy)}%")
    terminal.say(f"Trained in {trained.seconds:.1f} s, {trained.images_per_second:,.0f} images/s")


def _leave_result(context: TrainingContext, model: CNN, compute_model: CNN, evaluation: Evaluation, step: int) -> None:
    """The result as pictures and numbers: results.png, predictions.npy, the projector's files and the event file."""
    dataset, run, writer = context.dataset, context.run, context.writer
    samples = draw_samples(dataset.test, _RESULT_IMAGES, context.config.seed, "samples shown")
    probabilities = predict(compute_model, dataset, samples.images).softmax(1).cpu()
    layers = [layer[0] for layer in features(model, dataset, samples.images[:1])]
    pictures = charts.result_pictures(
        dataset,
        Split(samples.images.cpu(), samples.labels.cpu()),
        probabilities,
        evaluation,
        model.conv1.weight.detach().cpu(),
        layers,
    )
    encoded = io.BytesIO()
    Image.fromarray(charts.result_sheet(pictures)).save(encoded, format="png")
    write_atomically(run.results, encoded.getvalue())
    save_predictions(run, evaluation.labels.numpy(), evaluation.probabilities.numpy())
    if context.config.tracking.projector and writer.enabled:
        first = Split(dataset.test.images[:_PROJECTOR_IMAGES], dataset.test.labels[:_PROJECTOR_IMAGES])
        points = projector.principal_components(penultimate(model, dataset, first.images))
        predictions = evaluation.predictions[:_PROJECTOR_IMAGES]
        projector.write(run, first.images.cpu(), first.labels.cpu(), predictions, points, dataset.classes)
    charts.result(writer, step, dataset, evaluation, pictures)
    charts.result_for_live(writer, step, dataset, evaluation, model)


def first_line(
    config: Config,
    run: Run,
    dataset: Dataset,
    compute_model: CNN,
    distributed: Distributed,
    checkpoint: Mapping[str, Any] | None,
) -> str:
    """What is said first of a training. checkpoint: that it is resumed from."""
    where = f"on {config.device} in {config.precision}"
    if distributed.size > 1:
        where = f"on {distributed.size} processes, {where}"
    if config.device == "cpu" and (reason := kernels.why_not(compute_model)):
        where += f", by torch alone: {reason}"
    resumed = "" if checkpoint is None else f", from step {int(checkpoint['step']):,}"
    return f"Run {run.path}: {dataset.name}, {len(dataset.train):,} images, {where}{resumed}"


def say_what_is_not_tracked(config: Config, model: CNN, terminal: Terminal) -> None:
    """Say where the weights of each epoch are not kept, though they are asked for."""
    if config.tracking.enabled and config.tracking.weights_every and not charts.epochs_between_weights(config, model):
        terminal.say(
            f"Its {parameter_count(model):,} parameters are too many to keep each epoch's for the Live tab:"
            f" {charts.LARGEST_NETWORK:,} are the most"
        )


# ---- What metrics.json holds


def initial_metrics(config: Config, dataset: Dataset, model: CNN) -> dict[str, Any]:
    """The contents of metrics.json when a run begins."""
    return {
        "status": "running",
        "started": time.time(),
        "dataset": dataset.name,
        "fallback_reason": dataset.fallback_reason,
        "images": image_counts(dataset),
        "classes": list(dataset.classes),
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "parameters": parameter_count(model),
        "seed": config.seed,
        "config": flat_config(config),
        "device": config.device,
        "precision": config.precision,
        "versions": package_versions("mnist-tb", "torch", "torchvision", "tensorboard"),
    }


def evaluation_numbers(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """An evaluation as metrics.json has it."""
    scores = metrics.class_scores(evaluation.confusion)
    pairs = metrics.most_confused(evaluation.confusion, charts.CONFUSED_PAIRS)
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "calibration_error": metrics.calibration(evaluation.labels, evaluation.probabilities).error,
        "most_confused": [{"true": classes[t], "predicted": classes[p], "count": count} for t, p, count in pairs],
        "images": len(evaluation.labels),
        "per_class": [{"class": name, **vars(score)} for name, score in zip(classes, scores, strict=True)],
        "confusion": evaluation.confusion.tolist(),
    }


def image_counts(dataset: Dataset) -> dict[str, int]:
    """How many images each split has, by its name in metrics.json."""
    return {"train": len(dataset.train), "val": len(dataset.validation), "test": len(dataset.test)}


def first_status(config: Config, dataset: Dataset) -> Status:
    """What the Live tab shows of a run that has not begun."""
    steps = total_steps(config, len(dataset.train))
    return Status(
        dataset=dataset.name,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        epochs=config.train.epochs,
        batches=steps // config.train.epochs,
        steps=steps,
    )
