"""What follows the gradient: the optimiser and the learning rate's schedule, both torch's own."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from mnist_tb.config import Optimizer, Schedule


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter], lr: float) -> optim.Optimizer:
    """One fused kernel updates all parameters."""
    if config.name == "sgd":
        return optim.SGD(parameters, lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    kind = optim.AdamW if config.name == "adamw" else optim.Adam
    return kind(parameters, lr, weight_decay=config.weight_decay, fused=True)


def build_schedule(config: Schedule, optimizer: optim.Optimizer, lr: float, steps: int) -> LRScheduler:
    """A schedule to be stepped once an update, over `steps` updates in all; `lr` is its highest value."""
    if config.name == "one_cycle":
        return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=config.warmup, cycle_momentum=False)
    if config.name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return LambdaLR(optimizer, lambda step: 1.0)
