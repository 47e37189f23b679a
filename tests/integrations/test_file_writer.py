"""What lies behind a SummaryWriter: its file writer, its folder, and the run when it is opened again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from torch.utils import tensorboard
from torch.utils.tensorboard.summary import hparams

from helpers.events import read_events, scalars
from mnist_tb import SummaryWriter, load_runs
from mnist_tb.events.tags import CONFIG_TEXT
from mnist_tb.runs.folder import Run


def event(value: float, **named: Any) -> event_pb2.Event:
    return event_pb2.Event(summary=summary_pb2.Summary(value=[{"tag": "a", "simple_value": value}]), **named)


FACE: dict[str, Callable[[Any], Any]] = {
    "add_event": lambda writer: writer.add_event(event(1.0), 1),
    "add_event keeps the step of its event": lambda writer: writer.add_event(event(1.0, step=7)),
    "add_event, walltime": lambda writer: writer.add_event(event(1.0), 2, walltime=5.0),
    "add_summary": lambda writer: writer.add_summary(event(1.0).summary, 3),
    "event_writer": lambda writer: writer.event_writer.add_event(event(1.0, step=4)),
    "event_writer.flush": lambda writer: writer.event_writer.flush(),
    "event_writer.get_logdir": lambda writer: writer.event_writer.get_logdir(),
    "get_logdir": lambda writer: writer.get_logdir(),
}


@pytest.mark.parametrize("name", FACE)
def test_the_file_writers_face_is_torchs(name: str, tmp_path: Path) -> None:
    found = []
    for kind in (SummaryWriter, tensorboard.SummaryWriter):
        folder = tmp_path / kind.__module__
        writer = kind(folder)
        FACE[name](writer._get_file_writer())
        writer.close()
        (run,) = load_runs(tmp_path, folder.name)
        found.append([(p.step, p.value, p.wall_time < 10) for p in run._contents.curves.get("a", [])])
    assert found[0] == found[1]


def test_every_name_of_the_file_writers_is_there(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "a") as ours, tensorboard.SummaryWriter(tmp_path / "b") as torchs:
        for writer in (lambda each: each.file_writer, lambda each: each.file_writer.event_writer):
            assert {name for name in dir(writer(torchs)) if not name.startswith("_")} <= {*dir(writer(ours))}


def test_a_file_writer_is_opened_again(tmp_path: Path) -> None:
    """Which torch's documentation says, and torch's cannot."""
    with SummaryWriter(tmp_path / "a") as writer:
        inner = writer._get_file_writer()
        inner.reopen()
        inner.add_event(event(1.0), 1)
        inner.close()
        inner.reopen()
        inner.add_event(event(2.0), 2)
    assert scalars(Run(tmp_path / "a"))["a"] == [(1, 1.0), (2, 2.0)]


def test_a_suffix_is_in_the_name_of_the_file(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "a", filename_suffix=".mine") as writer:
        writer.add_scalar("a", 1.0, 1)
    (path,) = (tmp_path / "a").glob("*tfevents*")
    assert ".mine." in path.name


def test_a_training_that_is_continued_is_the_same_run(tmp_path: Path) -> None:
    """By another object, as by another program: its results, its step, its settings and its beginning are kept."""
    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_hparams({"lr": 0.1, "seed": 3}, {})
        for step, value in ((1, 0.80), (200, 0.95)):
            writer.add_scalar("val/accuracy", value, step)
    before = Run(tmp_path / "a").read_metrics()
    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_scalar("val/accuracy", 0.91, 203)
    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_text("final", "done", 0)
    after = Run(tmp_path / "a").read_metrics()
    (run,) = load_runs(tmp_path)
    assert (run.summary.val_accuracy, run.summary.step, run.status) == (0.95, 203, "completed")
    assert run.settings == {"lr": 0.1, "seed": 3}
    assert (after["id"], after["started"], after["step"]) == (before["id"], before["started"], 203)
    assert after["train_seconds"] > before["train_seconds"]


def test_settings_join_until_the_first_point(tmp_path: Path) -> None:
    """As HParams, which keeps what it reads first; what is added later is known to comparisons."""
    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_hparams({"lr": 0.1, "seed": 1}, {})
        writer.add_hparams({"lr": 0.2, "width": 64}, {})
        writer.add_scalar("loss", 1.0, 1)
        writer.add_hparams({"lr": 0.3, "note": "late"}, {})
    (run,) = load_runs(tmp_path)
    assert run.settings == {"lr": 0.2, "seed": 1, "width": 64, "note": "late"}
    assert run._contents.settings == {"lr": 0.2, "width": 64}
    assert "late" in read_events(Run(run.path)).Tensors(CONFIG_TEXT)[-1].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize("many", [1, 2])
def test_settings_for_hparams_are_the_runs_however_they_come(many: int, tmp_path: Path) -> None:
    """As Lightning's logger writes them; also by a second writer of the same folder."""
    writers = [SummaryWriter(tmp_path / "a") for _ in range(many)]
    for each in hparams({"lr": 0.5, "net": "cnn"}, {"hp_metric": -1}):
        writers[-1]._get_file_writer().add_summary(each, 0)
    writers[-1].add_scalar("hp_metric", 0.25, 1)
    for writer in reversed(writers):
        writer.close()
    (run,) = load_runs(tmp_path)
    assert run.settings == {"lr": 0.5, "net": "cnn"}
    assert run.status == "completed"
    assert run._contents.settings == run.settings


def test_a_folder_that_is_removed_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, as torch's says nothing; what is logged after the end is in a new folder, as torch's is."""
    writer = SummaryWriter(tmp_path / "a", code=False, system_seconds=0)
    shutil.rmtree((tmp_path / "a").rename(tmp_path / "gone"))  # at once: another thread still writes to it
    with caplog.at_level(logging.WARNING):
        while not caplog.records:  # twice a second it is looked for
            writer.add_scalar("x", 1.0, 1)
    writer.add_scalar("x", 1.0, 2)
    writer.add_hparams({"lr": 1}, {})
    writer.flush()
    writer.close()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["nothing more is logged to it"]
    assert not (tmp_path / "a").exists()
    writer.add_scalar("x", 1.0, 3)
    writer.close()
    assert scalars(Run(tmp_path / "a"))["x"] == [(3, 1.0)]
