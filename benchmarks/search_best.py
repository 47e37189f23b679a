"""The search behind configs/best.yaml: its recipe, one thing changed at a time, judged on validation alone.

`python benchmarks/search_best.py --data-root FOLDER` prints a line a variant: mean validation accuracy, and that of
each seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from search_fast import validate

BEST = Path(__file__).parent.parent / "configs" / "best.yaml"
HELD_OUT = 10_000
"""Validation images, more than the recipe's own: one in ten thousand is what variants differ by."""
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "labels as they are": {"train.label_smoothing": 0.0},
    "labels smoothed by 0.1": {"train.label_smoothing": 0.1},
    "moved to the end": {"augment.until": 1.0},
    "warped too": {"augment.warp": 0.7, "augment.shift": 1.0},
    "nothing moved": {"augment.rotate": 0.0, "augment.shift": 0.0, "augment.scale": 0.0, "augment.shear": 0.0},
    "learning rate 8e-3": {"train.lr": 8e-3},
    "weight decay 0.01": {"optimizer.weight_decay": 0.01},
    "longer rise": {"schedule.warmup": 0.3},
    "batches of 64": {"train.batch_size": 64},
    "SGD": {"optimizer.name": "sgd", "optimizer.weight_decay": 5e-4, "train.lr": 0.1},
    "no average": {"averaging.name": "none"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[100, 101, 102])
    parser.add_argument("--variants", nargs="*", choices=sorted(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in options.variants}
    for seed in options.seeds:  # in turn, so that something is known of each early on
        for name in options.variants:
            settings = {"data.validation": HELD_OUT, **VARIANTS[name]}
            accuracy, seconds = validate(settings, seed, options.data_root, BEST)
            found[name].append(accuracy)
            each = ", ".join(f"{value:.2%}" for value in found[name])
            mean = statistics.mean(found[name])
            print(f"{name}: validation {mean:.3%} ({each}), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
