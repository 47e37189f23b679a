"""What tracking costs: short trainings with and without it, in turn, in one process.

Whole processes differ by more than the question is about, so here the same process trains again and again, A B B A, and
each pair is compared with itself. `make bench` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from results import machine, spread, write_section
from rich.console import Console
from scipy.stats import t as student

from mnist_tb import config as configuration
from mnist_tb import data, memory, reporting, runs
from mnist_tb.config import Config
from mnist_tb.data import Dataset
from mnist_tb.launch import resolve_hardware
from mnist_tb.model import build
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import Tracker
from mnist_tb.train import Job, train

DEFAULT = Path(__file__).parent.parent / "configs" / "default.yaml"


def seconds(config: Config, dataset: Dataset, logdir: Path, tracked: bool) -> float:
    """Of one training, from before the first update until the last event is on the disk."""
    run = runs.create(logdir, config.name)
    run.write_metrics({})
    model = build(config.model.channels, config.seed, torch.device(config.device))
    with open(os.devnull, "w") as nowhere, Tracker(run.path if tracked else None) as tracker:
        reporting.beginning(tracker, config, dataset, model, run.name)
        start = time.perf_counter()
        train(Job(config, run, dataset, tracker, Terminal(Console(file=nowhere))), model)
        tracker.close()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    memory.keep_freed_memory()
    given = [("--data-root", "data.root", options.data_root), ("--data-root", "data.download", False)]
    config = resolve_hardware(
        configuration.load(DEFAULT, options=[*given, ("--epochs", "train.epochs", options.epochs)])
    )
    dataset = data.load(config.data).to(torch.device(config.device))
    ratios, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(options.pairs + 1):
            order = (True, False) if pair % 2 else (False, True)
            times = {tracked: seconds(config, dataset, Path(folder), tracked) for tracked in order}
            if pair:  # the first one warms up
                ratios.append(times[True] / times[False])
                plain.append(times[False])
                print(f"pair {pair}: {times[True]:.3f} s with, {times[False]:.3f} s without", flush=True)
    logs = [math.log(ratio) for ratio in ratios]
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, mean, high = (math.exp(statistics.mean(logs) + side * half) - 1 for side in (-1, 0, 1))
    write_section(
        "Tracking on and off",
        f"""
{machine()} On {config.device} in {config.precision}.

{options.pairs} pairs of trainings in one process, {options.epochs} epochs of MNIST each at the default configuration,
one with everything tracked and one without, the order turned from pair to pair; from before the first update until the
last event is on the disk. Each looks at validation, histograms and pictures {options.epochs + 1} times, more often an
epoch than a longer training does.

Time with tracking against without: median {spread(ratios, ".4f")}; geometric mean {mean:+.2%}, 95 % confidence interval
{low:+.2%} to {high:+.2%} (Student's t on the logarithms). Without: {spread(plain, ".2f")} s.
""",
    )


if __name__ == "__main__":
    main()
