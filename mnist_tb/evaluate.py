"""One pass over a split → one frozen Evaluation. Writes nothing."""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported: see memory.bound_spinning
    import sys

    from mnist_tb.cli.main import evaluate_command, main

    sys.exit(main(evaluate_command))

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_tb import metrics
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.engine import kernels
from mnist_tb.engine.distributed import ALONE, Team
from mnist_tb.model import CNN

_BATCH = {"cpu": 500, "cuda": 10_000}
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


def evaluate(network: nn.Module, dataset: Dataset, split: Split, team: Team = ALONE) -> Evaluation:
    """Score a network on every image of a split, once, in evaluation mode; the network's mode is put back after.

    team: whose processes share the images out; each of them gets the whole evaluation.
    """
    was_training = network.training
    network.eval()
    try:
        mine = predict(network, dataset, split.images[team.part(len(split))])
    finally:
        network.train(was_training)
    logits, labels = team.gather(mine, len(split)), split.labels
    loss = functional.cross_entropy(logits, labels)
    correct = metrics.correct_count(logits, labels)
    return Evaluation(loss.item(), correct.item() / len(labels), labels.cpu(), logits.softmax(1).cpu())


@torch.inference_mode()
def predict(network: nn.Module, dataset: Dataset, images: Tensor) -> Tensor:
    """uint8 [N, 28, 28] → logits, float32 [N, C], on the images' device. Leaves the network's mode as it is."""
    parts = images.split(_BATCH.get(images.device.type, 500))
    fast = kernels.find(network)
    if fast is not None:
        parameters = kernels.vector(network)
        return torch.cat([fast.logits(parameters, dataset.inputs(part)) for part in parts])
    dtype = next(network.parameters()).dtype
    return torch.cat([network(dataset.inputs(part, dtype)) for part in parts]).float()


@torch.inference_mode()
def features(model: CNN, dataset: Dataset, images: Tensor) -> list[Tensor]:
    """uint8 [N, 28, 28] → what each convolution makes of them, float32 [N, C, H, W] on the CPU."""
    return [layer.contiguous().cpu() for layer in model.features(dataset.inputs(images))]


@torch.inference_mode()
def penultimate(model: CNN, dataset: Dataset, images: Tensor) -> Tensor:
    """uint8 [N, 28, 28] → what the linear layer is given of them, float32 [N, F] on the CPU; the rest is not kept."""
    parts = images.split(_BATCH.get(images.device.type, 500))
    return torch.cat([model.features(dataset.inputs(part))[-1].flatten(1).cpu() for part in parts])
