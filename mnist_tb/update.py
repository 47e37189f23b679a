"""One optimiser update, near the machine's limit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb import metrics
from mnist_tb import model as models
from mnist_tb.config import Config
from mnist_tb.data import Dataset
from mnist_tb.model import CNN
from mnist_tb.optim import VectorOptimizer


class Updater:
    """Takes optimiser updates on a model, whose weights stay in fp32.

    In bf16 a copy of the network computes, and is refreshed from the fp32 weights after each update: what autocast
    does, without its casts of every weight in every step. All parameters are one vector, so that the copy, the
    gradient's way back and the optimiser are one operation each.

    network: what computes; the same weights as the model, in the configured precision.
    """

    def __init__(self, config: Config, model: CNN, dataset: Dataset) -> None:
        self._dataset = dataset
        self._vector, self._gradient = models.flatten(model)
        self.network = models.in_precision(model, config.precision).train()
        self._copy = None if self.network is model else models.flatten(self.network)[0]
        self._leaves = list(self.network.parameters())
        self.optimizer = VectorOptimizer(config.optimizer, self._vector)

    def __call__(self, index: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Update once, on the training images at `index`, int64 [B].

        Returns the mean loss and the number of right predictions, both from before the update and on the device. The
        gradients stay in the model's parameters.
        """
        inputs, labels = self._dataset.train_batch(index, self._leaves[0].dtype)
        logits = self.network(inputs).float()
        loss = functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, self._leaves)
        torch.cat(models.as_vector(gradients), out=self._gradient)
        self.optimizer.step(self._gradient, lr)
        if self._copy is not None:
            self._copy.copy_(self._vector)
        return loss.detach(), metrics.correct_count(logits.detach(), labels)
