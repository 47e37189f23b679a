"""Runs are read back, ranked and compared; those of other programs as far as they can be read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from helpers.board import get, wait_for_runs
from helpers.events import read_events
from helpers.paths import REPOSITORY
from helpers.ports import free_port
from mnist_tb import Tracker
from mnist_tb.analysis import compare, tables
from mnist_tb.cli.main import main
from mnist_tb.events import reader, records
from mnist_tb.events.records import Damage
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.predictions import save_predictions
from mnist_tb.runs.query import RunSummary, list_runs

Answer = Callable[..., tuple[str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Answer:
    """Runs a command, checks its exit code; returns what it said, and what it complained of."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        assert main(arguments=[str(argument) for argument in arguments]) == code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return out, error

    return run


def predict(run: Run, right: int, count: int = 100, label: int = 0) -> None:
    """Have it predict the first `right` of so many images rightly."""
    probabilities = np.zeros((count, 2))
    probabilities[:right, label] = 1
    probabilities[right:, 1 - label] = 1
    save_predictions(run, np.full(count, label), probabilities)


def track(
    logdir: Path, name: str, lr: float, seed: int, accuracy: float, dataset: str = "letters", images: int = 100
) -> Run:
    """A run of another program, of so much accuracy on validation and test."""
    with Tracker(logdir, name, {"lr": lr, "seed": seed, "width": [3, 4]}, steps=20, dataset=dataset) as tracker:
        for step in (10, 20):
            tracker.scalars(step, {"loss/train": 1 / step, "accuracy/val": accuracy - 1 / (step + 80), "loss/val": 0.5})
        tracker.scalars(20, {"accuracy/test": accuracy, "loss/test": 0.25})
        probabilities = np.zeros((images, 2))
        probabilities[: round(accuracy * images), 0] = 1
        probabilities[round(accuracy * images) :, 1] = 1
        save_predictions(tracker.run, np.zeros(images, dtype=int), probabilities)
    return tracker.run


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Two learning rates of three seeds, and one run on other data."""
    folder = tmp_path / "runs"
    for seed in range(3):
        track(folder, "a", 0.1, seed, 0.9 + seed / 100)
        track(folder, "b", 0.01, seed, 0.6 + seed / 100)
    track(folder, "other", 0.1, 0, 0.99, "numbers")
    return folder


def row(name: str, accuracy: float | None, dataset: str | None = "x", **settings: Any) -> RunSummary:
    return RunSummary(
        name, Path(name), True, "completed", dataset, settings=settings, val_accuracy=accuracy, test_accuracy=accuracy
    )


# ---- Ranked and compared


def test_one_line_a_run_with_what_differs_alone(logdir: Path, ask: Answer) -> None:
    out, _ = ask("compare", "--logdir", logdir, "--format", "json")
    letters, numbers = json.loads(out)
    assert (letters["dataset"], letters["varying"]) == ("letters", ["lr", "seed"])
    assert [line["run"] for line in letters["lines"]] == ["0005-a", "0003-a", "0001-a", "0006-b", "0004-b", "0002-b"]
    first, second, *_, last = letters["lines"]
    assert first["settings"] == {"lr": 0.1, "seed": 2}
    assert first["test_accuracy"] == pytest.approx(0.92)
    assert (first["val_accuracy"], first["val_loss"], first["test_loss"]) == (pytest.approx(0.91), 0.5, 0.25)
    assert (first["status"], first["difference"]) == ("completed", None)
    assert second["difference"] == pytest.approx(-0.01)
    assert second["significant"] is False
    assert last["difference"] == pytest.approx(-0.32)
    assert last["significant"] is True
    assert last["low"] < -0.32 < last["high"] < 0
    assert last["level"] == pytest.approx(1 - 0.05 / 5)
    assert [line["run"] for line in numbers["lines"]] == ["0007-other"], "never ranked against other data"


def test_seeds_as_one_line(logdir: Path, ask: Answer) -> None:
    out, _ = ask("compare", "--logdir", logdir, "--format", "json", "--group")
    best, other = json.loads(out)[0]["lines"]
    assert (best["n"], best["settings"], best["runs"]) == (3, {"lr": 0.1}, ["0001-a", "0003-a", "0005-a"])
    assert best["test_accuracy"] == pytest.approx(0.91)
    assert best["test_accuracy_deviation"] == pytest.approx(0.01)
    assert other["difference"] == pytest.approx(-0.3)
    assert other["significant"] is True
    half = 2.7764451 * math.sqrt(2 * 0.01**2 / 3)  # Student's 97.5 % point with 4 degrees of freedom
    assert (other["low"], other["high"]) == (pytest.approx(-0.3 - half), pytest.approx(-0.3 + half))


def test_one_seed_is_not_enough(logdir: Path, ask: Answer) -> None:
    out, _ = ask("compare", "--logdir", logdir, "--group", "--where", "seed=1", "--where", "dataset=letters")
    assert re.search(r"-30\.00 +one seed", out)
    assert "Welch" not in out
    assert "One seed does not tell what another would do" in out


def test_the_table(logdir: Path, ask: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    out, error = ask("compare", "--logdir", logdir)
    assert error == ""
    assert "letters\n" in out
    assert "numbers\n" in out
    assert re.search(
        r"run +val % +test % +Δ vs best +interval +p +verdict +val loss +test loss +status +lr +seed +s", out
    )
    assert re.search(r"0005-a +91.00 +92.00 +best +0.5000 +0.2500 +completed +0.1 +2 +0.\d", out)
    assert re.search(r"0003-a .* -1.00 +-\d.\d\d to \+\d.\d\d +1.000 +not significant", out)
    assert re.search(r"0002-b .* -32.00 +-\d\d.\d\d to -\d\d.\d\d +<0.001 +significant", out)
    assert (
        "for all 5 together (Bonferroni); by McNemar's exact test on the same test images. Significant: p < 0.01."
        in out
    )


def test_a_narrow_terminal(logdir: Path) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=70, force_terminal=True)
    tables.print_sections(compare.compare(list_runs(logdir).runs), console)
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 70
    assert re.search(r"0002-b .*-\d\d.\d\d to -\d\d.\d\d +significant", text)
    assert "No room for: " in text.replace("\n", " ")


def test_a_narrow_terminal_keeps_the_setting_that_tells_most(tmp_path: Path) -> None:
    """The one with the most values; others have two."""
    from rich.console import Console

    for lr in (0.1, 0.2, 0.3):
        more = {f"another_setting_{i}": 1 if lr < 0.3 else 2 for i in range(9)}
        with Tracker(tmp_path, "run", {**more, "lr": lr, "zero": lr < 0.3}) as tracker:
            tracker.scalars(1, {"accuracy/test": lr})
    console = Console(file=io.StringIO(), width=70, force_terminal=True)
    tables.print_sections(compare.compare(list_runs(tmp_path).runs), console)
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert re.search(r"^ *run .* lr *$", text, re.M), text


def test_without_an_accuracy_no_run_is_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lr in (0.1, 0.2):
        with Tracker(tmp_path, "run", {"lr": lr}) as tracker:
            tracker.scalars(1, {"loss/train": lr})
    assert main(arguments=["compare", "--logdir", str(tmp_path)]) == 0
    assert "best" not in capsys.readouterr().out.replace("vs best", "")


def test_results_are_seen_behind_no_number_of_settings(tmp_path: Path) -> None:
    """At 120 columns, with 13 settings: settings are left out, never the accuracy, its difference or the verdict."""
    from rich.console import Console

    for number in range(2):
        settings = {f"setting_{key}": number * key for key in range(1, 14)}
        with Tracker(tmp_path, f"run-{number}", settings, dataset="letters") as tracker:
            tracker.scalars(1, {"accuracy/test": 1 - number / 2, "accuracy/val": 0.5})
            tracker.predictions(
                torch.zeros(20, dtype=torch.int64), torch.tensor([[1.0, 0.0]] * 10 + [[1.0 - number, number]] * 10)
            )
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    tables.print_sections(compare.compare(list_runs(tmp_path).runs, "test_accuracy"), console)
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 120
    assert re.search(r"run +val % +test % +Δ vs best +interval +verdict +setting_1", text)
    assert re.search(r"0002-run-1 +50.00 +50.00 +-50.00 +-\d\d.\d\d to -\d\d.\d\d +significant", text)
    assert "setting_13, s." in text.replace("\n", " ")


def test_csv_and_markdown(logdir: Path, ask: Answer) -> None:
    out, _ = ask("compare", "--logdir", logdir, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert len(lines) == 7
    assert float(lines[0]["test_accuracy"]) == pytest.approx(0.92, abs=1e-7)
    assert (lines[0]["run"], lines[0]["lr"], lines[-1]["dataset"]) == ("0005-a", "0.1", "numbers")
    out, _ = ask("compare", "--logdir", logdir, "--format", "markdown", "--group")
    assert "| n | val % | test % | Δ vs best | interval | p | verdict | val loss | test loss | lr | s |" in out
    assert "| 3 | 90.00 ± 1.00 | 91.00 ± 1.00 |  |  |  | best |" in out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--where", "lr=0.01"], ["0006-b", "0004-b", "0002-b"]),
        (["--where", "lr=1e-2", "--where", "seed=0"], ["0002-b"]),
        (["--where", "width=[3, 4]", "--where", "seed=1", "--sort", "name"], ["0003-a", "0004-b"]),
        (["--where", "dataset=numbers"], ["0007-other"]),
        (["--last", "2"], ["0006-b", "0007-other"]),
        (["1", "0002-b", "--sort", "name"], ["0001-a", "0002-b"]),
        (["--sort", "test_loss", "--where", "name=0004-b"], ["0004-b"]),
    ],
)
def test_which_runs(arguments: list[str], names: list[str], logdir: Path, ask: Answer) -> None:
    out, _ = ask("compare", *arguments, "--logdir", logdir, "--format", "csv")
    assert [line["run"] for line in csv.DictReader(io.StringIO(out))] == names


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "--where", "lr"], "--where lr: write it as key=value, such as --where lr=0.001"),
        (["compare", "--where", "sped=1"], "--where sped=1: no run has sped; did you mean seed?"),
        (["compare", "--where", "q=1"], "--where q=1: no run has q; the keys are dataset, lr, name, seed, "),
        (
            ["compare", "--metric", "accuracy/val"],
            "--metric accuracy/val: write it as accuracy/val=TAG; before the = is",
        ),
        (["compare", "--metric", "acc=x"], "is one of loss/train, loss/val, loss/test, accuracy/train, accuracy/val, "),
        (["compare", "--where", "lr=7"], "no run to compare that meets all --where"),
        (["compare", "--where", "lr=[1"], "--where lr=[1: not valid YAML"),
        (["compare", "--sort", "beauty"], "--sort beauty: sort by one of val_accuracy, "),
        (["compare", "--last", "0"], "0 is not in the range x>=1"),
        (["compare", "99"], "no run called '99'; the last 5 of 7 are 0003-a, "),
        (["compare", "--report", "/no/such/folder/r.html"], "/no/such/folder/r.html: cannot be written: No such file"),
        (["export", "../.."], "../..: is not a run: it has neither metrics.json nor event files"),
        (["runs", "show", "nothing"], "no run called 'nothing'"),
        (["runs", "show", "77"], "no run called '77'"),
        (["runs", "diff", "1"], "Missing argument 'OTHER'"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], sentence: str, logdir: Path, ask: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(logdir)
    _, error = ask(*arguments, "--logdir", logdir, code=1 if arguments[0] == "export" else 2)
    assert sentence in error


def test_an_absent_and_an_empty_log_folder(tmp_path: Path, ask: Answer) -> None:
    _, error = ask("compare", "--logdir", tmp_path / "none", code=2)
    assert error == f"mnist-tb: {tmp_path / 'none'}: no such log folder\n"
    _, error = ask("compare", "--logdir", tmp_path, code=2)
    assert error == f"mnist-tb: {tmp_path}: no run to compare\n"
    out, _ = ask("runs", "list", "--logdir", tmp_path)
    assert out == f"{tmp_path}: no runs yet\n"
    out, _ = ask("export", "--logdir", tmp_path)
    assert out == "run,tag,step,wall_time,value\n"


def test_what_was_not_tested_on_the_same_images_is_not_compared() -> None:
    (section,) = compare.compare([row("a", 0.9), row("b", 0.8)])
    assert [line.difference for line in section.lines] == [None, None], "without predictions nothing is known"
    assert [s.data for s in compare.compare([row("a", 0.9), row("b", 0.8, "y"), row("c", 0.7)])] == ["x", "y"]
    assert compare.compare([row("a", 0.9, None)])[0].data == "data not known"


def test_labels_must_be_the_same(tmp_path: Path) -> None:
    one, other = (track(tmp_path, name, 0.1, 0, 0.9) for name in "ab")
    predict(other, 80, label=1)
    (section,) = compare.compare(list_runs(tmp_path).runs)
    assert section.lines[1].difference is None
    predict(other, 80)
    (section,) = compare.compare(list_runs(tmp_path).runs)
    assert section.lines[1].difference is not None
    whole = other.predictions.read_bytes()
    for content in (b"", b"PK\x03\x04 rubbish", b"\x80\x04N.", whole[:-1], whole[:70]):
        other.predictions.write_bytes(content)
        (section,) = compare.compare(list_runs(tmp_path).runs)
        assert section.lines[1].difference is None
    np.save(other.predictions, np.zeros(100))
    (section,) = compare.compare(list_runs(tmp_path).runs)
    assert section.lines[1].difference is None
    assert one.name == section.lines[0].values["run"]


def test_a_run_that_is_not_finished_comes_last() -> None:
    (section,) = compare.compare([row("a", None), row("b", 0.8)])
    assert [line.values["run"] for line in section.lines] == ["b", "a"]


# ---- Runs of mnist-tb train


def test_a_real_training(finished: Run, ask: Answer, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / finished.name)
    out, _ = ask("runs", "show", "1", "--logdir", tmp_path)
    metrics = finished.read_metrics()
    assert f"accuracy {metrics['test']['accuracy']:.2%}, loss {metrics['test']['loss']:.4f}" in out
    assert re.search(r"data +digits, 299 test images", out)
    assert re.search(r"model.channels +16-32-64", out)
    assert re.search(r"predictions.npy +[\d,]+ bytes", out)
    out, _ = ask("runs", "list", "--logdir", tmp_path)
    assert re.search(rf"{finished.name} +completed +digits +3/3 +\d\d.\d\d +\d\d.\d\d +20\d\d-\d\d-\d\d", out)
    stored = np.load(finished.predictions)
    assert stored.shape == (299,)
    assert (stored["label"] == stored["prediction"]).mean() == metrics["test"]["accuracy"]
    assert stored["confidence"].min() > 0.1


def test_an_older_run_has_the_defaults_of_what_came_later(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "0001-new")
    shutil.copytree(finished.path, tmp_path / "0002-old")
    old = Run(tmp_path / "0002-old")
    metrics = old.read_metrics()
    del metrics["config"]["schedule.warmup"]
    old.write_metrics(metrics)
    (section,) = compare.compare(list_runs(tmp_path).runs)
    assert section.varying == []


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_the_true_status(status: str, finished: Run, tmp_path: Path, ask: Answer) -> None:
    shutil.copytree(finished.path, tmp_path / "0001-a")
    run = Run(tmp_path / "0001-a")
    run.update_metrics(status=status, error="it was so")
    out, _ = ask("runs", "list", "--logdir", tmp_path)
    assert ("killed" if status == "running" else status) in out
    out, _ = ask("runs", "show", "1", "--logdir", tmp_path)
    assert ("it was so" in out) == (status == "failed")
    with run.in_use():
        out, _ = ask("runs", "list", "--logdir", tmp_path)
    assert status in out


def test_two_configurations_side_by_side(logdir: Path, ask: Answer) -> None:
    out, _ = ask("runs", "diff", "1", "2", "--logdir", logdir)
    assert re.search(r"setting +0001-a +0002-b", out)
    assert re.search(r"lr +0.1 +0.01", out)
    assert "width" not in out
    out, _ = ask("runs", "diff", "1", "1", "--logdir", logdir)
    assert out == "0001-a and 0001-a have the same settings, code and packages.\n"


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"status": 3, "config": 4, "val": 5, "test": [], "images": "x"}', "\udcff"]
)
def test_a_broken_metrics_file_is_named_and_the_others_are_read(text: str, logdir: Path, ask: Answer) -> None:
    broken = logdir / "0001-a" / "metrics.json"
    broken.write_bytes(text.encode(errors="surrogateescape"))
    (logdir / "0001-a" / "config.yaml").unlink()
    out, error = ask("runs", "list", "--logdir", logdir, code=1)
    assert "0001-a" in error
    assert error.endswith("mnist-tb: not everything could be read: 1 problem\n")
    assert "0002-b" in out


# ---- What others wrote

WRITE_OTHERS = """
import sys
from torch.utils.tensorboard import SummaryWriter
from tensorboardX import SummaryWriter as WriterX
from lightning.pytorch.loggers import TensorBoardLogger
logdir = sys.argv[1]
with SummaryWriter(logdir + "/plain") as writer:
    for step in range(3):
        writer.add_scalar("Loss/val", 1 / (step + 1), step)
        writer.add_scalar("Accuracy/val", step / 4, step)
    writer.add_scalar("odd", float("nan"), 0)
    writer.add_scalar("odd", float("inf"), 1)
    writer.add_scalar("new", 0.1, 1, new_style=True)
    writer.add_scalar("double", 0.1, 1, new_style=True, double_precision=True)
    writer.add_text("words", "are no number")
    writer.add_hparams({"lr": 0.1, "bsize": 4}, {"hparam/accuracy": 1})
