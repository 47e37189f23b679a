"""Which runs decide: finished ones. Others are shown, and count if they are asked to; what a group is called."""

from __future__ import annotations

import json
import re
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from mnist_tb import Tracker
from mnist_tb.analysis.compare import compare
from mnist_tb.cli.main import main
from mnist_tb.runs.query import RunSummary

GOOD, WORSE = {"lr": 0.1, "width": [3, 4], "fast": True}, {"lr": 0.1, "width": [3, 5], "fast": True}


def track(
    logdir: Path, settings: dict[str, Any], seed: int, accuracy: float, interrupted: bool = False, data: str = "letters"
) -> None:
    """A run whose accuracy grows to what is said; interrupted: after the first of its two steps."""
    with suppress(KeyboardInterrupt), Tracker(logdir, "run", {**settings, "seed": seed}, dataset=data) as tracker:
        tracker.scalars(1, {"accuracy/val": accuracy - 0.01, "accuracy/test": accuracy, "loss/val": 0.5})
        if interrupted:
            raise KeyboardInterrupt
        tracker.scalars(2, {"accuracy/val": accuracy, "accuracy/test": accuracy, "loss/val": 0.4})


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Three good seeds and three worse ones; and a good one that was interrupted after its first step, at 95 %."""
    for seed in range(3):
        track(tmp_path / "runs", GOOD, seed, 0.992 + seed / 10_000)
        track(tmp_path / "runs", WORSE, seed, 0.988 + seed / 10_000)
    track(tmp_path / "runs", GOOD, 3, 0.95, interrupted=True)
    return tmp_path / "runs"


def lines(logdir: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(arguments=["compare", "--logdir", str(logdir), "--json", *arguments]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    found: list[dict[str, Any]] = section["lines"]
    return found


def overlay(logdir: Path) -> Any:
    """What the Live tab draws of all runs."""
    loaded = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
    context = SimpleNamespace(data_provider=MultiplexerDataProvider(loaded, str(logdir)), logdir=str(logdir))
    with warnings.catch_warnings(action="ignore"):  # of what TensorBoard bundles
        from mnist_tb.board.plugin import LivePlugin
    means = LivePlugin(context).get_plugin_apps()["/means"]  # type: ignore[arg-type]
    return Client(means).get("/means", query_string={"run": sorted(loaded.Runs())}).get_json()


# ---- Which count


def test_an_unfinished_run_does_not_decide(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, worse, rest = lines(logdir, capsys, "--group")
    assert (good["runs"], good["counts"]) == (["0001-run", "0003-run", "0005-run"], True)
    assert good["test_accuracy"] == pytest.approx(0.9921)
    assert worse["significant"] is True
    assert (rest["runs"], rest["counts"], rest["difference"]) == (["0007-run"], False, None)
    assert main(arguments=["compare", "--logdir", str(logdir), "--group"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^7 +1 +94.00 +95.00 +unfinished", out, re.M)
    assert "1 unfinished, not counted: 1 interrupted. --unfinished counts them." in out


def test_unfinished_runs_count_if_they_are_asked_to(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse, good = lines(logdir, capsys, "--group", "--unfinished")
    assert (worse["n"], good["n"]) == (3, 4)
    assert main(arguments=["compare", "--logdir", str(logdir), "--group", "--unfinished"]) == 0
    assert "1 unfinished, counted as well: 1 interrupted." in capsys.readouterr().out


def test_a_seed_that_is_trained_anew_is_what_the_new_training_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    track(tmp_path, GOOD, 0, 0.95, interrupted=True)
    track(tmp_path, GOOD, 0, 0.992)
    first, rest = lines(tmp_path, capsys, "--group")
    assert (first["runs"], first["test_accuracy"]) == (["0002-run"], pytest.approx(0.992))
    assert rest["runs"] == ["0001-run"]


def test_an_unfinished_run_is_below_the_finished_ones(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track(logdir, GOOD, 4, 0.999, interrupted=True)
    for sort in ("val_accuracy", "test_accuracy", "started", "name"):
        found = lines(logdir, capsys, "--sort", sort)
        assert {line["run"] for line in found[-2:]} == {"0007-run", "0008-run"}
        assert [line["status"] for line in found[-2:]] == ["interrupted"] * 2
        assert [line["difference"] for line in found[-2:]] == [None, None]
    assert main(arguments=["compare", "--logdir", str(logdir)]) == 0
    assert re.search(r"0008-run +98.90 +99.90 +unfinished", capsys.readouterr().out)


@pytest.mark.parametrize("group", [[], ["--group"]])
def test_where_no_run_is_finished_none_is_best(
    group: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings in (GOOD, WORSE):
        for seed in range(2):
            track(tmp_path, settings, seed, 0.9 + seed / 100, interrupted=True)
    assert main(arguments=["compare", "--logdir", str(tmp_path), *group]) == 0
    out = capsys.readouterr().out
    assert out.startswith("No run is finished: none is the best, and nothing is tested.\n")
    assert "best" not in out.replace("none is the best", "").replace("vs best", "")
    assert all(line["difference"] is None for line in lines(tmp_path, capsys, *group))


def test_runs_of_other_programs_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        with SummaryWriter(str(tmp_path / name)) as writer:
            writer.add_scalar("test/accuracy", 0.5, 1)
    assert [(line["status"], line["counts"]) for line in lines(tmp_path, capsys)] == [("unknown", True)] * 2


def test_a_whole_number_is_the_same_setting_however_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in enumerate((1, 1.0)):
        track(tmp_path, {"lr": value}, seed, 0.9)
    (line,) = lines(tmp_path, capsys, "--group")
    assert line["n"] == 2


# ---- What a group is called


def test_a_group_is_called_the_same_everywhere(
    logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the sentence, in the report, in the figure, and in the Live tab, which knows of lists what HParams has."""
    names = ["width=[3,4]", "width=[3,5]", "width=[3,4], unfinished"]
    drawn: list[str] = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *_, **__: drawn.extend(str(line.get_label()).partition(" (n")[0] for line in self.axes[0].lines),
    )
    report, figure = tmp_path / "report.html", tmp_path / "a.pdf"
    arguments = ["compare", "--logdir", str(logdir), "--group"]
    assert main(arguments=[*arguments, "--report", str(report), "--figure", str(figure)]) == 0
    data = json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(), re.S)[1])  # type: ignore[index]
    assert data["sections"][0]["summary"].startswith(f"{names[0]} is 0.40 points better than {names[1]} (")
    assert [group["name"] for group in data["groups"]] == names
    assert drawn == names
    assert "1 unfinished, not counted: 1 interrupted." in figure.with_suffix(".caption.txt").read_text()
    assert {group["name"] for group in overlay(logdir)["groups"]} == {*names}


