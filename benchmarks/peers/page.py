"""(f) The design that this project replaces: a DataLoader, and a JSON log, rewritten every 10 batches."""

from __future__ import annotations

import json

import torch
from common import LOG_EVERY, LR, Net, accuracy_and_loss, arguments, clock, hand_over, loaders
from torch.nn import functional


def main() -> None:
    options = arguments()
    train, validation, test = loaders(options)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    options.logdir.mkdir(parents=True, exist_ok=True)
    log: dict[str, list[dict[str, float]]] = {"train": [], "val": []}
    start, step = clock(), 0
    for epoch in range(options.epochs):
        for x, y in train:
            optimizer.zero_grad()
            logits = model(x)
            loss = functional.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            step += 1
            if step % LOG_EVERY == 0:
                accuracy = (logits.argmax(1) == y).float().mean().item()
                log["train"].append({"epoch": epoch, "step": step, "loss": loss.item(), "accuracy": accuracy})
                (options.logdir / "log.json").write_text(json.dumps(log))
        accuracy, mean_loss = accuracy_and_loss(model, validation)
        log["val"].append({"epoch": epoch, "step": step, "loss": mean_loss, "accuracy": accuracy})
        (options.logdir / "log.json").write_text(json.dumps(log))
    seconds = clock() - start
    hand_over(seconds, accuracy_and_loss(model, test)[0])


if __name__ == "__main__":
    main()