with WriterX(logdir + "/x") as writer:
    writer.add_scalar("test/acc", 0.875, 7)
logger = TensorBoardLogger(logdir, name="lit", version=0)
logger.log_hyperparams({"lr": 0.02, "model": {"width": 3}})
logger.log_metrics({"val_acc": 0.5, "val_loss": 0.75}, 10)
logger.finalize("success")
"""


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs written by torch's SummaryWriter, by tensorboardX and by Lightning. Do not change them."""
    folder = tmp_path_factory.mktemp("others")
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE_OTHERS, str(folder)], check=True, capture_output=True)
    (folder / "empty" / "folder").mkdir(parents=True)
    (folder / "notes.txt").write_text("tfevents are great")
    return folder


def test_runs_of_others(others: Path, ask: Answer) -> None:
    found = {row.name: row for row in list_runs(others).runs}
    child = next(name for name in found if name.startswith("plain/"))  # add_hparams makes one
    assert set(found) == {"plain", child, "x", "lit/version_0"}
    assert (found["plain"].val_accuracy, found["plain"].val_loss) == (0.5, pytest.approx(1 / 3))
    assert found["x"].test_accuracy == 0.875
    assert (found["x"].step, found["x"].dataset, found["x"].native) == (7, None, False)
    lit = found["lit/version_0"]
    assert (lit.settings["lr"], lit.settings["model.width"], lit.val_accuracy) == (0.02, 3, 0.5)
    assert found[child].settings == {"lr": 0.1, "bsize": 4.0}
    assert found[child].status == "completed"
    out, error = ask("compare", "--logdir", others)
    assert "data not known" in out
    assert error == ""
    out, _ = ask("compare", "lit/version_0", "x", "--logdir", others, "--format", "csv")
    assert [line["run"] for line in csv.DictReader(io.StringIO(out))] == ["lit/version_0", "x"]


