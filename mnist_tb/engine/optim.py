"""What follows the gradient: torch's optimisers, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from mnist_tb.config.schema import Optimizer, Schedule


class VectorOptimizer:
    """Adam, AdamW or SGD on one vector: torch's functional forms, fused, with torch's default constants.

    The classes around them (`torch.optim.Adam`, …) give the same numbers, but making one imports torch's compiler,
    which takes a second at start-up.
    https://docs.pytorch.org/docs/stable/optim.html
    """

    def __init__(self, config: Optimizer, vector: Tensor) -> None:
        self._config = config
        self._vector = vector
        self._first = torch.zeros_like(vector)  # Adam's first moment, or SGD's momentum
        self._second = torch.zeros_like(vector)
        self._count = torch.zeros((), device=vector.device)

    def step(self, gradient: Tensor, lr: float | Tensor) -> None:
        """Move the vector against its gradient, both float32 [P], in place.

        A learning rate that is a tensor, float32 [], is read where it lies, on the vector's device.
        """
        config = self._config
        if config.name == "sgd":
            # Zeros for the momentum are what torch begins with: its first buffer is the first gradient, undampened.
            sgd(
                [self._vector],
                [gradient],
                [self._first],
                fused=True,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            return
        move = adamw if config.name == "adamw" else adam
        move(
            [self._vector],
            [gradient],
            [self._first],
            [self._second],
            [],
            [self._count],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=config.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs to go on: tensors only."""
        return {"first": self._first, "second": self._second, "count": self._count}


def learning_rate(config: Schedule, highest: float, step: int, steps: int) -> float:
    """The learning rate of update `step`, 0 to steps - 1.

    constant: always the highest. cosine: from the highest down to 0 along half a wave (Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983). one_cycle: up from a 25th of the highest in the first `warmup` of all updates,
    then down to a 10,000th of where it began, both along half a wave (Smith and Topin 2018,
    https://arxiv.org/abs/1708.07120, with the constants of torch's OneCycleLR).
    """
    if config.name == "cosine":
        return highest * (1 + math.cos(math.pi * step / steps)) / 2
    if config.name == "one_cycle":
        first = highest / 25
        peak, end = config.warmup * steps - 1, steps - 1
        if step <= peak and peak > 0:
            return _half_wave(first, highest, step / peak)
        return _half_wave(highest, first / 1e4, (step - peak) / max(end - peak, 1))
    return highest


def _half_wave(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
