"""The training loop."""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported: see engine.process.bound_spinning
    import runpy
    import sys

    sys.argv.insert(1, "train")
    runpy.run_module("mnist_tb", run_name="__main__")

import math
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch import Tensor

from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import batches, schedule_steps, total_steps
from mnist_tb.engine.optim import learning_rate
from mnist_tb.errors import Pruned
from mnist_tb.evaluate import evaluate, predict
from mnist_tb.metrics import Evaluation
from mnist_tb.model import CNN
from mnist_tb.tracking import charts
from mnist_tb.training.context import TrainingContext, TrainResult
from mnist_tb.training.control import LoopControl
from mnist_tb.training.metrics_window import diverged, raise_if_diverged
from mnist_tb.training.results import evaluation_numbers
from mnist_tb.training.state import Best, PendingPoint, State, new_state


def train(context: TrainingContext, model: CNN, checkpoint: Mapping[str, Any] | None = None) -> TrainResult:
    """Train for the configured epochs; the model ends with its last weights, the result holds the best ones.

    checkpoint: what to resume from, in the middle of an epoch or not, as if there had been no interruption.
    Raises TrainingError, with step and learning rate, where the loss becomes NaN or infinite; and, after a checkpoint,
    KeyboardInterrupt where the user stops the training and Pruned where `should_continue` of the context does.
    """
    config, dataset = context.config, context.dataset
    num_images, batch_size = len(dataset.train), config.train.batch_size
    steps, laid_out = total_steps(config, num_images), schedule_steps(config, num_images)

    # All that training changes is in the state. A new one is evaluated untrained, at step 0; a checkpoint restores one.
    state = new_state(config, model, dataset, context.distributed)
    if checkpoint is None:
        end_of_epoch(context, state, LoopControl(context))
    else:
        state.load_state_dict(checkpoint, context.run.last_checkpoint)

    with LoopControl(context, state.seconds) as control:
        state.window.resume()
        while state.epoch < config.train.epochs:
            # One epoch: every training image once, in a new order; a resumed one goes on where it was.
            shuffled = batches(num_images, batch_size, state.order, dataset.train.labels.device)
            for index in islice(shuffled, state.batch, None):
                train_step(config, state, index, laid_out)
                if state.step % config.tracking.scalars_every == 0 or state.step == steps:
                    log_training(context, state)
                if control.checkpoint_is_due() and state.batch * batch_size < num_images:
                    save_checkpoint(context, state, control.seconds)
                    control.stop_if_asked()

            # The window's clock stands still meanwhile: its images per second are those of training alone.
            state.next_epoch()
            state.window.pause()
            end_of_epoch(context, state, control)
            state.window.resume()
            control.stop_if_asked()

    seconds = control.seconds
    assert state.best is not None, "the last epoch is always validated"
    return TrainResult(state.best, seconds, config.train.epochs * num_images / seconds)


def train_step(config: Config, state: State, index: Tensor, steps: int) -> None:
    """One optimiser update on the training images at `index`, int64 [B]. steps: over which the schedule is laid out."""
    # The schedule, and the random transforms of this step's images, are functions of the step alone.
    lr = learning_rate(config.schedule, config.train.lr, state.step, steps)
    transforms = None
    if state.transforms is not None and (state.step < config.augment.until * steps or config.augment.until == 1):
        transforms = state.transforms.of(state.step)

    # Forward, backward and optimiser, in one call.
    loss, num_correct = state.update(index, lr, transforms)
    state.step += 1
    state.batch += 1

    # What the update leaves: averaged weights, and a sample for the curves, which stays on the device.
    if state.update.average is not None:
        state.update.average.update(state.step / steps)
    state.window.add(loss, num_correct, len(index), lr)


def end_of_epoch(context: TrainingContext, state: State, control: LoopControl) -> None:
    """End of an epoch: log, validate, keep the best weights, checkpoint."""
    config = context.config
    log_pending_point(context, state)
    raise_if_diverged(state.window.first_nonfinite(), state.step - len(state.window))
    state.metrics_update |= {"epoch": state.epoch, "step": state.step}
    master_model, compute_model = state.eval_model()

    # Log: the weights and their histograms, and the watched test images as the network sees them now.
    log_weights(context, state, master_model)
    log_pictures(context, state, compute_model)

    # Validate, and keep the best weights. A sweep hears of the accuracy, and may prune.
    is_last = state.epoch == config.train.epochs
    should_continue = True
    if is_last or _is_due(state.epoch, config.train.evaluate_every):
        validation = validate(context, state, compute_model)
        if state.epoch and (state.best is None or state.best.is_worse_than(validation)):
            update_best(context, state, master_model, validation)
        should_continue = state.epoch == 0 or context.should_continue(state.epoch, validation.accuracy)

    # Checkpoint.
    save_checkpoint(context, state, control.seconds)
    if not (should_continue or is_last):
        context.checkpointer.wait()
        raise Pruned(f"pruned after epoch {state.epoch}")


