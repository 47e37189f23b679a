"""One pass over a split → one frozen Evaluation. Writes nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_tb import metrics
from mnist_tb.data import Dataset, Split

_BATCH = 500
"""Images at once: larger is no faster on a CPU, and costs cache."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a split. loss: mean cross-entropy in nats; accuracy: 0 to 1.

    labels: int64 [N]; probabilities: float32 [N, C]; both on the CPU, in the split's order.
    """

    loss: float
    accuracy: float
    labels: Tensor
    probabilities: Tensor

    @property
    def predictions(self) -> Tensor:
        """int64 [N]."""
        return self.probabilities.argmax(1)

    @property
    def confusion(self) -> Tensor:
        """int64 [C, C]: row the true class, column the predicted one."""
        return metrics.confusion_matrix(self.labels, self.predictions, self.probabilities.shape[1])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The arithmetic of the forward pass: products in bf16, or all of it in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def evaluate(model: nn.Module, dataset: Dataset, split: Split, precision: str) -> Evaluation:
    """Score a network on every image of a split, once, in evaluation mode; the model's mode is put back after."""
    was_training = model.training
    model.eval()
    try:
        logits = predict(model, dataset, split.images, precision)
    finally:
        model.train(was_training)
    labels = split.labels
    loss = functional.cross_entropy(logits, labels)
    correct = metrics.correct_count(logits, labels)
    return Evaluation(loss.item(), correct.item() / len(labels), labels.cpu(), logits.softmax(1).cpu())


@torch.inference_mode()
def predict(model: nn.Module, dataset: Dataset, images: Tensor, precision: str) -> Tensor:
    """uint8 [N, 28, 28] → logits, float32 [N, C], on the images' device. Leaves the model's mode as it is."""
    with autocast(images.device, precision):
        parts = [model(dataset.inputs(part)) for part in images.split(_BATCH)]
    return torch.cat(parts).float()


if __name__ == "__main__":
    import sys

    from mnist_tb.cli import evaluate_command, main

    sys.exit(main(evaluate_command))