def test_runs_of_unknown_settings_are_no_repeats_of_each_other(tmp_path: Path, ask: Answer) -> None:
    for name, accuracy in (("a", 0.5), ("b", 0.75)):
        with SummaryWriter(str(tmp_path / name)) as writer:
            writer.add_scalar("test/accuracy", accuracy, 1)
    out, _ = ask("compare", "--group", "--logdir", tmp_path, "--format", "json")
    (section,) = json.loads(out)
    assert {(*line["runs"], line["test_accuracy"]) for line in section["lines"]} == {("a", 0.5), ("b", 0.75)}


def test_which_curve_is_which_may_be_told(tmp_path: Path, ask: Answer) -> None:
    """Else it is guessed: of two curves that may be the validation's, the shorter name."""
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        for step in (1, 2):
            writer.add_scalar("valid_acc", 0.25 * step, step)
            writer.add_scalar("top5/valid_acc", 0.4 * step, step)
            writer.add_scalar("holdout", 0.125 * step, step)
    with Tracker(tmp_path, "tracked") as tracker:
        tracker.scalars(1, {"top5/valid_acc": 0.75, "loss/val": 0.5})

    def told(*metrics: str) -> dict[str, tuple[float | None, ...]]:
        arguments = [part for metric in metrics for part in ("--metric", metric)]
        out, error = ask("compare", *arguments, "--logdir", tmp_path, "--format", "json")
        assert error == ""
        lines = [line for section in json.loads(out) for line in section["lines"]]
        keys = ("val_accuracy", "test_accuracy", "val_loss")
        return {line["run"]: tuple(line[key] for key in keys) for line in lines}

    assert told() == {"theirs": (0.5, None, None), "0001-tracked": (None, None, 0.5)}
    top5 = told("accuracy/val=top5/valid_acc", "accuracy/test=holdout")
    assert top5["theirs"] == pytest.approx((0.8, 0.25, None), nan_ok=True)
    assert top5["0001-tracked"] == pytest.approx((0.75, None, 0.5)), "what a Tracker wrote under another name too"
    assert told("accuracy/val=nobody/has/this") == told(), "a run without the curve is read as before"

    report = tmp_path.parent / "told.html"
    ask("compare", "--metric", "accuracy/val=top5/valid_acc", "--logdir", tmp_path, "--report", report)
    data = json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(), re.S)[1])  # type: ignore[index]
    curves = {run["name"]: set(run["curves"]) for run in data["runs"]}
    assert curves["theirs"] == {"accuracy/val", "valid_acc", "holdout"}
    assert curves["0001-tracked"] == {"accuracy/val", "loss/val"}


