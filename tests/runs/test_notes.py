"""Tags and notes: given with the run or later, kept in its folder, shown in TensorBoard, and found by."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.events import read_events
from helpers.fixtures import Train
from helpers.zygote import HELD, Place, Zygote
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.errors import InputError
from mnist_tb.events import tags
from mnist_tb.runs.folder import Run, create_run, list_run_folders
from mnist_tb.runs.notes import Notes, edit_notes, read_notes

SMALL = ("--epochs", "1", "--set", "model.channels=[4, 8, 8]", "--set", "tracking.projector=false")


def in_events(run: Run) -> Notes | None:
    """What TensorBoard shows of a run's notes: the Live tab's, after checking that the Text tab has the same."""
    events = read_events(run)
    if tags.LIVE_NOTES not in events.Tags()["tensors"]:
        return None
    said = json.loads(events.Tensors(tags.LIVE_NOTES)[-1].tensor_proto.string_val[0])
    text = events.Tensors(f"{tags.NOTES_TEXT}")[-1].tensor_proto.string_val[0].decode()
    assert all(f"`{tag}`" in text for tag in said["tags"])
    assert said["note"].replace("\n", "\n\n") in text
    return Notes(tuple(said["tags"]), said["note"])


def command(*arguments: str, logdir: Path) -> int:
    return main(arguments=["runs", *arguments, "--logdir", str(logdir)])


def test_from_the_first_step_and_later(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*SMALL, "--tag", "draft", "--tag", "baseline", "--note", "the first one\nof many")
    other = train(*SMALL, "--seed", "1")
    logdir = run.path.parent
    assert read_notes(run) == in_events(run) == Notes(("draft", "baseline"), "the first one\nof many")
    assert read_notes(other) == Notes()
    assert in_events(other) is None
    assert not (other.path / "notes.json").exists()

    capsys.readouterr()
    assert command("tag", "1", "good", "-draft", logdir=logdir) == 0
    assert capsys.readouterr().out == f"{run.name}: baseline, good\n"
    assert command("tag", "1", "that", logdir=logdir) == 0
    assert command("tag", "1", "-that", "-nothing", logdir=logdir) == 0
    files = len(list(run.path.glob("*tfevents*")))
    assert command("tag", "1", "good", logdir=logdir) == 0
    assert len(list(run.path.glob("*tfevents*"))) == files, "nothing new, nothing written"
    assert command("note", "2", "seed 1", logdir=logdir) == 0
    assert read_notes(run) == in_events(run) == Notes(("baseline", "good"), "the first one\nof many")
    assert in_events(other) == Notes((), "seed 1")

    capsys.readouterr()
    assert command("list", "--where", "tag=good", logdir=logdir) == 0
    out = capsys.readouterr().out
    assert run.name in out
    assert "baseline good" in out
    assert other.name not in out
    assert command("list", "--where", "tag=draft", logdir=logdir) == 0
    assert "no run meets all --where" in capsys.readouterr().out
    assert command("show", "1", logdir=logdir) == 0
    shown = capsys.readouterr().out
    assert "baseline, good" in shown
    assert "of many" in shown
    assert main(arguments=["compare", "--where", "tag=good", "--format", "json", "--logdir", str(logdir)]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    assert len(section["lines"]) == 1


def test_a_training_takes_what_is_said_meanwhile(zygote: Zygote, tmp_path: Path) -> None:
    arguments = ["train", "--config", "digits", "--logdir", str(tmp_path), *SMALL[2:], "--epochs", "2"]
    process = zygote.start(*arguments, hold=Place("mnist_tb.train.end_of_epoch", 2))
    process.until(HELD)
    assert command("tag", "1", "watched", logdir=tmp_path) == 0
    (run,) = list_run_folders(tmp_path)
    assert len(list(run.path.glob("*tfevents*"))) == 1, "while a process writes the run, no other does"
    process.proceed()
    process.communicate()
    assert in_events(run) == Notes(("watched",))
    assert len(list(run.path.glob("*tfevents*"))) == 1


def test_they_outlive_a_resumption(train: Train) -> None:
    run = train(*SMALL)
    assert command("tag", "1", "kept", logdir=run.path.parent) == 0
    assert main(arguments=["resume", str(run.path), "--epochs", "2"]) == 0
    assert read_notes(run) == in_events(run) == Notes(("kept",))


def test_of_a_tracker(tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine", {"lr": 1}, tags=["other", "net"], note="a note") as tracker:
        tracker.scalars(1, {"loss/train": 1.0})
    assert read_notes(tracker.run) == in_events(tracker.run) == Notes(("other", "net"), "a note")
    with pytest.raises(InputError, match="a tag is"):
        Tracker(tmp_path, "mine", tags=["two words"])
    assert len(list_run_folders(tmp_path)) == 1, "found before the run's folder is made"


def test_edits_at_once_lose_nothing(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "", {"config": {}})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: edit_notes(run, [f"t{i}"], [f"t{i - 1}"] if i % 2 else []), range(40)))
    assert {f"t{i}" for i in range(1, 40, 2)} <= set(read_notes(run).tags)
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("tag", ["two words", "", ".hidden", "a" * 65, "a/b", "a,b", "\x1b[31m"])
def test_what_cannot_be_a_tag(tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_run(tmp_path, "a", "", {"config": {}})
    assert command("tag", "1", tag, logdir=tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"mnist-tb: {tag!r}: a tag is up to 64 letters, digits")
    arguments = ["train", "--config", "digits", "--logdir", str(tmp_path)]
    assert main(arguments=[*arguments, "--tag", tag]) == 2
    assert main(arguments=[*arguments, "--note", "x" * 10_001]) == 2
    assert len(list_run_folders(tmp_path)) == 1


def test_a_note_commands_no_terminal_and_has_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(tmp_path, "a", "", {"config": {}})
    assert command("note", "1", "  \x1b[31mred\x07\r\nline \N{SNOWMAN}\u202e ", logdir=tmp_path) == 0
    assert read_notes(run).note == "[31mred\nline \N{SNOWMAN}"
    capsys.readouterr()
    assert command("note", "1", "x" * 10_001, logdir=tmp_path) == 2
    assert "a note has up to 10,000 characters, and this one 10,001" in capsys.readouterr().err
    assert command("note", "1", "", logdir=tmp_path) == 0
    assert read_notes(run) == Notes()


@pytest.mark.parametrize(
    "content", ["{", "[]x", '{"tags": [1]}', '{"tags": "good"}', '{"note": 5}', "[" * 100_000, "\xff"]
)
def test_broken_notes_cost_only_themselves(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(tmp_path, "a", "", {"config": {"lr": 1}, "status": "completed"})
    (run.path / "notes.json").write_bytes(content.encode("latin-1"))
    assert command("list", logdir=tmp_path) == 0
    out, error = capsys.readouterr()
    assert run.name in out
    assert error.count("\n") == 1
    assert f"{run.path / 'notes.json'}: cannot be read: " in error
    assert command("tag", "1", "good", logdir=tmp_path) == 2
    assert "cannot be read: " in capsys.readouterr().err


def test_a_pipe_for_notes_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(tmp_path, "a", "", {"config": {"lr": 1}, "status": "completed"})
    os.mkfifo(run.path / "notes.json")
    assert command("list", logdir=tmp_path) == 0
    assert "notes.json: cannot be read: " in capsys.readouterr().err
