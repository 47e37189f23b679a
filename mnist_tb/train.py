"""WHEN: the training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_tb import checkpoint, metrics, reporting
from mnist_tb.config import Config
from mnist_tb.data import Dataset, Split, batches, generator
from mnist_tb.errors import TrainingError
from mnist_tb.evaluate import Evaluation, autocast, evaluate, predict
from mnist_tb.model import CNN
from mnist_tb.optim import build_optimizer, build_schedule
from mnist_tb.runs import Run
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import Tracker
from mnist_tb.window import Window


@dataclass(frozen=True)
class Job:
    """What a training works by, on, and writes to. The dataset is on the configuration's device already."""

    config: Config
    run: Run
    dataset: Dataset
    tracker: Tracker
    terminal: Terminal


@dataclass(frozen=True)
class Best:
    """The weights that did best on validation, and when they did: after `step` updates, in epoch `epoch` (from 1)."""

    weights: dict[str, Tensor]
    validation: Evaluation
    epoch: int
    step: int


@dataclass
class State:
    """All that training changes. epoch, step: how many are complete."""

    model: CNN
    optimizer: Optimizer
    schedule: LRScheduler
    order: torch.Generator
    epoch: int = 0
    step: int = 0
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
    images, labels = dataset.train.images, dataset.train.labels
    size, epochs = config.train.batch_size, config.train.epochs
    state = build(config, model, steps=epochs * math.ceil(len(labels) / size))
    watched = draw_samples(dataset.test, reporting.SAMPLES, config.seed, "watched samples")

    look(job, state, watched)
    start, window = time.perf_counter(), Window()
    while state.epoch < epochs:
        for batch, index in enumerate(batches(len(labels), size, state.order, labels.device), 1):
            lr = state.optimizer.param_groups[0]["lr"]
            loss, hits = update(model, state.optimizer, dataset, images[index], labels[index], config.precision)
            state.schedule.step()
            state.step += 1
            window.add(loss, hits, len(index))
            if state.step % config.tracking.scalars_every == 0:
                report(job, state, window, lr, batch)
        state.epoch += 1
        window.pause()
        look(job, state, watched)
        window.resume()
    if len(window):
        report(job, state, window, lr, batch)
    seconds = time.perf_counter() - start
    assert state.best is not None, "the last epoch always looks at validation"
    return Trained(state.best, seconds, epochs * len(labels) / seconds)


def update(
    model: nn.Module, optimizer: Optimizer, dataset: Dataset, images: Tensor, labels: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    """One optimiser update on a batch: uint8 [B, 28, 28] and int64 [B].

    Returns the mean loss and the number of right predictions, both from before the update and on the device.
    """
    optimizer.zero_grad()
    with autocast(images.device, precision):
        logits = model(dataset.inputs(images))
    logits = logits.float()
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.detach(), metrics.correct_count(logits.detach(), labels)


def build(config: Config, model: CNN, steps: int) -> State:
    """The state before the first of `steps` updates."""
    optimizer = build_optimizer(config.optimizer, model.parameters(), config.train.lr)
    schedule = build_schedule(config.schedule, optimizer, config.train.lr, steps)
    model.train()
    return State(model, optimizer, schedule, generator(config.seed, "order of the images"))


def draw_samples(split: Split, count: int, seed: int, purpose: str) -> Split:
    """A few images of a split at random, the same for the same seed and purpose."""
    chosen = torch.randperm(len(split), generator=generator(seed, purpose))[:count].to(split.labels.device)
    return Split(split.images[chosen], split.labels[chosen])


def report(job: Job, state: State, window: Window, lr: float, batch: int) -> None:
    """Write the window's means as one point of the training curves, and begin the next window."""
    first = state.step - len(window) + 1
    means = window.close()
    if means.bad_update is not None:
        raise _diverged("training", first + means.bad_update, lr)
    gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
    reporting.training(job.tracker, state.step, means, lr, metrics.norm(gradients))
    job.terminal.trained(state.epoch, batch, state.step, means)


def look(job: Job, state: State, watched: Split) -> None:
    """Between epochs: write what is due, evaluate, keep the weights if they are the best so far, save a checkpoint."""
    config, run, dataset, tracker = job.config, job.run, job.dataset, job.tracker
    last = state.epoch == config.train.epochs
    if tracker.enabled and _due(state.epoch, config.tracking.histograms_every):
        reporting.histograms(tracker, state.step, state.model)
    if tracker.enabled and _due(state.epoch, config.tracking.images_every):
        logits = predict(state.model, dataset, watched.images, config.precision)
        reporting.predictions(tracker, state.step, dataset, watched, logits.softmax(1))
    if last or _due(state.epoch, config.train.evaluate_every):
        validation = evaluate(state.model, dataset, dataset.validation, config.precision)
        if not math.isfinite(validation.loss):
            raise _diverged("validation", state.step, state.optimizer.param_groups[0]["lr"])
        reporting.validation(tracker, state.step, validation)
        job.terminal.validated(state.epoch, validation)
        if state.epoch and (state.best is None or _better(validation, state.best.validation)):
            weights = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
            state.best = Best(weights, validation, state.epoch, state.step)
            checkpoint.save(run.best_checkpoint, {"model": weights, "epoch": state.epoch, "step": state.step})
        numbers = {"accuracy": validation.accuracy, "loss": validation.loss}
        run.update_metrics(epoch=state.epoch, step=state.step, val=numbers)
    checkpoint.save(run.last_checkpoint, _state_dict(state))


def _due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0


def _better(one: Evaluation, other: Evaluation) -> bool:
    return (one.accuracy, -one.loss) > (other.accuracy, -other.loss)


def _diverged(where: str, step: int, lr: float) -> TrainingError:
    return TrainingError(
        f"the {where} loss is no finite number at step {step}, with learning rate {lr:g}: try a smaller train.lr"
    )


def _state_dict(state: State) -> dict[str, object]:
    return {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "order": state.order.get_state(),
        "epoch": state.epoch,
        "step": state.step,
    }


if __name__ == "__main__":
    import sys

    from mnist_tb.cli import main, train_command

    sys.exit(main(train_command))
