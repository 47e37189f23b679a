"""Lightning, tracked: a small network on the handwritten digits that come with mnist_tb.

.venv/bin/python examples/lightning_mlp.py --lr 0.01
.venv/bin/mnist-tb compare
"""

import argparse

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mnist_tb.config.schema import Data
from mnist_tb.data.datasets import load_dataset
from mnist_tb.integrations.lightning import TrackerLogger


class MLP(L.LightningModule):
    def __init__(self, lr: float, width: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def step(self, batch: list[Tensor], split: str) -> Tensor:
        logits = self.layers(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        self.log_dict({f"{split}_loss": loss, f"{split}_acc": (logits.argmax(1) == batch[1]).float().mean()})
        return loss

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: list[Tensor], number: int) -> Tensor:
        return self.step(batch, "val")

    def test_step(self, batch: list[Tensor], number: int) -> Tensor:
        return self.step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.hparams["lr"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, kind, default in (("lr", float, 1e-3), ("epochs", int, 5), ("logdir", str, "runs")):
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    data = load_dataset(Data(name="digits"))
    parts = (data.train, data.validation, data.test)
    train, val, test = (DataLoader(TensorDataset(data.inputs(part.images), part.labels), 64) for part in parts)
    logger = TrackerLogger(options.logdir, "lightning-mlp", dataset=data.name)
    trainer = L.Trainer(max_epochs=options.epochs, accelerator="cpu", logger=logger, log_every_n_steps=5)
    trainer.fit(MLP(options.lr), train, val)
    trainer.test(dataloaders=test, ckpt_path="best")


if __name__ == "__main__":
    main()
