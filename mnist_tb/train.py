"""WHEN: the training loop."""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported: see memory.bound_spinning
    import sys

    from mnist_tb.cli.main import main, train_command

    sys.exit(main(train_command))

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mnist_tb.config.schema import Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset, Split, batches, generator
from mnist_tb.engine.distributed import ALONE, Team
from mnist_tb.engine.optim import learning_rate
from mnist_tb.engine.train_step import updater
from mnist_tb.errors import PointError, Pruned
from mnist_tb.evaluate import Evaluation, evaluate, predict
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import charts as reporting
from mnist_tb.tracking.console import Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.training import checkpoint
from mnist_tb.training import signals as interrupt
from mnist_tb.training.checkpoint import Saver
from mnist_tb.training.metrics_window import Window
from mnist_tb.training.state import Best, Point, State


@dataclass(frozen=True)
class Job:
    """What a training works by, on, and writes to. The dataset is on the configuration's device already.

    team: whose processes do it together; the first one of them writes.
    go_on: told how many epochs are complete and the accuracy on validation then; whether the training shall go on.
    """

    config: Config
    run: Run
    dataset: Dataset
    tracker: EventWriter
    terminal: Terminal
    live: Live
    saver: Saver
    team: Team = ALONE
    go_on: Callable[[int, float], bool] = lambda epochs, accuracy: True


@dataclass(frozen=True)
class Trained:
    """What a training leaves. seconds: from before the first update to after the last look at validation."""

    best: Best
    seconds: float
    images_per_second: float


def train(job: Job, model: CNN, saved: Mapping[str, Any] | None = None) -> Trained:
    """Train for the configured epochs; the model ends with its last weights, the result holds the best ones.

    saved: a checkpoint to go on from, in the middle of an epoch or not, as if there had been no interruption.
    Raises TrainingError, with the step and the learning rate, where the loss stops being a finite number; and, after a
    checkpoint, KeyboardInterrupt where the user stops it and Pruned where the job's `go_on` does.
    """
    config, dataset = job.config, job.dataset
    count, size, epochs = len(dataset.train), config.train.batch_size, config.train.epochs
    steps = epochs * math.ceil(count / size)
    order = generator(config.seed, "order of the images")
    state = State(model, updater(config, model, dataset, job.team), order, Window(), order.get_state())
    watched = draw_samples(dataset.test, reporting.SAMPLES, config.seed, "watched samples")
    if saved is None:
        look(job, state, watched, time.perf_counter())
    else:
        state.restore(saved, job.run.last_checkpoint)

    start = time.perf_counter() - state.seconds
    due = time.perf_counter() + config.tracking.checkpoint_seconds
    state.window.resume()
    with interrupt.deferred() as interruption:
        while state.epoch < epochs:
            order_of_epoch = batches(count, size, state.order, dataset.train.labels.device)
            for index in islice(order_of_epoch, state.batch, None):
                advance(config, state, index, steps)
                if state.step % config.tracking.scalars_every == 0 or state.step == steps:
                    report(job, state)
                stopped = job.team.agree_to_stop(interruption.requested)
                if (stopped or time.perf_counter() > due) and state.batch * size < count:  # else `look` is about to
                    save(job, state, start)
                    due = time.perf_counter() + config.tracking.checkpoint_seconds
                    if stopped:
                        break
            else:
                state.epoch, state.batch, state.drawn = state.epoch + 1, 0, state.order.get_state()
                state.window.pause()
                look(job, state, watched, start)
                state.window.resume()
            if job.team.agree_to_stop(interruption.requested):
                job.saver.wait()
                raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    assert state.best is not None, "the last epoch always looks at validation"
    return Trained(state.best, seconds, epochs * count / seconds)


def advance(config: Config, state: State, index: Tensor, steps: int) -> None:
    """One update, of `steps` in all, on the training images at `index`, int64 [B]."""
    lr = learning_rate(config.schedule, config.train.lr, state.step, steps)
    moving = state.step < config.augment.until * steps
    maps = augment.draw(config.augment, len(index), config.seed, state.step) if moving else None
    loss, hits = state.update(index, lr, None if maps is None else maps.to(index.device))
    state.step += 1
    state.batch += 1
    if state.update.average is not None:
        state.update.average.update(state.step / steps)
    state.window.add(loss, hits, len(index), lr)


