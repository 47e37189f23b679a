"""(e) Ignite with its TensorboardLogger."""

from __future__ import annotations

import torch
from common import LOG_EVERY, LR, Net, accuracy_and_loss, arguments, clock, hand_over, loaders
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers.tensorboard_logger import (
    GradsHistHandler,
    TensorboardLogger,
    WeightsHistHandler,
    global_step_from_engine,
)
from ignite.metrics import Accuracy, Loss
from torch.nn import functional


def main() -> None:
    options = arguments()
    train, validation, test = loaders(options)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    trainer = create_supervised_trainer(
        model,
        optimizer,
        functional.cross_entropy,
        output_transform=lambda x, y, logits, loss: (loss.item(), logits, y),
    )
    metrics = {"accuracy": Accuracy(), "loss": Loss(functional.cross_entropy)}
    evaluator = create_supervised_evaluator(model, metrics=metrics)
    logger = TensorboardLogger(log_dir=str(options.logdir))
    logger.attach_output_handler(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=LOG_EVERY),
        tag="train",
        output_transform=lambda out: {
            "loss": out[0],
            "accuracy": (out[1].argmax(1) == out[2]).float().mean().item(),
        },
    )
    logger.attach_output_handler(
        evaluator,
        event_name=Events.COMPLETED,
        tag="val",
        metric_names=list(metrics),
        global_step_transform=global_step_from_engine(trainer, Events.ITERATION_COMPLETED),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(validation))
    logger.attach(trainer, event_name=Events.EPOCH_COMPLETED, log_handler=WeightsHistHandler(model))
    logger.attach(trainer, event_name=Events.EPOCH_COMPLETED, log_handler=GradsHistHandler(model))
    start = clock()
    trainer.run(train, max_epochs=options.epochs)
    seconds = clock() - start
    logger.close()
    hand_over(seconds, accuracy_and_loss(model, test)[0])


if __name__ == "__main__":
    main()
