"""What a run of this network shows in TensorBoard: which numbers, pictures and texts are written under which tag."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from mnist_tb import metrics
from mnist_tb.config.hyperparameters import hyperparameters
from mnist_tb.config.load import flat_config
from mnist_tb.config.numbers import percent
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.environment.texts import config_text, escape, group_name, table
from mnist_tb.events.summaries import Below, Picture
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
    LIVE_EPOCH,
    LIVE_RESULT,
    LIVE_SAMPLES,
    LIVE_WEIGHTS,
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
from mnist_tb.metrics import Evaluation, WindowMetrics
from mnist_tb.tracking import figures, graph, weights_export

LAYOUT: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Training and validation": {
        "loss": [LOSS_TRAIN, LOSS_VAL, LOSS_TEST],
        "accuracy": [ACCURACY_TRAIN, ACCURACY_VAL, ACCURACY_TEST],
        "validation accuracy per class": [Below(PER_CLASS)],
    },
    "The training itself": {"learning rate": [LR], "gradient norm": [GRAD_NORM], "images per second": [THROUGHPUT]},
}

CONFUSED_PAIRS = 8
"""Pairs of classes that are listed as most often confused."""
LARGEST_NETWORK = 250_000
"""Parameters of the largest network whose weights are written each epoch: half a megabyte."""
_MOST_COPIES = 100
SAMPLES = 18
"""Images in a grid of predictions."""


def beginning(writer: EventWriter, config: Config, dataset: Dataset, model: nn.Module) -> None:
    """What is known before the first step: hyperparameters, data, network, and how the curves are laid out."""
    if not writer.enabled:
        return
    settings = flat_config(config)
    writer.hparams(hyperparameters(settings), group=group_name(settings))
    writer.texts(0, {CONFIG_TEXT: config_text(settings), DATASET_TEXT: _dataset_text(dataset)})
    writer.layout(LAYOUT)
    writer.graph(graph.draw(model, (1, 1, 28, 28)))


def training(writer: EventWriter, step: int, window: WindowMetrics, wall_time: float) -> None:
    """One point on each training curve. wall_time: when it was measured, seconds since 1970."""
    values = {
        LOSS_TRAIN: window.loss,
        ACCURACY_TRAIN: window.accuracy,
        LR: window.lr,
        GRAD_NORM: window.grad_norm,
        THROUGHPUT: window.images_per_second,
    }
    writer.scalars(step, values, wall_time)


def validation(writer: EventWriter, step: int, evaluation: Evaluation, classes: Sequence[str]) -> None:
    """One point on each validation curve."""
    scores = metrics.class_scores(evaluation.confusion)
    per_class = {class_tag(PER_CLASS, name): score.recall for name, score in zip(classes, scores, strict=True)}
    writer.scalars(step, {LOSS_VAL: evaluation.loss, ACCURACY_VAL: evaluation.accuracy, **per_class})


def class_tag(prefix: str, name: str) -> str:
    """The tag of a class, whose name may contain the slash that separates the parts of tags."""
    return prefix + name.replace("/", "-")


def histograms(writer: EventWriter, step: int, model: nn.Module) -> None:
    """The distribution of every parameter, and of its gradient in the last update if there was one."""
    weights = {WEIGHTS + name: parameter for name, parameter in model.named_parameters()}
    gradients = {GRADIENTS + name: p.grad for name, p in model.named_parameters() if step and p.grad is not None}
    writer.histograms(step, {**weights, **gradients})


def predictions(writer: EventWriter, step: int, dataset: Dataset, samples: Split, probabilities: Tensor) -> None:
    """A grid of the same few test images every time, with the current predictions."""
    draw = partial(
        figures.predictions, samples.images.cpu(), samples.labels.cpu(), probabilities.cpu(), dataset.classes
    )
    writer.images(step, {PREDICTIONS: draw})


def epoch_weights(
    writer: EventWriter, step: int, epoch: int, dataset: Dataset, samples: Split, model: nn.Module
) -> None:
    """The weights after an epoch, for the Live tab's time machine; with the first ones, the watched images."""
    if epoch == 0:
        writer.live_data(step, LIVE_SAMPLES, weights_export.encode_samples(samples))
    content = weights_export.encode(model, dataset.classes, dataset.mean, dataset.std, half=True)
    writer.live_data(step, f"{LIVE_EPOCH}{epoch}", content)


def epochs_between_weights(config: Config, model: nn.Module) -> int:
    """Epochs between two copies of the weights: at most a hundred a run; 0 for none, as of a network that is large."""
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST_NETWORK:
        return 0
    every = config.tracking.weights_every
    return every and max(every, math.ceil(config.train.epochs / _MOST_COPIES))


