"""The search behind configs/fast.yaml: short one-cycle trainings, judged on validation alone.

`python benchmarks/search_fast.py --data-root FOLDER` prints a line a setting: mean validation accuracy and seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "default.yaml"
HELD_OUT = 10_000
"""Validation images, more than a run holds out: settings differ by one in a thousand."""


def validate(settings: dict[str, object], seed: int, data_root: str, config: Path = CONFIG) -> tuple[float, float]:
    """Validation accuracy and training seconds of one training."""
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as logdir:
        arguments = ["--config", str(config), "--logdir", logdir, "--data-root", data_root, "--seed", str(seed)]
        command = [sys.executable, "-m", "mnist_tb", "train", *arguments, *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads(next(Path(logdir).glob("*/metrics.json")).read_text())
    return metrics["val"]["accuracy"], metrics["train_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[100, 101, 102])
    parser.add_argument("--epochs", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[32, 64, 128, 256])
    parser.add_argument("--lrs", type=float, nargs="*", default=[4e-3, 8e-3, 1.6e-2])
    parser.add_argument("--betas", type=json.loads, nargs="*", default=[[0.9, 0.999], [0.9, 0.99], [0.7, 0.9]])
    parser.add_argument("--warmups", type=float, nargs="*", default=[0.3])
    parser.add_argument("--set", dest="more", nargs="*", default=[], help="further settings, KEY=VALUE")
    options = parser.parse_args()
    more = dict(setting.split("=", 1) for setting in options.more)
    grid = itertools.product(options.epochs, options.batch_sizes, options.lrs, options.betas, options.warmups)
    for epochs, size, lr, betas, warmup in grid:
        settings = {
            "data.validation": HELD_OUT,
            "schedule.name": "one_cycle",
            "schedule.warmup": warmup,
            "optimizer.betas": betas,
            "train.epochs": epochs,
            "train.batch_size": size,
            "train.lr": lr,
            **more,
        }
        results = [validate(settings, seed, options.data_root) for seed in options.seeds]
        accuracy, seconds = (statistics.mean(values) for values in zip(*results, strict=True))
        least = min(accuracy for accuracy, _ in results)
        setting = f"{epochs} epochs, batch size {size}, lr {lr:g}, betas {betas}, warmup {warmup}"
        print(f"{setting}: validation {accuracy:.4f}, least {least:.4f}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
