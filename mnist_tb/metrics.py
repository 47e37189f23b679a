"""Tensors in, numbers out: what is measured of a network, and the records that hold it. Pure functions only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a split.

    loss: mean cross-entropy in nats. accuracy: 0 to 1.
    labels: int64 [N]. probabilities: float32 [N, C]. Both on the CPU, in the order of the split.
    """

    loss: float
    accuracy: float
    labels: Tensor
    probabilities: Tensor

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each image, int64 [N]."""
        return self.probabilities.argmax(1)

    @property
    def confusion(self) -> Tensor:
        """Counts, int64 [C, C]: the row is the true class, the column the predicted one."""
        return confusion_matrix(self.labels, self.predictions, self.probabilities.shape[1])


@dataclass(frozen=True)
class WindowMetrics:
    """Averages over the updates between two points of the training curves.

    loss: in nats per image. accuracy: 0 to 1. Both were measured while the weights changed.
    lr, grad_norm: learning rate and gradient norm of the last update.
    first_nonfinite: index, from 0, and learning rate of the first update whose loss is NaN or infinite, or None.
    """

    loss: float
    accuracy: float
    lr: float
    grad_norm: float
    images_per_second: float
    first_nonfinite: tuple[int, float] | None


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class, each from 0 to 1; 0 where the denominator is 0, as in scikit-learn.

    precision: the fraction of the images predicted as this class that belong to it.
    recall: the fraction of the images of this class that are predicted as it.
    f1: the harmonic mean of the two. support: how many images belong to this class.
    https://scikit-learn.org/stable/modules/model_evaluation.html#precision-recall-f-measure-metrics
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as its confidence says: its predictions in bins of equal width.

    confidence, accuracy: the mean of each bin, 0 where it is empty. count: how many predictions each bin holds.
    error: the expected calibration error (ECE), the mean of |accuracy - confidence| over all predictions.
    C. Guo and others, On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599, section 2.
    """

    confidence: list[float]
    accuracy: list[float]
    count: list[int]
    error: float


def calibration(labels: Tensor, probabilities: Tensor, bins: int = 15) -> Calibration:
    """The calibration of some predictions. labels: int64 [N]. probabilities: float [N, C].

    Bin b holds the confidences in (b / bins, (b + 1) / bins].
    """
    confidences, predictions = probabilities.double().max(1)
    index = (confidences * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(index, minlength=bins)
    divisor = count.clamp(min=1)
    confidence = torch.bincount(index, confidences, bins) / divisor
    accuracy = torch.bincount(index, (predictions == labels).double(), bins) / divisor
    error = (count * (accuracy - confidence).abs()).sum() / max(len(labels), 1)
    return Calibration(confidence.tolist(), accuracy.tolist(), count.tolist(), float(error))


def precision_recall(positive: Tensor, scores: Tensor, thresholds: int = 127) -> Tensor:
    """A precision-recall curve: float64 [6, thresholds], for thresholds spaced evenly from 0 to 1.

    Rows: true positives, false positives, true negatives, false negatives, precision, recall; a score at or above the
    threshold counts as positive, and a ratio with denominator 0 is 0. positive: bool [N]. scores: float [N], 0 to 1.
    """
    index = (scores.double() * (thresholds - 1)).floor().long().clamp(0, thresholds - 1)
    true = torch.bincount(index[positive], minlength=thresholds).flip(0).cumsum(0).flip(0).double()
    predicted = torch.bincount(index, minlength=thresholds).flip(0).cumsum(0).flip(0).double()
    positives = positive.sum().double()
    false = predicted - true
    negatives = len(positive) - positives
    precision, recall = true / predicted.clamp(min=1), true / positives.clamp(min=1)
    return torch.stack([true, false, negatives - false, positives - true, precision, recall])


def most_confused(confusion: Tensor, limit: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes in a confusion matrix [C, C]: true class, predicted class, count."""
    mistakes = confusion - confusion.diag().diag()
    counts, indices = mistakes.flatten().sort(descending=True, stable=True)
    size = len(confusion)
    pairs = zip(counts.tolist(), indices.tolist(), strict=True)
    return [(index // size, index % size, count) for count, index in pairs if count][:limit]


def num_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of logits [N, C] are highest at their label, int64 [N]: int64 [], on their device."""
    return (logits.argmax(1) == labels).sum()


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts, int64 [classes, classes]: the row is the true class, the column the predicted one. Both int64 [N]."""
    pairs = labels * classes + predictions
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_scores(confusion: Tensor) -> list[ClassScore]:
    """Precision, recall and F1 of each class from a confusion matrix [C, C]."""
    correct, support, predicted = confusion.diag().double(), confusion.sum(1), confusion.sum(0)
    precision = correct / predicted.clamp(min=1)
    recall = correct / support.clamp(min=1)
    f1 = 2 * correct / (predicted + support).clamp(min=1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return [ClassScore(*row) for row in zip(*columns, strict=True)]
