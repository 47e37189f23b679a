"""A search over configurations: every trial is run once, whatever is killed, on one machine or on several."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from helpers.board import Board
from helpers.events import read_events
from helpers.fixtures import Here
from helpers.paths import REPOSITORY
from helpers.processes import wait_until_gone
from helpers.sweeps import TINY, accounted_for, command, finish, workers, write_file
from helpers.zygote import Zygote
from mnist_tb import train
from mnist_tb.cli.main import main
from mnist_tb.config.load import load_config
from mnist_tb.engine.process import available_cores
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.locks import is_locked
from mnist_tb.sweep import pool, result
from mnist_tb.sweep.locks import FileLocks, cut_torn_line
from mnist_tb.sweep.plan import Plan, load_plan
from mnist_tb.sweep.storage import JOURNAL, storage_errors
from mnist_tb.sweep.study import Result, Study
from mnist_tb.sweep.worker import gpu


@pytest.fixture(scope="module")
def swept(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, str]:
    """A finished sweep of four points with two seeds, by two workers; its plan, folder and output. Do not change it."""
    folder = tmp_path_factory.mktemp("swept")
    file = write_file(folder, seeds=[0, 1])
    out = finish(zygote, file, folder / "runs", "--workers", "2")
    return load_plan(file), folder / "runs" / "tiny", out


Open = Callable[..., Study]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Open]:
    """Opens the study of TINY with some keys changed; closes it afterwards."""
    with contextlib.ExitStack() as opened:

        def open_study(folder: Path = tmp_path, **changes: Any) -> Study:
            return opened.enter_context(Study(load_plan(write_file(tmp_path, **changes)), folder, None))

        yield open_study


# ---- The file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": None}, "tiny.yaml: space is missing"),
        ({"trials": None}, "trials is missing: the number of points for the sampler random to try"),
        ({"trial": 5}, "tiny.yaml:25: unknown key trial; did you mean trials?"),
        ({"zzz": 5}, "tiny.yaml:25: unknown key zzz; the keys are name, base, set, space, trials"),
        ({"trials": 0}, "trials must be at least 1, not 0"),
        ({"name": "a/b"}, "name must be 1 to 40 letters"),
        ({"seeds": []}, "seeds must have 1 entries"),
        ({"seeds": [1, 1]}, "seeds: a value is listed twice"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml is not a file"),
        ({"base": "nowhere"}, "tiny.yaml:1: base: nowhere: there is no configuration of that name"),
        ({"set": {"train": {"epoch": 3}}}, "unknown key train.epoch; did you mean train.epochs?"),
        ({"sampler": {"name": "best"}}, "sampler.name must be 'tpe', 'random' or 'grid', not 'best'"),
        ({"pruner": {"name": "median", "startup": 0}}, "pruner.startup must be at least 1, not 0"),
        ({"space": {"train.lrr": [1e-3]}}, "unknown key train.lrr; did you mean train.lr?"),
        ({"space": {"train.lr": [1e-3, -1.0]}}, "tiny.yaml:15: train.lr must be greater than 0.0, not -1.0"),
        ({"space": {"train.lr": [1e-3, 1e-3]}}, "space.train.lr: a value is listed twice"),
        ({"space": {"train.lr": []}}, "must be a list of values or {low: …, high: …, log: …}, not []"),
        ({"space": {"train.lr": 5}}, "must be a list of values or {low: …, high: …, log: …}, not 5"),
        ({"space": {"train.lr": {"low": 1e-3}}}, "tiny.yaml:15: space.train.lr.high is missing"),
        (
            {"space": {"train.lr": {"low": 1e-3, "high": 1e-2, "step": 2}}},
            "unknown key space.train.lr.step; it has low, high, log",
        ),
        (
            {"space": {"train.batch_size": {"low": 1, "high": 3, "integer": True}}},
            "unknown key space.train.batch_size.integer",
        ),
        ({"set": {"train": {"lr": 1e-3}}}, "set.train.lr: the sweep searches over it"),
        ({"space": {"train.lr": {"low": 1e-2, "high": 1e-3}}}, "low 0.01 must be less than high 0.001"),
        ({"space": {"train.label_smoothing": {"low": 0.0, "high": 0.1, "log": True}}}, "low must be greater than 0"),
        (
            {"space": {"train.batch_size": {"low": 0.5, "high": 8}}},
            "space.train.batch_size: low and high must be whole numbers",
        ),
        (
            {"space": {"seed": [1, 2]}},
            "seed cannot be searched over: the seeds that each point is trained with are listed",
        ),
        ({"space": {"name": ["a", "b"]}}, "name cannot be searched over"),
        ({"space": {"device": ["cpu", "cuda"]}}, "space.device cannot be searched over: it does not affect the result"),
        (
            {"space": {"data.root": ["a", "b"]}},
            "space.data.root cannot be searched over: it does not affect the result",
        ),
        ({"space": {"train": [{"epochs": 1}]}}, "space.train is a group of keys: write train.epochs"),
        ({"space": {"train": {"lr": [1e-3, 1e-2]}}}, "space.train is a group of keys: write train.epochs"),
        ({"space": {"train.lr": {"low": "a", "high": 1}}}, "space.train.lr.low must be a number, not 'a'"),
        ({"space": [1]}, "space must be a group of keys, not [1]"),
        ({"set": [1]}, "set must be a group of keys, not [1]"),
        ({"sampler": "tpe"}, "sampler must be a group of keys, not 'tpe'"),
        (
            {"pruner": {"name": "median"}, "set": {"train": {"evaluate_every": 0}}},
            "pruner: with train.evaluate_every 0 there is nothing to prune by",
        ),
        ({"sampler": {"name": "grid"}, "trials": None}, "space.train.lr must be a list of values: the sampler is grid"),
        ({"sampler": {"name": "grid"}, "space": {"train.lr": [1e-3, 1e-2]}}, "the grid has 2 points, not 4"),
    ],
)
def test_an_error_in_the_file_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_file(tmp_path, **changes)
    assert main(arguments=["sweep", str(file), "--logdir", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mnist-tb: {file}")
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_the_sweeps_that_are_included_can_be_read() -> None:
    files = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        plan = load_plan(file)
        assert plan.name == file.stem
        assert plan.trials > 1


def test_a_grid_has_every_point_once(tmp_path: Path) -> None:
    space = {
        "train.lr": [1e-3, 1e-2],
        "model.channels": [[4, 8, 8], [8, 8, 8], [8, 16, 16]],
        "optimizer.name": ["sgd"],
    }
    plan = load_plan(
        write_file(tmp_path, space=space, set={"train": {"epochs": 2}}, sampler={"name": "grid"}, trials=None)
    )
    assert plan.trials == 6
    points = [plan.grid_point(number) for number in range(6)]
    assert points[1] == {"train.lr": 1e-3, "model.channels": [8, 8, 8], "optimizer.name": "sgd"}
    assert len({json.dumps(point) for point in points}) == 6
    config = plan.config(points[5], 0)
    assert (config.train.lr, config.model.channels, config.train.epochs) == (1e-2, (8, 16, 16), 2)
    assert config.name == "lr0.01-ch8-16-16-sgd"


def test_every_run_has_a_number_of_its_own(tmp_path: Path) -> None:
    plan = load_plan(write_file(tmp_path, seeds=[7, 0, 3]))
    numbers = [plan.run_number(trial, seed) for trial in range(4) for seed in plan.seeds]
    assert numbers == list(range(1, 13))


# ---- The locks


def start_holder(path: Path, trial: int) -> subprocess.Popen[str]:
    """A process that acquires a trial's lock and does not release it."""
    code = (
        "import sys, time, pathlib; from mnist_tb.sweep.locks import FileLocks\n"
        f"locks = FileLocks(pathlib.Path({str(path)!r})); print(locks.acquire({trial}), flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    other = start_holder(path, 3)
    locks = FileLocks(path)
    assert not locks.acquire(3)
    assert locks.acquire(4)
    other.kill()
    other.communicate()
    assert locks.acquire(3)
    locks.release(3)
    third = start_holder(path, 3)
    third.kill()
    third.communicate()


@pytest.mark.parametrize(
    ("content", "kept"),
    [(b"", b""), (b"one\ntwo\n", b"one\ntwo\n"), (b"one\ntw", b"one\n"), (b"tw", b""), (b"o\n" + 9999 * b"x", b"o\n")],
)
def test_a_torn_line_is_cut_off(content: bytes, kept: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(content)
    cut_torn_line(tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == kept


def test_a_worker_killed_while_it_wrote_the_journal(study: Open, tmp_path: Path) -> None:
    """Optuna alone would append to the torn line, and could then no longer read the journal."""
    claimed = study().claim()
    assert claimed is not None
    with open(tmp_path / JOURNAL, "ab") as journal:
        journal.write(b'{"op_code":5,"worker_id":"a')
    claimed.complete({0: 0.5}, 1.0)
    assert [one.accuracies for one in study().results()] == [{0: 0.5}]
    for line in (tmp_path / JOURNAL).read_bytes().splitlines():
        json.loads(line)


# ---- Claiming trials


def test_a_trial_without_a_worker_is_claimed_again(study: Open) -> None:
    """In one process, which may acquire its own locks again: the first trial that is not finished comes first."""
    trials = study(trials=2)
    first = trials.claim()
    again = trials.claim()
    assert first is not None
    assert again is not None
    assert (first.number, again.number) == (0, 0)
    assert first.point == again.point
    again.complete({0: 0.5}, 1.0)
    second = trials.claim()
    assert second is not None
    assert second.number == 1
    second.fail("a reason")
    assert trials.claim() is None
    assert [one.state for one in trials.results()] == ["complete", "failed"]
    assert trials.results()[1].error == "a reason"


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_no_more_trials_than_planned(sampler: str, study: Open, tmp_path: Path) -> None:
    space = {"train.lr": [1e-3, 1e-2], "train.batch_size": [32, 64]}
    trials = None if sampler == "grid" else 4
    opened = study(space=space, sampler={"name": sampler, "startup": 2}, trials=trials)
    points = []
    while (claimed := opened.claim()) is not None:
        points.append(claimed.point)
        claimed.complete({0: claimed.point["train.lr"]}, 1.0)
    assert len(points) == 4
    assert all(point["train.lr"] in (1e-3, 1e-2) and point["train.batch_size"] in (32, 64) for point in points)
    if sampler == "grid":
        plan = load_plan(tmp_path / "tiny.yaml")
        assert points == [plan.grid_point(number) for number in range(4)]


def test_random_points_do_not_depend_on_who_asks(study: Open, tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        points = []
        for number in range(4):
            if name == "one" or number % 2 == 0:
                opened = study(tmp_path / name)
            claimed = opened.claim()
            assert claimed is not None
            points.append(claimed.point)
            claimed.complete({0: 0.1}, 1.0)
        found.append(points)
    assert found[0] == found[1]
    assert len({point["train.lr"] for point in found[0]}) == 4


def test_a_sweep_can_be_extended_but_not_changed(study: Open) -> None:
    claimed = study(trials=1).claim()
    assert claimed is not None
    claimed.complete({0: 0.5}, 1.0)
    assert study(trials=2).counts().left == 1
    other = {**TINY["set"], "train": {"epochs": 3}}
    with pytest.raises(
        InputError, match=r"sweep tiny: it was started with train.epochs 2, not 3; give this one another"
    ):
        study(set=other)


def test_a_trial_that_ends_its_workers_fails(study: Open) -> None:
    """A point that needs too much memory, for example. Attempts that make progress do not count."""
    claimed = study().claim()
    assert claimed is not None
    assert [claimed.record_attempt(step) for step in (0, 20, 40, 60, 80, 100, 120)] == [True] * 7
    assert [claimed.record_attempt(120) for _ in range(5)] == [True] * 4 + [False]


def test_stopping_does_not_count_as_an_attempt(study: Open) -> None:
    claimed = study().claim()
    assert claimed is not None
    for _ in range(20):
        assert claimed.record_attempt(0)
        claimed.reset_attempts()


def test_a_trial_that_is_finished_while_it_is_being_claimed(study: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker stores the result and releases it after another worker has read that it is running."""
    opened = study()
    claimed = opened.claim()
    assert claimed is not None
    stale = opened._study.get_trials()
    assert [trial.state.name for trial in stale] == ["RUNNING"]
    claimed.complete({0: 0.5}, 1.0)
    monkeypatch.setattr(opened._study, "get_trials", lambda **options: stale)
    found = opened._choose()
    assert found.number == 1


def test_a_run_of_another_sweep_is_not_used(
    tmp_path: Path, swept: tuple[Plan, Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """For example, the journal was deleted and the file changed."""
    shutil.copytree(swept[1], tmp_path / "runs" / "tiny")
    (tmp_path / "runs" / "tiny" / JOURNAL).unlink()
    file = write_file(tmp_path, space={"train.lr": [1e-7]}, sampler={"name": "grid"}, trials=None)
    assert main(arguments=["sweep", str(file), "--logdir", str(tmp_path / "runs")]) == 2
    error = capfd.readouterr().err
    assert "0001-lr" in error
    assert ": is not a run of this sweep: move it away, or give the sweep another name" in error


def test_a_run_folder_is_not_a_sweep_folder(
    tmp_path: Path, swept: tuple[Plan, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(list_run_folders(swept[1])[0].path, tmp_path / "runs" / "tiny")
    assert main(arguments=["sweep", str(write_file(tmp_path)), "--logdir", str(tmp_path / "runs")]) == 2
    assert "tiny: is a run's folder: give the sweep another name" in capsys.readouterr().err


def test_the_command_line_takes_precedence_over_the_file(tmp_path: Path) -> None:
    file = write_file(tmp_path)
    assert load_plan(file).base.train.epochs == 2
    assert load_plan(file, ["train.epochs=5"]).base.train.epochs == 5
    for text, reason in (("train.lr=1", "the sweep searches over it"), ("seed=3", "listed under seeds")):
        with pytest.raises(InputError, match=f"--set {text}: .*{reason}"):
            load_plan(file, [text])


def test_no_trial_falls_back_to_other_data(tmp_path: Path) -> None:
    assert load_plan(write_file(tmp_path, base=str(REPOSITORY / "configs" / "default.yaml"))).base.data.fallback is None


def test_numbers_are_integers_for_integer_keys(study: Open) -> None:
    space = {"augment.rotate": {"low": 0, "high": 10}, "train.batch_size": {"low": 32, "high": 64}}
    claimed = study(space=space).claim()
    assert claimed is not None
    assert isinstance(claimed.point["augment.rotate"], float)
    assert not claimed.point["augment.rotate"].is_integer()
    assert isinstance(claimed.point["train.batch_size"], int)


def test_pruned_by_the_median(study: Open) -> None:
    pruner = {"name": "median", "startup": 2, "warmup": 1}
    opened = study(pruner=pruner, seeds=[0, 1])
    for accuracy in (0.8, 0.9):
        claimed = opened.claim()
        assert claimed is not None
        for seed in (0, 1):
            assert claimed.should_continue(seed, 1, accuracy)
            assert claimed.should_continue(seed, 2, accuracy)
        claimed.complete({0: accuracy, 1: accuracy}, 1.0)
    claimed = opened.claim()
    assert claimed is not None
    assert claimed.should_continue(0, 1, 0.1)  # the warm-up
    assert claimed.should_continue(0, 2, 0.95)
    assert claimed.should_continue(1, 1, 0.95)
    claimed.complete({0: 0.95, 1: 0.95}, 1.0)
    claimed = opened.claim()
    assert claimed is not None
    assert claimed.should_continue(0, 1, 0.1)
    assert not claimed.should_continue(0, 2, 0.7)
    assert not claimed.should_continue(0, 2, 0.7)  # reported again after a kill
    claimed.prune()
    assert opened.results()[-1].state == "pruned"


def test_hyperband_prunes(study: Open) -> None:
    longer = {**TINY["set"], "train": {"epochs": 9}}
    opened = study(set=longer, pruner={"name": "hyperband"}, trials=30)
    for number in range(30):
        claimed = opened.claim()
        assert claimed is not None
        accuracy = 0.9 - number / 100
        for epoch in range(1, 10):
            if not claimed.should_continue(0, epoch, accuracy):
                claimed.prune()
                break
        else:
            claimed.complete({0: accuracy}, 1.0)
    counts = opened.counts()
    assert counts.pruned > 5
    assert counts.complete > 0
    assert counts.finished == 30


@pytest.mark.parametrize(
    ("index", "visible", "count", "expected"),
    [(0, None, 2, "0"), (5, None, 3, "2"), (1, "4,7", 2, "7"), (2, "4,7", 2, "4")],
)
def test_workers_share_the_gpus(index: int, visible: str | None, count: int, expected: str) -> None:
    assert gpu(index, visible, count) == expected


# ---- The result


def outcome(number: int, *accuracies: float, state: str = "complete") -> Result:
    return Result(number, state, {"train.lr": 1e-3 * (number + 1)}, dict(enumerate(accuracies)), "", 1.0)


def test_ranked_by_the_mean_and_shown_with_its_spread(tmp_path: Path) -> None:
    plan = load_plan(write_file(tmp_path, space={"train.lr": [1e-3, 2e-3]}, seeds=[0, 1, 2]))
    best = result.ranked(
        [outcome(0, 0.9, 0.91, 0.92), outcome(1, 0.95, 0.96, 0.97), outcome(2, 0.99, state="pruned"), outcome(3)]
    )
    assert [one.number for one in best] == [1, 0]
    titles, rows = result.rows(plan, best)
    assert titles == ["run", "lr", "val %", "±", "s"]
    assert rows == [["0004–0006", "2e-3", "96.000", "1.000", "1.0"], ["0001–0003", "1e-3", "91.000", "1.000", "1.0"]]
    verdict = result.verdict(best)
    assert verdict is not None
    assert verdict.startswith("On validation the first is better than the second: +5.000 points, 95% interval +2.7")
    assert verdict.split(". The")[0].endswith("p = 0.004")
    assert result.verdict([outcome(0, 0.9), outcome(1, 0.8)]) is None
    close = result.verdict([outcome(0, 0.9, 0.8), outcome(1, 0.85, 0.8)])
    assert close is not None
    assert close.startswith("On validation the first is no better than the second, as far as these seeds tell: ")


def test_what_a_sweep_writes(swept: tuple[Plan, Path, str]) -> None:
    plan, folder, out = swept
    results = accounted_for(plan, folder)
    assert {one.state for one in results} == {"complete"}
    best = result.ranked(results)[0]
    config = load_config(folder / "best.yaml")
    assert config.train.lr == best.point["train.lr"]
    assert config.train.batch_size == best.point["train.batch_size"]
    assert (config.name, config.train.epochs) == ("tiny-best", 2)
    assert out.startswith("Sweep tiny: 4 trials, 2 seeds each; 2 workers, ")
    assert len(re.findall(r"^Trial \d of 4: lr .*, batch_size .*: .*% .*% on validation, .* s$", out, re.M)) == 4
    assert (
        len(re.findall(r"^seed 0 of trial \d of 4: lr .*, batch_size .*: [^ ]*% on validation, .* s$", out, re.M)) == 4
    )
    assert "\n4 trials: 4 complete\nThe best on validation\n" in out
    assert "What decides whether a trial is among the best: train." in out
    assert f"The best configuration: {folder / 'best.yaml'}" in out
    assert sorted(run.name[:4] for run in list_run_folders(folder)) == [f"{number:04d}" for number in range(1, 9)]


def test_a_finished_sweep_prints_its_result_again(
    swept: tuple[Plan, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder, out = swept
    shutil.copytree(folder.parent, tmp_path / "runs")
    file = write_file(tmp_path, seeds=[0, 1])
    assert main(arguments=["sweep", str(file), "--logdir", str(tmp_path / "runs")]) == 0
    again = capsys.readouterr().out
    table = out[out.index("\n4 trials") :].replace(str(folder), str(tmp_path / "runs" / "tiny"))
    assert again == table


def test_a_trial_is_a_row_and_its_runs_are_runs(
    swept: tuple[Plan, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In HParams of a real TensorBoard, and in compare."""
    _, folder, _ = swept
    board = Board(folder)
    try:
        end = time.monotonic() + 60
        groups: list[Any] = []
        while len(groups) < 4 and time.monotonic() < end:
            time.sleep(0.5)
            try:
                asked = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "startIndex": 0,
                         "sliceSize": 100}  # fmt: skip
                groups = board.get("data/plugin/hparams/session_groups", asked)["sessionGroups"]
            except (OSError, KeyError):
                continue
        assert sorted(len(group["sessions"]) for group in groups) == [2, 2, 2, 2]
        assert sorted(board.get("data/runs")) == sorted(run.name for run in list_run_folders(folder))
    finally:
        board.process.terminate()
        board.process.wait(30)
    assert main(arguments=["compare", "--group", "--format", "json", "--logdir", str(folder)]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    assert [line["n"] for line in section["lines"]] == [2, 2, 2, 2]
    assert main(arguments=["runs", "list", "--logdir", str(folder.parent)]) == 0
    assert capsys.readouterr().out.count("tiny/0") == 8


# ---- Killed, stopped, failed


@pytest.mark.slow
@pytest.mark.timeout(600)  # eight processes that import torch, one after the other
def test_killed_and_stopped_it_gives_the_same_result(
    zygote: Zygote, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed, all processes killed, then stopped: the same points and accuracies as without interruption."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(max(available_cores() // 2, 1)))  # as many as each of two workers has
    file = write_file(tmp_path, trials=5, set={**TINY["set"], "train": {"epochs": 8}})
    plan = load_plan(file)
    alone, logdir = tmp_path / "alone", tmp_path / "runs"
    assert here(*command(file, alone))[0] == 0

    process = zygote.start(*command(file, logdir, "--workers", "2"))
    process.until("Trial ")
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    process.until("Worker ")
    process.until("Trial ")
    there = workers(process.pid)
    assert len(there) == 2
    process.kill()
    process.communicate()
    wait_until_gone(there)  # they save first, then end by themselves
    statuses = collections.Counter(run.read_metrics()["status"] for run in list_run_folders(logdir / "tiny"))
    assert set(statuses) <= {"completed", "interrupted", "running"}
    assert statuses["completed"] >= 2

    process = zygote.start(*command(file, logdir, "--workers", "2"))
    process.until("Trial ")
    there = workers(process.pid)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "trials are finished; the same command continues the sweep." in out
    wait_until_gone(there)

    finish(zygote, file, logdir, "--workers", "2")
    ours, theirs = accounted_for(plan, logdir / "tiny"), accounted_for(plan, alone / "tiny")
    assert [(one.point, one.accuracies, one.state) for one in ours] == [
        (one.point, one.accuracies, one.state) for one in theirs
    ]


def test_a_signal_during_any_write_of_the_journal(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is locked then: an exception raised there kept it locked, and the worker waited for itself."""
    file = write_file(tmp_path, trials=2)
    left = 0

    def cut(path: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        cut_torn_line(path)

    monkeypatch.setattr("mnist_tb.sweep.locks.cut_torn_line", cut)
    codes = []
    for number in range(1, 100):
        left = number
        codes.append(here(*command(file, tmp_path / "runs"))[0])
        if codes[-1] == 0:
            break
    assert codes == [*[143] * (len(codes) - 1), 0]
    assert len(codes) > 5
    assert len(accounted_for(load_plan(file), tmp_path / "runs" / "tiny")) == 2


def test_an_interrupted_repair_leaves_no_lock(study: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = study().claim()
    assert claimed is not None

    def cut(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mnist_tb.sweep.locks.cut_torn_line", cut)
        with pytest.raises(KeyboardInterrupt) as kept:
            claimed.complete({0: 0.5}, 1.0)
    claimed.complete({0: 0.5}, 1.0)
    assert kept.traceback, "what was raised still holds its frames"
    assert [one.state for one in study().results()] == ["complete"]


@pytest.mark.slow
def test_a_pruned_run_says_so_everywhere(here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not evaluated on the test set, and can be resumed by hand."""
    space = {"train.lr": [1e-2, 2e-2, 3e-2, 1e-6]}
    pruner = {"name": "median", "startup": 2, "warmup": 0}
    file = write_file(tmp_path, space=space, sampler={"name": "grid"}, trials=None, pruner=pruner)
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert "Trial 4 of 4: lr 1e-6: pruned after epoch 1, " in out
    results = accounted_for(load_plan(file), tmp_path / "runs" / "tiny")
    assert results[3].state == "pruned"
    run = list_run_folders(tmp_path / "runs" / "tiny")[-1]
    metrics = run.read_metrics()
    assert metrics["status"] == "pruned"
    assert metrics["epoch"] == 1
    assert "test" not in metrics
    events = read_events(run)
    assert "accuracy/test" not in events.Tags()["scalars"]
    assert main(arguments=["runs", "list", "--logdir", str(run.path.parent)]) == 0
    assert re.search(r"0004-lr1e-6 +pruned ", capsys.readouterr().out)
    assert main(arguments=["resume", str(run.path)]) == 0
    assert run.read_metrics()["status"] == "completed"
    assert run.read_metrics()["test"]["accuracy"] > 0


def test_a_run_with_a_broken_checkpoint_starts_over(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_file(tmp_path, trials=1)
    folder = tmp_path / "runs" / "tiny"

    def stop(context: Any, state: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "log_training", stop)
        code, _, error = here(*command(file, tmp_path / "runs"))
    assert (code, error.strip()) == (130, "mnist-tb: interrupted")
    (run,) = list_run_folders(folder)
    assert run.read_metrics()["status"] == "interrupted"
    run.last_checkpoint.write_bytes(b"broken")
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert re.search(r"last\.pt: .* broken; the run starts over", out)
    assert len(accounted_for(load_plan(file), folder)) == 1


def test_a_point_that_cannot_be_trained_fails_alone(here: Here, tmp_path: Path) -> None:
    file = write_file(tmp_path, space={"train.lr": [1e-2, 1e30]}, sampler={"name": "grid"}, trials=None)
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert re.search(r"Trial 2 of 2: lr 1e30: failed: the (training|validation) loss is NaN or infinite", out)
    assert "2 trials: 1 complete, 1 failed" in out
    results = accounted_for(load_plan(file), tmp_path / "runs" / "tiny")
    assert "NaN or infinite" in results[1].error


def test_no_trial_complete(here: Here, tmp_path: Path) -> None:
    file = write_file(tmp_path, space={"train.lr": [1e30]}, sampler={"name": "grid"}, trials=None)
    code, _, error = here(*command(file, tmp_path / "runs"))
    assert code == 1
    assert "mnist-tb: no trial of the sweep is complete: the " in error


def test_a_configuration_is_no_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["sweep", "fast"]) == 2
    assert "fast.yaml: is a configuration, not a sweep; train it by: " in capsys.readouterr().err
    assert main(arguments=["sweep", "lr"]) == 2
    assert "lr: there is no configuration of that name; did you mean sweeps/lr?" in capsys.readouterr().err


def test_missing_data_end_the_sweep(zygote: Zygote, tmp_path: Path) -> None:
    file = write_file(tmp_path, base=str(REPOSITORY / "configs" / "default.yaml"))
    arguments = ("--data-root", str(tmp_path / "nothing"), "--workers", "2")
    code, _, error = zygote.run(*command(file, tmp_path / "runs", *arguments))
    assert code == 2
    assert error.startswith(f"mnist-tb: {tmp_path / 'nothing'}: holds no mnist: ")
    assert error.count("\n") == 1, "said once, and not by every worker"
    assert list_run_folders(tmp_path / "runs" / "tiny") == []


def test_workers_that_are_killed_again_and_again_end_the_sweep(
    study: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pool, "_start", lambda task, threads: subprocess.Popen(["sh", "-c", "kill -9 $$"], stdin=subprocess.PIPE)
    )
    lines: list[str] = []
    opened = study()
    with pytest.raises(TrainingError, match="11 workers were killed without finishing a trial"):
        pool.sweep(load_plan(tmp_path / "tiny.yaml"), opened, tmp_path, None, 1, lines.append)
    assert lines.count("Worker 1 was killed (SIGKILL); another one takes its place") == 10


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://localhost/a", "--storage mysql://localhost/a: give postgresql://… or the path of a journal file"),
        ("mysql://me:geheim@localhost/a", "--storage mysql://(hidden)@localhost/a: give "),
        ("postgresql://127.0.0.1:1/none", "--storage: PostgreSQL cannot be reached: connection"),
        ("postgres://me:geheim@127.0.0.1:1/none", "--storage: PostgreSQL cannot be reached: connection"),
        ("postgresql://me:ge@heim@localhost/a", "--storage: write postgresql://user:password@host/database, with %40"),
        ("postgresql://localhost/a?password=ge&heim", "--storage: write postgresql://user:password@host/database, "),
        ("/proc/journal", "/proc/journal: the sweep's journal cannot be written"),
    ],
)
def test_storage_that_cannot_be_opened(
    storage: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MNIST_TB_STORAGE", storage)
    arguments = ["sweep", str(write_file(tmp_path)), "--logdir", str(tmp_path / "runs")]
    assert main(arguments=arguments) == 2
    assert capsys.readouterr().err.startswith(f"mnist-tb: {message}")


def test_a_file_that_is_not_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal").write_text("no\njournal\n")
    arguments = ["sweep", str(write_file(tmp_path)), "--storage", str(tmp_path / "journal"), "--logdir", str(tmp_path)]
    assert main(arguments=arguments) == 2
    assert f"mnist-tb: {tmp_path / 'journal'}: is not the journal of a sweep" in capsys.readouterr().err


def test_torchrun_is_not_for_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert main(arguments=["sweep", str(write_file(tmp_path)), "--logdir", str(tmp_path / "runs")]) == 2
    assert "start it without torchrun, once on each machine" in capsys.readouterr().err


def test_an_error_of_the_storage_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match="the sweep's storage failed: a reason"), storage_errors():
        raise optuna.exceptions.StorageInternalError("a reason\nand more")


@pytest.mark.slow
def test_two_machines_with_one_journal(zygote: Zygote, tmp_path: Path) -> None:
    """Two commands with separate log folders share the trials; the journal may be on another disk."""
    file = write_file(tmp_path, trials=6)
    arguments = ("--storage", str(tmp_path / "shared" / "journal"))
    one, other = (zygote.start(*command(file, tmp_path / name, *arguments)) for name in ("one", "other"))
    outs = [process.communicate(timeout=120)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    done = [re.findall(r"^Trial (\d) of 6", out, re.M) for out in outs]
    assert sorted([*done[0], *done[1]]) == list("123456")
    assert len(list_run_folders(tmp_path / "one" / "tiny")) + len(list_run_folders(tmp_path / "other" / "tiny")) == 6
    assert (tmp_path / "one" / "tiny" / "best.yaml").read_text() == (
        tmp_path / "other" / "tiny" / "best.yaml"
    ).read_text()


def test_no_lock_is_left_behind(swept: tuple[Plan, Path, str]) -> None:
    for run in list_run_folders(swept[1]):
        assert not run.is_in_use()
    locks = list((swept[1] / f".{JOURNAL}.locks.d").iterdir())
    assert len(locks) >= 6, "of four trials, the sweep and the journal"
    assert not any(is_locked(path) for path in locks)


def test_runs_of_a_sweep_are_found_by_their_path(swept: tuple[Plan, Path, str]) -> None:
    facts = Run(swept[1] / list_run_folders(swept[1])[0].name).read_metrics()["sweep"]
    assert (facts["name"], facts["trial"]) == ("tiny", 0)
