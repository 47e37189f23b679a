"""Exports go on where the last one ended: every point once."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from helpers.events import scalars
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.runs.folder import Run


def exported(capsys: pytest.CaptureFixture[str], logdir: Path, *words: str) -> list[str]:
    capsys.readouterr()
    assert main(arguments=["export", *words, "--logdir", str(logdir)]) == 0
    return capsys.readouterr().out.splitlines()


def test_each_point_once_and_one_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "place.json")
    lines: list[str] = []
    with Tracker(tmp_path / "runs", "mine", {}) as tracker:
        for step in range(30):
            tracker.scalars(step, {"loss/train": 1 / (step + 1), "loss/val": float("nan")})
            if step % 7 == 0:
                tracker.state_dict()  # all that came before is on the disk
                lines += exported(capsys, tmp_path / "runs", "--since", place)
    with Tracker(tmp_path / "runs", "second", {}) as tracker:
        tracker.scalars(0, {"loss/train": 3.0})
    lines += exported(capsys, tmp_path / "runs", "--since", place)
    assert exported(capsys, tmp_path / "runs", "--since", place) == []
    assert lines == exported(capsys, tmp_path / "runs")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [int(row["step"]) for row in rows if (row["run"], row["tag"]) == ("0001-mine", "loss/val")] == [*range(30)]
    assert rows[-1]["run"] == "0002-second"


def test_json_goes_on_too(tmp_path: Path, finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / finished.name)
    place = ("--json", "--since", str(tmp_path / "place.json"))
    points = json.loads("\n".join(exported(capsys, tmp_path / "runs", *place)))
    curve = [(point["step"], point["value"]) for point in points if point["tag"] == "loss/train"]
    assert curve == scalars(finished)["loss/train"]
    assert exported(capsys, tmp_path / "runs", *place) == ["[", "]"]


def test_a_resumed_run_goes_on_behind_what_was_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "place.json")
    with Tracker(tmp_path / "runs", "mine", {}) as tracker:
        tracker.scalars(1, {"a": 1.0})
        state = tracker.state_dict()
        tracker.scalars(2, {"a": 2.0})
    before = exported(capsys, tmp_path / "runs", "--tag", "a", "--since", place)
    assert len(before) == 3
    with Tracker.resume(tmp_path / "runs" / "0001-mine", state) as tracker:
        tracker.scalars(2, {"a": -2.0})
        tracker.scalars(3, {"a": 3.0})
    after = exported(capsys, tmp_path / "runs", "--tag", "a", "--since", place)
    assert [line.rpartition(",")[2] for line in after] == ["-2.0", "3.0"]


def test_what_a_restart_takes_back_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are in the order of the files; what was exported before stays where it is."""
    place = ("--since", str(tmp_path / "place.json"))
    for part, purge in enumerate((None, 2)):
        with TorchWriter(str(tmp_path / "runs" / "a"), purge_step=purge, filename_suffix=f".{part}") as writer:
            for step in range(purge or 0, 4):
                writer.add_scalar("x", 10 * part + step, step)
                writer.add_scalar("y", step, step)
        assert len(exported(capsys, tmp_path / "runs", *place)) == (4 if part else 1 + 8)
        whole = list(csv.DictReader(exported(capsys, tmp_path / "runs")))
    assert [row["tag"] for row in whole] == ["x", "y"] * 4
    assert [float(row["value"]) for row in whole if row["tag"] == "x"] == [0, 1, 12, 13]


def test_the_place_moves_only_when_all_was_taken(
    tmp_path: Path, finished: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / finished.name)
    place = tmp_path / "place.json"
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(SystemExit, match="1"):
            main(arguments=["export", "--since", str(place), "--logdir", str(tmp_path / "runs")])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # what is left in the buffer
    assert not place.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "read": {}}', '{"format": 1, "read": {"a": {"b": -1}}}'])
def test_a_file_that_export_did_not_write_is_refused_and_kept(
    tmp_path: Path, finished: Run, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place.json"
    place.write_text(content)
    arguments = ["export", "--since", str(place), "--logdir", str(finished.path.parent)]
    assert main(arguments=arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(place) in err
    assert place.read_text() == content


def test_a_folder_that_is_not_there_is_said_before_anything_is_printed(
    tmp_path: Path, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--since", str(tmp_path / "no" / "p"), "--logdir", str(finished.path.parent)]
    assert main(arguments=arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"mnist-tb: --since {tmp_path}/no/p: there is no folder {tmp_path}/no\n")


def test_a_tag_with_line_ends_is_one_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TorchWriter(str(tmp_path / "theirs")) as writer:
        writer.add_scalar("a\rb", 1.0, 1)
    assert main(arguments=["export", "--logdir", str(tmp_path)]) == 0
    header, point = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert (header[1], point[1]) == ("tag", "a\rb")