def test_exact_values_of_others(others: Path, ask: Answer) -> None:
    out, _ = ask("export", "plain", "--logdir", others)
    lines = list(csv.DictReader(io.StringIO(out)))
    values = {(line["tag"], int(line["step"])): line["value"] for line in lines}
    single = struct.unpack("<f", struct.pack("<f", 1 / 3))[0]
    assert float(values["Loss/val", 2]) == single
    assert (values["odd", 0], values["odd", 1]) == ("nan", "inf")
    assert float(values["new", 1]) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert values["double", 1] == "0.1"
    assert ("words/text_summary", 0) not in values
    read = read_events(Run(others / "plain"))
    for tag in read.Tags()["scalars"]:
        assert [float(values[tag, e.step]) for e in read.Scalars(tag)] == pytest.approx(
            [e.value for e in read.Scalars(tag)], nan_ok=True
        )
        assert [float(line["wall_time"]) for line in lines if line["tag"] == tag] == [
            e.wall_time for e in read.Scalars(tag)
        ]


def test_an_export_of_no_curve_is_said(others: Path, ask: Answer) -> None:
    out, error = ask("export", "--tag", "losss/*", "--logdir", others)
    assert out == "run,tag,step,wall_time,value\n"
    assert "--tag losss/*: no curve has such a tag" in error