def test_a_setting_of_ours_is_called_the_same_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = ["train", "--config", "digits", "--epochs", "1", "--logdir", str(tmp_path)]
    for more in ([], ["--set", "model.channels=[4, 8, 8]"], ["--batch-size", "32"], ["--lr", "1"]):
        assert main(arguments=[*digits, *more]) in (0, 1)
    assert main(arguments=["compare", "--logdir", str(tmp_path), "--group", "--report", str(tmp_path / "r.html")]) == 0
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "r.html").read_text(), re.S)[1])  # type: ignore[index]
    names = {group["name"] for group in data["groups"]}
    assert any("ch4-8-8" in name for name in names)
    assert {group["name"] for group in overlay(tmp_path)["groups"]} == names


def test_data_are_in_the_name_where_there_are_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And runs on different data are never one line."""
    for data in ("letters", "digits"):
        for settings in (GOOD, WORSE):
            track(tmp_path / "runs", settings, 0, 0.9, data=data)
    report = tmp_path / "r.html"
    assert main(arguments=["compare", "--logdir", str(tmp_path / "runs"), "--group", "--report", str(report)]) == 0
    data = json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(), re.S)[1])  # type: ignore[index]
    names = {f"width=[3,{width}], {data}" for width in (4, 5) for data in ("letters", "digits")}
    assert {group["name"] for group in data["groups"]} == names
    assert {group["name"] for group in overlay(tmp_path / "runs")["groups"]} == names


# ---- The Live tab


def test_the_live_tab_says_which_are_unfinished_and_where_a_mean_ends(logdir: Path) -> None:
    answer = overlay(logdir)
    good, worse, rest = answer["groups"]
    assert (good["seeds"], worse["seeds"], rest["runs"]) == (3, 3, ["0007-run"])
    assert good["curves"]["accuracy"]["val"][-1][0] == 2, "the unfinished one does not cut it"
    assert answer["about"].endswith("the band one standard deviation over the seeds to either side.")
    with Tracker(logdir, "run", {**WORSE, "seed": 9}, dataset="letters") as tracker:
        tracker.scalars(1, {"accuracy/val": 0.9})
    assert overlay(logdir)["about"].endswith("Its seeds differ in length, so it ends with the shortest: width=[3,5].")


def test_the_epochs_of_a_run_are_those_that_are_done(tmp_path: Path) -> None:
    run = RunSummary("0001-a", tmp_path, native=True, status="interrupted", epoch=2, epochs=5)
    (section,) = compare([run])
    assert section.lines[0].values["epochs"] == 2
