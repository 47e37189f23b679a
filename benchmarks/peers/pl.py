"""(d) Lightning with its TensorBoardLogger."""

from __future__ import annotations

import warnings

import lightning
import torch
from common import LOG_EVERY, LR, Net, accuracy_and_loss, arguments, clock, hand_over, loaders
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional

Batch = tuple[Tensor, Tensor]


class Lit(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = functional.cross_entropy(logits, y)
        self.log("loss/train", loss)
        if self.global_step % LOG_EVERY == LOG_EVERY - 1:
            self.log("accuracy/train", (logits.argmax(1) == y).float().mean())
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.log("loss/val", functional.cross_entropy(logits, y))
        self.log("accuracy/val", (logits.argmax(1) == y).float().mean())

    def on_train_epoch_end(self) -> None:
        for name, parameter in self.net.named_parameters():
            self.logger.experiment.add_histogram(f"weights/{name}", parameter, self.global_step)
            if parameter.grad is not None:
                self.logger.experiment.add_histogram(f"gradients/{name}", parameter.grad, self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LR)


def main() -> None:
    warnings.filterwarnings("ignore")
    options = arguments()
    train, validation, test = loaders(options)
    model = Lit()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(str(options.logdir), name="", version=""),
        log_every_n_steps=LOG_EVERY,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    start = clock()
    trainer.fit(model, train, validation)
    seconds = clock() - start
    hand_over(seconds, accuracy_and_loss(model.net, test)[0])


if __name__ == "__main__":
    main()
