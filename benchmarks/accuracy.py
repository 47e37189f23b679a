"""Test accuracy over seeds, and whether bf16 costs any: trainings of several configurations with several seeds each.

`make accuracy` runs it; the result is benchmarks/accuracy.md. The seeds go round in turn, so that a machine that slows
down does so for all. Each test set is scored once a training, with the weights that did best on validation.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from scipy.stats import ttest_ind
from speed import Result, cpu, run

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"
CASES = {
    "default.yaml, fp32": ("default", 10, ["precision=fp32"]),
    "default.yaml, bf16": ("default", 10, ["precision=bf16"]),
    "fast.yaml": ("fast", None, []),
}


def command(config: str, overrides: list[str]) -> list[str]:
    path = str(CONFIGS / f"{config}.yaml")
    return ["-m", "mnist_tb", "train", "--config", path, *(word for o in overrides for word in ("--set", o))]


def row(name: str, results: list[Result]) -> str:
    accuracies = [100 * result.test_accuracy for result in results]
    seconds = [result.seconds for result in results]
    reached = sum(accuracy >= 99 for accuracy in accuracies)
    return (
        f"| {name} | {len(results)} | {mean_and_spread(accuracies, '.3f')}"
        f" | {min(accuracies):.2f} to {max(accuracies):.2f} | {reached} of {len(results)}"
        f" | {mean_and_spread(seconds, '.1f')} |"
    )


def mean_and_spread(values: list[float], form: str) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):{form}} ± {deviation:{form}}"


def report(results: dict[str, list[Result]]) -> str:
    lines = [
        "# Accuracy",
        "",
        f"Test accuracy in %, mean ± standard deviation over seeds, on MNIST. {cpu()}, {os.cpu_count()} cores.",
        "",
        "| configuration | seeds | test accuracy % | range | at 99 % or more | training s |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row(name, runs) for name, runs in results.items() if runs),
    ]
    slow, quick = (results.get(f"default.yaml, {precision}", []) for precision in ("fp32", "bf16"))
    if len(slow) > 1 and len(quick) > 1:
        test = ttest_ind([r.test_accuracy for r in quick], [r.test_accuracy for r in slow], equal_var=False)
        low, high = (100 * bound for bound in test.confidence_interval(0.95))
        lines += [
            "",
            "bf16 against fp32, both through the same update: a difference of"
            f" {low:+.3f} to {high:+.3f} points (95 % confidence interval, Welch's t,"
            f" p = {test.pvalue:.2f}).",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fast-seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=HERE / "accuracy.md")
    options = parser.parse_args()
    results: dict[str, list[Result]] = {name: [] for name in CASES}
    for seed in range(max(options.seeds, options.fast_seeds)):
        for name, (config, epochs, overrides) in CASES.items():
            if seed < (options.fast_seeds if config == "fast" else options.seeds):
                results[name].append(run(command(config, overrides), options.data_root, epochs, seed))
                print(f"seed {seed}: {name}: {results[name][-1]}", flush=True)
    options.out.write_text(report(results))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
