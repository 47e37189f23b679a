"""(c) Plain PyTorch in the manner of pytorch/examples' MNIST, with a SummaryWriter."""

from __future__ import annotations

import torch
from common import LOG_EVERY, LR, Net, accuracy_and_loss, arguments, clock, hand_over, loaders
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter


def main() -> None:
    options = arguments()
    train, validation, test = loaders(options)
    model = Net().to(options.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    writer = SummaryWriter(str(options.logdir))
    start, step = clock(), 0
    for _ in range(options.epochs):
        for x, y in train:
            x, y = x.to(options.device), y.to(options.device)
            optimizer.zero_grad()
            logits = model(x)
            loss = functional.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            step += 1
            if step % LOG_EVERY == 0:
                writer.add_scalar("loss/train", loss.item(), step)
                writer.add_scalar("accuracy/train", (logits.argmax(1) == y).float().mean().item(), step)
        accuracy, mean_loss = accuracy_and_loss(model, validation)
        writer.add_scalar("accuracy/val", accuracy, step)
        writer.add_scalar("loss/val", mean_loss, step)
        for name, parameter in model.named_parameters():
            writer.add_histogram(f"weights/{name}", parameter, step)
            writer.add_histogram(f"gradients/{name}", parameter.grad, step)
    seconds = clock() - start
    writer.close()
    hand_over(seconds, accuracy_and_loss(model, test)[0])


if __name__ == "__main__":
    main()
