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
