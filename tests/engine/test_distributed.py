"""One training on several processes: the same result, everything counted once, one writer, and no way to hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributed import distributed_c10d

from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from helpers.ports import free_port
from helpers.processes import torchrun
from helpers.zygote import Zygote
from mnist_tb.engine import distributed
from mnist_tb.engine.distributed import SINGLE_PROCESS, Distributed, PeerError, _peer_errors, is_main_process
from mnist_tb.errors import InputError, command_line
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.training import checkpoint
from mnist_tb.training.signals import Interruption

pytestmark = pytest.mark.slow

SETTINGS = ("--set", "precision=fp32", "--set", "optimizer.name=sgd", "--set", "optimizer.momentum=0", "--lr", "0.05")
"""Adam makes a whole step of a gradient that is nothing but rounding."""


def training(logdir: Path, *arguments: str) -> list[str]:
    config = str(REPOSITORY / "configs" / "digits.yaml")
    return ["train", "--config", config, "--logdir", str(logdir), *SETTINGS, *arguments]


def finish(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def together(zygote: Zygote, processes: int, *command: str, **environment: str) -> tuple[str, str]:
    """What so many processes print, and their errors, that are given the same environment as torchrun tells its own."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        zygote.start(*command, **meeting, RANK=str(i), LOCAL_RANK=str(i), WORLD_SIZE=str(processes), **environment)
        for i in range(processes)
    ]
    said = [process.communicate() for process in started]
    return "".join(out for out, _ in said), "".join(error for _, error in said)


def assert_alike(run: Run, other: Run) -> None:
    """To floating-point tolerance: the weights, every curve but the timed one, what is found of each test image."""
    ours, theirs = (checkpoint.load(one.last_checkpoint) for one in (run, other))
    for key in ("epoch", "batch", "step"):
        assert ours[key] == theirs[key]
    for name, weights in theirs["model"].items():
        assert torch.allclose(ours["model"][name], weights, rtol=0, atol=2e-5), name
    curves, wanted = scalars(run), scalars(other)
    assert curves.keys() == wanted.keys()
    for tag, points in wanted.items():
        if "images_per_second" not in tag:
            assert [step for step, _ in curves[tag]] == [step for step, _ in points]
            assert [value for _, value in curves[tag]] == pytest.approx([value for _, value in points], abs=1e-4), tag
    found, expected = np.load(run.predictions), np.load(other.predictions)
    assert (found["label"] == expected["label"]).all()
    assert (found["prediction"] == expected["prediction"]).all()
    assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-4)