def result_pictures(
    dataset: Dataset,
    samples: Split,
    probabilities: Tensor,
    evaluation: Evaluation,
    weights: Tensor,
    layers: Sequence[Tensor],
) -> dict[str, Picture]:
    """All pictures of the result, by tag: uint8 [H, W, 3].

    samples: random test images. probabilities: theirs, [N, C]. weights: of the first layer. layers: the activations of
    each layer for the first sample, [C, H, W]. All on the CPU.
    """
    wrong, correct = _by_confidence(evaluation)
    mistakes = int((evaluation.predictions != evaluation.labels).sum())
    sheet = f"{dataset.name}: {percent(evaluation.accuracy)}% of {len(evaluation.labels):,} test images correct"
    return {
        RESULTS: figures.predictions(samples.images, samples.labels, probabilities, dataset.classes, 8, sheet),
        MISTAKES: _gallery(dataset, evaluation, wrong, f"{len(wrong)} most confident of {mistakes} mistakes"),
        UNCERTAIN: _gallery(dataset, evaluation, correct, f"{len(correct)} least confident of the correct ones"),
        CONFUSION: figures.confusion(evaluation.confusion, dataset.classes),
        CALIBRATION: figures.reliability(metrics.calibration(evaluation.labels, evaluation.probabilities)),
        FILTERS: figures.filters(weights),
        FEATURES: figures.feature_maps(samples.images[0], layers),
    }


def result_sheet(pictures: Mapping[str, Picture]) -> Picture:
    """The picture in results.png."""
    return figures.beside([pictures[tag] for tag in (RESULTS, CONFUSION, MISTAKES, CALIBRATION)])


def result(
    writer: EventWriter, step: int, dataset: Dataset, evaluation: Evaluation, pictures: Mapping[str, Picture]
) -> None:
    """The test result of the best weights: numbers, a table, pictures, and a precision-recall curve for each class."""
    if not writer.enabled:
        return
    writer.scalars(step, {LOSS_TEST: evaluation.loss, ACCURACY_TEST: evaluation.accuracy})
    writer.texts(step, {RESULTS_TEXT: _result_text(dataset, evaluation)})
    writer.images(step, {tag: partial(_identity, picture) for tag, picture in pictures.items()})
    curves = {
        class_tag(PR_CURVES, name): metrics.precision_recall(evaluation.labels == k, evaluation.probabilities[:, k])
        for k, name in enumerate(dataset.classes)
    }
    writer.pr_curves(step, curves)


def result_for_live(writer: EventWriter, step: int, dataset: Dataset, evaluation: Evaluation, model: nn.Module) -> None:
    """The best weights for the Live tab, and its confusion matrix with the images of each cell."""
    if not writer.enabled:
        return
    exported = weights_export.encode(model, dataset.classes, dataset.mean, dataset.std)
    writer.live_data(step, LIVE_WEIGHTS, exported)
    writer.live_data(step, LIVE_RESULT, weights_export.encode_result(dataset.test.images, evaluation, dataset.classes))


def _identity(picture: Picture) -> Picture:
    return picture


def _gallery(dataset: Dataset, evaluation: Evaluation, index: Tensor, title: str) -> Picture:
    images = dataset.test.images[index.to(dataset.test.images.device)].cpu()
    labels, probabilities = evaluation.labels[index], evaluation.probabilities[index]
    return figures.predictions(images, labels, probabilities, dataset.classes, title=title)


def _by_confidence(evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """Indices of a few wrong predictions, the most confident first, and of correct ones, the least confident first."""
    confidence, is_correct = evaluation.probabilities.amax(1), evaluation.predictions == evaluation.labels
    wrong, correct = (~is_correct).nonzero().squeeze(1), is_correct.nonzero().squeeze(1)
    most_confident = wrong[confidence[wrong].argsort(descending=True)[:SAMPLES]]
    return most_confident, correct[confidence[correct].argsort()[:SAMPLES]]


def _dataset_text(dataset: Dataset) -> str:
    rows = [(split, f"{len(getattr(dataset, split)):,}") for split in ("train", "validation", "test")]
    text = f"**{dataset.name}**, mean {dataset.mean:.4f}, standard deviation {dataset.std:.4f}\n\n"
    if dataset.fallback_reason is not None:
        text = f"## ⚠ Not the data that were asked for\n\n{escape(dataset.fallback_reason)}\n\n{text}"
    return text + table(("split", "images"), rows)


def _result_text(dataset: Dataset, evaluation: Evaluation) -> str:
    scores = metrics.class_scores(evaluation.confusion)
    rows = [
        (escape(name), f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}", str(score.support))
        for name, score in zip(dataset.classes, scores, strict=True)
    ]
    error = metrics.calibration(evaluation.labels, evaluation.probabilities).error
    accuracy = percent(evaluation.accuracy)
    head = f"**{dataset.name}**, test: accuracy **{accuracy}%**, loss **{evaluation.loss:.4f}**, "
    head += f"expected calibration error **{percent(error)}%**\n\n"
    pairs = [
        (escape(dataset.classes[true]), escape(dataset.classes[predicted]), str(count))
        for true, predicted, count in metrics.most_confused(evaluation.confusion, CONFUSED_PAIRS)
    ]
    confused = "\n\nConfused most often:\n\n" + table(("true", "predicted", "images"), pairs) if pairs else ""
    return head + table(("class", "precision", "recall", "F1", "images"), rows) + confused
