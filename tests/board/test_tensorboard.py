"""A real TensorBoard, started on a free port, is asked over HTTP for all that a run wrote."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from helpers.board import NAME, Board
from helpers.events import read_events
from mnist_tb.runs.folder import Run


@pytest.fixture(scope="module", params=["fast loader", "Python loader"])
def board(request: pytest.FixtureRequest, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    logdir = tmp_path_factory.mktemp("board")
    shutil.copytree(finished.path, logdir / NAME)
    board = Board(logdir, "--load_fast", "true" if request.param == "fast loader" else "false")
    try:
        board.wait_for_run()
        yield board
    finally:
        board.process.terminate()
        board.process.wait(30)


def test_one_run(board: Board) -> None:
    assert board.get("data/runs") == [NAME]


def test_scalars(board: Board, finished: Run) -> None:
    for tag in ("loss/train", "accuracy/val", "accuracy/test", "lr"):
        shown = board.get("data/plugin/scalars/scalars", run=NAME, tag=tag)
        written = read_events(finished).Scalars(tag)
        assert [(step, value) for _, step, value in shown] == [(e.step, pytest.approx(e.value)) for e in written]


def test_images(board: Board) -> None:
    assert set(board.get("data/plugin/images/tags")[NAME]) == {
        "predictions/test", "results/test", "mistakes/test", "uncertain/test", "confusion/test",
        "calibration/test", "filters/conv1", "features/test",
    }  # fmt: skip
    shown = board.get("data/plugin/images/images", run=NAME, tag="predictions/test", sample="0")
    assert [image["step"] for image in shown] == [0, 20, 40, 60]
    picture = board.get(f"data/plugin/images/individualImage?{shown[-1]['query']}")
    assert picture.startswith(b"\x89PNG")


def test_histograms(board: Board) -> None:
    tags = board.get("data/plugin/histograms/tags")[NAME]
    assert len(tags) == 16
    shown = board.get("data/plugin/histograms/histograms", run=NAME, tag="weights/conv1.weight")
    assert [step for _, step, _ in shown] == [0, 20, 40, 60]
    assert sum(count for _, _, count in shown[0][2]) == 16 * 9


def test_graph(board: Board) -> None:
    assert board.get("data/plugin/graphs/info")[NAME]["run_graph"] is True
    drawn = board.get("data/plugin/graphs/graph", run=NAME, conceptual="false").decode()
    assert set(re.findall(r'name: "(\w+)/', drawn)) >= {"conv1", "pool1", "conv2", "pool2", "conv3", "linear"}


def test_texts(board: Board) -> None:
    assert set(board.get("data/plugin/text/tags")[NAME]) == {"config", "dataset", "environment", "results"}
    shown = board.get("data/plugin/text/text", run=NAME, tag="config")[0]["text"]
    assert "<table>" in shown
    assert "<code>train.lr</code>" in shown


def test_layout_puts_train_and_validation_on_one_chart(board: Board) -> None:
    charts = board.get("data/plugin/custom_scalars/layout")["category"][0]["chart"]
    assert charts[0]["multiline"]["tag"] == [rf"^loss/{split}$(?!\n)" for split in ("train", "val", "test")]


def test_hparams_are_one_row_with_real_metrics_and_the_true_status(board: Board, finished: Run) -> None:
    experiment = board.get("data/plugin/hparams/experiment", {})
    metrics = [{"name": info["name"]} for info in experiment["metricInfos"]]
    assert {"group": "", "tag": "accuracy/val"} in [info["name"] for info in experiment["metricInfos"]]
    request = {
        "colParams": [{"metric": metric["name"]} for metric in metrics],
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = board.get("data/plugin/hparams/session_groups", request)["sessionGroups"]
    assert len(groups) == 1
    assert groups[0]["hparams"]["train.lr"] == 0.001
    assert groups[0]["hparams"]["data.name"] == "digits"
    assert "data.root" not in groups[0]["hparams"]
    session = groups[0]["sessions"][0]
    assert session["name"] == NAME
    assert session["status"] == "STATUS_SUCCESS"
    values = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
    assert values["accuracy/test"] == pytest.approx(finished.read_metrics()["test"]["accuracy"])
