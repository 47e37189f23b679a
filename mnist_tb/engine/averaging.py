"""The weights' average over the updates, which generalises better than the last ones.

Exponential (EMA): of recent updates. Stochastic weight averaging (SWA, Izmailov et al. 2018,
https://arxiv.org/abs/1803.05407): of all updates from some point on. Both are torch's AveragedModel, here of a single
parameter: the vector that all of the model's parameters are views of.
https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist_tb import model as models
from mnist_tb.config.schema import Averaging
from mnist_tb.model import CNN


class _Flat(nn.Module):
    def __init__(self, vector: Tensor) -> None:
        super().__init__()
        self.vector = nn.Parameter(vector, requires_grad=False)


class AveragedWeights:
    """The average of a model's weights, whose parameters are views of `vector`, float32 [P].

    master_model: a model with the averaged weights, as of the last `refresh`. compute_model: the same in the precision
    of the training.
    """

    def __init__(self, config: Averaging, model: CNN, vector: Tensor, precision: str) -> None:
        ema = get_ema_multi_avg_fn(config.decay) if config.name == "ema" else None
        self._start = config.start
        self._flat = _Flat(vector)
        self._averaged = AveragedModel(self._flat, multi_avg_fn=ema)
        self._mean: Tensor = dict(self._averaged.named_parameters())["module.vector"].data
        self._count: Tensor = dict(self._averaged.named_buffers())["n_averaged"]
        self.master_model = copy.deepcopy(model)
        self._vector = models.flatten(self.master_model)[0]
        self.compute_model = models.in_precision(self.master_model, precision)
        is_copy = self.compute_model is not self.master_model
        self._compute_weights = models.flatten(self.compute_model)[0] if is_copy else self._vector

    def update(self, fraction: float) -> None:
        """Add the current weights to the average, after this fraction of all updates."""
        if fraction >= self._start:
            self._averaged.update_parameters(self._flat)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the average to both models; before the averaging has begun, the current weights."""
        self._vector.copy_(self._mean if self._count > 0 else self._flat.vector)
        if self._compute_weights is not self._vector:
            self._compute_weights.copy_(self._vector)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {"average": self._mean, "count": self._count}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave. Raises KeyError, and RuntimeError where it is of another network."""
        self._mean.copy_(state_dict["average"])
        self._count.copy_(state_dict["count"])
