"""A search over configurations: every trial done once, whoever is killed, on one machine or with PostgreSQL on many."""

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
import yaml
from conftest import REPOSITORY, Here, read_events
from processes import wait_until_gone
from test_tensorboard import Board
from zygote import Zygote

from mnist_tb import train
from mnist_tb.cli.main import main
from mnist_tb.config import load as configuration
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.runs.folder import Run, listing
from mnist_tb.sweep import plan as plans
from mnist_tb.sweep import pool, result
from mnist_tb.sweep.locks import FileLocks, cut_torn_line
from mnist_tb.sweep.plan import Plan
from mnist_tb.sweep.storage import JOURNAL, storage_errors
from mnist_tb.sweep.study import Result, Study
from mnist_tb.sweep.worker import gpu
from mnist_tb.system import available_cores, is_locked

TINY: dict[str, Any] = {
    "base": str(REPOSITORY / "configs" / "digits.yaml"),
    "set": {
        "train": {"epochs": 2},
        "model": {"channels": [4, 8, 8]},
        "tracking": {"projector": False, "checkpoint_seconds": 0.1, "images_every": 0},
    },
    "space": {"train.lr": {"low": 1e-3, "high": 1e-1, "log": True}, "train.batch_size": [32, 64]},
    "trials": 4,
    "sampler": {"name": "random"},
}


def written(folder: Path, **changes: Any) -> Path:
    """A sweep's file: TINY with some keys changed; None takes one out."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**TINY, **changes}.items() if v is not None}, sort_keys=False))
    return path


def command(file: Path, logdir: Path, *arguments: str) -> list[str]:
    return ["sweep", str(file), "--logdir", str(logdir), *arguments]


def finish(zygote: Zygote, file: Path, logdir: Path, *arguments: str) -> str:
    code, out, error = zygote.run(*command(file, logdir, *arguments))
    assert code == 0, out + error
    return out


def accounted_for(plan: Plan, folder: Path, storage: str | None = None) -> list[Result]:
    """The sweep's results, after checking that each trial and each of its runs is there exactly once."""
    with Study(plan, folder, storage) as study:
        results = study.results()
        assert study.counts().finished == plan.trials
    assert [one.number for one in results] == list(range(plan.trials))
    found = [run.read_metrics() for run in listing(folder)]
    names = collections.Counter(
        (facts["sweep"]["trial"], facts["config"]["seed"]) for facts in found if facts["status"] == "completed"
    )
    wanted = {(one.number, seed): 1 for one in results if one.state == "complete" for seed in plan.seeds}
    assert names == wanted
    by_run = {(f["sweep"]["trial"], f["config"]["seed"]): f["val"]["accuracy"] for f in found if "val" in f}
    for one in results:
        for seed, accuracy in one.accuracies.items():
            assert accuracy == by_run[one.number, seed]
    return results


@pytest.fixture(scope="module")
def swept(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, str]:
    """A finished sweep of four points with two seeds, by two workers; its plan, folder and output. Do not change it."""
    folder = tmp_path_factory.mktemp("swept")
    file = written(folder, seeds=[0, 1])
    out = finish(zygote, file, folder / "runs", "--workers", "2")
    return plans.load(file), folder / "runs" / "tiny", out


Open = Callable[..., Study]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Open]:
    """Opens the study of TINY with some keys changed; closes it afterwards."""
    with contextlib.ExitStack() as opened:

        def open_study(folder: Path = tmp_path, **changes: Any) -> Study:
            return opened.enter_context(Study(plans.load(written(tmp_path, **changes)), folder, None))

        yield open_study


