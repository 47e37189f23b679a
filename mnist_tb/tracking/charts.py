"""WHAT is written: every tag, and which numbers, pictures and texts go under it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mnist_tb import metrics
from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import load as configuration
from mnist_tb.config.hyperparameters import Settings
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.evaluate import Evaluation
from mnist_tb.events.summaries import Picture
from mnist_tb.events.tags import (
    ACCURACY_TEST,
    ACCURACY_TRAIN,
    ACCURACY_VAL,
    CALIBRATION,
    CONFIG_TEXT,
    CONFUSION,
    DATASET_TEXT,
    FEATURES,
    FILTERS,
    GRAD_NORM,
    GRADIENTS,
    LOSS_TEST,
    LOSS_TRAIN,
    LOSS_VAL,
    LR,
    MISTAKES,
    PER_CLASS,
    PR_CURVES,
    PREDICTIONS,
    RESULTS,
    RESULTS_TEXT,
    THROUGHPUT,
    UNCERTAIN,
    WEIGHTS,
)
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import parameter_count
from mnist_tb.tracking import figures, graph
from mnist_tb.training.metrics_window import Means

LAYOUT = {
    "Training and validation": {
        "loss": [LOSS_TRAIN, LOSS_VAL, LOSS_TEST],
        "accuracy": [ACCURACY_TRAIN, ACCURACY_VAL, ACCURACY_TEST],
        "validation accuracy per class": [f"{PER_CLASS}.*"],
    },
    "The training itself": {
        "learning rate": [LR],
        "gradient norm": [GRAD_NORM],
        "images per second": [THROUGHPUT],
    },
}

_PAIRS = 8
"""Pairs of classes that are named for being confused."""
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


def validation(tracker: EventWriter, step: int, evaluation: Evaluation, classes: Sequence[str]) -> None:
    """One point on each validation curve."""
    scores = metrics.class_scores(evaluation.confusion)
    per_class = {class_tag(PER_CLASS, name): score.recall for name, score in zip(classes, scores, strict=True)}
    tracker.scalars(step, {LOSS_VAL: evaluation.loss, ACCURACY_VAL: evaluation.accuracy, **per_class})


def class_tag(prefix: str, name: str) -> str:
    """A class's tag; its name may hold the sign that parts tags."""
    return prefix + name.replace("/", "-")


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


def result_pictures(
    dataset: Dataset,
    samples: Split,
    probabilities: Tensor,
    evaluation: Evaluation,
    weights: Tensor,
    layers: Sequence[Tensor],
) -> dict[str, Picture]:
    """All pictures of the result, by their tags: uint8 [H, W, 3].

    samples: random test images, and their probabilities, [N, C]. weights: the first layer's. layers: what each layer
    makes of the first sample, [C, H, W]. All on the CPU.
    """
    wrong, right = _by_certainty(evaluation)
    mistakes = int((evaluation.predictions != evaluation.labels).sum())
    sheet = f"{dataset.name}: {evaluation.accuracy:.2%} of {len(evaluation.labels):,} test images right"
    return {
        RESULTS: figures.predictions(samples.images, samples.labels, probabilities, dataset.classes, 8, sheet),
        MISTAKES: _gallery(dataset, evaluation, wrong, f"{len(wrong)} surest of {mistakes} mistakes"),
        UNCERTAIN: _gallery(dataset, evaluation, right, f"{len(right)} least certain of those that are right"),
        CONFUSION: figures.confusion(evaluation.confusion, dataset.classes),
        CALIBRATION: figures.reliability(metrics.calibration(evaluation.labels, evaluation.probabilities)),
        FILTERS: figures.filters(weights),
        FEATURES: figures.feature_maps(samples.images[0], layers),
    }


def result_sheet(pictures: Mapping[str, Picture]) -> Picture:
    """What results.png shows."""
    return figures.beside([pictures[tag] for tag in (RESULTS, CONFUSION, MISTAKES, CALIBRATION)])


def result(
    tracker: EventWriter, step: int, dataset: Dataset, evaluation: Evaluation, pictures: Mapping[str, Picture]
) -> None:
    """The best weights on the test set: numbers, a table, pictures, and a precision-recall curve for each class."""
    tracker.scalars(step, {LOSS_TEST: evaluation.loss, ACCURACY_TEST: evaluation.accuracy})
    tracker.texts(step, {RESULTS_TEXT: _result_text(dataset, evaluation)})
    tracker.images(step, {tag: partial(_itself, picture) for tag, picture in pictures.items()})
    curves = {
        class_tag(PR_CURVES, name): metrics.precision_recall(evaluation.labels == k, evaluation.probabilities[:, k])
        for k, name in enumerate(dataset.classes)
    }
    tracker.pr_curves(step, curves)


def _itself(picture: Picture) -> Picture:
    return picture


def _gallery(dataset: Dataset, evaluation: Evaluation, chosen: Tensor, title: str) -> Picture:
    images = dataset.test.images[chosen.to(dataset.test.images.device)].cpu()
    labels, probabilities = evaluation.labels[chosen], evaluation.probabilities[chosen]
    return figures.predictions(images, labels, probabilities, dataset.classes, title=title)


def evaluation_numbers(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """An evaluation as metrics.json holds it."""
    scores = metrics.class_scores(evaluation.confusion)
    pairs = metrics.confused_pairs(evaluation.confusion, _PAIRS)
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
    """How many images each split has, under the names that metrics.json uses."""
    return {"train": len(dataset.train), "val": len(dataset.validation), "test": len(dataset.test)}


def _by_certainty(evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """Indices of wrong predictions, the surest first, and of right ones, the least sure first; a few of each."""
    sure, right = evaluation.probabilities.amax(1), evaluation.predictions == evaluation.labels
    wrong, fine = ((~right).nonzero().squeeze(1), right.nonzero().squeeze(1))
    return wrong[sure[wrong].argsort(descending=True)[:SAMPLES]], fine[sure[fine].argsort()[:SAMPLES]]


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
    error = metrics.calibration(evaluation.labels, evaluation.probabilities).error
    head = (
        f"**{dataset.name}**, test: accuracy **{evaluation.accuracy:.2%}**, loss **{evaluation.loss:.4f}**, expected "
    )
    head += f"calibration error **{error:.2%}**\n\n"
    pairs = [
        (escape(dataset.classes[true]), escape(dataset.classes[guess]), str(count))
        for true, guess, count in metrics.confused_pairs(evaluation.confusion, _PAIRS)
    ]
    confused = "\n\nConfused most often:\n\n" + _table(("true", "predicted", "images"), pairs) if pairs else ""
    return head + _table(("class", "precision", "recall", "F1", "images"), rows) + confused


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
        "classes": list(dataset.classes),
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
        "parameters": parameter_count(model),
        "seed": config.seed,
        "config": configuration.flat(config),
        "device": config.device,
        "precision": config.precision,
        "versions": dict(versions),
    }
