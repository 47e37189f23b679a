"""What tracking and checkpoints cost: short trainings with and without, in turn, in one process.

Whole processes differ by more than the question is about, so here the same process trains again and again, A B B A, and
each pair is compared with itself. `make bench` runs it; the results are sections of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import machine, spread, write_section
from rich.console import Console
from scipy.stats import t as student

from mnist_tb import config as configuration
from mnist_tb import data, hardware, memory, reporting, runs
from mnist_tb import train as training
from mnist_tb.checkpoint import Saver
from mnist_tb.config import Config
from mnist_tb.data import Dataset
from mnist_tb.live import Live
from mnist_tb.model import build
from mnist_tb.state import State
from mnist_tb.status import Status
from mnist_tb.terminal import Terminal
from mnist_tb.tracking import Tracker
from mnist_tb.train import Job, train, write_point

DEFAULT = Path(__file__).parent.parent / "configs" / "default.yaml"
SAVE = training.save


def seconds(config: Config, dataset: Dataset, logdir: Path, tracked: bool, saved: bool) -> float:
    """Of one training, from before the first update until the last event and checkpoint are on the disk."""
    run = runs.create(logdir, config.name, configuration.dump(config), {})
    model = build(config.model.channels, config.seed, torch.device(config.device))
    training.save = SAVE if saved else save_nothing
    with open(os.devnull, "w") as nowhere, Tracker(run.path if tracked else None, 0) as tracker, Saver() as saver:
        reporting.beginning(tracker, config, dataset, model, run.name)
        terminal, live = Terminal(Console(file=nowhere)), Live(tracker, Status(epochs=config.train.epochs))
        start = time.perf_counter()
        train(Job(config, run, dataset, tracker, terminal, live, saver), model)
        saver.wait()
        tracker.close()
        return time.perf_counter() - start


def save_nothing(job: Job, state: State, start: float) -> None:
    write_point(job, state)


def compare(pairs: int, measure: Callable[[bool], float]) -> str:
    """Pairs of trainings with and without, the order turned from pair to pair."""
    ratios, plain = [], []
    for pair in range(pairs + 1):
        times = {with_it: measure(with_it) for with_it in ((True, False) if pair % 2 else (False, True))}
        if pair:  # the first one warms up
            ratios.append(times[True] / times[False])
            plain.append(times[False])
            print(f"pair {pair}: {times[True]:.3f} s with, {times[False]:.3f} s without", flush=True)
    logs = [math.log(ratio) for ratio in ratios]
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, mean, high = (math.exp(statistics.mean(logs) + side * half) - 1 for side in (-1, 0, 1))
    return (
        f"Time with against without: median {spread(ratios, '.4f')}; geometric mean {mean:+.2%}, 95 % confidence\n"
        f"interval {low:+.2%} to {high:+.2%} (Student's t on the logarithms). Without: {spread(plain, '.2f')} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", choices=["tracking", "checkpoints"])
    options = parser.parse_args()
    memory.keep_freed_memory()
    memory.take_short_turns()
    given = [("--data-root", "data.root", options.data_root), ("--data-root", "data.download", False)]
    config = hardware.resolve(
        configuration.load(DEFAULT, options=[*given, ("--epochs", "train.epochs", options.epochs)])
    )
    dataset = data.load(config.data).to(torch.device(config.device))
    about = f"""
{machine()} On {config.device} in {config.precision}.

{options.pairs} pairs of trainings in one process, {options.epochs} epochs of MNIST each at the default configuration,
the order turned from pair to pair; from before the first update until all is on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        if options.only != "checkpoints":
            result = compare(options.pairs, lambda tracked: seconds(config, dataset, logdir, tracked, True))
            text = f"""{about} With: everything tracked, scalars every ten updates, histograms and pictures
{options.epochs + 1} times, more often an epoch than a longer training has them. Without: no event file.

{result}"""
            write_section("Tracking on and off", text)
        if options.only != "tracking":
            result = compare(options.pairs, lambda saved: seconds(config, dataset, logdir, True, saved))
            text = f"""{about} With: {options.epochs + 1} checkpoints, more often an epoch than a longer training
has them, and never less than one a minute. Without: none. Everything tracked in both.

{result}"""
            write_section("Checkpoints on and off", text)


if __name__ == "__main__":
    main()
