"""What `--json` prints is what docs/json.md says, of every command that reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import cli, main
from mnist_tb.runs.folder import Run

DOC = (REPOSITORY / "docs" / "json.md").read_text()
SHAPES = {
    name: dict(re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", body, re.M))
    for name, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOC, re.M | re.S)
}
KINDS: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "list": list, "object": dict,
    "null": type(None),
}  # fmt: skip
WRITING = {"train", "resume", "board", "sweep", "runs tag", "runs note", "runs rename", "runs remove"}


def check(value: dict[str, Any], *shapes: str) -> None:
    """It has the keys of these sections, no others, and their types."""
    known = {key: kind for shape in shapes for key, kind in SHAPES[shape].items()}
    for key, kind in known.items():
        if kind != "any":
            kinds = [KINDS[name] for name in kind.split(" or ")]
            assert any(isinstance(value[key], each) and not (isinstance(value[key], bool) and each is not bool)
                       for each in kinds), (key, value[key], kind)  # fmt: skip
    rest = {key for key in value if key not in known and not (key.startswith("settings.") and "settings.*" in known)}
    assert not rest


@pytest.fixture(scope="module")
def logdir(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of ours, on the same data, one of torch's SummaryWriter and one that failed."""
    folder = tmp_path_factory.mktemp("json")
    (folder / finished.name).symlink_to(finished.path)
    arguments = ["--config", str(REPOSITORY / "configs" / "digits.yaml"), "--logdir", str(folder), "--epochs", "3"]
    assert main(arguments=["train", *arguments, "--seed", "1"]) == 0
    assert main(arguments=["train", *arguments, "--lr", "1e30"]) == 1
    with TorchWriter(str(folder / "other")) as writer:
        writer.add_scalar("val_loss", float("nan"), 1)
        writer.add_scalar("val_loss", 0.5, 2)
    return folder


@pytest.fixture
def said(logdir: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints, read strictly: NaN is no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def run(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        where = [] if words[0] == "configs" else ["--logdir", str(logdir)]
        assert main(arguments=[*words, "--json", *where]) == code
        return json.loads(capsys.readouterr().out, parse_constant=refuse)

    return run


def test_every_reading_command_has_it_and_is_documented() -> None:
    groups = {name: each for name, each in cli.commands.items() if isinstance(each, click.Group)}
    commands = {name: each for name, each in cli.commands.items() if name not in groups}
    commands |= {f"{name} {sub}": each for name, group in groups.items() for sub, each in group.commands.items()}
    with_json = {name for name, each in commands.items() if any("--json" in one.opts for one in each.params)}
    assert with_json == set(commands) - WRITING
    assert with_json <= {name.strip() for section in SHAPES for name in section.split(",")}


def test_runs(said: Any) -> None:
    rows = said("runs", "list")
    assert [row["status"] for row in rows] == ["completed", "completed", "failed", "unknown"]
    for row in rows:
        check(row, "runs list, runs show, watch")
        check(said("runs", "show", row["run"])[0], "runs list, runs show, watch")
    assert rows[2]["error"].startswith("the training loss is NaN or infinite")
    assert rows[0]["settings.train.epochs"] == 3
    assert rows[3]["val_loss"] == 0.5


def test_a_line_of_watch(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["watch", "1", "other", "--until-end", "--json", "--logdir", str(logdir)]
    capsys.readouterr()
    assert main(arguments=arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {json.loads(line)["run"] for line in lines} == {"0001-digits-ep3", "other"}
    for line in lines:
        check(json.loads(line), "runs list, runs show, watch", "watch")


def test_differences_and_commands(said: Any) -> None:
    found = said("runs", "diff", "1", "2")
    check(found, "runs diff")
    assert found["settings"]["seed"] == [0, 1]
    assert said("runs", "diff", "1", "other")["settings"]["seed"] == [0, None]
    assert said("runs", "diff", "other", "other") == {"runs": ["other"] * 2, "settings": {}, "made_with": {}}
    found = said("runs", "reproduce", "2")
    check(found, "runs reproduce")
    assert "mnist_tb train --config" in found["commands"][-1]


def test_comparisons(said: Any) -> None:
    for section in said("compare"):
        check(section, "compare")
        for line in section["lines"]:
            check(line, "compare, a line")
    grouped = said("compare", "--group", "1", "2")
    assert grouped[0]["lines"][0]["n"] == 2
    for line in grouped[0]["lines"]:
        check(line, "compare --group, a line")


def test_points(said: Any) -> None:
    points = said("export", "1", "other")
    for point in points:
        check(point, "export")
    assert [point["value"] for point in points if point["run"] == "other"] == ["nan", 0.5]


def test_evaluations_and_predictions(said: Any, tmp_path: Path) -> None:
    check(said("evaluate", "1"), "evaluate")
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 12:16] = 255
    Image.fromarray(picture).save(tmp_path / "one.png")
    found = said("predict", "1", str(tmp_path / "one.png"), str(tmp_path / "one.png"))
    assert len(found) == 2
    for one in found:
        check(one, "predict")


def test_configurations(said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for row in said("configs"):
        check(row, "configs")
        assert isinstance(said("configs", row["name"]), dict)
    assert said("configs", "fast")["train"]["epochs"] == 2
    assert main(arguments=["configs", "fast", "--json", "--output", "x.yaml"]) == 2
    assert capsys.readouterr().err.startswith("mnist-tb: --json: prints, and --output writes the YAML")


def test_what_cannot_be_read_is_said_beside_it(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--epochs", "1")
    (train("--epochs", "1").path.rename(tmp_path / "runs" / "0002-broken") / "metrics.json").write_text("{")
    capsys.readouterr()
    for words in (["runs", "list"], ["compare"], ["export"]):
        assert main(arguments=[*words, "--json", "--logdir", str(tmp_path / "runs")]) == 1
        out, err = capsys.readouterr()
        assert len(json.loads(out)) > 0
        assert "0002-broken" in err


def test_a_setting_that_is_null_is_told_from_one_that_is_not_there(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--epochs", "1")
    train("--epochs", "1", "--set", "schedule.epochs=1")
    capsys.readouterr()
    assert main(arguments=["runs", "diff", "1", "2", "--logdir", str(tmp_path / "runs")]) == 0
    assert re.search(r"^schedule\.epochs +none +1$", capsys.readouterr().out, re.M)
