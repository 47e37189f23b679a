"""The weights' average over the updates, which generalises better than the last ones.

Exponential (EMA): of recent updates. Stochastic weight averaging (SWA, Izmailov et al. 2018,
https://arxiv.org/abs/1803.05407): of all updates from some point on. Both give the numbers of torch's AveragedModel,
but of one vector, which all of the model's parameters are views of, and with a counter on the CPU: torch's costs a copy
between CPU and device for every update.
https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from mnist_tb import model as models
from mnist_tb.config.schema import Averaging
from mnist_tb.model import CNN


class AveragedWeights:
    """The average of a model's weights, whose parameters are views of `vector`, float32 [P].

    master_model: a model with the averaged weights, as of the last `refresh`. compute_model: the same in the precision
    of the training.
    """

    def __init__(self, config: Averaging, model: CNN, vector: Tensor, precision: str) -> None:
        self._config = config
        self._current = vector
        self._mean = vector.clone()
        self._count = 0  # of the updates in it; on the CPU, so that nobody has to wait for the device
        self.master_model = copy.deepcopy(model)
        self._vector = models.flatten(self.master_model)[0]
        self.compute_model = models.in_precision(self.master_model, precision)
        is_copy = self.compute_model is not self.master_model
        self._compute_weights = models.flatten(self.compute_model)[0] if is_copy else self._vector

    @torch.no_grad()
    def update(self, fraction: float) -> None:
        """Add the current weights to the average, after this fraction of all updates."""
        if fraction < self._config.start:
            return
        weight = 1 - self._config.decay if self._config.name == "ema" else 1 / (self._count + 1)
        if self._count == 0:
            self._mean.copy_(self._current)
        else:
            self._mean.lerp_(self._current, weight)
        self._count += 1

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the average to both models; before the averaging has begun, the current weights."""
        self._vector.copy_(self._mean if self._count else self._current)
        if self._compute_weights is not self._vector:
            self._compute_weights.copy_(self._vector)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {"average": self._mean, "count": torch.tensor(self._count)}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave. Raises KeyError, and RuntimeError where it is of another network."""
        self._mean.copy_(state_dict["average"])
        self._count = int(state_dict["count"])
