"""Runs as they change: what is new is read, and nothing twice."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import threading
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from helpers.fixtures import Train
from mnist_tb import Tracker
from mnist_tb.errors import InputError
from mnist_tb.events import reader
from mnist_tb.runs import query
from mnist_tb.runs.folder import Run
from mnist_tb.watch.live import LiveRuns


def test_a_folder_that_comes_later_and_runs_that_come_and_go(tmp_path: Path, finished: Run) -> None:
    runs = LiveRuns(tmp_path / "runs")
    assert runs.update() == []
    shutil.copytree(finished.path, tmp_path / "runs" / finished.name)
    (run,) = runs.update()
    assert (run.summary.name, run.summary.status, run.is_running) == (finished.name, "completed", False)
    assert (run.fraction, run.said) == (1.0, None)
    shutil.copytree(finished.path, tmp_path / "runs" / "0002-two")
    values = json.loads((tmp_path / "runs" / "0002-two" / "metrics.json").read_text())
    (tmp_path / "runs" / "0002-two" / "metrics.json").write_text(
        json.dumps({**values, "started": values["started"] + 1})
    )
    assert [run.summary.name for run in runs.update()] == ["0002-two", finished.name]
    shutil.rmtree(tmp_path / "runs")
    assert runs.update() == []
    assert runs.watched == set()


def test_a_training_is_followed_from_its_first_point_to_its_end(tmp_path: Path) -> None:
    runs = LiveRuns(tmp_path)
    with Tracker(tmp_path, "mine", {"lr": 0.5}, steps=10, dataset="d") as tracker:
        for step in range(1, 6):
            tracker.scalars(step, {"loss/train": 1 / step, "accuracy/val": step / 10})
        tracker.state_dict()  # all that came before is on the disk
        (run,) = runs.update()
        assert run.is_running
        assert run.said is not None
        assert (run.summary.dataset, run.summary.step, run.fraction) == ("d", 5, 0.5)
        curve = runs.contents(run.summary).curves["loss/train"]
        assert [point.step for point in curve] == [1, 2, 3, 4, 5]
        tracker.scalars(6, {"loss/train": 0.1})
        tracker.state_dict()  # all that came before is on the disk
        runs.update()
        assert [point.step for point in runs.contents(run.summary).curves["loss/train"]] == [1, 2, 3, 4, 5, 6]
    (run,) = runs.update()
    assert (run.summary.status, run.said) == ("completed", None)
    assert runs.watched == {"0001-mine"}


def test_a_killed_run_and_one_that_goes_on(tmp_path: Path, finished: Run) -> None:
    """The lock says whether a process has it, not a file that changes."""
    run = Run(tmp_path / finished.name)
    shutil.copytree(finished.path, run.path)
    run.update_metrics(status="running")
    runs = LiveRuns(tmp_path)
    assert runs.update()[0].summary.status == "killed"
    with run.in_use():
        run.update_metrics(status="running", epoch=1)
        (found,) = runs.update()
        assert found.is_running
        assert found.summary.epoch == 1
    assert runs.update()[0].summary.status == "killed"


def test_notes_are_news(tmp_path: Path, finished: Run) -> None:
    shutil.copytree(finished.path, tmp_path / finished.name)
    runs = LiveRuns(tmp_path)
    runs.update()
    (tmp_path / finished.name / "notes.json").write_text('{"tags": ["good"], "note": "n"}')
    assert runs.update()[0].summary.notes.tags == ("good",)


def test_another_programs_file_is_read_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = reader.event_pb2.Event.FromString

    class Counting:
        @staticmethod
        def FromString(content: bytes) -> object:
            read.append(len(content))
            return original(content)

    monkeypatch.setattr(reader, "event_pb2", type("Module", (), {"Event": Counting}))
    runs = LiveRuns(tmp_path)
    writer = TorchWriter(str(tmp_path / "a" / "b"))
    for step in range(100):
        writer.add_scalar("val_acc", step / 100, step)
    writer.flush()
    (run,) = runs.update()
    assert (run.summary.name, run.summary.status, run.summary.step) == ("a/b", "unknown", 99)
    assert run.fraction is None
    before = len(read)
    runs.update()
    assert len(read) == before
    writer.add_scalar("val_acc", 1.0, 100)
    writer.flush()
    (run,) = runs.update()
    writer.close()
    assert len(read) == before + 1
    assert (run.summary.step, run.summary.val_accuracy) == (100, 1.0)


def test_what_a_resumed_training_takes_back_is_forgotten(tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine", {}) as tracker:
        for step in range(10):
            tracker.scalars(step, {"loss/train": float(step)})
        state = tracker.state_dict()
        for step in range(10, 20):
            tracker.scalars(step, {"loss/train": float(step)})
    runs = LiveRuns(tmp_path)
    (run,) = runs.update()
    assert len(runs.contents(run.summary).curves["loss/train"]) == 20
    with Tracker.resume(tmp_path / "0001-mine", state) as tracker:
        tracker.scalars(10, {"loss/train": -1.0})
    runs.update()
    points = runs.contents(run.summary).curves["loss/train"]
    assert [(point.step, point.value) for point in points] == [*((step, float(step)) for step in range(10)), (10, -1.0)]


def test_a_long_curve_keeps_its_shape_and_its_end(tmp_path: Path) -> None:
    with TorchWriter(str(tmp_path)) as writer:
        for step in range(10_050):
            writer.add_scalar("a", math.sin(step / 1000), step)
            if step % 977 == 0:
                writer.flush()
    whole = [point.step for point in reader.read(tmp_path).curves["a"]]
    assert whole == list(range(10_050))
    one = reader.Reader(tmp_path, limit=100)
    one.update()
    steps = [point.step for point in one.contents.curves["a"]]
    assert 100 <= len(steps) <= 200
    assert (steps[0], steps[-1]) == (0, 10_049)
    gaps = {after - before for before, after in itertools.pairwise(steps[:-1])}
    assert gaps == {64}


@pytest.mark.parametrize("count", [3, 9, 50])
def test_what_a_restart_takes_back_leaves_a_thinned_curve_too(tmp_path: Path, count: int) -> None:
    """And the curve goes on, evenly spaced, whether it was read before the restart or after it."""
    before, after = (reader.Reader(tmp_path, limit=4) for _ in range(2))
    with TorchWriter(str(tmp_path)) as writer:
        for step in range(count):
            writer.add_scalar("a", step, step)
    before.update()
    with TorchWriter(str(tmp_path), purge_step=count // 2, filename_suffix=".z") as writer:
        for step in range(count // 2, 3 * count):
            writer.add_scalar("a", -step, step)
    for one in (before, after):
        one.update()
        points = one.contents.curves["a"]
        steps = [point.step for point in points]
        assert steps == sorted(set(steps))
        assert steps[-1] == 3 * count - 1
        assert len(steps) <= 8
        assert all(point.value == (point.step if point.step < count // 2 else -point.step) for point in points)


@pytest.mark.parametrize("count", range(1, 40))
def test_the_newest_point_is_always_there(tmp_path: Path, count: int) -> None:
    path = tmp_path / "events.out.tfevents.1"
    with TorchWriter(str(tmp_path / "whole")) as writer:
        for step in range(count):
            writer.add_scalar("a", step, step)
    (source,) = (tmp_path / "whole").glob("*tfevents*")
    shutil.copy(source, path)
    one = reader.Reader(tmp_path, limit=4)
    one.update()
    steps = [point.step for point in one.contents.curves["a"]]
    assert steps[-1] == count - 1
    assert len(steps) <= 8


def test_a_file_that_is_read_while_it_grows_byte_by_byte(tmp_path: Path) -> None:
    with TorchWriter(str(tmp_path / "whole")) as writer:
        for step in range(20):
            writer.add_scalar("a", step, step)
    (source,) = (tmp_path / "whole").glob("*tfevents*")
    content = source.read_bytes()
    (tmp_path / "grows").mkdir()
    one = reader.Reader(tmp_path / "grows")
    with open(tmp_path / "grows" / source.name, "wb", buffering=0) as file:
        for start in range(0, len(content), 7):
            file.write(content[start : start + 7])
            one.update()
            steps = [point.step for point in one.contents.curves.get("a", [])]
            assert steps == list(range(len(steps)))
    assert len(steps) == 20
    assert one.contents.damage == {}


def test_many_runs_are_read_little_by_little_the_newest_first(tmp_path: Path, finished: Run) -> None:
    for number in range(1, 31):
        (tmp_path / f"{number:04d}-r").mkdir()
        shutil.copy(finished.metrics, tmp_path / f"{number:04d}-r")
    runs = LiveRuns(tmp_path)
    seen = 0
    while seen < 30:
        found = runs.update(seconds=-1)
        assert len(found) + runs.waiting == 30
        assert len(found) == seen + 1
        names = sorted((run.summary.name for run in found), reverse=True)
        assert names == [f"{number:04d}-r" for number in range(30, 30 - len(found), -1)]
        seen = len(found)


def test_named_runs_and_the_last_one(tmp_path: Path, finished: Run) -> None:
    with pytest.raises(InputError):
        LiveRuns(tmp_path, ("last",)).update()
    for number in (1, 2):
        shutil.copytree(finished.path, tmp_path / f"{number:04d}-r")
    runs = LiveRuns(tmp_path, ("last",))
    assert [run.summary.name for run in runs.update()] == ["0002-r"]
    shutil.copytree(finished.path, tmp_path / "0003-r")
    assert [run.summary.name for run in runs.update()] == ["0003-r"]
    assert runs.watched == {"0002-r", "0003-r"}


def test_what_is_broken_costs_its_own_run(tmp_path: Path, finished: Run) -> None:
    shutil.copytree(finished.path, tmp_path / finished.name)
    shutil.copytree(finished.path, tmp_path / "0002-broken")
    (tmp_path / "0002-broken" / "metrics.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "events.out.tfevents.1").write_bytes(os.urandom(500))
    os.mkfifo(tmp_path / "foreign" / "events.out.tfevents.2")
    runs = LiveRuns(tmp_path)
    assert {run.summary.name for run in runs.update()} == {finished.name, "foreign"}
    assert len(runs.problems) == 3
    assert {run.summary.name for run in runs.update()} == {finished.name, "foreign"}
    assert len(runs.problems) == 3


def test_it_sees_what_a_listing_sees(tmp_path: Path, train: Train) -> None:
    train("--epochs", "1")
    with TorchWriter(str(tmp_path / "runs" / "other")) as writer:
        writer.add_scalar("eval/accuracy", 0.5, 3)
    runs = LiveRuns(tmp_path / "runs")
    listed = query.list_runs(tmp_path / "runs").runs
    assert sorted(run.summary.name for run in runs.update()) == sorted(run.name for run in listed)
    assert {run.summary.name: run.summary for run in runs.update()} == {run.name: run for run in listed}


def test_a_run_that_is_made_while_it_is_looked_for(tmp_path: Path) -> None:
    """No instant of a run's beginning or end is a problem."""
    ended = threading.Event()
    found: list[str] = []

    def look() -> None:
        runs = LiveRuns(tmp_path)
        while not ended.is_set():
            runs.update()
            found.extend(problem.text for problem in runs.problems)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(5):
            with Tracker(tmp_path, "mine", {}) as tracker:
                tracker.scalars(1, {"loss/train": 1.0})
    finally:
        ended.set()
        thread.join()
    assert [text for text in found if "ends in the middle" not in text] == []
