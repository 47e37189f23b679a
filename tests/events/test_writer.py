"""What the tracker writes is read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util

from helpers.events import read_events
from mnist_tb.errors import TrainingError
from mnist_tb.events import records
from mnist_tb.events.status import Status
from mnist_tb.events.writer import EventWriter
from mnist_tb.model import CNN
from mnist_tb.runs import files
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import graph, live


def test_scalars_come_back_at_their_step(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as tracker:
        tracker.scalars(10, {"loss/train": 0.5, "accuracy/train": torch.tensor(0.25)})
        tracker.scalars(20, {"loss/train": 0.25})
    events = read_events(Run(tmp_path))
    assert [(e.step, e.value) for e in events.Scalars("loss/train")] == [(10, 0.5), (20, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("accuracy/train")] == [(10, 0.25)]


def test_histogram_counts_finite_elements_and_takes_a_copy(tmp_path: Path) -> None:
    values = torch.tensor([0.0, 1.0, 2.0, float("nan"), float("inf"), -float("inf")])
    with EventWriter(tmp_path) as tracker:
        tracker.histograms(1, {"weights/a": values, "weights/constant": torch.ones(5), "weights/none": values[3:]})
        values.fill_(7)
    events = read_events(Run(tmp_path))
    buckets = tensor_util.make_ndarray(events.Tensors("weights/a")[0].tensor_proto)
    assert buckets[:, 2].sum() == 3
    assert (buckets[0, 0], buckets[-1, 1]) == (0, 2)
    assert tensor_util.make_ndarray(events.Tensors("weights/constant")[0].tensor_proto)[:, 2].sum() == 5
    assert tensor_util.make_ndarray(events.Tensors("weights/none")[0].tensor_proto)[:, 2].sum() == 0


def test_image_is_drawn_on_the_writing_thread_and_comes_back(tmp_path: Path) -> None:
    picture = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    threads: list[str] = []

    def draw() -> np.ndarray:
        threads.append(threading.current_thread().name)
        return picture

    with EventWriter(tmp_path) as tracker:
        tracker.images(3, {"predictions/test": draw})
    event = read_events(Run(tmp_path)).Images("predictions/test")[0]
    assert (event.step, event.width, event.height) == (3, 10, 12)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)
    assert threads == ["event writer"]


def test_text_hparams_status_layout_and_graph_come_back(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as tracker:
        tracker.texts(0, {"config": "| a | ü |"})
        tracker.hparams({"lr": 0.5, "flag": True, "none": None, "channels": [1, 2], "name": "adam"}, group="0001-a")
        tracker.layout({"both": {"loss": ["loss/train", "loss/val"]}})
        tracker.graph(graph.draw(CNN(), (1, 1, 28, 28)))
        tracker.status("completed")
    events = read_events(Run(tmp_path))
    assert tensor_util.make_ndarray(events.Tensors("config")[0].tensor_proto)[0].decode() == "| a | ü |"
    contents = events.PluginTagToContent("hparams")
    start = hparams_metadata.parse_session_start_info_plugin_data(contents["_hparams_/session_start_info"])
    assert start.group_name == "0001-a"
    assert {key: value.WhichOneof("kind") for key, value in start.hparams.items()} == {
        "lr": "number_value", "flag": "string_value", "none": "string_value",
        "channels": "string_value", "name": "string_value",
    }  # fmt: skip
    assert (start.hparams["flag"].string_value, start.hparams["channels"].string_value) == ("true", "1 2")
    end = hparams_metadata.parse_session_end_info_plugin_data(contents["_hparams_/session_end_info"])
    assert end.status == api_pb2.STATUS_SUCCESS
    layout = layout_pb2.Layout.FromString(
        tensor_util.make_ndarray(events.Tensors("custom_scalars__config__")[0].tensor_proto).item()
    )
    assert list(layout.category[0].chart[0].multiline.tag) == [r"^loss/train$(?!\n)", r"^loss/val$(?!\n)"]
    assert {node.name for node in events.Graph().node} >= {"x", "conv1/Conv2d", "conv1/weight", "output"}


def test_graph_names_layers_and_shapes() -> None:
    nodes = {node.name: node for node in graph.draw(CNN(), (1, 1, 28, 28)).node}
    assert list(nodes["pool1/MaxPool2d"].input) == ["conv1/Conv2d"]
    assert sorted(nodes["conv1/Conv2d"].input) == ["conv1/bias", "conv1/weight", "x"]
    shape = nodes["pool1/MaxPool2d"].attr["_output_shapes"].list.shape[0]
    assert [dim.size for dim in shape.dim] == [1, 16, 14, 14]


def test_drawing_the_graph_leaves_the_model_as_it_was() -> None:
    model = CNN().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph.draw(model, (1, 1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_two_trackers_in_one_folder_have_files_of_their_own(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as first, EventWriter(tmp_path) as second:
        assert first.path != second.path


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventWriter(None) as tracker:
        tracker.scalars(0, {"a": 1.0})
        tracker.images(0, {"b": lambda: pytest.fail("drawn for nothing")})
        assert not tracker.enabled
    assert list(tmp_path.iterdir()) == []


def test_values_reach_the_file_while_the_run_goes_on(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as tracker:
        tracker.scalars(1, {"loss/train": 1.0})
        for _ in range(100):
            if "loss/train" in read_events(Run(tmp_path)).Tags()["scalars"]:
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("not written within 5 s")


def test_a_full_disk_reaches_the_user(tmp_path: Path) -> None:
    tracker = EventWriter(tmp_path)
    tracker._file.close()
    tracker._file = open("/dev/full", "wb", buffering=0)
    tracker.scalars(1, {"loss/train": 1.0})
    with pytest.raises(TrainingError, match=r"events\.out.*writing the events failed: No space left on device"):
        tracker.close()


@pytest.mark.parametrize("error", [ValueError("no picture"), SystemExit(3), KeyboardInterrupt()])
def test_a_picture_that_fails_fails_alone_and_is_said_once(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> np.ndarray:
        raise error

    with EventWriter(tmp_path) as tracker:
        tracker.scalars(1, {"b": 1.0})
        for step in range(3):
            tracker.images(step, {"a": fail, "grey": lambda: np.zeros((2, 2), np.uint8), "odd": lambda: "no picture"})
        tracker.flush()
        tracker.scalars(2, {"b": 2.0})
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"a is not written: {type(error).__name__}: {error}",
        "odd is not written: ValueError: a picture is uint8 [height, width, 3] or [height, width], not <U10 ()",
    ]
    read = read_events(Run(tmp_path))
    assert [e.step for e in read.Scalars("b")] == [1, 2]
    assert [e.step for e in read.Images("grey")] == [0, 1, 2]


def test_the_queue_is_bounded_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventWriter, "LIMIT", 2_000)
    with EventWriter(tmp_path) as tracker:
        for step in range(500):
            tracker.scalars(step, {"a": float(step)})
            assert tracker._queued - tracker._written <= 2_400
    assert [e.step for e in read_events(Run(tmp_path)).Scalars("a")] == list(range(500))


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be written"):
        EventWriter(tmp_path / "gone")


def test_the_last_status_is_repeated_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training between two of its points is alive, and must not be taken for killed; into a full queue, too."""
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(EventWriter, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(EventWriter, "LIMIT", 2_000)
    with EventWriter(tmp_path, 0) as writer:
        live.Live(writer, Status()).update(7, now=True)
        path = next(tmp_path.iterdir())
        end = time.monotonic() + 60
        while path.read_bytes().count(b'"state": "running"') < 3:
            assert time.monotonic() < end
            writer.scalars(8, {"a": 1.0})


def test_a_cut_touches_what_the_run_has_written_itself_alone(tmp_path: Path) -> None:
    others = {"events.out.tfevents.1.mine": b"x", "events.out.tfevents.9999999999.host.1.0": b"later"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    with EventWriter(tmp_path, 0) as writer:
        writer.scalars(1, {"a": 1.0})
        lengths = writer.flush()
        assert set(lengths) == {writer.path.name}  # type: ignore[union-attr]
        writer.scalars(2, {"a": 2.0})
    EventWriter(tmp_path, 2).close()
    files.trim(tmp_path, lengths)
    assert records.sizes(tmp_path) == lengths | {name: len(content) for name, content in others.items()}
