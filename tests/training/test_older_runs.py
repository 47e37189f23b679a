"""A log folder that version 0.1.0 left is resumed, compared, shown and predicted with: see data/README.md."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import killing
from helpers.events import scalars
from helpers.fixtures import Here
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.engine import kernels
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run, find_run
from mnist_tb.training import checkpoint

OLD = REPOSITORY / "tests" / "data" / "runs_0.1.0"


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "runs"))


def made_on_this_machine() -> bool:
    """Whether a training here has the same bits as one where these runs were made."""
    known = json.loads((OLD / "machine.json").read_text())
    here = {"processor": hashlib.sha256(kernels._processor().encode()).hexdigest(), "torch": torch.__version__}
    return known == here and kernels.find(CNN((16, 16, 16))) is not None


def assert_same_weights(run: Run, whole: Run) -> None:
    ours, theirs = (checkpoint.load(each.best_checkpoint)["model"] for each in (run, whole))
    assert ours.keys() == theirs.keys()
    for name, weights in theirs.items():
        assert torch.allclose(ours[name], weights, rtol=0, atol=1e-3), name
        assert torch.equal(ours[name], weights) or not made_on_this_machine(), name


def test_resumes_as_if_it_had_not_been_stopped(logdir: Path) -> None:
    run, whole = find_run(logdir, "2"), find_run(logdir, "1")
    assert main(arguments=["resume", "2", "--logdir", str(logdir)]) == 0
    assert_same_weights(run, whole)
    if made_on_this_machine():
        assert killing.differences(run, whole) == []


def test_is_trained_again_with_the_same_result(logdir: Path) -> None:
    """What version 0.1.0 wrote to config.yaml is the same training today."""
    whole = find_run(logdir, "1")
    assert main(arguments=["train", "--config", str(whole.config), "--logdir", str(logdir), "--name", "again"]) == 0
    assert_same_weights(find_run(logdir, "last"), whole)


def test_is_not_extended_under_a_schedule_but_gives_its_weights(
    logdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments=["resume", "1", "--epochs", "4", "--logdir", str(logdir)]) == 2
    assert "schedule.name and augment.until and averaging.start of this run are laid out" in capsys.readouterr().err
    config = ["--config", "digits", "--device", "cpu", "--epochs", "1", "--set", "model.channels=[16,16,16]"]
    assert main(arguments=["train", *config, "--init-from", "1", "--logdir", str(logdir)]) == 0
    run = find_run(logdir, "last")
    assert run.read_metrics()["init_from"] == str(logdir / "0001-whole")
    untrained = scalars(run)["accuracy/val"][0][1]
    assert untrained == pytest.approx(find_run(logdir, "1").read_metrics()["val"]["accuracy"], abs=0.01)


def test_compared(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["compare", "--format", "json", "--logdir", str(logdir)]) == 0
    sections = json.loads(capsys.readouterr().out)
    lines = {line["run"]: line for section in sections for line in section["lines"]}
    runs = ["0001-whole", "0002-stopped", "0003-mlp"]
    assert lines.keys() == {*runs, "sweep/0001-lr3e-3", "sweep/0002-lr0.01"}
    assert [lines[name]["status"] for name in runs] == ["completed", "interrupted", "completed"]
    assert lines["0001-whole"]["test_accuracy"] == pytest.approx(0.9666, abs=1e-4)
    assert lines["0003-mlp"]["val_accuracy"] == pytest.approx(20 / 21)


def test_shown(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for which in ("1", "2", "3"):
        assert main(arguments=["runs", "show", which, "--logdir", str(logdir)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("0001-whole", "one_cycle", "96.66%", "0003-mlp"))
    assert main(arguments=["compare", "--report", str(logdir / "report.html"), "--logdir", str(logdir)]) == 0
    assert "0002-stopped" in (logdir / "report.html").read_text()


def test_evaluated_again(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["evaluate", "1", "--json", "--device", "cpu", "--logdir", str(logdir)]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(0.9666, abs=1e-2)


def test_predicts(logdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = Image.open(logdir / "0001-whole" / "projector" / "sprites.png")
    sheet.crop((0, 0, 28, 28)).save(tmp_path / "digit.png")
    true, predicted, _ = (logdir / "0001-whole" / "projector" / "metadata.tsv").read_text().splitlines()[1].split("\t")
    assert true == predicted
    assert main(arguments=["predict", "1", str(tmp_path / "digit.png"), "--json", "--logdir", str(logdir)]) == 0
    classes = json.loads(capsys.readouterr().out)[0]["classes"]
    assert next(iter(classes)) == true


def test_a_sweep_goes_on(logdir: Path, here: Here) -> None:
    """The trial that is complete stays as it is, the stopped one goes on in its folder."""
    before = find_run(logdir / "sweep", "1").read_metrics()
    code, out, error = here("sweep", str(logdir / "sweep.yaml"), "--logdir", str(logdir))
    assert code == 0, error
    assert "1 of them finished before" in out
    assert "2 trials: 2 complete" in out
    assert find_run(logdir / "sweep", "1").read_metrics() == before
    assert find_run(logdir / "sweep", "2").read_metrics()["status"] == "completed"
