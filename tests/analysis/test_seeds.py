"""What counts as evidence: one value for each seed, whatever is repeated, and how many more would be enough."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mnist_tb import Tracker
from mnist_tb.analysis import compare, significance, tables
from mnist_tb.cli.main import main
from mnist_tb.config.hyperparameters import hyperparameters
from mnist_tb.config.load import flat_config
from mnist_tb.config.schema import Config
from mnist_tb.runs.query import list_runs, select_runs

FIRST, SECOND = (0.9912, 0.9915, 0.9907, 0.9911, 0.9905), (0.9903, 0.9899, 0.9906, 0.9902, 0.9897)


def track(logdir: Path, lr: float, accuracies: tuple[float, ...], repeats: int = 1) -> None:
    """A run of each seed, so many times."""
    for _ in range(repeats):
        for seed, accuracy in enumerate(accuracies):
            with Tracker(logdir, "run", {"lr": lr, "seed": seed}, dataset="letters") as tracker:
                tracker.scalars(1, {"accuracy/test": accuracy, "accuracy/val": accuracy})


@pytest.mark.parametrize("repeats", [1, 3])
def test_repeats_of_a_seed_are_no_new_evidence(repeats: int, tmp_path: Path) -> None:
    track(tmp_path, 0.1, FIRST, repeats)
    track(tmp_path, 0.01, SECOND)
    (section,) = compare.compare(list_runs(tmp_path).runs, "test_accuracy", group=True)
    first, second = section.lines
    expected = stats.ttest_ind(SECOND, FIRST, equal_var=False)
    assert second.difference is not None
    assert second.difference.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert (second.difference.low, second.difference.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert (first.values["n"], len(first.runs)) == (5, 5 * repeats)
    assert first.values["test_accuracy_deviation"] == pytest.approx(np.std(FIRST, ddof=1), rel=1e-6)
    columns = tables.header(section)
    assert tables.cells(section, first, columns)[:2] == (
        ["1, 2, +3", "5"] if repeats == 1 else ["1, 2, +13", "5 (15 runs)"]
    )


def test_what_cannot_be_tested_makes_no_level_stricter(tmp_path: Path) -> None:
    """Two configurations with seeds, and two of one seed each: one claim, at the level of one."""
    track(tmp_path, 0.1, FIRST)
    track(tmp_path, 0.2, SECOND)
    for lr in (0.3, 0.4):
        track(tmp_path, lr, SECOND[:1])
    (section,) = compare.compare(list_runs(tmp_path).runs, group=True)
    levels = [line.difference.level for line in section.lines if line.difference is not None]
    assert levels == [pytest.approx(0.95)] * 3
    assert "together" not in tables.footnote(section)


def test_the_verdict_says_which_of_the_two_has_one_seed(tmp_path: Path) -> None:
    track(tmp_path, 0.1, FIRST[:1])
    track(tmp_path, 0.2, SECOND)
    track(tmp_path, 0.3, SECOND[-1:])
    (section,) = compare.compare(list_runs(tmp_path).runs, "test_accuracy", group=True)
    assert [tables.cells(section, line, ["verdict"]) for line in section.lines] == [
        ["best"], ["best: one seed"], ["one seed"],
    ]  # fmt: skip


def test_lines_are_called_by_what_most_others_are_not(tmp_path: Path) -> None:
    """A recipe that changes ten settings at once does not lengthen the names of those that change one."""
    usual = {f"augment.of_some_kind_{number}": 0 for number in range(10)}
    recipe = dict.fromkeys(usual, 1)
    for settings in ({"lr": 0.1}, {"lr": 0.2}, {"lr": 0.1, "optimizer.name": "sgd"}, {"lr": 0.1, **recipe}):
        with Tracker(tmp_path, "run", {"optimizer.name": "adam", **usual, **settings}, dataset="letters") as tracker:
            tracker.scalars(1, {"accuracy/test": 0.5})
    (section,) = compare.compare(list_runs(tmp_path).runs, "name", group=True)
    names = compare.line_names([section])
    assert names[:3] == ["0001-run", "lr=0.2", "sgd"]
    assert names[3].startswith("augment.of_some_kind_0=1-augment.of_some_kind_1=1")
    short = compare.compare(list_runs(tmp_path).runs[:2], "name", group=True)[0]
    assert compare.line_names([short]) == ["lr=0.1", "lr=0.2"], "where there is room for all"


def test_the_same_run_twice_is_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, 0.1, FIRST[:1])
    assert len(select_runs(tmp_path, ["1", "1", "0001-run", "last"]).runs) == 1
    assert main(arguments=["compare", "1", "1", "1", "--group", "--format", "json", "--logdir", str(tmp_path)]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    (line,) = section["lines"]
    assert (line["n"], line["runs"], line["test_accuracy_deviation"]) == (1, ["0001-run"], None)


def test_a_seed_that_is_no_single_value_is_unknown(tmp_path: Path) -> None:
    for _ in range(2):
        with Tracker(tmp_path, "run", {"seed": [1, 2]}, dataset="letters") as tracker:
            tracker.scalars(1, {"accuracy/test": 0.5})
    (section,) = compare.compare(list_runs(tmp_path).runs, group=True)
    assert section.lines[0].values["n"] == 2


def test_runs_without_a_result_are_not_counted(tmp_path: Path) -> None:
    track(tmp_path, 0.1, FIRST)
    with Tracker(tmp_path, "run", {"lr": 0.1, "seed": 9}, dataset="letters"):
        pass
    (section,) = compare.compare(list_runs(tmp_path).runs, group=True)
    assert (section.lines[0].values["n"], len(section.lines[0].runs)) == (5, 6)


@pytest.mark.parametrize("key", ["seed_length", "namespace", "named_params", "data.root_mean", "tracking.fps"])
def test_settings_that_only_begin_like_incidental_ones_decide(key: str, tmp_path: Path) -> None:
    assert hyperparameters({key: 1, "name": "a", "seed": 2, "data.root": "b"}) == {key: 1}
    for value in (1, 2):
        with Tracker(tmp_path, "run", {key: value}, dataset="letters") as tracker:
            tracker.scalars(1, {"accuracy/test": 0.5})
    (section,) = compare.compare(list_runs(tmp_path).runs, group=True)
    assert len(section.lines) == 2


def test_every_tracking_key_is_incidental() -> None:
    """They decide what is written, not what is trained."""
    assert not any(key.startswith("tracking.") for key in hyperparameters(flat_config(Config())))


# ---- In words


def test_the_difference_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, 0.1, FIRST)
    track(tmp_path, 0.01, SECOND)
    assert main(arguments=["compare", "--group", "--logdir", str(tmp_path)]) == 0
    expected = stats.ttest_ind(FIRST, SECOND, equal_var=False).confidence_interval(0.95)
    value, low, high = (100 * x for x in (np.mean(FIRST) - np.mean(SECOND), expected.low, expected.high))
    sentence = f"lr=0.1 is {value:.2f} points better than lr=0.01 (95%: {low:.2f} to {high:.2f}) on the test set."
    assert capsys.readouterr().out.startswith(sentence)


@pytest.mark.parametrize(
    ("sort", "word"),
    [("val_accuracy", "best"), ("test_loss", "first"), ("started", "first"), ("seconds", "first"), ("name", "first")],
)
def test_only_an_order_by_a_result_has_a_best(
    sort: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run here has a test loss."""
    track(tmp_path, 0.1, FIRST)
    track(tmp_path, 0.01, SECOND)
    assert main(arguments=["compare", "--group", "--sort", sort, "--logdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"Δ vs {word}" in out
    assert re.search(rf"^\d.* {word} .*0\.\d", out, re.M)
    assert ("best" in out) == (word == "best")


def test_an_order_by_the_test_set_says_what_it_favours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, 0.1, FIRST)
    track(tmp_path, 0.01, SECOND)
    for sort, is_said in (("test_accuracy", True), ("val_accuracy", False)):
        assert main(arguments=["compare", "--group", "--sort", sort, "--logdir", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert ("The lines are ranked by the same test set, which favours the first." in out) == is_said


def test_of_a_better_second_line_it_is_said_what_the_order_is(tmp_path: Path) -> None:
    track(tmp_path, 0.01, SECOND)
    track(tmp_path, 0.1, FIRST)
    for sort in ("started", "name"):  # the newest first, and the oldest
        (section,) = compare.compare(list_runs(tmp_path).runs, sort, group=True)
        assert tables.summary(section).startswith("lr=0.1 is 0.09 points better than lr=0.01 (95%: 0.0")
        assert tables.summary(section).endswith(" on the test set.")
    runs = [replace(run, val_accuracy=1 - (run.val_accuracy or 0.0)) for run in list_runs(tmp_path).runs]
    by_validation = compare.compare(runs, group=True)[0]
    assert tables.summary(by_validation).endswith(
        " on the test set, though lr=0.01 is the best by validation accuracy."
    )


def test_a_run_that_is_repeated_gives_the_same_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with Tracker(tmp_path, "run", {"lr": 0.1, "seed": 0}, dataset="letters") as tracker:
            tracker.scalars(1, {"accuracy/test": 0.5, "accuracy/val": 0.5})
            tracker.predictions(np.zeros(4, int), np.eye(2)[[0, 0, 1, 1]])
    assert main(arguments=["compare", "--logdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0001-run and 0002-run give the same answers to all test images.\n")
    assert re.search(r"0002-run .* 0\.00 .* same answers", out)
    assert "-0.00" not in out


@pytest.mark.parametrize(("second", "text"), [(FIRST, " 0.00 "), (tuple(a - 3e-5 for a in FIRST), " -0.003 ")])
def test_a_small_difference_keeps_its_sign_and_none_has_none(
    second: tuple[float, ...], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    track(tmp_path, 0.1, FIRST)
    track(tmp_path, 0.01, second)
    assert main(arguments=["compare", "--group", "--sort", "test_accuracy", "--logdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert text in out
    assert not re.search(r"[+-]0\.00(?!\d)", out)


def test_too_few_seeds_are_said_with_how_many_would_do(tmp_path: Path) -> None:
    track(tmp_path, 0.1, (0.991, 0.989, 0.992))
    track(tmp_path, 0.01, (0.990, 0.988, 0.991))
    (section,) = compare.compare(list_runs(tmp_path).runs, "test_accuracy", group=True)
    need = section.seeds_needed
    assert need is not None
    assert need > 3
    assert f"do not differ significantly: 0.10 points (95%: -0.25 to 0.45). {need} seeds of each" in tables.summary(
        section
    )


def test_the_seeds_needed_are_enough_by_simulation() -> None:
    """With so many seeds, four of five experiments find the difference; with a third fewer, clearly not."""
    ours, theirs = (0.991, 0.989, 0.992), (0.990, 0.988, 0.991)
    need = significance.seeds_needed(ours, theirs)
    assert need is not None
    random = np.random.default_rng(0)
    found = {}
    for count in (need, 2 * need // 3):
        samples = (random.normal(np.mean(side), np.std(side, ddof=1), (4_000, count)) for side in (ours, theirs))
        found[count] = (stats.ttest_ind(*samples, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert found[need] == pytest.approx(0.8, abs=0.03)
    assert found[2 * need // 3] < 0.7


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [2.0, 1.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_nothing_is_said_of_seeds_where_nothing_is_known(ours: list[float], theirs: list[float]) -> None:
    assert significance.seeds_needed(ours, theirs) is None


def test_a_metric_that_is_not_finite_is_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, 0.1, FIRST[:1])
    path = tmp_path / "0001-run" / "metrics.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "config": {"lr": math.inf, "seed": 0, "decay": math.nan}}))
    with Tracker(tmp_path, "run", {"lr": 0.1}, dataset="letters"):
        pass
    assert main(arguments=["compare", "--format", "json", "--logdir", str(tmp_path)]) == 0
    lines = json.loads(capsys.readouterr().out)[0]["lines"]
    assert next(line for line in lines if line["run"] == "0001-run")["settings"]["lr"] is None
