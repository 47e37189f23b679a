"""Test accuracy over seeds, and whether speed costs any: trainings of several configurations with several seeds each.

`make accuracy` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import statistics

from results import machine, table, write_section
from scipy.stats import ttest_ind
from speed import Contestant, Result, ours, run

SLOW, FAST = "default.yaml, fp32, layer by layer in torch", "default.yaml, as it comes"
SLOWLY: dict[str, tuple[Contestant, str]] = {SLOW: (ours("precision=fp32", MNIST_TB_KERNELS="off"), "default")}
CASES: dict[str, tuple[Contestant, str]] = {
    FAST: (ours(), "default"),
    "fast.yaml": (ours(config="fast"), "fast"),
    "best.yaml": (ours(config="best"), "best"),
    "record.yaml": (ours(config="record"), "record"),
}


def row(name: str, results: list[Result]) -> list[str]:
    accuracies = [100 * result.test_accuracy for result in results]
    seconds = [result.seconds for result in results]
    reached = sum(accuracy >= 99 for accuracy in accuracies)
    return [
        name,
        str(len(results)),
        mean_and_spread(accuracies, ".3f"),
        f"{min(accuracies):.2f} to {max(accuracies):.2f}",
        f"{reached} of {len(results)}",
        mean_and_spread(seconds, ".1f"),
    ]


def mean_and_spread(values: list[float], form: str) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):{form}} ± {deviation:{form}}"


def report(results: dict[str, list[Result]]) -> str:
    header = ["configuration", "seeds", "test accuracy %", "range", "at 99 % or more", "training s"]
    return f"""
{machine()}

Test accuracy on MNIST, mean ± standard deviation over seeds. Each training scores the test set once, with the weights
that did best on validation. The seeds go round in turn, so that a machine that slows down does so for all.

{table(header, [row(name, runs) for name, runs in results.items() if runs])}
{against_the_slow_way(results) if SLOW in results else ""}"""


def against_the_slow_way(results: dict[str, list[Result]]) -> str:
    slow, fast = ([r.test_accuracy for r in results[key]] for key in (SLOW, FAST))
    test = ttest_ind(fast, slow, equal_var=False)
    low, high = (100 * bound for bound in test.confidence_interval(0.95))
    return f"""
As it comes (bf16 where the CPU is fast at it, compiled kernels) against layer by layer in fp32: a difference of
{low:+.3f} to {high:+.3f} points, the 95 % confidence interval by Welch's t over seeds, p = {test.pvalue:.2f}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fast-seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=["default", "fast", "best", "record"], help="a section of its own")
    parser.add_argument("--slowly", action="store_true", help="layer by layer in fp32, too: a section of its own")
    options = parser.parse_args()
    cases = {**SLOWLY, FAST: CASES[FAST]} if options.slowly else CASES
    if options.only:
        cases = {name: case for name, case in CASES.items() if case[1] in options.only}
    results: dict[str, list[Result]] = {name: [] for name in cases}
    for seed in range(max(options.seeds, options.fast_seeds)):
        for name, (contestant, config) in cases.items():
            if seed < (options.fast_seeds if config == "fast" else options.seeds):
                results[name].append(run(contestant, options.data_root, None, seed))
                print(f"seed {seed}: {name}: {results[name][-1]}", flush=True)
    title = "Accuracy, fast against slow" if options.slowly else "Accuracy"
    write_section(f"{title}, {' and '.join(options.only)} alone" if options.only else title, report(results))


if __name__ == "__main__":
    main()