def draw_samples(split: Split, count: int, seed: int, purpose: str) -> Split:
    """A few images of a split at random, the same for the same seed and purpose."""
    chosen = torch.randperm(len(split), generator=generator(seed, purpose))[:count].to(split.labels.device)
    return Split(split.images[chosen], split.labels[chosen])


def report(job: Job, state: State) -> None:
    """Close the window: its means are a point of the training curves, written one window later.

    By then they have left the device, which need not wait for that.
    """
    write_point(job, state)
    size, means = len(state.window), state.window.close(state.update.gradient)
    state.point = Point(state.epoch, state.batch, state.step, size, means)


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


def look(job: Job, state: State, watched: Split, start: float) -> None:
    """Between epochs: write what is due, evaluate, keep the weights if they are the best so far, save a checkpoint."""
    config, dataset, tracker = job.config, job.dataset, job.tracker
    write_point(job, state)
    _stop_at(state.window.first_bad(), state.step - len(state.window))
    last = state.epoch == config.train.epochs
    model, network = state.looked_at()
    state.news |= {"epoch": state.epoch, "step": state.step}
    go_on = True
    if tracker.enabled and _due(state.epoch, config.tracking.histograms_every):
        reporting.histograms(tracker, state.step, state.model)
    if tracker.enabled and _due(state.epoch, config.tracking.images_every):
        logits = predict(network, dataset, watched.images)
        reporting.predictions(tracker, state.step, dataset, watched, logits.softmax(1))
    if last or _due(state.epoch, config.train.evaluate_every):
        validation = evaluate(network, dataset, dataset.validation, job.team)
        if not math.isfinite(validation.loss):
            raise _diverged("validation", state.step)
        reporting.validation(tracker, state.step, validation, dataset.classes)
        job.live.update(state.step, now=True, val_loss=validation.loss, val_accuracy=validation.accuracy)
        job.terminal.validated(state.epoch, validation)
        if state.epoch and (state.best is None or _better(validation, state.best)):
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            state.best = Best(weights, validation.loss, validation.accuracy, state.epoch, state.step)
            numbers = reporting.evaluation_numbers(validation, dataset.classes)
            state.news |= {"best_epoch": state.epoch, "best_step": state.step, "val": numbers}
        go_on = state.epoch == 0 or job.go_on(state.epoch, validation.accuracy)
    save(job, state, start)
    if not (go_on or last):
        job.saver.wait()
        raise Pruned(f"pruned after epoch {state.epoch}")


def save(job: Job, state: State, start: float) -> None:
    """Save a checkpoint beside the training, and with it all that was written to the event file up to here."""
    write_point(job, state)
    if not job.team.first:
        return
    dumped = state.dump(time.perf_counter() - start)
    written = job.tracker.mark()  # here: by the time the other thread is at it, the training may have noted more

    def work() -> None:
        checkpoint.save(job.run.last_checkpoint, {**dumped, "events": written()})
        keep_best(job.run, dumped)

    job.saver.submit(work)


def keep_best(run: Run, dumped: Mapping[str, Any]) -> None:
    """The best weights and the numbers of a checkpoint, in the files that are for others to read."""
    best = dumped["best"]
    if best is not None:
        checkpoint.save(run.best_checkpoint, {"model": best["weights"], "epoch": best["epoch"], "step": best["step"]})
    run.update_metrics(**dumped["news"])


def _due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0


def _better(one: Evaluation, other: Best) -> bool:
    return (one.accuracy, -one.loss) > (other.accuracy, -other.loss)


def _diverged(where: str, step: int, lr: float | None = None) -> PointError:
    rate = "" if lr is None else f", with learning rate {lr:g}"
    return PointError(f"the {where} loss is no finite number at step {step}{rate}: try a smaller train.lr")