def test_export_as_json_is_valid_json(others: Path, ask: Answer) -> None:
    def forbid(text: str) -> None:
        pytest.fail(f"{text} is no JSON")

    out, _ = ask("export", "plain", "x", "--logdir", others, "--format", "json", "--tag", "odd", "--tag", "*/acc")
    found = json.loads(out, parse_constant=forbid)
    assert [(point["run"], point["tag"], point["value"]) for point in found] == [
        ("plain", "odd", "nan"), ("plain", "odd", "inf"), ("x", "test/acc", 0.875),
    ]  # fmt: skip
    out, _ = ask("export", "x", "--logdir", others, "--format", "json", "--tag", "nothing")
    assert json.loads(out) == []


def test_export_of_a_real_training(finished: Run, ask: Answer) -> None:
    out, _ = ask("export", finished.path, "--tag", "loss/*")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert {line["tag"] for line in lines} == {"loss/train", "loss/val", "loss/test"}
    expected = [(e.step, e.value) for e in read_events(finished).Scalars("loss/val")]
    assert [(int(line["step"]), float(line["value"])) for line in lines if line["tag"] == "loss/val"] == expected


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """The event file of a foreign run of ten points."""
    (tmp_path / "run").mkdir()
    with EventWriter(tmp_path / "run") as writer:
        for step in range(10):
            writer.scalars(step, {"loss/val": float(step)})
    return next((tmp_path / "run").glob("*tfevents*"))