# ---- The parts of a whole


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 64, 299])
def test_every_thing_is_of_one_part(size: int, count: int) -> None:
    parts = [range(count)[Distributed(rank, size).shard(count)] for rank in range(size)]
    assert [thing for part in parts for thing in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_everything_is_as_it_is() -> None:
    loss, num_correct, gradient = torch.tensor(2.0), torch.tensor(3), torch.ones(4)
    assert SINGLE_PROCESS.all_reduce(gradient, loss, num_correct, 1.0) == (loss, num_correct)
    assert gradient.tolist() == [1, 1, 1, 1]
    assert SINGLE_PROCESS.gather(gradient, 4) is gradient
    assert SINGLE_PROCESS.sync_stop(True)
    assert not SINGLE_PROCESS.sync_stop(False)
    assert SINGLE_PROCESS.broadcast_from_main(lambda: 5) == SINGLE_PROCESS.local_main_process_first(lambda: 5) == 5


def test_only_torchrun_makes_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs set some of these variables, too."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_main_process()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert not is_main_process()


# ---- The same result


def test_the_gradient_is_that_of_ddp() -> None:
    output = finish(torchrun(2, str(REPOSITORY / "tests" / "helpers" / "as_ddp.py")))
    difference, largest, loss, num_correct, size = json.loads(output)
    assert size == 2
    assert difference < 1e-6 < largest
    assert 2 < loss < 3
    assert 0 <= num_correct <= 64


@pytest.fixture(scope="module")
def alone(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By one process; its last batch of an epoch has one image. Do not change it."""
    logdir = tmp_path_factory.mktemp("alone")
    code, _, error = zygote.run(*training(logdir, "--epochs", "1", "--batch-size", "52"))
    assert code == 0, error
    return list_run_folders(logdir)[0]


@pytest.mark.parametrize("processes", [2, 3])
def test_as_by_one_process(zygote: Zygote, processes: int, alone: Run, tmp_path: Path) -> None:
    """Neither 52 nor the images of validation and test can be divided by three, and a batch of one not at all."""
    out, _ = together(zygote, processes, *training(tmp_path, "--epochs", "1", "--batch-size", "52"))
    (run,) = list_run_folders(tmp_path)
    assert out.count("\nThe run: ") == 1
    assert f"on {processes} processes, on cpu in fp32" in out
    assert out.count("Validation, after epoch 1") == 1
    assert_alike(run, alone)
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1
    assert "accuracy/test" in read_events(run).Tags()["scalars"]
    assert run.read_metrics()["processes"] == processes
    assert alone.read_metrics()["processes"] == 1


def test_with_all_that_a_recipe_has(zygote: Zygote, tmp_path: Path) -> None:
    """Moved images, smoothed labels, averaged weights, and without the kernels."""
    keys = ("augment.rotate=10", "augment.shift=2", "train.label_smoothing=0.1", "averaging.name=ema")
    settings = ["--epochs", "1", *(word for key in keys for word in ("--set", key))]
    assert zygote.run(*training(tmp_path / "one", *settings), MNIST_TB_KERNELS="off")[0] == 0
    together(zygote, 2, *training(tmp_path / "two", *settings), MNIST_TB_KERNELS="off")
    assert_alike(list_run_folders(tmp_path / "two")[0], list_run_folders(tmp_path / "one")[0])


# ---- Stopped, killed, gone wrong


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A training on three processes that does not end by itself and has passed its first epoch."""
    settings = ("--epochs", "9999", "--set", "tracking.checkpoint_seconds=0.2")
    process = subprocess.Popen(
        torchrun(3, "-m", "mnist_tb", *training(tmp_path, *settings)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any(line.startswith("Validation, after epoch 1") for line in process.stdout)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def members(launcher: int) -> dict[int, int]:
    """Rank → process, of a running torchrun."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
            except OSError:
                continue
            found.update({int(line[5:]): int(folder.name) for line in environment if line.startswith(b"RANK=")})
    return found


@pytest.mark.parametrize("rank", [0, 2])
def test_a_dead_process_ends_the_others(rank: int, endless: subprocess.Popen[str], tmp_path: Path) -> None:
    """Soon, with a sentence; the run goes on with another number of processes."""
    there = members(endless.pid)
    assert sorted(there) == [0, 1, 2]
    os.kill(there[rank], signal.SIGKILL)
    _, error = endless.communicate(timeout=60)  # a process that does not answer would be waited for ten times as long
    assert endless.returncode == 1
    (run,) = list_run_folders(tmp_path)
    assert error.count(f"with: {command_line('resume', run.path)}\n") >= 1
    if rank == 0:
        assert "mnist-tb, process 1: a process of this training has ended, or does not answer" in error
    else:
        assert error.count("mnist-tb: a process of this training has ended, or does not answer") == 1
        assert run.read_metrics()["status"] == "failed"
    step = checkpoint.load(run.last_checkpoint)["step"]
    again = subprocess.Popen(
        torchrun(2, "-m", "mnist_tb", "resume", str(run.path)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert again.stdout is not None
    assert f"on 2 processes, on cpu in fp32, from step {step:,}" in again.stdout.readline()
    assert any(line.startswith("Validation, after epoch") for line in again.stdout)
    os.killpg(again.pid, signal.SIGTERM)
    again.communicate(timeout=60)
    assert run.read_metrics()["status"] == "interrupted"


def test_torchruns_signal_does_not_cut_short_what_there_is_to_say() -> None:
    """It comes to all as soon as one process is gone, often before the others have said so."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(PeerError, match=r"does not answer: Connection closed$"), Interruption():
            try:
                with _peer_errors():
                    raise RuntimeError("Connection closed. By peer [127.0.0.1]")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # until the process has ended
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_gpu_that_waits_in_vain_is_given_up_after_torchruns_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for CUDA's event and NCCL's abort; after a fifth of a second here, after ten in earnest."""
    aborted: list[float] = []
    answers = iter([False] * 5 + [True])
    monkeypatch.setattr(distributed, "_SECONDS_AFTER_SIGNAL", 0.2)
    monkeypatch.setattr(distributed_c10d, "_abort_process_group", lambda: aborted.append(time.monotonic()))
    event = SimpleNamespace(record=lambda: None, query=lambda: next(answers))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    Distributed(0, 2)._wait_for_gpu()
    assert next(answers, None) is None
    assert not aborted

    event.query = lambda: False
    signal_comes = time.monotonic() + 0.3
    with pytest.raises(PeerError, match=r"does not answer: the GPU has waited in vain"), _peer_errors():
        Distributed(0, 2, has_signal=lambda: time.monotonic() > signal_comes)._wait_for_gpu()
    assert aborted[0] >= signal_comes + 0.2


def test_stopped_together_and_gone_on_alone(zygote: Zygote, tmp_path: Path, alone: Run) -> None:
    """A signal that one of them gets is obeyed by all after the same update, and nothing is lost."""
    settings = ("--epochs", "8", "--batch-size", "52")
    process = subprocess.Popen(
        torchrun(2, "-m", "mnist_tb", *training(tmp_path, *settings)), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line.startswith("Validation, after epoch 1") for line in process.stdout)
    os.kill(members(process.pid)[1], signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    (run,) = list_run_folders(tmp_path)
    assert f"Stopped; resume with: {command_line('resume', run.path)}\n" in out
    assert run.read_metrics()["status"] == "interrupted"
    assert 25 <= checkpoint.load(run.last_checkpoint)["step"] < 200
    assert zygote.run("resume", str(run.path))[0] == 0
    assert run.read_metrics()["status"] == "completed"
    assert scalars(run)["loss/val"][:2] == [(s, pytest.approx(v, abs=1e-4)) for s, v in scalars(alone)["loss/val"]]


@pytest.mark.parametrize("every", ["7", "1000"])
def test_a_loss_that_is_not_finite_ends_all_with_that_reason(zygote: Zygote, tmp_path: Path, every: str) -> None:
    """All add up the same loss, so all meet it after the same update: none says that another process has ended."""
    diverging = ("--set", f"tracking.scalars_every={every}", "--lr", "1e30")
    _, error = together(zygote, 2, *training(tmp_path, *diverging))
    (run,) = list_run_folders(tmp_path)
    metrics = run.read_metrics()
    assert metrics["status"] == "failed"
    assert "the training loss is NaN or infinite at step " in metrics["error"]
    assert error.count(metrics["error"]) >= 1
    assert "a process" not in error


def test_wrong_input_is_said_once(tmp_path: Path) -> None:
    done = subprocess.run(
        torchrun(2, "-m", "mnist_tb", *training(tmp_path, "--device", "cuda")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("mnist-tb: device cuda: torch finds no CUDA GPU here; use auto or cpu") == 1
    assert list_run_folders(tmp_path) == []


def test_what_the_first_one_cannot_do_none_does(zygote: Zygote, train: Train, tmp_path: Path) -> None:
    """The error of the first one is that of all: here of a checkpoint that is broken."""
    run = train("--epochs", "1")
    run.last_checkpoint.write_bytes(b"broken")
    _, error = together(zygote, 2, "resume", str(run.path))
    assert error.count("mnist-tb: ") == 1
    assert "is not a checkpoint of mnist_tb, or it is broken" in error
    with pytest.raises(InputError):
        SINGLE_PROCESS.broadcast_from_main(lambda: checkpoint.load(run.last_checkpoint))
