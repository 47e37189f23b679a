"""Run by torchrun: the gradient of one batch, by our team and by DistributedDataParallel; the first one tells."""

from __future__ import annotations

import json

import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mnist_tb.config.schema import Config, Data
from mnist_tb.data import datasets as data
from mnist_tb.engine.distributed import meet
from mnist_tb.engine.train_step import Updater
from mnist_tb.model import build

SIZE = 64


def main() -> None:
    dataset = data.load(Data(name="digits"))
    config = Config.model_validate({"device": "cpu", "precision": "fp32", "optimizer": {"name": "sgd"}})
    index = torch.arange(SIZE)
    with meet() as team:
        model = build(config.model.channels, 0, torch.device("cpu"))
        updater = Updater(config, model, dataset, team)
        loss, hits = updater(index, 0.0)

        network = DistributedDataParallel(build(config.model.channels, 0, torch.device("cpu")))
        inputs, labels = dataset.train_batch(index[team.part(SIZE)], torch.float32)
        functional.cross_entropy(network(inputs), labels).backward()
        ours, theirs = (torch.cat([p.grad.flatten() for p in one.parameters()]) for one in (model, network))
        if team.first:
            difference = (ours - theirs).abs().max().item()
            print(json.dumps([difference, theirs.abs().max().item(), loss.item(), hits.item(), team.size]))


if __name__ == "__main__":
    main()
