"""The runs of a log folder in Python, and as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from helpers.events import scalars
from mnist_tb import SummaryWriter, Tracker, load_runs
from mnist_tb.analysis import loading
from mnist_tb.cli.main import main
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import Run


@pytest.fixture(scope="module")
def logdir(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one of a Tracker and one of torch's SummaryWriter, whose file is cut within a record."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / finished.name).symlink_to(finished.path)
    with Tracker(folder, "mine", {"lr": 0.5, "seed": 3}, dataset="d", tags=["good"], note="hm") as tracker:
        for step in range(5):
            tracker.scalars(step, {"loss/val": float("nan") if step == 2 else 1 / (step + 1)})
    with TorchWriter(str(folder / "other")) as writer:
        for step in (3, 1, 2, 2):
            writer.add_scalar("val_acc", step / 10, step, walltime=1000.0 + step)
        writer.add_scalar("val_acc", 0.9, 3, walltime=2000.0)
    (path,) = (folder / "other").glob("*tfevents*")
    path.write_bytes(path.read_bytes() + b"\x00" * 5)
    return folder


def test_curves_settings_and_results(logdir: Path, finished: Run) -> None:
    runs = load_runs(logdir)
    assert [run.name for run in runs] == [finished.name, "0002-mine", "other"]
    first, mine, other = runs
    loss = first.curves["loss/train"]
    assert list(zip(loss.steps.tolist(), loss.values.tolist(), strict=True)) == scalars(finished)["loss/train"]
    assert loss.steps.dtype == np.int64
    assert loss.values.dtype == loss.wall_times.dtype == np.float64
    assert first.summary.test_accuracy == finished.read_metrics()["test"]["accuracy"]
    assert (first.status, first.settings["train.epochs"]) == ("completed", 3)
    assert (mine.settings, mine.tags, mine.summary.seed) == ({"lr": 0.5, "seed": 3}, ("good",), 3)
    assert np.isnan(mine.curves["loss/val"].values[2])
    curve = other.curves["val_acc"]
    assert curve.steps.tolist() == [1, 2, 3]
    assert curve.values.tolist() == pytest.approx([0.1, 0.2, 0.9])
    assert curve.wall_times.tolist() == [1001, 1002, 2000]
    assert len(curve) == 3
    assert len(runs) == len(runs[:]) == 3
    assert runs["other"] == other == runs[-1]
    with pytest.raises(KeyError):
        runs["nothing"]
    assert mine.problems == []
    assert "it ends in the middle of a record" in other.problems[0].text


def test_some_of_them_and_which_curve_is_which(logdir: Path, tmp_path: Path) -> None:
    (run,) = load_runs(logdir, "other", metric=["accuracy/val=val_acc"])
    assert run.summary.val_accuracy == pytest.approx(0.9)
    assert [run.name for run in load_runs(logdir, "2")] == ["0002-mine"]
    with pytest.raises(InputError, match="no such log folder"):
        load_runs(tmp_path / "nothing")
    with pytest.raises(InputError):
        load_runs(logdir, "17")


def test_percent_and_steps_are_what_the_curves_say(tmp_path: Path) -> None:
    with TorchWriter(str(tmp_path / "percent")) as writer:
        writer.add_scalar("val_acc", 0.5, 1)
        writer.add_scalar("val_acc", 76.1, 2)
    for step, tag in ((100, "val/accuracy"), (1, "other")):  # opened again, and nothing at a later step
        with SummaryWriter(tmp_path / "again", code=False) as again:
            again.add_scalar(tag, 0.95, step)
    again, percent = load_runs(tmp_path)
    assert (percent.summary.val_accuracy, again.summary.val_accuracy, again.summary.step) == (0.761, 0.95, 100)
    assert main(arguments=["compare", "--logdir", str(tmp_path), "--report", str(tmp_path / "r.html")]) == 0
    report = (tmp_path / "r.html").read_text()
    assert '"76.10"' in report
    assert '"values": [0.005, 0.761]' in report


def test_event_files_are_read_when_they_are_needed(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    load_runs(logdir)  # what is read to list them is kept
    monkeypatch.setattr(loading.reader, "read", lambda folder: read.append(folder) or loading.reader.Contents())
    runs = load_runs(logdir, "1", "2")
    assert [run.status for run in runs] == ["completed"] * 2
    assert read == []
    assert runs[1].curves == {}
    assert runs[1].curves == {}
    assert read == [runs[1].path]


def test_pandas(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = load_runs(logdir)
    table = runs.to_pandas()
    assert table["run"].tolist() == [run.name for run in runs]
    assert table["settings.lr"].tolist()[1] == 0.5
    assert table["test_accuracy"][0] == runs[0].summary.test_accuracy
    points = runs["other"].to_pandas()
    assert points.columns.tolist() == ["run", "tag", "step", "wall_time", "value"]
    assert points["value"].tolist() == pytest.approx([0.1, 0.2, 0.9])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas"):
        runs.to_pandas()


def test_of_runs_that_share_a_name_the_path_says_which(tmp_path: Path) -> None:
    for folder, value in (("a", 1.0), ("b", 2.0)):
        with Tracker(tmp_path / folder, "run") as tracker:
            tracker.scalars(1, {"loss/val": value})
    runs = load_runs(tmp_path, "a/0001-run", "b/0001-run")
    assert runs[str(tmp_path / "b" / "0001-run")].curves["loss/val"].values.tolist() == [2.0]
    assert [run.name for run in runs] == ["a/0001-run", "b/0001-run"]
    with pytest.raises(KeyError, match="0001-run"):
        runs["0001-run"]


def test_json(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its shape is that of `to_dict`, and it is JSON: without NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert main(arguments=["runs", "list", "--json", "--logdir", str(logdir), "--where", "tag=good"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row == json.loads(json.dumps(load_runs(logdir, "2")[0].to_dict()))
    assert list(row) == [
        "run", "path", "status", "dataset", "epoch", "epochs", "step", "val_accuracy", "val_loss", "test_accuracy",
        "test_loss", "seconds", "images_per_second", "started", "error", "tags", "note", "settings.lr", "settings.seed",
    ]  # fmt: skip
    assert main(arguments=["runs", "show", "1", "--json", "--logdir", str(logdir)]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row["settings.train.epochs"] == 3