def test_a_truncated_file_is_named_and_no_failure(one: Path, ask: Answer) -> None:
    content = one.read_bytes()
    for cut in (1, 5, 12, 20):
        one.write_bytes(content[:-cut])
        out, error = ask("export", "--logdir", one.parent.parent)
        assert error == f"mnist-tb: {one}: it ends in the middle of a record; the rest was read\n"
        assert out.count("\n") == 10


def test_a_broken_record_is_named_and_the_rest_is_read(one: Path, ask: Answer) -> None:
    content = bytearray(one.read_bytes())
    content[-6] ^= 1
    one.write_bytes(content)
    out, error = ask("export", "--logdir", one.parent.parent, code=1)
    assert f"mnist-tb: {one}: 1 broken record; the rest was read\n" in error
    assert out.count("\n") == 10


def test_any_harm_to_an_event_file(one: Path) -> None:
    """Whatever byte is changed, wherever it is cut: points that are read are right, and the harm is known."""
    content = one.read_bytes()
    right = [(point.step, point.value) for point in reader.points(one.parent, {})]
    assert len(right) == 10
    for place in range(0, len(content), 3):
        one.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        damage: dict[str, Damage | str] = {}
        found = [(point.step, point.value) for point in reader.points(one.parent, damage)]
        assert set(found) < set(right) or found == right
        assert damage
        one.write_bytes(content[:place])
        cut: dict[str, Damage | str] = {}
        found = [(point.step, point.value) for point in reader.points(one.parent, cut)]
        assert found == right[: len(found)]


@pytest.mark.parametrize("content", [b"", b"x", b"no event file at all, but a long text", bytes(1000)])
def test_what_is_no_event_file(content: bytes, tmp_path: Path, ask: Answer) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.out.tfevents.1").write_bytes(content)
    for command in ("compare", "export"):
        _, error = ask(command, "--logdir", tmp_path, code=1 if len(content) > 11 else 0)
        assert ("events.out.tfevents.1" in error) == bool(content)


