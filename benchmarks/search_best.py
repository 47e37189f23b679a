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
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "labels smoothed": {"train.label_smoothing": 0.05},
    "higher learning rate": {"train.lr": 8e-3},
    "smaller movements": {"augment.rotate": 8.0, "augment.shift": 1.5, "augment.scale": 0.08, "augment.shear": 4.0},
    "larger movements": {"augment.rotate": 12.0, "augment.shift": 2.5, "augment.scale": 0.12, "augment.shear": 8.0},
    "longer average": {"averaging.decay": 0.9995},
    "batches of 64": {"train.batch_size": 64, "train.lr": 4e-3},
    "no average": {"averaging.name": "none"},
    "nothing moved": {"augment.rotate": 0.0, "augment.shift": 0.0, "augment.scale": 0.0, "augment.shear": 0.0},
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
            accuracy, seconds = validate(VARIANTS[name], seed, options.data_root, BEST)
            found[name].append(accuracy)
            each = ", ".join(f"{value:.2%}" for value in found[name])
            mean = statistics.mean(found[name])
            print(f"{name}: validation {mean:.3%} ({each}), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
