"""What a training works with, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset, Split, generator
from mnist_tb.engine.distributed import SINGLE_PROCESS, Distributed
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import charts
from mnist_tb.tracking.console import Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.training.checkpoint import AsyncCheckpointer
from mnist_tb.training.state import Best


def always(epochs: int, accuracy: float) -> bool:
    """The `should_continue` of a training that nobody prunes."""
    return True


@dataclass(frozen=True)
class TrainingContext:
    """What a training is configured by, computes on and writes to.

    dataset: on the configured device already. distributed: the processes that do the training together.
    should_continue: called after each validation with the number of complete epochs and the accuracy, 0 to 1; returns
    whether the training shall continue.
    """

    config: Config
    run: Run
    dataset: Dataset
    writer: EventWriter
    terminal: Terminal
    live: Live
    checkpointer: AsyncCheckpointer
    distributed: Distributed = SINGLE_PROCESS
    should_continue: Callable[[int, float], bool] = always

    @cached_property
    def watched(self) -> Split:
        """The few test images whose predictions are shown after every epoch."""
        return draw_samples(self.dataset.test, charts.SAMPLES, self.config.seed, "watched samples")


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves. seconds: from before the first update to after the last validation."""

    best: Best
    seconds: float
    images_per_second: float


def draw_samples(split: Split, count: int, seed: int, purpose: str) -> Split:
    """Some images of a split, drawn at random: the same for the same seed and purpose."""
    index = torch.randperm(len(split), generator=generator(seed, purpose))[:count].to(split.labels.device)
    return Split(split.images[index], split.labels[index])
