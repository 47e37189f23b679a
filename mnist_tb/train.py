"""WHEN: the training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_tb import checkpoint, reporting
from mnist_tb.config import Config
from mnist_tb.data import Dataset, Split, batches, generator
from mnist_tb.errors import TrainingError
from mnist_tb.evaluate import Evaluation, evaluate, predict
from mnist_tb.live import Live
from mnist_tb.model import CNN
from mnist_tb.optim import learning_rate
from mnist_tb.runs import Run
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import Tracker
from mnist_tb.update import GraphUpdater, Updater, updater
from mnist_tb.window import Means, Window


@dataclass(frozen=True)
class Job:
    """What a training works by, on, and writes to. The dataset is on the configuration's device already."""

    config: Config
    run: Run
    dataset: Dataset
    tracker: Tracker
    terminal: Terminal
    live: Live


@dataclass(frozen=True)
class Best:
    """The weights that did best on validation, and when they did: after `step` updates, in epoch `epoch` (from 1)."""

    weights: dict[str, Tensor]
    validation: Evaluation
    epoch: int
    step: int


@dataclass(frozen=True)
class Point:
    """A point of the training curves, after update `step`, batch `batch` (from 1) of epoch `epoch` (from 0).

    means: waits until the numbers have left the device.
    """

    epoch: int
    batch: int
    step: int
    size: int
    means: Callable[[], Means]


@dataclass
class State:
    """All that training changes. epoch, step: how many are complete. point: the last one, not yet written."""

    model: CNN
    update: Updater | GraphUpdater
    order: torch.Generator
    window: Window
    epoch: int = 0
    step: int = 0
    point: Point | None = None
    best: Best | None = None


@dataclass(frozen=True)
class Trained:
    """What a training leaves. seconds: from before the first update to after the last look at validation."""

    best: Best
    seconds: float
    images_per_second: float


def train(job: Job, model: CNN) -> Trained:
    """Train for the configured epochs; the model ends with its last weights, the result holds the best ones.

    Raises TrainingError, with the step and the learning rate, where the loss stops being a finite number.
    """
    config, dataset = job.config, job.dataset
    count, size, epochs = len(dataset.train), config.train.batch_size, config.train.epochs
    steps = epochs * math.ceil(count / size)
    state = State(model, updater(config, model, dataset), generator(config.seed, "order of the images"), Window())
    watched = draw_samples(dataset.test, reporting.SAMPLES, config.seed, "watched samples")

    look(job, state, watched)
    start = time.perf_counter()
    state.window.resume()
    while state.epoch < epochs:
        for batch, index in enumerate(batches(count, size, state.order, dataset.train.labels.device), 1):
            lr = learning_rate(config.schedule, config.train.lr, state.step, steps)
            loss, hits = state.update(index, lr)
            state.step += 1
            state.window.add(loss, hits, len(index), lr)
            if state.step % config.tracking.scalars_every == 0 or state.step == steps:
                report(job, state, batch)
        state.epoch += 1
        state.window.pause()
        look(job, state, watched)
        state.window.resume()
    seconds = time.perf_counter() - start
    assert state.best is not None, "the last epoch always looks at validation"
    return Trained(state.best, seconds, epochs * count / seconds)


def draw_samples(split: Split, count: int, seed: int, purpose: str) -> Split:
    """A few images of a split at random, the same for the same seed and purpose."""
    chosen = torch.randperm(len(split), generator=generator(seed, purpose))[:count].to(split.labels.device)
    return Split(split.images[chosen], split.labels[chosen])


def report(job: Job, state: State, batch: int) -> None:
    """Close the window: its means are a point of the training curves, written one window later.

    By then they have left the device, which need not wait for that.
    """
    write_point(job, state)
    size, means = len(state.window), state.window.close(state.update.gradient)
    state.point = Point(state.epoch, batch, state.step, size, means)


def write_point(job: Job, state: State) -> None:
    """Write the point that waits, if one does. Raises TrainingError where its window has a loss that is not finite."""
    point, state.point = state.point, None
    if point is not None:
        means = point.means()
        _stop_at(means.first_bad, point.step - point.size)
        reporting.training(job.tracker, point.step, means)
        job.live.update(
            point.step,
            phase="training",
            epoch=point.epoch + 1,
            batch=point.batch,
            loss=means.loss,
            accuracy=means.accuracy,
            lr=means.lr,
            images_per_second=means.images_per_second,
        )
        job.terminal.trained(point.epoch, point.batch, point.step, means)


def _stop_at(bad: tuple[int, float] | None, before: int) -> None:
    """Raise TrainingError where there is a bad loss in a window that begins after `before` updates."""
    if bad is not None:
        place, lr = bad
        raise _diverged("training", before + place + 1, lr)


def look(job: Job, state: State, watched: Split) -> None:
    """Between epochs: write what is due, evaluate, keep the weights if they are the best so far, save a checkpoint."""
    config, run, dataset, tracker = job.config, job.run, job.dataset, job.tracker
    write_point(job, state)
    _stop_at(state.window.first_bad(), state.step - len(state.window))
    last = state.epoch == config.train.epochs
    news: dict[str, object] = {"epoch": state.epoch, "step": state.step}
    if tracker.enabled and _due(state.epoch, config.tracking.histograms_every):
        reporting.histograms(tracker, state.step, state.model)
    if tracker.enabled and _due(state.epoch, config.tracking.images_every):
        logits = predict(state.update.network, dataset, watched.images)
        reporting.predictions(tracker, state.step, dataset, watched, logits.softmax(1))
    if last or _due(state.epoch, config.train.evaluate_every):
        validation = evaluate(state.update.network, dataset, dataset.validation)
        if not math.isfinite(validation.loss):
            raise _diverged("validation", state.step)
        reporting.validation(tracker, state.step, validation)
        job.live.update(state.step, now=True, val_loss=validation.loss, val_accuracy=validation.accuracy)
        job.terminal.validated(state.epoch, validation)
        if state.epoch and (state.best is None or _better(validation, state.best.validation)):
            weights = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
            state.best = Best(weights, validation, state.epoch, state.step)
            checkpoint.save(run.best_checkpoint, {"model": weights, "epoch": state.epoch, "step": state.step})
            numbers = reporting.evaluation_numbers(validation, dataset.classes)
            news |= {"best_epoch": state.epoch, "best_step": state.step, "val": numbers}
    run.update_metrics(**news)
    checkpoint.save(run.last_checkpoint, _state_dict(state))


def _due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0


def _better(one: Evaluation, other: Evaluation) -> bool:
    return (one.accuracy, -one.loss) > (other.accuracy, -other.loss)


def _diverged(where: str, step: int, lr: float | None = None) -> TrainingError:
    rate = "" if lr is None else f", with learning rate {lr:g}"
    return TrainingError(f"the {where} loss is no finite number at step {step}{rate}: try a smaller train.lr")


def _state_dict(state: State) -> dict[str, object]:
    return {
        "model": state.model.state_dict(),
        "optimizer": state.update.optimizer.state_dict(),
        "order": state.order.get_state(),
        "epoch": state.epoch,
        "step": state.step,
    }


if __name__ == "__main__":
    import sys

    from mnist_tb.cli import main, train_command

    sys.exit(main(train_command))
