"""Which runs `compare` takes, and what it prints where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mnist_tb import Tracker
from mnist_tb.cli.main import main


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Two runs, one of them tagged, and nearly perfect."""
    for name, lr, accuracy, tags in (("first", 0.1, 0.99996, ["good"]), ("second", 0.2, 0.00004, [])):
        settings = {"lr": lr, "optimizer": {"name": "adam"}, "name": f"{name} try"}
        with Tracker(tmp_path / "runs", name, settings, dataset="letters", tags=tags) as tracker:
            tracker.scalars(1, {"accuracy/val": accuracy, "accuracy/test": accuracy})
            tracker.predictions(np.zeros(9, int), np.eye(2)[[int(lr > 0.1)] * 9])
    return tmp_path / "runs"


def runs(logdir: Path, capsys: pytest.CaptureFixture[str], *conditions: str) -> list[str]:
    where = [part for condition in conditions for part in ("--where", condition)]
    assert main(arguments=["compare", "--logdir", str(logdir), "--json", *where]) == 0
    return [line["run"] for section in json.loads(capsys.readouterr().out) for line in section["lines"]]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["name=0001-first"], ["0001-first"]),
        (["name=first"], ["0001-first"]),
        (["name=first", "name=0001-first"], ["0001-first"]),
        (["name=second try"], ["0002-second"]),
        (["name=adam"], ["0001-first", "0002-second"]),
        (["tag=good", "lr=0.1"], ["0001-first"]),
    ],
)
def test_a_run_is_found_by_its_name(
    conditions: list[str], found: list[str], logdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs(logdir, capsys, *conditions) == found


def test_a_run_of_ours_is_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings have names of their own: of the data, the optimiser and the schedule."""
    digits = ["train", "--config", "digits", "--epochs", "1", "--logdir", str(tmp_path)]
    assert main(arguments=digits) == 0
    capsys.readouterr()
    for name in ("0001-digits-ep1", "digits-ep1", "adam"):
        assert runs(tmp_path, capsys, f"name={name}") == ["0001-digits-ep1"]


@pytest.mark.parametrize("conditions", [["tag=none", "lr=0.1"], ["lr=0.1", "tag=none"], ["lr=0.3", "lr=0.1"]])
def test_of_several_conditions_none_is_blamed_for_another(
    conditions: list[str], logdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [part for condition in conditions for part in ("--where", condition)]
    assert main(arguments=["compare", "--logdir", str(logdir), *where]) == 2
    assert capsys.readouterr().err == f"mnist-tb: {logdir}: no run to compare that meets all --where\n"


def test_with_json_nothing_else_is_printed(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--report", str(logdir.parent / "r.html"), "--figure", str(logdir.parent / "a.pdf")]
    assert main(arguments=["compare", "--logdir", str(logdir), "--json", *files]) == 0
    out, error = capsys.readouterr()
    assert len(json.loads(out)[0]["lines"]) == 2
    assert error.startswith(f"The report: {files[1]}\nThe figure: {files[3]}\n")
    assert main(arguments=["compare", "--logdir", str(logdir), *files]) == 0
    assert capsys.readouterr().out.startswith(f"The report: {files[1]}\nThe figure: ")


def test_a_format_is_printed_beside_a_report(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = ["--report", str(logdir.parent / "r.html")]
    for form, start in (("csv", "dataset,"), ("markdown", "**letters**"), ("table", "0001-first is ")):
        assert main(arguments=["compare", "--logdir", str(logdir), "--format", form, *report]) == 0
        assert capsys.readouterr().out.startswith(start)


def test_of_two_formats_one_is_chosen(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["compare", "--logdir", str(logdir), "--json", "--format", "csv"]) == 2
    assert capsys.readouterr() == ("", "mnist-tb: --json, --format csv: give one of them\n")
    assert main(arguments=["compare", "--logdir", str(logdir), "--json", "--format", "json"]) == 0


def test_what_is_not_all_right_is_not_a_hundred_percent(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["compare", "--logdir", str(logdir)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"0001-first +99\.996 +99\.996 +best", out)
    assert re.search(r"0002-second +0\.004 +0\.004", out)
