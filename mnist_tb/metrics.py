"""Pure: tensors in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassScore:
    """How one class fares, each from 0 to 1. A ratio without a denominator is 0, as in scikit-learn.

    precision: of the images taken for this class, the share that is of it.
    recall: of the images of this class, the share that is found.
    f1: the harmonic mean of the two. support: images of this class.
    https://scikit-learn.org/stable/modules/model_evaluation.html#precision-recall-f-measure-metrics
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it is sure: its predictions in bins of equal width by their confidence.

    confidence, accuracy: means in each bin, 0 where it is empty; count: predictions in it.
    error: the expected calibration error, the mean of |accuracy - confidence| over all predictions.
    C. Guo and others, On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599, section 2.
    """

    confidence: list[float]
    accuracy: list[float]
    count: list[int]
    error: float


def calibration(labels: Tensor, probabilities: Tensor, bins: int = 15) -> Calibration:
    """labels: int64 [N]; probabilities: float [N, C]; bin b holds confidences in (b / bins, (b + 1) / bins]."""
    sure, guess = probabilities.double().max(1)
    place = (sure * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    each = count.clamp(min=1)
    confidence = torch.bincount(place, sure, bins) / each
    accuracy = torch.bincount(place, (guess == labels).double(), bins) / each
    error = (count * (accuracy - confidence).abs()).sum() / max(len(labels), 1)
    return Calibration(confidence.tolist(), accuracy.tolist(), count.tolist(), float(error))


def precision_recall(positive: Tensor, scores: Tensor, thresholds: int = 127) -> Tensor:
    """For thresholds evenly from 0 to 1, taking scores at or above each for positive: float64 [6, thresholds].

    Rows: true positives, false positives, true negatives, false negatives, precision, recall; a ratio without a
    denominator is 0. positive: bool [N]; scores: float [N], 0 to 1.
    """
    place = (scores.double() * (thresholds - 1)).floor().long().clamp(0, thresholds - 1)
    hits = torch.bincount(place[positive], minlength=thresholds).flip(0).cumsum(0).flip(0).double()
    taken = torch.bincount(place, minlength=thresholds).flip(0).cumsum(0).flip(0).double()
    positives = positive.sum().double()
    false = taken - hits
    negatives = len(positive) - positives
    return torch.stack(
        [hits, false, negatives - false, positives - hits, hits / taken.clamp(min=1), hits / positives.clamp(min=1)]
    )


def confused_pairs(confusion: Tensor, most: int) -> list[tuple[int, int, int]]:
    """The mistakes made most often, from a confusion matrix [C, C]: true class, predicted class, how often."""
    mistakes = confusion - confusion.diag().diag()
    counts, places = mistakes.flatten().sort(descending=True, stable=True)
    size = len(confusion)
    pairs = zip(counts.tolist(), places.tolist(), strict=True)
    return [(place // size, place % size, count) for count, place in pairs if count][:most]


def correct_count(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of logits [N, C] are highest at their label [N]: int64 [], on their device."""
    return (logits.argmax(1) == labels).sum()


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts, int64 [classes, classes]: row the true class, column the predicted one."""
    pairs = labels * classes + predictions
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_scores(confusion: Tensor) -> list[ClassScore]:
    """Precision, recall and F1 of each class from a confusion matrix [C, C]."""
    hits, support, taken = confusion.diag().double(), confusion.sum(1), confusion.sum(0)
    precision = hits / taken.clamp(min=1)
    recall = hits / support.clamp(min=1)
    f1 = 2 * hits / (taken + support).clamp(min=1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return [ClassScore(*row) for row in zip(*columns, strict=True)]
