"""What the peers share: the network and the data as users write them, and how a result is handed over."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import datasets, transforms

LR = 0.001
LOG_EVERY = 10


class Net(nn.Module):
    """The network of the benchmark, in the order in which textbooks write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear = nn.Linear(7 * 7 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.conv3(x))
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--logdir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu")  # plain.py alone has the choice
    parser.add_argument("--workers", type=int, default=0)  # of 0, 1, 2 the fastest for plain.py, one epoch each
    return parser.parse_args()


def loaders(options: argparse.Namespace) -> tuple[DataLoader[Dataset], DataLoader[Dataset], DataLoader[Dataset]]:
    """Training, validation and test images, transformed image by image as in pytorch/examples."""
    torch.manual_seed(options.seed)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    whole = datasets.MNIST(options.data_root, train=True, transform=transform)
    test = datasets.MNIST(options.data_root, train=False, transform=transform)
    train, validation = random_split(whole, (55_000, 5_000), torch.Generator().manual_seed(0))
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    return (
        DataLoader(train, options.batch_size, shuffle=True, **workers),
        DataLoader(validation, 1_000, **workers),
        DataLoader(test, 1_000, num_workers=options.workers),
    )


@torch.no_grad()
def accuracy_and_loss(model: nn.Module, loader: DataLoader[Dataset]) -> tuple[float, float]:
    model.eval()
    device = next(model.parameters()).device
    right = total = 0
    loss = 0.0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        logits = model(x)
        right += int((logits.argmax(1) == y).sum())
        loss += functional.cross_entropy(logits, y, reduction="sum").item()
        total += len(y)
    model.train()
    return right / total, loss / total


def hand_over(seconds: float, test_accuracy: float) -> None:
    """seconds: from before the first update to after the last validation, tracking included."""
    print(json.dumps({"seconds": seconds, "test_accuracy": test_accuracy}))


clock = time.perf_counter
