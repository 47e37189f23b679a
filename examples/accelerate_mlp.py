"""Accelerate, tracked: a small network on the handwritten digits that come with mnist_tb.

.venv/bin/accelerate launch examples/accelerate_mlp.py --lr 0.01
.venv/bin/mnist-tb compare
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mnist_tb.config.schema import Data
from mnist_tb.data.datasets import load_dataset
from mnist_tb.integrations.accelerate import TrackerTracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, kind, default in (("lr", float, 1e-3), ("epochs", int, 5), ("logdir", str, "runs")):
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    data = load_dataset(Data(name="digits"))
    train = TensorDataset(data.inputs(data.train.images), data.train.labels)
    loader = DataLoader(train, 64, shuffle=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    tracker = TrackerTracker(options.logdir, "accelerate-mlp", steps=options.epochs * len(loader), dataset=data.name)
    accelerator = Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits", {"lr": options.lr, "epochs": options.epochs, "width": 64})
    optimizer = torch.optim.Adam(model.parameters(), options.lr)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    step = 0
    for _ in range(options.epochs):
        for images, labels in loader:
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            step += 1
            accelerator.log({"train_loss": loss.item()}, step)
        with torch.inference_mode():
            logits = model(data.inputs(data.validation.images).to(accelerator.device)).cpu()
        labels = data.validation.labels
        found = {"val_loss": functional.cross_entropy(logits, labels).item()}
        found["val_acc"] = (logits.argmax(1) == labels).float().mean().item()
        accelerator.log(found, step)
    accelerator.end_training()


if __name__ == "__main__":
    main()
