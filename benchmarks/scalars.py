"""What a scalar costs: microseconds a call, until the file is closed, of torch's SummaryWriter, ours, and Tracker.

    python benchmarks/scalars.py [--calls 100000] [--rounds 7] [--memory 10000000]

In turn, so that what else the machine does falls on all; medians. --memory also logs so many and prints the memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from torch.utils import tensorboard

from mnist_tb import SummaryWriter, Tracker

Log = Callable[[int], Any]


def summary_writer(made: Any, folder: Path, count: int, picture: bool) -> float:
    """Seconds for so many calls and the closing; of pictures, for the calls alone."""
    writer, pixels = made(str(folder)), np.random.default_rng(0).random((3, 224, 224), np.float32)
    start = time.perf_counter()
    if picture:
        for step in range(count):
            writer.add_image("picture", pixels, step)
            writer.add_histogram("histogram", pixels[0], step)
        seconds = time.perf_counter() - start
        writer.close()
        return seconds
    for step in range(count):
        writer.add_scalar("loss/train", 0.5, step)
    writer.close()
    return time.perf_counter() - start


def tracker(folder: Path, count: int) -> float:
    with Tracker(folder, "x", system_seconds=0) as made:
        start = time.perf_counter()
        for step in range(count):
            made.scalars(step, {"loss/train": 0.5})
        made._writer.flush()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, default=0)
    chosen = parser.parse_args()
    kinds: dict[str, Callable[[Path], float]] = {
        "torch's SummaryWriter": lambda folder: summary_writer(tensorboard.SummaryWriter, folder, chosen.calls, False),
        "our SummaryWriter": lambda folder: summary_writer(SummaryWriter, folder, chosen.calls, False),
        "Tracker": lambda folder: tracker(folder, chosen.calls),
    }
    pictures: dict[str, Callable[[Path], float]] = {
        "torch's SummaryWriter": lambda folder: summary_writer(tensorboard.SummaryWriter, folder, 100, True),
        "our SummaryWriter": lambda folder: summary_writer(SummaryWriter, folder, 100, True),
    }
    for title, count, all_kinds in (("scalar", chosen.calls, kinds), ("picture and histogram", 100, pictures)):
        found: dict[str, list[float]] = {kind: [] for kind in all_kinds}
        for _ in range(chosen.rounds):
            for kind, run in all_kinds.items():
                with tempfile.TemporaryDirectory() as folder:
                    found[kind].append(run(Path(folder) / "run") / count * 1e6)
        for kind, values in found.items():
            print(f"{title}: {kind}: {statistics.median(values):.1f} µs ({min(values):.1f} to {max(values):.1f})")
    if chosen.memory:
        with tempfile.TemporaryDirectory() as folder, Tracker(folder, "x", system_seconds=0) as made:
            for step in range(chosen.memory):
                made.scalars(step, {"loss/train": 0.5})
                if step % (chosen.memory // 10) == chosen.memory // 10 - 1:
                    print(f"{step + 1:,} scalars: {psutil.Process().memory_info().rss / 2**20:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