def test_an_event_file_that_cannot_be_opened(tmp_path: Path, ask: Answer) -> None:
    (tmp_path / "run" / "events.out.tfevents.1").mkdir(parents=True)
    (tmp_path / "good").mkdir()
    with EventWriter(tmp_path / "good") as writer:
        writer.scalars(1, {"a": 1.0})
    out, error = ask("export", "good", "run", "--logdir", tmp_path, code=1)
    assert "events.out.tfevents.1: cannot be read: Is a directory" in error
    assert "good,a,1," in out


def test_records_of_our_own_reader_are_tensorboards(finished: Run) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    for name in records.sizes(finished.path):
        path = finished.path / name
        damage = Damage()
        assert list(records.contents(path, damage)) == list(RawEventFileLoader(str(path)).Load())
        assert not damage


# ---- A thousand runs


def test_the_table_of_many_runs_reads_no_events(logdir: Path, monkeypatch: pytest.MonkeyPatch, ask: Answer) -> None:
    def fail(*arguments: object) -> None:
        pytest.fail("event files were read")

    ask("runs", "list", "--logdir", logdir)  # what it has read is kept
    monkeypatch.setattr(reader, "read", fail)
    monkeypatch.setattr(reader, "points", fail)
    for command in (["compare"], ["compare", "--group"], ["runs", "list"]):
        out, error = ask(*command, "--logdir", logdir)
        assert "0007-other" in out or "numbers" in out
        assert error == ""


