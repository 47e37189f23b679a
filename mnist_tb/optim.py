"""What follows the gradient: torch's optimisers, and the learning rate as a function of the step."""

from __future__ import annotations

import math

from torch import nn, optim

from mnist_tb.config import Optimizer, Schedule


def build_optimizer(config: Optimizer, vector: nn.Parameter, lr: float) -> optim.Optimizer:
    """A torch optimiser for all parameters as one vector: one fused kernel updates them."""
    if config.name == "sgd":
        return optim.SGD([vector], lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    kind = optim.AdamW if config.name == "adamw" else optim.Adam
    return kind([vector], lr, weight_decay=config.weight_decay, fused=True)


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
