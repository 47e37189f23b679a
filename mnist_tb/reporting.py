"""WHAT is written: every tag, and which numbers, pictures and texts go under it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mnist_tb import config as configuration
from mnist_tb import figures, graph, metrics, settings
from mnist_tb.config import Config
from mnist_tb.data import Dataset, Split
from mnist_tb.evaluate import Evaluation
from mnist_tb.model import parameter_count
from mnist_tb.settings import Settings
from mnist_tb.summaries import Picture
from mnist_tb.tracking import EventWriter
from mnist_tb.window import Means

LOSS_TRAIN = "loss/train"
LOSS_VAL = "loss/val"
LOSS_TEST = "loss/test"
ACCURACY_TRAIN = "accuracy/train"
ACCURACY_VAL = "accuracy/val"
ACCURACY_TEST = "accuracy/test"
LR = "lr"
GRAD_NORM = "grad_norm"
THROUGHPUT = "throughput/images_per_second"
WEIGHTS = "weights/"
GRADIENTS = "gradients/"
PREDICTIONS = "predictions/test"
RESULTS = "results/test"
MISTAKES = "mistakes/test"
CONFUSION = "confusion/test"
CONFIG_TEXT = "config"
DATASET_TEXT = "dataset"
RESULTS_TEXT = "results"

LAYOUT = {
    "Training and validation": {
        "loss": [LOSS_TRAIN, LOSS_VAL, LOSS_TEST],
        "accuracy": [ACCURACY_TRAIN, ACCURACY_VAL, ACCURACY_TEST],
    },
    "The training itself": {
        "learning rate": [LR],
        "gradient norm": [GRAD_NORM],
        "images per second": [THROUGHPUT],
    },
}

SAMPLES = 18
"""Images in each grid of predictions."""


def beginning(tracker: EventWriter, config: Config, dataset: Dataset, model: nn.Module) -> None:
    """What is known before the first step: settings, data, network, and how the curves are laid out."""
    if not tracker.enabled:
        return
    chosen = configuration.flat(config)
    tracker.hparams(settings.deciding(chosen), group=group_name(chosen))
    tracker.texts(0, {CONFIG_TEXT: config_text(chosen), DATASET_TEXT: _dataset_text(dataset)})
    tracker.layout(LAYOUT)
    tracker.graph(graph.draw(model, (1, 1, 28, 28)))


def training(tracker: EventWriter, step: int, means: Means) -> None:
    """One point on each training curve."""
    values = {
        LOSS_TRAIN: means.loss,
        ACCURACY_TRAIN: means.accuracy,
        LR: means.lr,
        GRAD_NORM: means.grad_norm,
        THROUGHPUT: means.images_per_second,
    }
    tracker.scalars(step, values)


def validation(tracker: EventWriter, step: int, evaluation: Evaluation) -> None:
    """One point on each validation curve."""
    tracker.scalars(step, {LOSS_VAL: evaluation.loss, ACCURACY_VAL: evaluation.accuracy})


def histograms(tracker: EventWriter, step: int, model: nn.Module) -> None:
    """The distribution of every parameter, and of its gradient in the last update where there was one."""
    weights = {WEIGHTS + name: parameter for name, parameter in model.named_parameters()}
    gradients = {GRADIENTS + name: p.grad for name, p in model.named_parameters() if step and p.grad is not None}
    tracker.histograms(step, {**weights, **gradients})


def predictions(tracker: EventWriter, step: int, dataset: Dataset, samples: Split, probabilities: Tensor) -> None:
    """The grid of the same few test samples every time, as the network sees them now."""
    draw = partial(
        figures.predictions, samples.images.cpu(), samples.labels.cpu(), probabilities.cpu(), dataset.classes
    )
    tracker.images(step, {PREDICTIONS: draw})


def result_sheet(dataset: Dataset, samples: Split, probabilities: Tensor, evaluation: Evaluation) -> Picture:
    """The final picture: random test samples under the test accuracy. uint8 [H, W, 3]."""
    title = f"{dataset.name}: {evaluation.accuracy:.2%} of {len(evaluation.labels):,} test images right"
    return figures.predictions(samples.images.cpu(), samples.labels.cpu(), probabilities, dataset.classes, 8, title)


def result(tracker: EventWriter, step: int, dataset: Dataset, evaluation: Evaluation, sheet: Picture) -> None:
    """The best weights on the test set: numbers, a table, and pictures."""
    tracker.scalars(step, {LOSS_TEST: evaluation.loss, ACCURACY_TEST: evaluation.accuracy})
    tracker.texts(step, {RESULTS_TEXT: _result_text(dataset, evaluation)})
    worst = _worst_mistakes(evaluation)
    mistakes = partial(
        figures.predictions,
        dataset.test.images[worst.to(dataset.test.images.device)].cpu(),
        evaluation.labels[worst],
        evaluation.probabilities[worst],
        dataset.classes,
        title=f"{len(worst)} surest of {int((evaluation.predictions != evaluation.labels).sum())} mistakes",
    )
    pictures: dict[str, Callable[[], Picture]] = {
        RESULTS: lambda: sheet,
        MISTAKES: mistakes,
        CONFUSION: partial(figures.confusion, evaluation.confusion, dataset.classes),
    }
    tracker.images(step, pictures)


def evaluation_numbers(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """An evaluation as metrics.json holds it."""
    scores = metrics.class_scores(evaluation.confusion)
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "images": len(evaluation.labels),
        "per_class": [{"class": name, **vars(score)} for name, score in zip(classes, scores, strict=True)],
        "confusion": evaluation.confusion.tolist(),
    }


def image_counts(dataset: Dataset) -> dict[str, int]:
    """How many images each split has, under the names that metrics.json uses."""
    return {"train": len(dataset.train), "val": len(dataset.validation), "test": len(dataset.test)}


def _worst_mistakes(evaluation: Evaluation) -> Tensor:
    """Indices of the wrongly predicted images, those first of which the network was surest."""
    wrong = (evaluation.predictions != evaluation.labels).nonzero().squeeze(1)
    sure = evaluation.probabilities[wrong].amax(1)
    return wrong[sure.argsort(descending=True)[:SAMPLES]]


def group_name(chosen: Settings) -> str:
    """The same for all seeds of a configuration, whose runs are one row of the HParams table: `lr3e-3 bf16 cpu`."""
    ours = settings.deciding(chosen)
    changed = settings.differences(ours, configuration.flat(Config()))
    where = [str(changed.pop(key)) for key in ("precision", "device") if key in changed]
    return " ".join([settings.words(changed) or "default", *where])


def config_text(chosen: Settings) -> str:
    """All settings as a table in Markdown."""
    rows = [(f"`{key}`", f"`{json.dumps(value)}`") for key, value in chosen.items()]
    return _table(("setting", "value"), rows)


def _dataset_text(dataset: Dataset) -> str:
    rows = [(split, f"{len(getattr(dataset, split)):,}") for split in ("train", "validation", "test")]
    text = f"**{dataset.name}**, mean {dataset.mean:.4f}, standard deviation {dataset.std:.4f}\n\n"
    if dataset.fallback_reason is not None:
        text = f"## ⚠ Not the data that were asked for\n\n{escape(dataset.fallback_reason)}\n\n{text}"
    return text + _table(("split", "images"), rows)


def _result_text(dataset: Dataset, evaluation: Evaluation) -> str:
    scores = metrics.class_scores(evaluation.confusion)
    rows = [
        (escape(name), f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}", str(score.support))
        for name, score in zip(dataset.classes, scores, strict=True)
    ]
    head = f"**{dataset.name}**, test: accuracy **{evaluation.accuracy:.2%}**, loss **{evaluation.loss:.4f}**\n\n"
    return head + _table(("class", "precision", "recall", "F1", "images"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def escape(text: str) -> str:
    """Text from elsewhere, made plain inside Markdown."""
    return "".join("\\" + c if c in "\\`*_{}[]()<>#+-.!|" else c for c in text)


def facts(config: Config, dataset: Dataset, model: nn.Module, versions: Mapping[str, str]) -> dict[str, Any]:
    """What metrics.json holds from the first moment on."""
    return {
        "status": "running",
        "started": time.time(),
        "dataset": dataset.name,
        "fallback_reason": dataset.fallback_reason,
        "images": image_counts(dataset),
        "parameters": parameter_count(model),
        "seed": config.seed,
        "config": configuration.flat(config),
        "device": config.device,
        "precision": config.precision,
        "versions": dict(versions),
    }
