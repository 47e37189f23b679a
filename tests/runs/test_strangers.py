"""What a folder is, is proved by what lies in it: folders of others are found, and never taken for runs of ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from mnist_tb import SummaryWriter, Tracker
from mnist_tb.analysis.compare import Line
from mnist_tb.analysis.tables import _short_names
from mnist_tb.cli.main import main
from mnist_tb.errors import InputError
from mnist_tb.runs import manage
from mnist_tb.runs.folder import Run, create_run, find_run, is_ours, list_run_folders
from mnist_tb.runs.query import find_runs, list_runs, select_runs

DATES = (
    "20240501-120000/train", "20240501-120000/validation", "2024-05-02/10-11-12", "2024-05-02/18-00-00", "exp/a"
)  # fmt: skip


def log(folder: Path, tag: str = "loss", values: tuple[float, ...] = (0.5,)) -> Path:
    with TorchWriter(str(folder)) as writer:
        for step, value in enumerate(values):
            writer.add_scalar(tag, value, step)
    return folder


def make(logdir: Path, name: str = "a") -> Run:
    return create_run(logdir, name, "seed: 0\n", {"status": "running", "config": {}})


def names(logdir: Path) -> list[str]:
    return [name for name, _ in find_runs(logdir)]


@pytest.fixture
def dates(tmp_path: Path) -> Path:
    """Runs of another program, in folders named by a date."""
    for name in DATES:
        log(tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_folders_named_by_a_date_are_looked_into(dates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(names(dates)) == sorted(DATES)
    assert list_runs(dates).problems == []
    assert list_run_folders(dates) == []
    assert main(arguments=["runs", "list", "--logdir", str(dates)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in DATES)


@pytest.mark.parametrize("which", ["2024", "20240501", "2024-05-02", "20240501-120000", "last", "exp", "exp/a"])
def test_what_is_not_ours_is_not_removed_and_not_renamed(which: str, dates: Path) -> None:
    for command in (["remove", which, "--yes"], ["rename", which, "x"]):
        assert main(arguments=["runs", *command, "--logdir", str(dates)]) == 2
        assert main(arguments=["runs", command[0], str(dates / which), *command[2:], "--logdir", str(dates)]) == 2
    assert sorted(names(dates)) == sorted(DATES)


def test_what_is_not_ours_is_not_numbered(dates: Path) -> None:
    first = make(dates)
    assert first.name == "0001-a"
    assert find_run(dates, "last") == first
    SummaryWriter(dates / "20250101-000000", code=False).close()
    assert make(dates).name == "0002-a", "a folder of the user's, though the run in it is ours"
    assert manage.run_in_logdir(dates, "20250101-000000").path == dates / "20250101-000000"
    with pytest.raises(InputError, match="has no number"):
        manage.rename(dates, Run(dates / "20250101-000000"), "x")
    found = {run.name: run for run in list_runs(dates).runs}
    line = Line((found["0002-a"], found["20250101-000000"], found["exp/a"]), True, {}, None)
    assert _short_names(line) == "2, 20250101-000000, exp/a"


def test_a_setting_that_is_called_name_stays_when_a_run_is_renamed(tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine", {"name": "resnet"}, code=False) as tracker:
        pass
    config = tracker.run.config.read_bytes()
    renamed = manage.rename(tmp_path, tracker.run, "other")
    assert (renamed.name, renamed.config.read_bytes()) == ("0001-other", config)
    assert renamed.read_metrics()["config"] == {"name": "resnet"}


def test_a_run_has_one_name_however_it_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logdir = Path("runs")
    for folder in (logdir, logdir / "a", logdir / "b"):
        make(folder)
    log(logdir / "theirs")
    known = sorted(names(logdir))
    assert known == ["0001-a", os.path.join("a", "0001-a"), os.path.join("b", "0001-a"), "theirs"]
    for place in ("", "runs/", f"{tmp_path}/runs/"):
        chosen = [name if place or "/" not in name else name.replace("0001-a", "1") for name in known]
        assert [run.name for run in select_runs(logdir, [place + name for name in chosen]).runs] == known


def test_a_new_run_takes_no_folders_place(tmp_path: Path) -> None:
    for name in ("0001-a", "0002-a"):
        (tmp_path / name).mkdir()
    (tmp_path / "0002-a" / "mine").touch()
    (tmp_path / "0003-a").symlink_to("nowhere")
    assert make(tmp_path).name == "0004-a"
    assert os.listdir(tmp_path / "0001-a") == []
    with pytest.raises(InputError, match="0001-a is there already"):
        create_run(tmp_path, "a", "", {}, number=1)


def test_runs_below_a_run_are_found(tmp_path: Path) -> None:
    run = make(tmp_path)
    log(run.path / "train")
    log(run.path / "validation")
    make(tmp_path / "lr" / "0001-x")
    assert names(tmp_path) == ["0001-a", "0001-a/train", "0001-a/validation", "lr/0001-x/0001-a"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"metrics.json": '{"versions": {"mnist-tb": "1.0.0"}}'}, True),
        ({"metrics.json": '{"status": "completed", "config": {}}'}, False),
        ({"metrics.json": '{"status": "completed"}', "config.yaml": "", "checkpoints/last.pt": ""}, True),
        ({"metrics.json": "", "config.yaml": "", "checkpoints/last.pt": ""}, True),
        ({"metrics.json": '{\n  "stat', "config.yaml": "", "checkpoints/last.pt": ""}, True),
        ({"metrics.json": "[]", "checkpoints/last.pt": "", "events.out.tfevents.1.h.2.0.mnist_tb": ""}, True),
        ({"metrics.json": "[]", "checkpoints/last.pt": "", "events.out.tfevents.1.h.2.0.0123456789ab": ""}, True),
        ({"metrics.json": '{"accuracy": 0.9}', "config.yaml": "", "checkpoints/last.pt": ""}, False),
        ({"metrics.json": '{"iteration": 1}\n{"iteration": 2}\n', "config.yaml": "", "checkpoints/last.pt": ""}, False),
        ({"config.yaml": "", "checkpoints/last.pt": "", "events.out.tfevents.1.h.2.0.mnist_tb": ""}, False),
        ({".mnist_tb/metrics.json": "{", ".mnist_tb/checkpoints/.lock": ""}, True),
        ({}, False),
    ],
)
def test_what_proves_a_run_ours(files: dict[str, str], expected: bool, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / "0007-x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "0007-x" / name).write_text(content)
    assert is_ours(tmp_path / "0007-x") is expected
    has_events = any("tfevents" in name for name in files)
    assert names(tmp_path) == (["0007-x"] if expected or has_events else [])


def test_what_is_left_of_a_run_without_its_metrics_is_a_run_of_others(tmp_path: Path) -> None:
    run = make(tmp_path)
    log(run.path)
    run.metrics.unlink()
    (row,) = list_runs(tmp_path).runs
    assert (row.name, row.native) == ("0001-a", False)
    assert select_runs(tmp_path, ["0001-a"]).runs == [row]
    with pytest.raises(InputError, match="no run called '1'"):
        manage.run_in_logdir(tmp_path, "1")


def test_links_are_followed_to_their_end(tmp_path: Path) -> None:
    logdir, store = tmp_path / "runs", tmp_path / "store"
    log(store / "group" / "b")
    (store / "group" / "b" / "up").symlink_to(store)
    shutil.copytree(make(store).path, store / "ours")
    logdir.mkdir()
    for name, target in {"a": "group/b", "group": "group", "again": "group", "0003-ours": "ours"}.items():
        (logdir / name).symlink_to(store / target)
    (logdir / "self").symlink_to("self")
    (logdir / "0004-me").symlink_to(logdir)
    (store / "group" / "back").symlink_to(logdir)
    found = names(logdir)
    assert {"a", "group/b", "again/b", "0003-ours"} <= set(found)
    assert found[0] == "0003-ours"
    for name in found:
        chain = [os.path.realpath(path) for path in (logdir / name, *(logdir / name).parents)]
        within = chain[: len(Path(name).parts) + 1]
        assert len(set(within)) == len(within), f"{name} leads back"
