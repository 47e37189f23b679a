"""Run by torchrun: the gradient of one batch, by our distributed step and by DistributedDataParallel; rank 0 prints."""

from __future__ import annotations

import gc
import json

import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mnist_tb.config.schema import Config, Data
from mnist_tb.data.datasets import load_dataset
from mnist_tb.engine.distributed import init_distributed
from mnist_tb.engine.train_step import TrainStep
from mnist_tb.model import build

SIZE = 64


def main() -> None:
    dataset = load_dataset(Data(name="digits"))
    config = Config.model_validate({"device": "cpu", "precision": "fp32", "optimizer": {"name": "sgd"}})
    index = torch.arange(SIZE)
    with init_distributed(lambda: False) as distributed:
        model = build(config.model.channels, 0, torch.device("cpu"))
        step = TrainStep(config, model, dataset, distributed)
        loss, num_correct = step(index, 0.0)

        network = DistributedDataParallel(build(config.model.channels, 0, torch.device("cpu")))
        inputs, labels = dataset.train_batch(index[distributed.shard(SIZE)], torch.float32)
        functional.cross_entropy(network(inputs), labels).backward()
        ours, theirs = (torch.cat([p.grad.flatten() for p in one.parameters()]) for one in (model, network))
        del network
        gc.collect()  # DDP, in a circle of references, must be gone before the process group that it uses
        if distributed.is_main:
            difference = (ours - theirs).abs().max().item()
            print(
                json.dumps([difference, theirs.abs().max().item(), loss.item(), num_correct.item(), distributed.size])
            )


if __name__ == "__main__":
    main()