def validate(context: TrainingContext, state: State, compute_model: CNN) -> Evaluation:
    """Evaluate on the validation images, and log that. Raises TrainingError where the loss is NaN or infinite."""
    dataset = context.dataset
    validation = evaluate(compute_model, dataset, dataset.validation, context.distributed)
    if not math.isfinite(validation.loss):
        raise diverged("validation", state.step)
    charts.validation(context.writer, state.step, validation, dataset.classes)
    if state.epoch:  # the untrained network's result is a point of the curve, but not how the run does
        context.live.update(state.step, now=True, val_loss=validation.loss, val_accuracy=validation.accuracy)
    context.terminal.validated(state.epoch, validation)
    return validation


def update_best(context: TrainingContext, state: State, master_model: CNN, validation: Evaluation) -> None:
    """Keep these weights, in memory: they are written with the next checkpoint."""
    weights = {name: value.detach().clone() for name, value in master_model.state_dict().items()}
    state.best = Best(weights, validation.loss, validation.accuracy, state.epoch, state.step)
    numbers = evaluation_numbers(validation, context.dataset.classes)
    state.metrics_update |= {"best_epoch": state.epoch, "best_step": state.step, "val": numbers}


def save_checkpoint(context: TrainingContext, state: State, seconds: float) -> None:
    """Save a checkpoint beside the training, and with it all that has been logged up to here."""
    log_pending_point(context, state)
    if context.distributed.is_main:
        context.checkpointer.save(context.run, state.state_dict(seconds), context.writer.mark())


def log_training(context: TrainingContext, state: State) -> None:
    """Close the window of updates: its averages are a point of the training curves, which is logged one window later.

    By then they have left the device, which does not have to wait for that.
    """
    log_pending_point(context, state)
    size, metrics = len(state.window), state.window.close(state.update.gradient)
    state.pending_point = PendingPoint(state.epoch, state.batch, state.step, size, metrics, time.time())


def log_pending_point(context: TrainingContext, state: State) -> None:
    """Log the point that is pending, if one is. Raises TrainingError where its window has a loss that is not finite."""
    point, state.pending_point = state.pending_point, None
    if point is None:
        return
    window = point.metrics()
    raise_if_diverged(window.first_nonfinite, point.step - point.size)
    charts.training(context.writer, point.step, window, point.wall_time)
    context.live.update(
        point.step,
        phase="training",
        epoch=point.epoch + 1,
        batch=point.batch,
        loss=window.loss,
        accuracy=window.accuracy,
        lr=window.lr,
        images_per_second=window.images_per_second,
    )
    context.terminal.trained(point.epoch, point.batch, point.step, window)


def log_weights(context: TrainingContext, state: State, master_model: CNN) -> None:
    """Log the weights that are evaluated, where they are due: the Live tab shows what each epoch's network saw."""
    config, writer, dataset = context.config, context.writer, context.dataset
    every = charts.epochs_between_weights(config, master_model)
    is_last = state.epoch == config.train.epochs and every > 0
    if writer.enabled and (is_last or _is_due(state.epoch, every)):
        charts.epoch_weights(writer, state.step, state.epoch, dataset, context.watched, master_model)


def log_pictures(context: TrainingContext, state: State, compute_model: CNN) -> None:
    """Log the histograms of weights and gradients, and the grid of watched test images, where they are due."""
    tracking, writer, watched = context.config.tracking, context.writer, context.watched
    if not writer.enabled:
        return
    if _is_due(state.epoch, tracking.histograms_every):
        charts.histograms(writer, state.step, state.master_model)
    if _is_due(state.epoch, tracking.images_every):
        probabilities = predict(compute_model, context.dataset, watched.images).softmax(1)
        charts.predictions(writer, state.step, context.dataset, watched, probabilities)


def _is_due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0
