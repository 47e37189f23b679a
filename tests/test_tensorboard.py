"""A real TensorBoard, started on a free port, is asked over HTTP for all that a run wrote."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import read_events

from mnist_tb.runs.folder import Run

NAME = "0001-digits"


class Board:
    """A running TensorBoard."""

    def __init__(self, logdir: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port),
             "--host", "127.0.0.1", "--reload_interval", "1", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def get(self, path: str, body: object = None, **query: str) -> Any:
        address = f"{self.url}/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    def wait_for_run(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.get("data/plugin/scalars/tags").get(NAME, {}).get("accuracy/test") is not None:
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise AssertionError("TensorBoard did not show the run within 60 s")


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
    assert set(board.get("data/plugin/text/tags")[NAME]) == {"config", "dataset", "results"}
    shown = board.get("data/plugin/text/text", run=NAME, tag="config")[0]["text"]
    assert "<table>" in shown
    assert "<code>train.lr</code>" in shown


def test_layout_puts_train_and_validation_on_one_chart(board: Board) -> None:
    charts = board.get("data/plugin/custom_scalars/layout")["category"][0]["chart"]
    assert charts[0]["multiline"]["tag"] == ["^loss/train$", "^loss/val$", "^loss/test$"]


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
