"""What a sweep has found: its best points with their spread over seeds, and the best configuration as a file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_tb.analysis import significance
from mnist_tb.config.hyperparameters import format_value
from mnist_tb.config.load import dump_config
from mnist_tb.config.schema import LONGEST_NAME
from mnist_tb.errors import TrainingError
from mnist_tb.runs.files import write_atomically
from mnist_tb.sweep.plan import Plan, rounded, short
from mnist_tb.sweep.study import Result, Study

BEST = "best.yaml"


def ranked(results: Sequence[Result]) -> list[Result]:
    """The complete trials, highest mean accuracy first; equal ones in the order of their numbers."""
    complete = [result for result in results if result.state == "complete" and result.accuracies]
    return sorted(complete, key=lambda result: (-statistics.mean(result.accuracies.values()), result.number))


def write_best(plan: Plan, best: Result, folder: Path) -> Path:
    """Write the best point as a full configuration, for `mnist-tb train --config`; its path. Raises OSError."""
    config = plan.config(best.point, plan.base.seed)
    named = config.model_copy(update={"name": f"{plan.name[: LONGEST_NAME - 5]}-best"})
    path = folder / BEST
    run, accuracy = plan.run_number(best.number, plan.seeds[0]), statistics.mean(best.accuracies.values())
    head = f"# The best of the sweep {plan.name}: run {run}, {accuracy:.3%} on validation.\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (head + dump_config(named)).encode())
    return path


def rows(plan: Plan, best: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """A table of trials: its column titles, and one row per trial. Accuracies are in percent, times in seconds."""
    several = len(plan.seeds) > 1
    titles = ["run", *(short(key) for key in plan.space), "val %", *(["±"] if several else []), "s"]
    return titles, [_row(plan, result, several) for result in best]


def _row(plan: Plan, result: Result, several: bool) -> list[str]:
    accuracies = [100 * value for value in result.accuracies.values()]
    numbers = [plan.run_number(result.number, seed) for seed in plan.seeds]
    run = f"{numbers[0]:04d}" + (f"–{numbers[-1]:04d}" if several else "")
    spread = [f"{statistics.stdev(accuracies):.3f}"] if several else []
    values: list[Any] = [result.point[key] for key in plan.space]
    formatted = [format_value(rounded(value)) for value in values]
    return [run, *formatted, f"{statistics.mean(accuracies):.3f}", *spread, f"{result.seconds:.1f}"]


def verdict(best: Sequence[Result]) -> str | None:
    """Whether the first is better than the second on validation, by Welch's t-test over seeds; None if undefined.

    The trials were ranked by the same scores, so the test favours the first.
    """
    if len(best) < 2:
        return None
    ours, theirs = ([100 * value for value in result.accuracies.values()] for result in best[:2])
    found = significance.welch(ours, theirs)
    if found.p is None:
        return None
    bounds = f"{found.value:+.3f} points, {found.level:.0%} interval {found.low:+.3f} to {found.high:+.3f}"
    better = "better than the second" if found.significant else "no better than the second, as far as these seeds tell"
    p = "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    return (
        f"On validation the first is {better}: {bounds}, p {p}. The trials are ranked by these scores,"
        " which favours the first; mnist-tb compare uses the test set."
    )


def require_best(study: Study) -> list[Result]:
    """As `ranked`. Raises TrainingError if no trial is complete."""
    results = study.results()
    best = ranked(results)
    if not best:
        errors = [result.error for result in results if result.error]
        raise TrainingError("no trial of the sweep is complete" + (f": {errors[-1]}" if errors else ""))
    return best
