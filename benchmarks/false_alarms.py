"""How often `compare` calls a difference significant where there is none, for every order of the lines.

All configurations are the same one: whatever is called significant is a false alarm, and no more than 5 % of the tables
are to have any. The result is a section of benchmarks/RESULTS.md and a table of docs/comparing.md.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from results import table, write_section

from mnist_tb.analysis import compare, significance
from mnist_tb.runs.query import RunSummary

GROUPS = (2, 5, 10)
SEEDS, IMAGES, VALIDATION = 5, 10_000, 5_000
WRONG, SPREAD = 0.01, 0.0005
"""The share of images that a run has wrong, and its standard deviation over seeds."""
HARD, HARD_WRONG, EASY_WRONG = 0.015, 0.5, 0.002
"""The share of images that are hard, and how often a run has a hard one wrong, and any other."""


def run(random: np.random.Generator, group: int, seed: int, val: float, test: float) -> RunSummary:
    """A run of these accuracies; its losses go with them, all else does not."""
    loss = {f"{split}_loss": 1 - value + random.normal(0, SPREAD) for split, value in (("val", val), ("test", test))}
    other = {key: random.random() for key in ("seconds", "images_per_second", "started")}
    results: dict[str, Any] = {"val_accuracy": val, "test_accuracy": test, **loss, **other}
    settings, name = {"lr": group, "seed": seed}, f"{random.integers(1_000_000)}-{group}-{seed}"
    return RunSummary(name, Path(name), True, "completed", "mnist", IMAGES, settings, **results)


def seeds(random: np.random.Generator, count: int) -> list[RunSummary]:
    """So many configurations with their seeds."""
    right = 1 - random.normal(WRONG, SPREAD, (count, SEEDS))
    val, test = (random.binomial(images, right) / images for images in (VALIDATION, IMAGES))
    return [run(random, at, seed, val[at, seed], test[at, seed]) for at in range(count) for seed in range(SEEDS)]


def images(random: np.random.Generator, count: int) -> tuple[list[RunSummary], dict[str, np.ndarray]]:
    """So many runs, and which test images each has right."""
    wrong = np.where(np.arange(IMAGES) < HARD * IMAGES, HARD_WRONG, EASY_WRONG)
    right = random.random((count, IMAGES)) >= wrong
    val = random.binomial(VALIDATION, 1 - wrong.mean(), count) / VALIDATION
    runs = [run(random, at, 0, val[at], right[at].mean()) for at in range(count)]
    return runs, {each.name: own for each, own in zip(runs, right, strict=True)}


def alarms(grouped: bool, count: int, repetitions: int) -> list[str]:
    """For each order, in how many tables any difference is called significant."""
    random, found = np.random.default_rng(count), np.zeros(len(compare.SORTS))
    significance._least, significance.seeds_needed = lambda *_: 0.0, lambda *_: None  # slow, and decide nothing
    for _ in range(repetitions):
        runs, right = (seeds(random, count), {}) if grouped else images(random, count)
        compare._labels_and_correct = lambda one, known=right: (b"", known[one.name])  # type: ignore[misc]
        for at, sort in enumerate(compare.SORTS):
            (section,) = compare.compare(runs, sort, grouped)
            found[at] += any(line.difference and line.difference.significant for line in section.lines)
    return [f"{100 * alarms / repetitions:.1f} %" for alarms in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10_000)
    options = parser.parse_args()
    cases = [(grouped, count, options.repetitions) for grouped in (True, False) for count in GROUPS]
    with ProcessPoolExecutor(2) as pool:
        columns = list(pool.map(alarms, *zip(*cases, strict=True)))
    titles = [f"{count} {what}" for what in ("groups", "runs") for count in GROUPS]
    rows = [[f"`{sort}`", *cells] for sort, *cells in zip(compare.SORTS, *columns, strict=True)]
    text = f"""
{options.repetitions:,} tables each, of configurations that are all the same: how many call any difference significant.
Groups: {SEEDS} seeds, {100 * (1 - WRONG):.1f} ± {100 * SPREAD:.2f} % right, by Welch's t.
Runs: one each, by McNemar's exact test on {IMAGES:,} images, of which a run has {HARD_WRONG:.0%} of the
{HARD:.1%} hard ones wrong, and {EASY_WRONG:.1%} of the others. Validation: {VALIDATION:,} images.

{table(["--sort", *titles], rows)}
"""
    write_section("False alarms of compare", text)


if __name__ == "__main__":
    main()
