"""Whole trainings against the peers: interleaved rounds, one process each, medians and paired ratios.

`make bench` runs it; the result is benchmarks/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).parent
FLOP_PER_IMAGE = 11.7e6
"""Forward and backward pass of the network, the first layer's unneeded input gradient left out."""


@dataclass(frozen=True)
class Result:
    """seconds: of the training, first update to last evaluation; whole: of the process; memory, events: in MB."""

    seconds: float
    whole: float
    memory: float
    events: float
    test_accuracy: float


def ours(*overrides: str) -> list[str]:
    config = str(HERE.parent / "configs" / "default.yaml")
    return ["-m", "mnist_tb", "train", "--config", config, *(word for o in overrides for word in ("--set", o))]


CONTESTANTS = {
    "(a) mnist_tb, everything tracked": ours(),
    "(b) mnist_tb, tracking off": ours("tracking.enabled=false"),
    "(a32) mnist_tb in fp32, tracked": ours("precision=fp32"),
    "(c) plain PyTorch + SummaryWriter": [str(HERE / "peers" / "plain.py")],
    "(d) Lightning + TensorBoardLogger": [str(HERE / "peers" / "pl.py")],
    "(e) Ignite + TensorboardLogger": [str(HERE / "peers" / "ig.py")],
    "(f) the old design: JSON for its own page": [str(HERE / "peers" / "page.py")],
}


def run(command: list[str], data_root: str, epochs: int | None, seed: int) -> Result:
    """One training in a process of its own, in an empty log folder; epochs: None for the configuration's own."""
    folder = Path(tempfile.mkdtemp())
    arguments = ["--data-root", data_root, "--logdir", str(folder / "log"), "--seed", str(seed)]
    arguments += [] if epochs is None else ["--epochs", str(epochs)]
    start = time.perf_counter()
    with open(folder / "out", "wb") as out:
        process = subprocess.Popen([sys.executable, *command, *arguments], stdout=out, stderr=subprocess.STDOUT)
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


def report(results: dict[str, list[Result]], epochs: int, peaks: tuple[float, float]) -> str:
    """The tables, in Markdown."""
    first = next(iter(results))
    rounds = len(results[first])
    lines = [
        "# Speed",
        "",
        f"{rounds} interleaved rounds, {epochs} epochs each, batch size 64, Adam 0.001, the 55,000/5,000 split of",
        "MNIST, the same network; every training a process of its own. Training seconds: from before the first update",
        "to after the last evaluation on validation, tracking included. Medians, [least to most]; ratios are of the",
        "same round.",
        "",
        f"{cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "tensorboard", "lightning"))
        + f", pytorch-ignite {version('pytorch-ignite')}.",
        f"A 2048³ matrix product reaches {peaks[0] / 1e9:.0f} GFLOP/s in fp32 and {peaks[1] / 1e9:.0f} in bf16.",
        "",
        "| | training s | images/s | ratio to (a) | whole process s | peak memory MB | log MB | test accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in results.items():
        seconds = [r.seconds for r in runs]
        ratios = [r.seconds / a.seconds for r, a in zip(runs, results[first], strict=True)]
        lines.append(
            f"| {name} | {spread(seconds, '.1f')} | {epochs * 55_000 / statistics.median(seconds):,.0f}"
            f" | {spread(ratios, '.2f')} | {statistics.median(r.whole for r in runs):.1f}"
            f" | {statistics.median(r.memory for r in runs):,.0f} | {statistics.median(r.events for r in runs):.2f}"
            f" | {statistics.mean(r.test_accuracy for r in runs):.2%} |"
        )
    rate = epochs * 55_000 / statistics.median(r.seconds for r in results[first]) * FLOP_PER_IMAGE
    lines += [
        "",
        f"(a) computes at {rate / 1e9:.0f} GFLOP/s, {rate / peaks[1]:.0%} of the bf16 matrix product's rate.",
    ]
    return "\n".join(lines) + "\n"


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}} to {max(values):{form}}]"


def cpu() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="the letters of the contestants, such as a c")
    parser.add_argument("--out", type=Path, default=HERE / "speed.md")
    options = parser.parse_args()
    chosen = {n: c for n, c in CONTESTANTS.items() if not options.only or n[1:].partition(")")[0] in options.only}
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    for seed in range(options.rounds):
        for name, command in chosen.items():
            results[name].append(run(command, options.data_root, options.epochs, seed))
            print(f"round {seed + 1}: {name}: {results[name][-1]}", flush=True)
    options.out.write_text(report(results, options.epochs, (matrix_peak(torch.float32), matrix_peak(torch.bfloat16))))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
