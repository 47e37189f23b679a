"""The weights' average over the updates, which generalises better than the last ones.

Exponential (EMA): of recent updates; stochastic weight averaging (SWA, Izmailov and others 2018,
https://arxiv.org/abs/1803.05407): of all from some point on. Both are torch's AveragedModel, here over one parameter:
the vector that all of the network's are views of.
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


class Average:
    """Of the weights of a model, whose parameters are views of `vector`, float32 [P].

    model: a network with the averaged weights, as of the last `refresh`. network: the same, in the precision.
    """

    def __init__(self, config: Averaging, model: CNN, vector: Tensor, precision: str) -> None:
        ema = get_ema_multi_avg_fn(config.decay) if config.name == "ema" else None
        self._start = config.start
        self._flat = _Flat(vector)
        self._averaged = AveragedModel(self._flat, multi_avg_fn=ema)
        self._mean: Tensor = dict(self._averaged.named_parameters())["module.vector"].data
        self._count: Tensor = dict(self._averaged.named_buffers())["n_averaged"]
        self.model = copy.deepcopy(model)
        self._vector = models.flatten(self.model)[0]
        self.network = models.in_precision(self.model, precision)
        self._computing = self._vector if self.network is self.model else models.flatten(self.network)[0]

    def update(self, share: float) -> None:
        """Take the weights of now in, after so large a share of all updates."""
        if share >= self._start:
            self._averaged.update_parameters(self._flat)

    @torch.no_grad()
    def refresh(self) -> None:
        """Have model and network compute with the average of now; without one yet, with the weights of now."""
        self._vector.copy_(self._mean if self._count > 0 else self._flat.vector)
        if self._computing is not self._vector:
            self._computing.copy_(self._vector)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs to go on: tensors only."""
        return {"average": self._mean, "count": self._count}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Become what was dumped. Raises KeyError, and RuntimeError where it is of another network."""
        self._mean.copy_(saved["average"])
        self._count.copy_(saved["count"])
