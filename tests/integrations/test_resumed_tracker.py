"""A Tracker that is resumed, closed, forked, one of several; and how little it keeps."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
import torch

from helpers.events import scalars
from helpers.processes import torchrun
from mnist_tb import Tracker
from mnist_tb.errors import InputError
from mnist_tb.runs.folder import list_run_folders
from mnist_tb.runs.query import list_runs

PROGRAM = """if True:
    import json, os, sys, time
    from pathlib import Path
    from mnist_tb import Tracker
    logdir, end = Path(sys.argv[1]), int(sys.argv[2])
    saved = logdir / "state.json"
    if saved.exists():
        state = json.loads(saved.read_text())
        tracker = Tracker.resume(logdir / "0001-mine", state, steps=end)
    else:
        state = {"step": 0}
        tracker = Tracker(logdir, "mine", {"lr": 0.5}, steps=end, dataset="d")
        saved.write_text(json.dumps(tracker.state_dict()))
    print("ready", flush=True)
    for step in range(state["step"] + 1, end + 1):
        tracker.scalars(step, {"loss/train": 1 / step, "accuracy/val": -abs(step - 70) / 1000})
        if step % 10 == 0:
            text = json.dumps(tracker.state_dict())
            (logdir / "new").write_text(text)
            (logdir / "new").replace(saved)
        time.sleep(0.002)
    tracker.close()"""


@pytest.mark.slow
def test_killed_and_resumed_each_point_is_written_once(tmp_path: Path) -> None:
    """At random instants; the state goes through JSON."""
    instants, end = random.Random(4), 200
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), str(end)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(0.05 + 0.3 * instants.random())
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    (run,) = list_run_folders(tmp_path)
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), str(end)], check=True, timeout=120)
    read = scalars(run)
    assert read["loss/train"] == [(step, pytest.approx(1 / step)) for step in range(1, end + 1)]
    assert [step for step, _ in read["accuracy/val"]] == list(range(1, end + 1))
    (row,) = list_runs(tmp_path).runs
    assert (row.status, row.step, row.val_accuracy) == ("completed", end, 0.0)
    assert (row.settings, row.dataset) == ({"lr": 0.5}, "d")


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine") as tracker:
        state = tracker.state_dict()
        with pytest.raises(InputError, match="in use"):
            Tracker.resume(tracker.run.path, state)
    with pytest.raises(InputError, match="is not a run"):
        Tracker.resume(tmp_path / "nothing", state)
    assert sys.stdout.__class__.__name__ != "_Tee", "nothing of it is left"


def test_closed_cell_by_cell(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "mine")
    tracker.scalars(1, {"a": 1.0})
    tracker.close()
    tracker.close()
    assert tracker.run.read_metrics()["status"] == "completed"
    assert scalars(tracker.run)["a"] == [(1, 1.0)]


def test_under_torchrun_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with Tracker(tmp_path / "runs", "mine") as other:
        other.scalars(1, {"loss/train": torch.tensor(1.0)})
        other.histograms(1, torch.nn.Linear(1, 1))
        other.images(1, {"a": torch.zeros(2, 2, dtype=torch.uint8)})
        other.texts(1, {"a": "b"})
        other.graph(torch.nn.Linear(1, 1), (1, 1))
        other.predictions(torch.zeros(1, dtype=torch.int64), torch.ones(1, 2))
        assert other.state_dict() == {}
        assert not hasattr(other, "run")
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("RANK", "0")
    with Tracker(tmp_path / "runs", "mine"):
        pass
    assert len(list_run_folders(tmp_path / "runs")) == 1


IN_TWO = """
import sys
import torch
import torch.distributed as dist
from mnist_tb import Tracker

dist.init_process_group("gloo")
with Tracker(sys.argv[1], "mine", {"lr": 0.5}) as tracker:
    for step in range(1, 51):
        loss = torch.tensor(float(dist.get_rank() + step))
        dist.all_reduce(loss)
        tracker.scalars(step, {"loss/train": loss})
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_make_one_run(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(IN_TWO)
    subprocess.run(torchrun(2, str(tmp_path / "two.py"), str(tmp_path / "runs")), check=True, timeout=120)
    (run,) = list_run_folders(tmp_path / "runs")
    assert scalars(run)["loss/train"] == [(step, 2.0 * step + 1) for step in range(1, 51)]
    assert run.read_metrics()["status"] == "completed"
    assert len(list(run.path.glob("*tfevents*"))) == 1


def test_from_several_threads(tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine") as tracker:

        def work(k: int) -> None:
            for step in range(300):
                tracker.scalars(step, {f"x/{k}": step, "accuracy/val": 1 - 1 / (step + 1)})

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    read = scalars(tracker.run)
    assert all(read[f"x/{k}"] == [(step, float(step)) for step in range(300)] for k in range(4))
    assert list_runs(tmp_path).runs[0].val_accuracy == pytest.approx(1 - 1 / 300)


def test_memory_is_flat(tmp_path: Path) -> None:
    """Curves that count among them. (Ten million in benchmarks/scalars.py.)"""
    with Tracker(tmp_path, "mine", system_seconds=0) as tracker:
        sizes = []
        for step in range(60_000):
            if step % 20_000 == 10_000:
                if not sizes:
                    tracemalloc.start()
                tracker._writer.flush()
                sizes.append(tracemalloc.get_traced_memory()[0])
            tracker.scalars(step, {"loss/train": 0.5, "accuracy/train": 0.5})
            if step % 100 == 0:
                tracker.scalars(step, {"loss/val": 0.5, "accuracy/val": step / 60_000, "accuracy/test": 0.1})
        tracemalloc.stop()
    assert sizes[-1] - sizes[0] < 400_000, "bytes for 40,000 steps"