# ---- The file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": None}, "tiny.yaml: space is missing"),
        ({"trials": None}, "trials is missing: how many points the sampler random is to try"),
        ({"trial": 5}, "tiny.yaml:25: unknown key trial; the keys are name, base, set, space, trials"),
        ({"trials": 0}, "trials must be at least 1, not 0"),
        ({"name": "a/b"}, "name must be 1 to 40 letters"),
        ({"seeds": []}, "seeds must have 1 entries"),
        ({"seeds": [1, 1]}, "seeds: one stands there twice"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml is no file"),
        ({"base": "nowhere"}, "tiny.yaml:1: base: nowhere: there is no configuration of that name"),
        ({"set": {"train": {"epoch": 3}}}, "unknown key train.epoch; did you mean train.epochs?"),
        ({"sampler": {"name": "best"}}, "sampler.name must be 'tpe', 'random' or 'grid', not 'best'"),
        ({"pruner": {"name": "median", "startup": 0}}, "pruner.startup must be at least 1, not 0"),
        ({"space": {"train.lrr": [1e-3]}}, "unknown key train.lrr; did you mean train.lr?"),
        ({"space": {"train.lr": [1e-3, -1.0]}}, "tiny.yaml:15: train.lr must be greater than 0.0, not -1.0"),
        ({"space": {"train.lr": [1e-3, 1e-3]}}, "space.train.lr: a value stands there twice"),
        ({"space": {"train.lr": []}}, "must be a list of values or {low: …, high: …, log: …}, not []"),
        ({"space": {"train.lr": 5}}, "must be a list of values or {low: …, high: …, log: …}, not 5"),
        ({"space": {"train.lr": {"low": 1e-3}}}, "tiny.yaml:15: space.train.lr.high is missing"),
        (
            {"space": {"train.lr": {"low": 1e-3, "high": 1e-2, "step": 2}}},
            "unknown key space.train.lr.step; it has low, high, log",
        ),
        (
            {"space": {"train.batch_size": {"low": 1, "high": 3, "whole": True}}},
            "unknown key space.train.batch_size.whole",
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
        ({"space": {"device": ["cpu", "cuda"]}}, "space.device cannot be searched over: it decides no result"),
        ({"space": {"data.root": ["a", "b"]}}, "space.data.root cannot be searched over: it decides no result"),
        ({"space": {"train": [{"epochs": 1}]}}, "space.train is a group of keys: write train.epochs"),
        ({"space": {"train": {"lr": [1e-3, 1e-2]}}}, "space.train is a group of keys: write train.epochs"),
        ({"space": {"train.lr": {"low": "a", "high": 1}}}, "space.train.lr.low must be a number, not 'a'"),
        ({"space": [1]}, "space must be a group of keys, not [1]"),
        ({"set": [1]}, "set must be a group of keys, not [1]"),
        ({"sampler": "tpe"}, "sampler must be a group of keys, not 'tpe'"),
        ({"name": "0007-a"}, "0007-a would be taken for a run: give the sweep a name"),
        (
            {"pruner": {"name": "median"}, "set": {"train": {"evaluate_every": 0}}},
            "pruner: with train.evaluate_every 0 there is nothing to prune by",
        ),
        ({"sampler": {"name": "grid"}, "trials": None}, "space.train.lr must be a list of values: the sampler is grid"),
        ({"sampler": {"name": "grid"}, "space": {"train.lr": [1e-3, 1e-2]}}, "the grid has 2 points, not 4"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, **changes)
    assert main(arguments=["sweep", str(file), "--logdir", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mnist-tb: {file}")
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_the_sweeps_that_come_with_it_can_be_read() -> None:
    files = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        plan = plans.load(file)
        assert plan.name == file.stem
        assert plan.trials > 1


def test_a_grid_has_every_point_once(tmp_path: Path) -> None:
    space = {
        "train.lr": [1e-3, 1e-2],
        "model.channels": [[4, 8, 8], [8, 8, 8], [8, 16, 16]],
        "optimizer.name": ["sgd"],
    }
    plan = plans.load(
        written(tmp_path, space=space, set={"train": {"epochs": 2}}, sampler={"name": "grid"}, trials=None)
    )
    assert plan.trials == 6
    points = [plan.grid(number) for number in range(6)]
    assert points[1] == {"train.lr": 1e-3, "model.channels": [8, 8, 8], "optimizer.name": "sgd"}
    assert len({json.dumps(point) for point in points}) == 6
    config = plan.config(points[5], 0)
    assert (config.train.lr, config.model.channels, config.train.epochs) == (1e-2, (8, 16, 16), 2)
    assert config.name == "lr0.01-ch8-16-16-sgd"


def test_every_run_has_a_number_of_its_own(tmp_path: Path) -> None:
    plan = plans.load(written(tmp_path, seeds=[7, 0, 3]))
    numbers = [plan.run_number(trial, seed) for trial in range(4) for seed in plan.seeds]
    assert numbers == list(range(1, 13))


# ---- The locks


def holding(path: Path, trial: int) -> subprocess.Popen[str]:
    """A process that has a trial, and does not give it back."""
    code = (
        "import sys, time, pathlib; from mnist_tb.sweep.locks import FileLocks\n"
        f"locks = FileLocks(pathlib.Path({str(path)!r})); print(locks.hold({trial}), flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    other = holding(path, 3)
    locks = FileLocks(path)
    assert not locks.hold(3)
    assert locks.hold(4)
    other.kill()
    other.communicate()
    assert locks.hold(3)
    locks.release(3)
    third = holding(path, 3)
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
    """Optuna alone would write the next line behind the torn one, and could then not read the journal any more."""
    held = study().claim()
    assert held is not None
    with open(tmp_path / JOURNAL, "ab") as journal:
        journal.write(b'{"op_code":5,"worker_id":"a')
    held.complete({0: 0.5}, 1.0)
    assert [one.accuracies for one in study().results()] == [{0: 0.5}]
    for line in (tmp_path / JOURNAL).read_bytes().splitlines():
        json.loads(line)


# ---- Trials, shared out


def test_a_trial_without_a_worker_is_taken_on(study: Open) -> None:
    """In one process, whose locks are its own: the first that is not finished comes first."""
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
    second.failed("a reason")
    assert trials.claim() is None
    assert [one.state for one in trials.results()] == ["complete", "failed"]
    assert trials.results()[1].error == "a reason"


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_no_more_trials_than_there_are_to_be(sampler: str, study: Open, tmp_path: Path) -> None:
    space = {"train.lr": [1e-3, 1e-2], "train.batch_size": [32, 64]}
    trials = None if sampler == "grid" else 4
    opened = study(space=space, sampler={"name": sampler, "startup": 2}, trials=trials)
    points = []
    while (held := opened.claim()) is not None:
        points.append(held.point)
        held.complete({0: held.point["train.lr"]}, 1.0)
    assert len(points) == 4
    assert all(point["train.lr"] in (1e-3, 1e-2) and point["train.batch_size"] in (32, 64) for point in points)
    if sampler == "grid":
        plan = plans.load(tmp_path / "tiny.yaml")
        assert points == [plan.grid(number) for number in range(4)]


def test_random_points_do_not_hang_on_who_asks(study: Open, tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        points = []
        for number in range(4):
            if name == "one" or number % 2 == 0:
                opened = study(tmp_path / name)
            held = opened.claim()
            assert held is not None
            points.append(held.point)
            held.complete({0: 0.1}, 1.0)
        found.append(points)
    assert found[0] == found[1]
    assert len({point["train.lr"] for point in found[0]}) == 4


def test_a_sweep_can_become_longer_but_not_another(study: Open) -> None:
    held = study(trials=1).claim()
    assert held is not None
    held.complete({0: 0.5}, 1.0)
    assert study(trials=2).counts().left == 1
    other = {**TINY["set"], "train": {"epochs": 3}}
    with pytest.raises(InputError, match=r"sweep tiny: was begun with train.epochs 2, not 3; give the sweep another"):
        study(set=other)


def test_a_trial_that_ends_its_workers_is_given_up(study: Open) -> None:
    """A point that fills the memory, say. One that came further each time is not."""
    held = study().claim()
    assert held is not None
    assert [held.attempt(step) for step in (0, 20, 40, 60, 80, 100, 120)] == [True] * 7
    assert [held.attempt(120) for _ in range(5)] == [True] * 4 + [False]


def test_stopping_is_not_the_trials_fault(study: Open) -> None:
    held = study().claim()
    assert held is not None
    for _ in range(20):
        assert held.attempt(0)
        held.forgive()


def test_a_trial_that_is_finished_while_one_looks_for_it(study: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker tells the result and gives it back after another has read that it is running."""
    opened = study()
    held = opened.claim()
    assert held is not None
    stale = opened._study.get_trials()
    assert [trial.state.name for trial in stale] == ["RUNNING"]
    held.complete({0: 0.5}, 1.0)
    monkeypatch.setattr(opened._study, "get_trials", lambda **options: stale)
    found = opened._choose()
    assert found.number == 1


def test_a_run_of_another_sweep_is_not_taken_for_ours(
    tmp_path: Path, swept: tuple[Plan, Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The journal was deleted, say, and the file changed."""
    shutil.copytree(swept[1], tmp_path / "runs" / "tiny")
    (tmp_path / "runs" / "tiny" / JOURNAL).unlink()
    file = written(tmp_path, space={"train.lr": [1e-7]}, sampler={"name": "grid"}, trials=None)
    assert main(arguments=["sweep", str(file), "--logdir", str(tmp_path / "runs")]) == 2
    error = capfd.readouterr().err
    assert "0001-lr" in error
    assert ": is no run of this sweep: move it away, or give the sweep another name" in error


def test_a_runs_folder_is_no_sweeps(
    tmp_path: Path, swept: tuple[Plan, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(listing(swept[1])[0].path, tmp_path / "runs" / "tiny")
    assert main(arguments=["sweep", str(written(tmp_path)), "--logdir", str(tmp_path / "runs")]) == 2
    assert "tiny: is a run's folder: give the sweep another name" in capsys.readouterr().err


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert plans.load(file).base.train.epochs == 2
    assert plans.load(file, ["train.epochs=5"]).base.train.epochs == 5
    for text, reason in (("train.lr=1", "the sweep searches over it"), ("seed=3", "listed under seeds")):
        with pytest.raises(InputError, match=f"--set {text}: .*{reason}"):
            plans.load(file, [text])


def test_no_trial_falls_back_to_other_data(tmp_path: Path) -> None:
    assert plans.load(written(tmp_path, base=str(REPOSITORY / "configs" / "default.yaml"))).base.data.fallback is None


def test_numbers_are_whole_where_the_keys_are(study: Open) -> None:
    space = {"augment.rotate": {"low": 0, "high": 10}, "train.batch_size": {"low": 32, "high": 64}}
    held = study(space=space).claim()
    assert held is not None
    assert isinstance(held.point["augment.rotate"], float)
    assert not held.point["augment.rotate"].is_integer()
    assert isinstance(held.point["train.batch_size"], int)


def test_pruned_by_the_median(study: Open) -> None:
    pruner = {"name": "median", "startup": 2, "warmup": 1}
    opened = study(pruner=pruner, seeds=[0, 1])
    for accuracy in (0.8, 0.9):
        held = opened.claim()
        assert held is not None
        for seed in (0, 1):
            assert held.go_on(seed, 1, accuracy)
            assert held.go_on(seed, 2, accuracy)
        held.complete({0: accuracy, 1: accuracy}, 1.0)
    held = opened.claim()
    assert held is not None
    assert held.go_on(0, 1, 0.1)  # the warm-up
    assert held.go_on(0, 2, 0.95)
    assert held.go_on(1, 1, 0.95)
    held.complete({0: 0.95, 1: 0.95}, 1.0)
    held = opened.claim()
    assert held is not None
    assert held.go_on(0, 1, 0.1)
    assert not held.go_on(0, 2, 0.7)
    assert not held.go_on(0, 2, 0.7)  # told again after a kill
    held.pruned()
    assert opened.results()[-1].state == "pruned"


def test_hyperband_prunes(study: Open) -> None:
    longer = {**TINY["set"], "train": {"epochs": 9}}
    opened = study(set=longer, pruner={"name": "hyperband"}, trials=30)
    for number in range(30):
        held = opened.claim()
        assert held is not None
        accuracy = 0.9 - number / 100
        for epoch in range(1, 10):
            if not held.go_on(0, epoch, accuracy):
                held.pruned()
                break
        else:
            held.complete({0: accuracy}, 1.0)
    counts = opened.counts()
    assert counts.pruned > 5
    assert counts.complete > 0
    assert counts.finished == 30


@pytest.mark.parametrize(
    ("index", "visible", "count", "expected"),
    [(0, None, 2, "0"), (5, None, 3, "2"), (1, "4,7", 2, "7"), (2, "4,7", 2, "4")],
)
def test_workers_share_out_the_gpus(index: int, visible: str | None, count: int, expected: str) -> None:
    assert gpu(index, visible, count) == expected


# ---- The result


def outcome(number: int, *accuracies: float, state: str = "complete") -> Result:
    return Result(number, state, {"train.lr": 1e-3 * (number + 1)}, dict(enumerate(accuracies)), "", 1.0)


def test_ranked_by_the_mean_and_told_with_its_spread(tmp_path: Path) -> None:
    plan = plans.load(written(tmp_path, space={"train.lr": [1e-3, 2e-3]}, seeds=[0, 1, 2]))
    best = result.ranked(
        [outcome(0, 0.9, 0.91, 0.92), outcome(1, 0.95, 0.96, 0.97), outcome(2, 0.99, state="pruned"), outcome(3)]
    )
    assert [one.number for one in best] == [1, 0]
    titles, rows = result.rows(plan, best)
    assert titles == ["run", "lr", "val %", "±", "s"]
    assert rows == [["0004–0006", "2e-3", "96.000", "1.000", "1.0"], ["0001–0003", "1e-3", "91.000", "1.000", "1.0"]]
    told = result.verdict(best)
    assert told is not None
    assert told.startswith("The first is better than the second: +5.000 points, 95% interval +2.7")
    assert told.endswith("p = 0.004")
    assert result.verdict([outcome(0, 0.9), outcome(1, 0.8)]) is None
    close = result.verdict([outcome(0, 0.9, 0.8), outcome(1, 0.85, 0.8)])
    assert close is not None
    assert close.startswith("The first is no better than the second, as far as these seeds tell: ")


def test_what_a_sweep_leaves(swept: tuple[Plan, Path, str]) -> None:
    plan, folder, out = swept
    results = accounted_for(plan, folder)
    assert {one.state for one in results} == {"complete"}
    best = result.ranked(results)[0]
    config = configuration.load(folder / "best.yaml")
    assert config.train.lr == best.point["train.lr"]
    assert config.train.batch_size == best.point["train.batch_size"]
    assert (config.name, config.train.epochs) == ("tiny-best", 2)
    assert out.startswith("Sweep tiny: 4 trials, 2 seeds each; 2 workers, ")
    assert len(re.findall(r"^Trial \d of 4: lr .*, batch_size .*: .*% .*% on validation, .* s$", out, re.M)) == 4
    assert "\n4 trials: 4 complete\nThe best on validation\n" in out
    assert "What decides whether a trial is among the best: train." in out
    assert f"The best configuration: {folder / 'best.yaml'}" in out
    assert sorted(run.name[:4] for run in listing(folder)) == [f"{number:04d}" for number in range(1, 9)]


def test_a_finished_sweep_says_its_result_again(
    swept: tuple[Plan, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder, out = swept
    shutil.copytree(folder.parent, tmp_path / "runs")
    file = written(tmp_path, seeds=[0, 1])
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
        assert sorted(board.get("data/runs")) == sorted(run.name for run in listing(folder))
    finally:
        board.process.terminate()
        board.process.wait(30)
    assert main(arguments=["compare", "--group", "--format", "json", "--logdir", str(folder)]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    assert [line["n"] for line in section["lines"]] == [2, 2, 2, 2]
    assert main(arguments=["runs", "list", "--logdir", str(folder.parent)]) == 0
    assert capsys.readouterr().out.count("tiny/0") == 8


# ---- Killed, stopped, failed


def workers(parent: int) -> list[int]:
    """The worker processes of a running sweep."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                its = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if its == parent and b"mnist_tb.sweep.worker" in words:
                found.append(int(folder.name))
    return found


def test_killed_and_stopped_it_comes_out_the_same(
    zygote: Zygote, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed, all of it killed, then stopped: the same points and accuracies as of one left alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(max(available_cores() // 2, 1)))  # as many as two workers have each
    file = written(tmp_path, trials=5, set={**TINY["set"], "train": {"epochs": 8}})
    plan = plans.load(file)
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
    wait_until_gone(there)  # they end by themselves, and save first
    statuses = collections.Counter(run.read_metrics()["status"] for run in listing(logdir / "tiny"))
    assert set(statuses) <= {"completed", "interrupted", "running"}
    assert statuses["completed"] >= 2

    process = zygote.start(*command(file, logdir, "--workers", "2"))
    process.until("Trial ")
    there = workers(process.pid)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "trials are finished; the same command goes on." in out
    wait_until_gone(there)

    finish(zygote, file, logdir, "--workers", "2")
    ours, theirs = accounted_for(plan, logdir / "tiny"), accounted_for(plan, alone / "tiny")
    assert [(one.point, one.accuracies, one.state) for one in ours] == [
        (one.point, one.accuracies, one.state) for one in theirs
    ]


def test_a_pruned_run_says_so_everywhere(here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not scored on the test set, and can be finished by hand."""
    space = {"train.lr": [1e-2, 2e-2, 3e-2, 1e-6]}
    pruner = {"name": "median", "startup": 2, "warmup": 0}
    file = written(tmp_path, space=space, sampler={"name": "grid"}, trials=None, pruner=pruner)
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert "Trial 4 of 4: lr 1e-6: pruned after epoch 1, " in out
    results = accounted_for(plans.load(file), tmp_path / "runs" / "tiny")
    assert results[3].state == "pruned"
    run = listing(tmp_path / "runs" / "tiny")[-1]
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


def test_a_broken_checkpoint_is_begun_anew(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, trials=1)
    folder = tmp_path / "runs" / "tiny"

    def stop(job: Any, state: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "report", stop)
        code, _, error = here(*command(file, tmp_path / "runs"))
    assert (code, error.strip()) == (130, "mnist-tb: interrupted")
    (run,) = listing(folder)
    assert run.read_metrics()["status"] == "interrupted"
    run.last_checkpoint.write_bytes(b"broken")
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert "last.pt: is no checkpoint of mnist_tb, or it is broken; the run begins anew" in out
    assert len(accounted_for(plans.load(file), folder)) == 1


def test_a_point_that_cannot_be_trained_fails_alone(here: Here, tmp_path: Path) -> None:
    file = written(tmp_path, space={"train.lr": [1e-2, 1e30]}, sampler={"name": "grid"}, trials=None)
    code, out, _ = here(*command(file, tmp_path / "runs"))
    assert code == 0
    assert re.search(r"Trial 2 of 2: lr 1e30: failed: the (training|validation) loss is no finite number", out)
    assert "2 trials: 1 complete, 1 failed" in out
    results = accounted_for(plans.load(file), tmp_path / "runs" / "tiny")
    assert "no finite number" in results[1].error


def test_no_trial_complete(here: Here, tmp_path: Path) -> None:
    file = written(tmp_path, space={"train.lr": [1e30]}, sampler={"name": "grid"}, trials=None)
    code, _, error = here(*command(file, tmp_path / "runs"))
    assert code == 1
    assert "mnist-tb: no trial of the sweep is complete: the " in error


def test_data_that_are_not_there_end_the_sweep(zygote: Zygote, tmp_path: Path) -> None:
    file = written(tmp_path, base=str(REPOSITORY / "configs" / "default.yaml"))
    arguments = ("--data-root", str(tmp_path / "nothing"), "--workers", "2")
    code, _, error = zygote.run(*command(file, tmp_path / "runs", *arguments))
    assert code == 2
    assert str(tmp_path / "nothing") in error
    assert error.endswith("goes on with the same command once this is right\n")
    assert listing(tmp_path / "runs" / "tiny") == []


def test_workers_that_are_killed_over_and_over_end_the_sweep(
    study: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pool, "_start", lambda task, threads: subprocess.Popen(["sh", "-c", "kill -9 $$"], stdin=subprocess.PIPE)
    )
    told: list[str] = []
    opened = study()
    with pytest.raises(TrainingError, match="11 workers were killed without finishing a trial"):
        pool.sweep(plans.load(tmp_path / "tiny.yaml"), opened, tmp_path, None, 1, told.append)
    assert told.count("Worker 1 was killed (SIGKILL); another one takes its place") == 10


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://localhost/a", "--storage mysql://localhost/a: give postgresql://… or the file of a journal"),
        ("postgresql://127.0.0.1:1/none", "--storage: PostgreSQL cannot be reached: connection"),
        ("/proc/journal", "/proc/journal: the sweep's journal cannot be written"),
    ],
)
def test_storage_that_cannot_be_had(
    storage: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", str(written(tmp_path)), "--logdir", str(tmp_path / "runs"), "--storage", storage]
    assert main(arguments=arguments) == 2
    assert capsys.readouterr().err.startswith(f"mnist-tb: {message}")


def test_a_journal_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal").write_text("no\njournal\n")
    arguments = ["sweep", str(written(tmp_path)), "--storage", str(tmp_path / "journal"), "--logdir", str(tmp_path)]
    assert main(arguments=arguments) == 2
    assert f"mnist-tb: {tmp_path / 'journal'}: is no journal of a sweep" in capsys.readouterr().err


def test_torchrun_is_not_for_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert main(arguments=["sweep", str(written(tmp_path)), "--logdir", str(tmp_path / "runs")]) == 2
    assert "start it without torchrun, once on each machine" in capsys.readouterr().err


def test_an_error_of_the_storage_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match="the sweep's storage failed: a reason"), storage_errors():
        raise optuna.exceptions.StorageInternalError("a reason\nand more")


def test_two_machines_with_one_journal(zygote: Zygote, tmp_path: Path) -> None:
    """Two commands with log folders of their own share the trials; a journal's folder may be on another disk."""
    file = written(tmp_path, trials=6)
    arguments = ("--storage", str(tmp_path / "shared" / "journal"))
    one, other = (zygote.start(*command(file, tmp_path / name, *arguments)) for name in ("one", "other"))
    outs = [process.communicate(timeout=120)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    done = [re.findall(r"^Trial (\d) of 6", out, re.M) for out in outs]
    assert sorted([*done[0], *done[1]]) == list("123456")
    assert len(listing(tmp_path / "one" / "tiny")) + len(listing(tmp_path / "other" / "tiny")) == 6
    assert (tmp_path / "one" / "tiny" / "best.yaml").read_text() == (
        tmp_path / "other" / "tiny" / "best.yaml"
    ).read_text()


def test_a_folder_is_not_locked_by_what_is_gone(swept: tuple[Plan, Path, str]) -> None:
    for run in listing(swept[1]):
        assert not run.is_in_use()
    locks = list((swept[1] / f".{JOURNAL}.locks.d").iterdir())
    assert len(locks) >= 6, "of four trials, the sweep and the journal"
    assert not any(is_locked(path) for path in locks)


def test_runs_of_a_sweep_are_found_by_their_path(swept: tuple[Plan, Path, str]) -> None:
    facts = Run(swept[1] / listing(swept[1])[0].name).read_metrics()["sweep"]
    assert (facts["name"], facts["trial"]) == ("tiny", 0)