def test_the_commands_about_runs_import_no_torch(logdir: Path) -> None:
    code = (
        "import sys; from mnist_tb.cli.main import main\n"
        f"for words in (['runs', 'list'], ['compare', '--group'], ['export'], ['runs', 'show', '1']):\n"
        f"    assert main(arguments=[*words, '--logdir', {str(logdir)!r}]) == 0\n"
        "assert not {'torch', 'scipy.stats', 'sklearn', 'torchvision'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


# ---- Renamed and removed


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_new_name(logdir: Path, ask: Answer) -> None:
    before = list_runs(logdir).runs[0]
    out, _ = ask("runs", "rename", "1", "better", "--logdir", logdir)
    assert out == f"It is now {logdir / '0001-better'}\n"
    after = list_runs(logdir).runs[0]
    assert (after.name, after.test_accuracy, after.settings) == ("0001-better", before.test_accuracy, before.settings)
    ask("runs", "rename", "1", "better", "--logdir", logdir)


def test_a_renamed_training_keeps_its_configuration_and_goes_on(finished: Run, tmp_path: Path, ask: Answer) -> None:
    shutil.copytree(finished.path, tmp_path / finished.name)
    ask("runs", "rename", "1", "better", "--logdir", tmp_path)
    run = list_run_folders(tmp_path)[0]
    assert run.config.read_text() == finished.config.read_text().replace("name: digits-ep3", 'name: "better"', 1)
    assert run.read_metrics()["config"]["name"] == "better"
    ask("resume", "1", "--epochs", "4", "--logdir", tmp_path)
    assert run.read_metrics()["epoch"] == 4


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\nb", "x" * 41, "ü", ".hidden", "-x"])
def test_impossible_names(name: str, logdir: Path, ask: Answer) -> None:
    before = everything(logdir.parent)
    arguments = (
        ["runs", "rename", "--logdir", logdir, "1", "--", name]
        if name == "-x"
        else ["runs", "rename", "1", name, "--logdir", logdir]
    )
    _, error = ask(*arguments, code=2)
    assert "a name must be 1 to 40 letters, digits" in error
    assert everything(logdir.parent) == before


def test_a_name_that_is_taken(logdir: Path, ask: Answer) -> None:
    (logdir / "0001-b").mkdir()
    (logdir / "0001-b" / "mine").touch()
    _, error = ask("runs", "rename", "0001-a", "b", "--logdir", logdir, code=2)
    assert "0001-b: this run exists already" in error
    assert (logdir / "0001-a" / "metrics.json").exists()


def test_removal_asks_first(logdir: Path, monkeypatch: pytest.MonkeyPatch, ask: Answer) -> None:
    before = everything(logdir)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    _, error = ask("runs", "remove", "1", "--logdir", logdir, code=1)
    assert error == "mnist-tb: nothing was deleted\n"
    assert everything(logdir) == before
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    out, _ = ask("runs", "remove", "1", "2", "--logdir", logdir)
    assert f"{logdir / '0001-a'}\n{logdir / '0002-b'}\n" in out
    assert "Delete these for good?" in out
    assert [run.name for run in list_run_folders(logdir)] == ["0003-a", "0004-b", "0005-a", "0006-b", "0007-other"]
    assert not list(logdir.glob(".*"))


def test_a_removal_that_was_killed_is_completed(logdir: Path, ask: Answer) -> None:
    (logdir / "0001-a").rename(logdir / ".removed-0001-a.0")
    ask("runs", "remove", "2", "--yes", "--logdir", logdir)
    assert not list(logdir.glob(".*"))


def test_a_run_in_use_is_neither_renamed_nor_removed(logdir: Path, ask: Answer) -> None:
    before = everything(logdir)
    with Run(logdir / "0001-a").in_use():
        for command in (["rename", "1", "x"], ["remove", "2", "1", "--yes"]):
            _, error = ask("runs", *command, "--logdir", logdir, code=2)
            assert "0001-a: this run is in use by another process; wait until it has ended" in error
    assert everything(logdir) == before


@pytest.mark.parametrize(
    "which", ["..", ".", "/", "../outside", "0001-a/checkpoints", "a\nb", "x" * 300, "0009-link/x"]
)
def test_nothing_outside_is_touched(which: str, logdir: Path, ask: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = logdir.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (logdir / "0009-link").symlink_to(outside)
    monkeypatch.chdir(logdir)
    before = everything(logdir.parent)
    for command in (["remove", which, "--yes"], ["rename", which, "x"]):
        _, error = ask("runs", *command, "--logdir", logdir, code=2)
        assert error.startswith("mnist-tb: ")
    assert everything(logdir.parent) == before


def test_of_a_link_the_link_alone_is_renamed_and_removed(logdir: Path, ask: Answer) -> None:
    outside = shutil.copytree(logdir / "0001-a", logdir.parent / "outside")
    (logdir / "0009-link").symlink_to(outside)
    before = everything(outside)
    ask("runs", "rename", "9", "other", "--logdir", logdir)
    assert (logdir / "0009-other").is_symlink()
    ask("runs", "remove", "9", "--yes", "--logdir", logdir)
    assert not os.path.lexists(logdir / "0009-other")
    assert everything(outside) == before


def test_links_within_a_run_are_not_followed(logdir: Path, ask: Answer) -> None:
    outside = logdir.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (logdir / "0001-a" / "link").symlink_to(outside)
    shutil.rmtree(logdir / "0002-b" / "checkpoints")
    (logdir / "0002-b" / "checkpoints").symlink_to(outside)
    ask("runs", "remove", "1", "2", "--yes", "--logdir", logdir)
    assert (outside / "precious").read_text() == "mine"


def test_a_listing_while_runs_come_and_go(logdir: Path, ask: Answer) -> None:
    """Half a second of renaming in another process: every answer is whole, or names what went away."""
    code = (
        "import sys, time; from pathlib import Path; end = time.time() + 2; p = Path(sys.argv[1])\n"
        "while time.time() < end: p = p.rename(p.with_name('0001-b' if p.name == '0001-a' else '0001-a'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(logdir / "0001-a")])
    time.sleep(0.2)
    while process.poll() is None:
        found = list_runs(logdir)
        assert len(found.runs) >= 6
        assert len(found.runs) + len(found.problems) >= 7 or not found.problems
    assert process.returncode == 0


@pytest.mark.parametrize("fast", ["true", "false"])
def test_a_page_that_stayed_open_follows(fast: str, logdir: Path, ask: Answer) -> None:
    port = str(free_port())
    arguments = ["--logdir", str(logdir), "--port", port, "--load_fast", fast, "--reload_interval", "1"]
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://localhost:{port}"
    try:
        wait_for_runs(address, 7)
        ask("runs", "rename", "3", "better", "--logdir", logdir)
        ask("runs", "remove", "1", "2", "--yes", "--logdir", logdir)
        expected = ["0003-better", "0004-b", "0005-a", "0006-b", "0007-other"]
        end = time.monotonic() + 60
        while sorted(get(f"{address}/data/runs")) != expected and time.monotonic() < end:
            time.sleep(0.5)
        assert sorted(get(f"{address}/data/runs")) == expected
        assert len(get(f"{address}/data/plugin/scalars/scalars?run=0003-better&tag=loss/val")) == 2
    finally:
        board.terminate()
        board.wait(30)
