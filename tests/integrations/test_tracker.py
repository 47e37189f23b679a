"""A training of one's own, tracked as ours are."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.board import get, start_board, wait_for_runs
from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.idx import write_idx
from helpers.paths import REPOSITORY
from helpers.processes import in_forks
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.data.datasets import Dataset
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.events import status, tags
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs


def last_status(run: Run) -> status.Status:
    known = status.status_from_json(read_events(run).Tensors(tags.LIVE_STATUS)[-1].tensor_proto.string_val[0])
    assert known is not None
    return known


def test_everything_once(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    config = {"lr": 0.5, "net": {"widths": (4, 3), "bias": True, "norm": None}, "seed": 3}
    with Tracker(tmp_path, "mine", config, steps=4, dataset="blobs") as tracker:
        tracker.graph(model, (1, 4))
        tracker.texts(0, {"notes": "**bold**"})
        for step in (1, 2, 3, 4):
            tracker.scalars(step, {"loss/train": torch.tensor(1 / step), "mine/own": step})
            tracker.scalars(step, {"accuracy/val": [0.5, 0.75, 0.625, 0.25][step - 1], "loss/val": 1.0 / step})
        tracker.histograms(4, model)
        tracker.images(
            4, {"predictions/test": np.zeros((5, 6, 3), np.uint8), "grey": torch.ones(2, 3, dtype=torch.uint8)}
        )
        tracker.images(4, {"drawn": lambda: np.full((4, 4, 3), 7, np.uint8)})
        tracker.scalars(4, {"accuracy/test": 0.5, "loss/test": 0.125, "throughput/images_per_second": 1234.5})
    run = tracker.run
    assert run.name == "0001-mine"
    assert scalars(run)["loss/train"] == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)]
    assert scalars(run)["mine/own"] == [(step, step) for step in (1, 2, 3, 4)]
    tags = read_events(run).Tags()
    assert set(tags["images"]) == {"predictions/test", "grey", "drawn"}
    assert tags["graph"]
    assert {"weights/0.weight", "weights/0.bias", "notes", "config", "_hparams_/session_start_info",
            "_hparams_/session_end_info", "custom_scalars__config__"} <= set(tags["tensors"])  # fmt: skip
    known = last_status(run)
    assert (known.state, known.step, known.steps, known.val_accuracy, known.dataset) == (
        "completed",
        4,
        4,
        0.25,
        "blobs",
    )
    (row,) = list_runs(tmp_path).runs
    assert (row.status, row.dataset, row.seed, row.step) == ("completed", "blobs", 3, 4)
    assert (row.val_accuracy, row.val_loss) == (0.75, 0.5), "where the accuracy was highest"
    assert (row.test_accuracy, row.test_loss, row.images_per_second) == (0.5, 0.125, 1234.5)
    assert row.settings == {"lr": 0.5, "net.widths": [4, 3], "net.bias": True, "net.norm": None, "seed": 3}
    assert "widths:\n  - 4\n" in run.config.read_text()


def test_losses_alone(tmp_path: Path) -> None:
    with Tracker(tmp_path, "a") as tracker:
        for step, loss in enumerate((3.0, 1.0, float("nan"), 2.0)):
            tracker.scalars(step, {"loss/val": loss, "loss/test": loss})
    (row,) = list_runs(tmp_path).runs
    assert (row.val_loss, row.test_loss, row.val_accuracy, row.dataset) == (1.0, 2.0, None, None)


def test_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Tracker(tmp_path, "bad") as tracker:
        tracker.scalars(1, {"loss/train": 1 / 0})
    with pytest.raises(KeyboardInterrupt), Tracker(tmp_path, "stopped") as tracker:
        raise KeyboardInterrupt
    rows = list_runs(tmp_path).runs
    assert [(row.status, row.error) for row in rows] == [("failed", "division by zero"), ("interrupted", None)]
    assert [last_status(run).state for run in list_run_folders(tmp_path)] == ["failed", "interrupted"]
    ended = ["_hparams_/session_end_info" in read_events(run).Tags()["tensors"] for run in list_run_folders(tmp_path)]
    assert ended == [True, False]


def test_it_runs_while_it_runs_and_is_killed_when_it_was(tmp_path: Path) -> None:
    code = (
        "import sys, time; from mnist_tb import Tracker\n"
        "tracker = Tracker(sys.argv[1], 'a', {'lr': 1})\n"
        "tracker.scalars(5, {'loss/train': 0.5}); print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    assert list_runs(tmp_path).runs[0].status == "running"
    assert main(arguments=["runs", "remove", "1", "--yes", "--logdir", str(tmp_path)]) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 30
    while list_runs(tmp_path).runs[0].status == "running" and time.monotonic() < end:
        time.sleep(0.01)  # a git that it was just starting has the lock until it is git
    assert list_runs(tmp_path).runs[0].status == "killed"


@pytest.mark.slow
def test_nobody_closes_it(tmp_path: Path) -> None:
    """The end of the program does: nothing is lost, and how it ended is known, in a program of its own."""
    program = """
        import torch
        tracker = Tracker(folder, how, {"lr": 1}, steps=3)
        for step in (1, 2, 3):
            tracker.scalars(step, {"loss/train": torch.tensor(0.5, requires_grad=True) * step, "mine": step})
        if how == "error":
            raise RuntimeError("the cat")
        if how == "interrupt":
            raise KeyboardInterrupt"""
    ends = {"nothing": "completed", "error": "failed", "interrupt": "interrupted"}
    done = in_forks(program, tmp_path, ends)
    assert [run.name for run in list_run_folders(tmp_path)] == [f"000{i}-{how}" for i, how in enumerate(ends, 1)]
    for run, state in zip(list_run_folders(tmp_path), ends.values(), strict=True):
        assert run.read_metrics()["status"] == state, done.stderr
        assert scalars(run)["loss/train"] == [(1, 0.5), (2, 1.0), (3, 1.5)]
        assert scalars(run)["mine"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
        assert (last_status(run).state, last_status(run).step) == (state, 3), "in the Live tab too"
        assert not run.is_in_use()
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("step", "value", "error"),
    [(1, "abc", TypeError), (1, None, TypeError), (1, [1.0], TypeError), ("x", 1.0, TypeError), (1.5, 1.0, TypeError)],
)
def test_what_is_no_point_is_said_at_once(step: Any, value: Any, error: type[Exception], tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine") as tracker:
        for tag in ("loss/train", "mine"):
            with pytest.raises(error):
                tracker.scalars(step, {tag: value})
        tracker.scalars(np.int64(1), {"mine": np.float32(0.5), "yes": True, "loss/train": torch.tensor(2)})
    assert scalars(tracker.run) == {"mine": [(1, 0.5)], "yes": [(1, 1.0)], "loss/train": [(1, 2.0)]} | {
        tag: points for tag, points in scalars(tracker.run).items() if tag.startswith(tags.SYSTEM)
    }


@pytest.mark.parametrize(
    ("name", "config", "sentence"),
    [
        ("a/b", {}, "a name must be 1 to 40 letters"),
        (
            "a",
            {"model": object()},
            "config: model is a object; settings are numbers, strings, booleans or lists of these",
        ),
        ("a", {"x": {"lr": float("nan")}}, "config: x.lr is nan; settings are finite numbers"),
        ("a", {"x": [1, [2]]}, "config: x is a list"),
    ],
)
def test_wrong_input(name: str, config: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        Tracker(tmp_path, name, config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("picture", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(2, np.uint8)])
def test_what_is_no_picture(picture: Any, tmp_path: Path) -> None:
    with Tracker(tmp_path, "a") as tracker, pytest.raises(ValueError, match="a picture is uint8"):
        tracker.images(0, {"x": picture})


def test_a_folder_that_goes_away_is_said(tmp_path: Path) -> None:
    with pytest.raises((TrainingError, OSError, InputError)), Tracker(tmp_path, "a") as tracker:
        tracker.run.path.rename(tmp_path / "elsewhere")


def test_only_its_own_program_resumes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracker(tmp_path, "a", {"lr": 1}):
        pass
    seven = str(tmp_path / "seven.png")
    pixels = np.full((28, 28), 255, np.uint8)
    pixels[4:24, 12:16] = 0
    Image.fromarray(pixels).save(seven)
    for command in (["resume", "1"], ["evaluate", "1"], ["predict", "1", seven]):
        assert main(arguments=[*command, "--logdir", str(tmp_path)]) == 2
        assert "this run is not one of mnist-tb train; only the program that made it" in capsys.readouterr().err


@pytest.mark.parametrize("given", [torch.tensor, np.array, list], ids=["tensors", "arrays", "lists"])
def test_predictions_are_tensors_arrays_or_lists(given: Any, tmp_path: Path) -> None:
    with Tracker(tmp_path, "a") as tracker:
        tracker.predictions(given([0, 1, 1]), given([[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]))
    found = np.load(tracker.run.predictions)
    assert (found["label"].tolist(), found["prediction"].tolist()) == ([0, 1, 1], [0, 0, 1])
    assert found["confidence"].tolist() == [0.75, 0.5, 1.0]


@pytest.mark.slow
def test_the_example(tmp_path: Path, digits: Dataset, train: Train) -> None:
    """It trains another network on FashionMNIST's files, in their format, here with digits in them."""
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    for split, prefix in ((digits.train, "train"), (digits.test, "t10k")):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", split.images.numpy())
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", split.labels.numpy().astype(np.uint8))
    ours = train("--epochs", "1")
    logdir = ours.path.parent
    example = [sys.executable, str(REPOSITORY / "examples" / "fashion_mlp.py"), "--logdir", str(logdir)]
    more = ["--data-root", str(tmp_path / "data"), "--epochs", "3"]
    both = [subprocess.Popen([*example, *more, "--seed", seed], stdout=subprocess.PIPE, text=True) for seed in "01"]
    said = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    rows = list_runs(logdir).runs
    assert [row.name for row in rows] == [ours.name, "0002-fashion-mlp", "0003-fashion-mlp"]
    assert all((row.test_accuracy or 0) > 0.8 for row in rows[1:]), "it learns"
    assert f"0003-fashion-mlp: test accuracy {rows[2].test_accuracy:.2%}" in said
    process, address = start_board("--logdir", str(logdir))
    try:
        wait_for_runs(address.rstrip("/"), 3)
        shown = {run["run"]: run for run in get(f"{address}data/plugin/live/runs")["runs"]}
        live = shown["0003-fashion-mlp"]
        assert (live["state"], live["dataset"], live["test_accuracy"]) == (
            "completed",
            "fashion_mnist",
            pytest.approx(rows[2].test_accuracy),
        )
        groups = session_groups(address)
        assert sorted(len(group["sessions"]) for group in groups) == [1, 2], "two seeds are one row"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def session_groups(address: str) -> Any:
    everything = ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_FAILURE"]
    request = json.dumps({"startIndex": 0, "sliceSize": 100, "colParams": [], "allowedStatuses": everything})
    return get(f"{address}data/plugin/hparams/session_groups?{urlencode({'request': request})}")["sessionGroups"]
