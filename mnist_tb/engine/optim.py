"""torch's optimisers on one vector, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from mnist_tb.config.schema import Optimizer, Schedule


class VectorOptimizer:
    """Adam, AdamW or SGD on one vector: torch's functional forms, fused, eps as torch has it.

    The classes around them (`torch.optim.Adam`, …) give the same numbers, but creating one imports torch's compiler,
    which takes a second.
    https://docs.pytorch.org/docs/stable/optim.html
    """

    def __init__(self, config: Optimizer, vector: Tensor) -> None:
        self._config = config
        self._vector = vector
        self._first = torch.zeros_like(vector)  # Adam's first moment, or SGD's momentum
        self._second = torch.zeros_like(vector)
        self._count = torch.zeros((), device=vector.device)

    def step(self, gradient: Tensor, lr: float | Tensor) -> None:
        """Update the vector in place. gradient: float32 [P]. lr: a number, or float32 [] on the vector's device."""
        config = self._config
        if config.name == "sgd":
            # Momentum that begins with zeros is as torch does it: its first buffer is the first gradient, undampened.
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
        update = adamw if config.name == "adamw" else adam
        update(
            [self._vector],
            [gradient],
            [self._first],
            [self._second],
            [],
            [self._count],
            fused=True,
            amsgrad=False,
            beta1=config.betas[0],
            beta2=config.betas[1],
            lr=lr,
            weight_decay=config.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {"first": self._first, "second": self._second, "count": self._count}


def learning_rate(config: Schedule, peak_lr: float, step: int, steps: int) -> float:
    """The learning rate of update `step`, from 0, under a schedule over `steps` updates; then it is constant.

    constant: always the peak. cosine: from the peak to 0 along half a cosine (Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983). one_cycle: up from 1/25 of the peak in the first `warmup` of all updates, then
    down to 1/10,000 of where it began, both along half a cosine (Smith and Topin 2018,
    https://arxiv.org/abs/1708.07120, with the constants of torch's OneCycleLR).
    """
    if step >= steps:
        return peak_lr if config.after is None else config.after
    if config.name == "cosine":
        return peak_lr * (1 + math.cos(math.pi * step / steps)) / 2
    if config.name == "one_cycle":
        first = peak_lr / 25
        peak, last = config.warmup * steps - 1, steps - 1
        if step <= peak and peak > 0:
            return _half_cosine(first, peak_lr, step / peak)
        return _half_cosine(peak_lr, first / 1e4, (step - peak) / max(last - peak, 1))
    return peak_lr


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))
