"""A training of one's own, tracked: a small multi-layer perceptron on torchvision's FashionMNIST.

Everything about it is plain PyTorch but the lines with `tracker` in them:

    .venv/bin/python examples/fashion_mlp.py --lr 0.1
    .venv/bin/python examples/fashion_mlp.py --lr 0.03
    make board
    .venv/bin/mnist-tb compare --where dataset=fashion_mnist
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import nn
from torch.nn import functional
from torchvision.datasets import FashionMNIST

from mnist_tb import Tracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logdir", default="runs")
    parser.add_argument("--data-root", default="data")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    try:
        train, test = (FashionMNIST(options.data_root, train=part, download=True) for part in (True, False))
    except RuntimeError as error:  # torchvision's, without a network
        sys.exit(f"FashionMNIST is not in {options.data_root} (--data-root), and cannot be downloaded: {error}")
    images, labels = train.data.flatten(1) / 255, train.targets
    held_out = len(images) // 10
    val_images, val_labels = images[-held_out:], labels[-held_out:]
    images, labels = images[:-held_out], labels[:-held_out]
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9)
    steps = options.epochs * -(-len(images) // options.batch_size)
    config = {"lr": options.lr, "batch_size": options.batch_size, "epochs": options.epochs, "seed": options.seed}

    with Tracker(options.logdir, "fashion-mlp", config, steps=steps, dataset="fashion_mnist") as tracker:
        tracker.graph(model, (1, 784))
        step = 0
        for _ in range(options.epochs):
            for batch in torch.randperm(len(images)).split(options.batch_size):
                logits = model(images[batch])
                loss = functional.cross_entropy(logits, labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 10 == 0 or step == steps:
                    accuracy = (logits.argmax(1) == labels[batch]).float().mean()
                    tracker.scalars(step, {"loss/train": loss.detach(), "accuracy/train": accuracy})
            val_loss, val_accuracy, _ = evaluate(model, val_images, val_labels)
            tracker.scalars(step, {"loss/val": val_loss, "accuracy/val": val_accuracy})
            tracker.histograms(step, model)
        test_images = test.data.flatten(1) / 255
        test_loss, test_accuracy, probabilities = evaluate(model, test_images, test.targets)
        tracker.scalars(step, {"loss/test": test_loss, "accuracy/test": test_accuracy})
        tracker.predictions(test.targets, probabilities)
    print(f"{tracker.run.path}: test accuracy {test_accuracy:.2%}")


@torch.inference_mode()
def evaluate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Loss, accuracy, and the probabilities [N, C]."""
    logits = model(images)
    loss = functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item(), logits.softmax(1)


if __name__ == "__main__":
    main()
