"""Whole trainings against the peers: interleaved rounds, one process each, medians and paired ratios.

`make bench` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from results import machine, spread, table, write_section

from mnist_tb.config.schema import Config
from mnist_tb.engine.device import resolve_auto

HERE = Path(__file__).parent
FLOP_PER_IMAGE = 11.7e6
"""Forward and backward pass of the network, the first layer's unneeded input gradient left out."""


@dataclass(frozen=True)
class Contestant:
    """A way to train: arguments for Python, to which data root, log folder, seed and epochs are added."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """seconds: of the training, first update to last evaluation; whole: of the process; memory, events: in MB."""

    seconds: float
    whole: float
    memory: float
    events: float
    test_accuracy: float


def ours(*overrides: str, config: str = "default", **environment: str) -> Contestant:
    path = str(HERE.parent / "configs" / f"{config}.yaml")
    settings = [word for override in overrides for word in ("--set", override)]
    return Contestant(["-m", "mnist_tb", "train", "--config", path, *settings], environment)


def peer(script: str, *arguments: str) -> Contestant:
    return Contestant([str(HERE / "peers" / script), *arguments])


CONTESTANTS = {
    "(a) mnist_tb, everything tracked": ours(),
    "(b) mnist_tb, tracking off": ours("tracking.enabled=false"),
    "(a32) mnist_tb in fp32": ours("precision=fp32"),
    "(a0) mnist_tb without a C++ compiler": ours(MNIST_TB_KERNELS="off"),
    "(c) plain PyTorch + SummaryWriter": peer("plain.py"),
    "(d) Lightning + TensorBoardLogger": peer("pl.py"),
    "(e) Ignite + TensorboardLogger": peer("ig.py"),
    "(f) the old design: JSON for its own page": peer("page.py"),
}


def run(contestant: Contestant, data_root: str, epochs: int | None, seed: int) -> Result:
    """One training in a process of its own, in an empty log folder; epochs: None for the configuration's own."""
    folder = Path(tempfile.mkdtemp())
    arguments = ["--data-root", data_root, "--logdir", str(folder / "log"), "--seed", str(seed)]
    arguments += [] if epochs is None else ["--epochs", str(epochs)]
    command = [sys.executable, *contestant.command, *arguments]
    start = time.perf_counter()
    with open(folder / "out", "wb") as out:
        environment = {**os.environ, **contestant.environment}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - start
    text = (folder / "out").read_text()
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    metrics = list((folder / "log").glob("*/metrics.json"))
    if metrics:
        known = json.loads(metrics[0].read_text())
        seconds, accuracy = known["train_seconds"], known["test"]["accuracy"]
    else:
        known = json.loads(text.strip().splitlines()[-1])
        seconds, accuracy = known["seconds"], known["test_accuracy"]
    logs = [path for path in (folder / "log").rglob("*") if "tfevents" in path.name or path.name == "log.json"]
    events = sum(path.stat().st_size for path in logs) / 1e6
    shutil.rmtree(folder)
    return Result(seconds, whole, usage.ru_maxrss / 1e3, events, accuracy)


def matrix_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a 2048³ matrix product, the median of 15."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    times = []
    for _ in range(15):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times)


def report(results: dict[str, list[Result]], epochs: int, precision: str, peaks: list[float]) -> str:
    """The section, in Markdown."""
    first = next(iter(results))
    peak = statistics.median(peaks)
    rows = []
    for name, runs in results.items():
        seconds = [r.seconds for r in runs]
        ratios = [r.seconds / a.seconds for r, a in zip(runs, results[first], strict=True)]
        rows.append(
            [
                name,
                spread(seconds, ".1f"),
                f"{epochs * 55_000 / statistics.median(seconds):,.0f}",
                spread(ratios, ".2f"),
                f"{statistics.median(r.whole for r in runs):.1f}",
                f"{statistics.median(r.memory for r in runs):,.0f}",
                f"{statistics.median(r.events for r in runs):.2f}",
                f"{statistics.mean(r.test_accuracy for r in runs):.2%}",
            ]
        )
    header = ["", "training s", "images/s", "time against (a)", "process s", "memory MB", "log MB", "test accuracy"]
    rate = epochs * 55_000 / statistics.median(r.seconds for r in results[first]) * FLOP_PER_IMAGE
    return f"""
{machine()}

{len(results[first])} interleaved rounds, {epochs} epochs each, batch size 64, Adam 0.001, the 55,000/5,000 split of
MNIST, the same network; every training a process of its own. Training seconds: from before the first update to after
the last evaluation on validation, tracking included. Medians, [least to most]; ratios are of the same round. Memory:
peak of the process. Peers read their data
in the training process.

{table(header, rows)}

A 2048³ matrix product in {precision}, measured between the rounds, reaches {peak / 1e9:.0f} GFLOP/s. (a) computes at
{rate / 1e9:.0f} GFLOP/s over its whole training: {rate / peak:.0%} of that.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="letters, such as a b")
    options = parser.parse_args()
    chosen = {n: c for n, c in CONTESTANTS.items() if not options.only or n[1:].partition(")")[0] in options.only}
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    peaks: list[float] = []
    precision = resolve_auto(Config(device="cpu")).precision  # the other one may be emulated, and take minutes
    for seed in range(options.rounds):
        for name, contestant in chosen.items():
            results[name].append(run(contestant, options.data_root, options.epochs, seed))
            print(f"round {seed + 1}: {name}: {results[name][-1]}", flush=True)
        peaks.append(matrix_peak(torch.bfloat16 if precision == "bf16" else torch.float32))
    title = "Whole trainings against the peers"
    title += f", {' and '.join(options.only)} alone" if options.only else ""
    write_section(title, report(results, options.epochs, precision, peaks))


if __name__ == "__main__":
    main()
