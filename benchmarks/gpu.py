"""Everything about a GPU in one command of a few minutes: tests, speed, where a step's time goes, time to 99 %.

`make gpu` runs it on a machine with a CUDA GPU, and writes benchmarks/gpu.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from results import machine, spread, table
from speed import Contestant, Result, ours, peer, run
from torch.profiler import ProfilerActivity, profile

from mnist_tb.config.load import load_config
from mnist_tb.data.augment import Transforms
from mnist_tb.data.datasets import load_dataset
from mnist_tb.engine.device import resolve_auto, use_device
from mnist_tb.engine.train_step import TrainStep, build_train_step
from mnist_tb.model import build

HERE = Path(__file__).parent
RESULT = HERE / "gpu.md"
UPDATES = 200
PLAIN_EPOCHS = 2
"""Its images are transformed one by one on the CPU: ten epochs would take as long as all else together."""


def test() -> str:
    """What pytest says at its end. Exits where a test has failed."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "--no-cov", "tests/engine/test_cuda.py"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, flush=True)
    said = done.stdout.strip().splitlines()[-1].strip("= ")
    if done.returncode != 0 or (" passed" not in said and torch.cuda.is_available()):  # all skipped is no proof
        sys.exit("tests/engine/test_cuda.py has failed")
    return said


def trainings(device: str, data_root: str, seeds: int) -> str:
    """A row for each configuration; its seeds go round in turn."""
    cases: dict[str, tuple[Contestant, int | None]] = {
        f"{name}.yaml": (ours(f"device={device}", config=name), None) for name in ("default", "fast", "best")
    }
    cases["plain PyTorch + SummaryWriter"] = (peer("plain.py", "--device", device), PLAIN_EPOCHS)
    results: dict[str, list[Result]] = {name: [] for name in cases}
    for seed in range(seeds):
        for name, (contestant, epochs) in cases.items():
            if epochs is None or seed == 0:
                results[name].append(run(contestant, data_root, epochs, seed))
                print(f"seed {seed}: {name}: {results[name][-1]}", flush=True)
    lengths = {name: load_config(HERE.parent / "configs" / name).train.epochs for name in cases if "." in name}
    rows = []
    for name, done in results.items():
        epochs, accuracies = lengths.get(name, PLAIN_EPOCHS), [100 * result.test_accuracy for result in done]
        seconds = [result.seconds for result in done]
        rows.append(
            [
                name,
                str(len(done)),
                str(epochs),
                spread(seconds, ".2f"),
                f"{statistics.median(seconds) / epochs:.3f}",
                spread([result.whole for result in done], ".1f"),
                f"{statistics.mean(accuracies):.2f}",
                f"{sum(accuracy >= 99 for accuracy in accuracies)} of {len(done)}",
            ]
        )
    header = ["training", "seeds", "epochs", "training s", "s an epoch", "process s", "mean test accuracy %", "at 99 %"]
    return table(header, rows)


def one_update(device: str, config_name: str, data_root: str) -> tuple[str, str]:
    """Microseconds of an update, as recorded and operation by operation; and the kernels that take its time."""
    given = [("--device", "device", device), ("--data-root", "data.root", data_root)]
    config = resolve_auto(load_config(HERE.parent / "configs" / f"{config_name}.yaml", options=given))
    where, size = use_device(config), config.train.batch_size
    dataset = load_dataset(config.data).to(where)
    plain = TrainStep(config, build(config.model.channels, 0, where), dataset)
    best = build_train_step(config, build(config.model.channels, 0, where), dataset)
    index = torch.arange(size, device=where)
    transforms = Transforms(config.augment, size, size, 0, where) if config.augment.enabled else None
    times = []
    for step in (best, plain):
        for count in (20, UPDATES):  # the first ones warm up
            _synchronize(where)
            start = time.perf_counter()
            for i in range(count):
                step(index, 1e-3, None if transforms is None else transforms.of(i))
            _synchronize(where)
            seconds = time.perf_counter() - start
        times.append(f"{seconds / UPDATES * 1e6:,.0f}")
    activities = [ProfilerActivity.CUDA if where.type == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as profiled:
        for i in range(20):
            plain(index, 1e-3, None if transforms is None else transforms.of(i))
        _synchronize(where)
    key = "self_device_time_total" if where.type == "cuda" else "self_cpu_time_total"
    found = sorted(profiled.key_averages(), key=lambda entry: -getattr(entry, key))
    whole = sum(getattr(entry, key) for entry in found)
    rows = [[f"`{entry.key[:90]}`", f"{getattr(entry, key) / whole:.1%}"] for entry in found[:12]]
    said = f"An update takes {times[0]} µs as it is run, {times[1]} µs operation by operation."
    title = f"{config_name}.yaml, batch size {size}, {config.precision}"
    return title, f"{said}\n\n{table(['kernel', 'share'], rows)}"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA GPU here")
    start = time.perf_counter()
    gpu = torch.cuda.get_device_name(options.device) if torch.cuda.is_available() else "no GPU"
    parts = ["# On a GPU", f"{gpu}; {machine()}", f"tests/engine/test_cuda.py: {test()}."]
    parts += ["## Trainings", "Everything tracked; median [least to most] over seeds, which go round in turn."]
    parts += [trainings(options.device, options.data_root, options.seeds)]
    for name in ("default", "best"):
        title, text = one_update(options.device, name, options.data_root)
        parts += [f"## One update: {title}", text]
    parts += [f"All of this took {time.perf_counter() - start:.0f} s."]
    RESULT.write_text("\n\n".join(parts) + "\n")
    print(f"→ {RESULT}")


if __name__ == "__main__":
    main()
