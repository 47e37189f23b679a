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

from mnist_tb import train as training
from mnist_tb.config.load import dump_config, load_config, replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset, load_dataset
from mnist_tb.engine import process
from mnist_tb.engine.device import resolve_auto
from mnist_tb.events.status import Status
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import build
from mnist_tb.runs.folder import create_run
from mnist_tb.tracking import charts
from mnist_tb.tracking.console import Terminal
from mnist_tb.tracking.live import Live
from mnist_tb.train import log_pending_point, train
from mnist_tb.training.checkpoint import AsyncCheckpointer
from mnist_tb.training.context import TrainingContext
from mnist_tb.training.state import State

DEFAULT = Path(__file__).parent.parent / "configs" / "default.yaml"
SAVE = training.save_checkpoint


OFTEN = 0.2
"""Seconds between two checkpoints where their cost is measured: so often that it stands out from the noise."""


def seconds(config: Config, dataset: Dataset, logdir: Path, tracked: bool, saved: bool, count: list[int]) -> float:
    """Of one training, from before the first update until the last event and checkpoint are on the disk.

    count: receives how many checkpoints there were.
    """
    run = create_run(logdir, config.name, dump_config(config), {})
    model = build(config.model.channels, config.seed, torch.device(config.device))
    saves = []

    def save(context: TrainingContext, state: State, seconds: float) -> None:
        saves.append(state.step)
        if saved:
            SAVE(context, state, seconds)
        else:
            log_pending_point(context, state)

    training.save_checkpoint = save
    with (
        open(os.devnull, "w") as nowhere,
        EventWriter(run.path if tracked else None, 0) as writer,
        AsyncCheckpointer() as checkpointer,
    ):
        charts.beginning(writer, config, dataset, model)
        terminal, live = Terminal(Console(file=nowhere)), Live(writer, Status(epochs=config.train.epochs))
        start = time.perf_counter()
        train(TrainingContext(config, run, dataset, writer, terminal, live, checkpointer), model)
        checkpointer.wait()
        writer.close()
        if saved:
            count.append(len(saves))
        return time.perf_counter() - start


def pairs_of(pairs: int, measure: Callable[[bool], float]) -> list[tuple[float, float]]:
    """Seconds with and without, of pairs of trainings, the order turned from pair to pair."""
    found = []
    for pair in range(pairs + 1):
        times = {with_it: measure(with_it) for with_it in ((True, False) if pair % 2 else (False, True))}
        if pair:  # the first one warms up
            found.append((times[True], times[False]))
            print(f"pair {pair}: {times[True]:.3f} s with, {times[False]:.3f} s without", flush=True)
    return found


def interval(values: list[float]) -> tuple[float, float, float]:
    """Low, mean, high: the 95 % confidence interval of a mean by Student's t."""
    mean = statistics.mean(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean, mean + half


def ratio(times: list[tuple[float, float]]) -> str:
    low, mean, high = (math.exp(v) - 1 for v in interval([math.log(a / b) for a, b in times]))
    return (
        f"Time with against without: median {spread([a / b for a, b in times], '.4f')}; geometric mean {mean:+.2%},\n"
        f"95 % confidence interval {low:+.2%} to {high:+.2%} (Student's t on the logarithms). Without:\n"
        f"{spread([b for _, b in times], '.2f')} s."
    )


def each(times: list[tuple[float, float]], epochs: int, checkpoints: int) -> str:
    """What one checkpoint costs, and what that makes of a training at the default configuration."""
    parts = interval([1e3 * (a - b) / checkpoints for a, b in times])
    low, mean, high = parts
    share = "{1:.2%} ({0:.2%} to {2:.2%})"
    epoch = statistics.median(b for _, b in times) / epochs
    return (
        f"One checkpoint costs {mean:.1f} ms ({low:.1f} to {high:.1f}, the 95 % confidence interval by Student's t).\n"
        f"An epoch takes {epoch:.2f} s without, and has one checkpoint: "
        f"{share.format(*(part / 1e3 / epoch for part in parts))} of the training."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", choices=["tracking", "checkpoints"])
    options = parser.parse_args()
    process.tune_malloc()
    process.set_switch_interval()
    given = [("--data-root", "data.root", options.data_root), ("--data-root", "data.download", False)]
    config = resolve_auto(load_config(DEFAULT, options=[*given, ("--epochs", "train.epochs", options.epochs)]))
    dataset = load_dataset(config.data).to(torch.device(config.device))
    about = f"""
{machine()} On {config.device} in {config.precision}.

{options.pairs} pairs of trainings in one process, {options.epochs} epochs of MNIST each at the default load,
the order turned from pair to pair; from before the first update until all is on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        count: list[int] = []
        if options.only != "checkpoints":
            times = pairs_of(options.pairs, lambda on: seconds(config, dataset, logdir, on, True, count))
            text = f"""{about} With: everything tracked, scalars every ten updates, histograms and pictures
{options.epochs + 1} times, more often an epoch than a longer training has them. Without: no event file.

{ratio(times)}"""
            write_section("Tracking on and off", text)
        if options.only != "tracking":
            count.clear()
            often = replace_config(config, {"tracking.checkpoint_seconds": OFTEN})
            times = pairs_of(options.pairs, lambda on: seconds(often, dataset, logdir, True, on, count))
            number = round(statistics.mean(count))
            text = f"""{about} With: a checkpoint every {OFTEN} s, {number} in a training, so
that what they cost stands out from the noise. Without: none. Everything tracked in both.

{each(times, options.epochs, number)}"""
            write_section("Checkpoints", text)


if __name__ == "__main__":
    main()
