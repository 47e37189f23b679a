"""One pass over a split → one frozen `Evaluation`. Writes nothing."""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported: see engine.process.bound_spinning
    import runpy
    import sys

    sys.argv.insert(1, "evaluate")
    runpy.run_module("mnist_tb", run_name="__main__")

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_tb import metrics
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.engine import kernels
from mnist_tb.engine.distributed import SINGLE_PROCESS, Distributed
from mnist_tb.metrics import Evaluation
from mnist_tb.model import CNN

_BATCH_SIZE = {"cpu": 500, "cuda": 2_000}
"""Larger batches are no faster on a CPU, and leave its cache; on a GPU these take 0.1 GB at the default size."""


def evaluate(model: nn.Module, dataset: Dataset, split: Split, distributed: Distributed = SINGLE_PROCESS) -> Evaluation:
    """Evaluate a model on every image of a split, in evaluation mode; the modes of its layers are restored afterwards.

    distributed: the processes that share the images; each of them returns the whole evaluation.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        logits = predict(model, dataset, split.images[distributed.shard(len(split))])
    finally:
        for module, mode in modes:
            module.training = mode
    logits = distributed.gather(logits, len(split))
    loss = functional.cross_entropy(logits, split.labels)
    accuracy = metrics.num_correct(logits, split.labels).item() / len(split)
    return Evaluation(loss.item(), accuracy, split.labels.cpu(), logits.softmax(1).cpu())


@torch.no_grad()
def predict(model: nn.Module, dataset: Dataset, images: Tensor) -> Tensor:
    """uint8 [N, 28, 28] → logits, float32 [N, C], on the device of the images. Leaves the model's mode as it is."""
    batches = images.split(_BATCH_SIZE.get(images.device.type, 500))
    found = kernels.find(model)
    if found is not None:
        parameters = kernels.vector(model)
        return torch.cat([found.logits(parameters, dataset.inputs(batch)) for batch in batches])
    dtype = next(model.parameters()).dtype
    return torch.cat([model(dataset.inputs(batch, dtype)) for batch in batches]).float()


@torch.no_grad()
def features(model: CNN, dataset: Dataset, images: Tensor) -> list[Tensor]:
    """uint8 [N, 28, 28] → the activations of each convolution, float32 [N, C, H, W] on the CPU."""
    return [layer.contiguous().cpu() for layer in model.features(dataset.inputs(images))]


@torch.no_grad()
def penultimate(model: CNN, dataset: Dataset, images: Tensor) -> Tensor:
    """uint8 [N, 28, 28] → the input of the linear layer, float32 [N, F] on the CPU, a batch at a time."""
    batches = images.split(_BATCH_SIZE.get(images.device.type, 500))
    return torch.cat([model.features(dataset.inputs(batch))[-1].flatten(1).cpu() for batch in batches])
