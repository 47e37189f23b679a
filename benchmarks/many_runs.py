"""How long the commands about runs take over ever more of them, and how much memory.

The runs are invented, but written through the real tracker: curves, settings, results, predictions of 10,000 images.
`make bench` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from results import machine, table, write_section

from mnist_tb import Tracker
from mnist_tb.runs.folder import list_run_folders

COMMANDS = {
    "runs list": ["runs", "list"],
    "compare": ["compare"],
    "compare --group": ["compare", "--group"],
    "export --tag loss/val": ["export", "--tag", "loss/val"],
}
IMAGES = 10_000
REPEATS = 5
ITSELF = """
import sys
from mnist_tb.cli.main import main
code = main(arguments=sys.argv[1:])
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def invent(logdir: Path, number: int, labels: torch.Tensor) -> None:
    """A run of one of twenty learning rates, its results at random around what that rate can do."""
    random = np.random.default_rng(number)
    rate = number % 20
    config = {"lr": (rate + 1) / 1_000, "batch_size": 64, "epochs": 10, "seed": number // 20}
    with Tracker(logdir, f"lr{rate + 1}e-3", config, dataset="invented") as tracker:
        for step in range(20):
            tracker.scalars(step, {"loss/train": random.random(), "accuracy/train": random.random()})
            tracker.scalars(
                step, {"loss/val": random.random(), "accuracy/val": 0.98 + rate / 2e3 + random.random() / 1e3}
            )
        right = torch.from_numpy(random.random(IMAGES) < 0.98 + rate / 2e3)
        tracker.scalars(20, {"accuracy/test": right.float().mean(), "loss/test": random.random()})
        predictions = torch.where(right, labels, (labels + 1) % 10)
        tracker.predictions(labels, torch.nn.functional.one_hot(predictions, 10).float())


def measure(command: list[str], logdir: Path) -> tuple[float, float]:
    """Seconds and peak memory, in MB, of a command as a process of its own; it says itself what it took at most."""
    words = [sys.executable, "-c", ITSELF, *command, "--logdir", str(logdir)]
    start = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    return seconds, int(done.stderr.split()[-2]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 10, 100, 1_000])
    options = parser.parse_args()
    labels = torch.arange(IMAGES) % 10
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        for count in options.runs:
            for number in range(len(list_run_folders(logdir)), count):
                invent(logdir, number, labels)
            row = [f"{count:,}"]
            for command in COMMANDS.values():
                found = [measure(command, logdir) for _ in range(REPEATS + 1)][1:]
                seconds = statistics.median(time for time, _ in found)
                row.append(f"{seconds:.2f} s, {max(memory for _, memory in found):.0f} MB")
            rows.append(row)
            print(row, flush=True)
    text = f"""
{machine()}

Invented folder, written through `Tracker`: six curves of 20 points, the predictions of {IMAGES:,} test images, twenty
settings. Medians of {REPEATS} after a first one, a process each, and the most memory of any.

{table(["runs", *COMMANDS], rows)}
"""
    write_section("Many runs", text)


if __name__ == "__main__":
    main()
