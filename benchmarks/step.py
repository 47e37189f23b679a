"""Where the time of one update goes, and how near that is to the machine's limit; by the kernels, and by torch alone.

`make bench` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import machine, table, write_section
from speed import FLOP_PER_IMAGE, matrix_peak

from mnist_tb.config.load import load_config
from mnist_tb.data.datasets import load_dataset
from mnist_tb.engine import kernels, process
from mnist_tb.engine.device import resolve_auto
from mnist_tb.engine.train_step import TrainStep
from mnist_tb.model import build

DEFAULT = Path(__file__).parent.parent / "configs" / "default.yaml"
ROUNDS, CALLS = 15, 60


def microseconds(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Of each piece of work, the median over interleaved rounds of the mean over the calls of a round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(ROUNDS + 1):
        for name, call in work.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            if turn:
                times[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    options = parser.parse_args()
    process.tune_malloc()
    given = [("--data-root", "data.root", options.data_root), ("--data-root", "data.download", False)]
    config = resolve_auto(load_config(DEFAULT, options=[*given, ("--device", "device", "cpu")]))
    dataset = load_dataset(config.data)
    steps = {}
    for name, switch in (("kernels", "on"), ("torch", "off")):
        os.environ["MNIST_TB_KERNELS"] = switch
        steps[name] = TrainStep(config, build(config.model.channels, 0, torch.device("cpu")), dataset)
    os.environ["MNIST_TB_KERNELS"] = "on"
    batch, two = torch.arange(64), torch.arange(2)
    ours = steps["kernels"]
    fast, parameters = kernels.find(ours.compute_model), kernels.vector(ours.compute_model)
    assert fast is not None, "there are no kernels to measure"
    inputs, labels = dataset.train_batch(batch, torch.float32)
    gradient = torch.empty_like(ours.gradient)
    times = microseconds(
        {
            "an update of 64 images, by the kernels": lambda: ours(batch, 1e-4),
            "an update of 64 images, by torch": lambda: steps["torch"](batch, 1e-4),
            "an update of 2 images, by the kernels": lambda: ours(two, 1e-4),
            "an update of 2 images, by torch": lambda: steps["torch"](two, 1e-4),
            "of the kernels' 64: forward pass": lambda: fast.logits(parameters, inputs),
            "of the kernels' 64: forward and backward": lambda: fast.step(parameters, inputs, labels, gradient),
            "of the kernels' 64: weights into the loops' order": lambda: fast.logits(parameters, inputs[:0]),
            "of both: gathering the batch": lambda: dataset.train_batch(batch, torch.float32),
            "of both: the optimiser": lambda: ours.optimizer.step(gradient, 1e-9),
        }
    )
    peak = matrix_peak(torch.bfloat16 if config.precision == "bf16" else torch.float32)
    whole = 64 * FLOP_PER_IMAGE / times["of the kernels' 64: forward and backward"] * 1e6
    rows = [[name, f"{value:,.0f}"] for name, value in times.items()]
    text = f"""
{machine()} In {config.precision}, {ROUNDS} interleaved rounds.

{table(["what", "µs"], rows)}

An update of two images is nearly all overhead: what torch needs between its operations, and what the kernels need to
bring the weights and gradients into order. Forward and backward pass compute at {whole / 1e9:.0f} GFLOP/s,
{whole / peak:.0%} of the {peak / 1e9:.0f} GFLOP/s of a 2048³ matrix product: its rate is what bounds the step.
"""
    write_section("One update", text)


if __name__ == "__main__":
    main()
