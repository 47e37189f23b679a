"""What only a GPU can show. Where there is none, these tests are skipped; test_capture.py shows what can be shown then.

The suite hides the GPUs from all other tests. Where there are some, the first test here runs the rest in a process that
sees them. By hand: CUDA_VISIBLE_DEVICES=0 .venv/bin/python -m pytest tests/engine/test_cuda.py, or `make gpu`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import killing
from helpers.fixtures import Train
from mnist_tb import model as models
from mnist_tb import train as loop
from mnist_tb.cli.main import main
from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data.augment import Transforms
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine.device import use_device
from mnist_tb.engine.train_step import CudaGraphTrainStep, TrainStep, build_train_step
from mnist_tb.evaluate import evaluate
from mnist_tb.runs.folder import Run
from mnist_tb.training import checkpoint

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
SEES_GPUS = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not SEES_GPUS, reason="no CUDA GPU is seen by this process")
on_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
RECIPE = {"augment.rotate": 10.0, "augment.warp": 0.7, "averaging.name": "ema", "train.label_smoothing": 0.1}
ARGUMENTS = ("--device", "cuda", "--epochs", "2", *itertools.chain(*(("--set", f"{k}={v}") for k, v in RECIPE.items())))


def _has_gpus() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and b"GPU 0" in subprocess.run([smi, "-L"], capture_output=True, check=False).stdout


@pytest.mark.skipif(SEES_GPUS or not _has_gpus(), reason="no NVIDIA GPU here, or the tests below see it already")
def test_all_of_this_file_where_the_gpus_are_seen() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(8)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-cov", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture
def gpu_config(small_config: Config) -> Iterator[Config]:
    config = replace_config(small_config, {"device": "cuda", **RECIPE})
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    use_device(config)
    yield config
    torch.backends.cudnn.deterministic = before


def updates(step: TrainStep | CudaGraphTrainStep, config: Config, count: int = 12) -> list[torch.Tensor]:
    """Losses of some updates, one of them of a smaller batch and one without transforms; then all that they changed."""
    device = step.gradient.device
    transforms = Transforms(config.augment, 640, 64, 0, device)
    losses = []
    for i in range(count):
        index = torch.arange(i, i + (64 if i != 5 else 7), device=device)
        losses.append(step(index, 0.003, transforms.of(i)[: len(index)] if i != 7 else None)[0])
    inner = step if isinstance(step, TrainStep) else step._step
    return [torch.stack(losses).cpu(), *(tensor.cpu() for tensor in inner.tensors())]


def new_step(config: Config, dataset: Dataset, device: torch.device) -> TrainStep:
    return TrainStep(config, models.build((16, 32, 64), 0, device), dataset.to(device))


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_graph_computes_what_the_plain_step_does(
    precision: str, optimizer: str, gpu_config: Config, digits: Dataset
) -> None:
    config = replace_config(gpu_config, {"precision": precision, "optimizer.name": optimizer})
    plain = updates(new_step(config, digits, GPU), config)
    graph = build_train_step(config, models.build((16, 32, 64), 0, GPU), digits.to(GPU))
    assert isinstance(graph, CudaGraphTrainStep)
    torch.testing.assert_close(updates(graph, config), plain, rtol=1e-5, atol=1e-6)


@on_gpu
def test_fp32_is_that_of_the_cpu(gpu_config: Config, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_TB_KERNELS", "off")
    there, here = (updates(new_step(gpu_config, digits, device), gpu_config, 5) for device in (GPU, CPU))
    torch.testing.assert_close(there[0], here[0], rtol=1e-4, atol=1e-5)


@on_gpu
def test_an_update_never_waits_for_the_gpu(gpu_config: Config, digits: Dataset) -> None:
    graph = build_train_step(gpu_config, models.build((16, 32, 64), 0, GPU), digits.to(GPU))
    transforms = Transforms(gpu_config.augment, 64, 64, 0, GPU)
    index = torch.arange(64, device=GPU)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(300):
            graph(index, 1e-3, transforms.of(i))
            assert graph.average is not None
            graph.average.update(1.0)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_run_and_it_learns(precision: str, train: Train, tmp_path: Path) -> None:
    settings = ("--set", f"precision={precision}", "--device", "cuda", "--epochs", "8")
    one, other = (train(*settings, logdir=tmp_path / name) for name in ("one", "other"))
    assert killing.differences(one, other) == []
    assert one.read_metrics()["test"]["accuracy"] > 0.9


@pytest.fixture
def whole(train: Train, tmp_path: Path) -> Run:
    return train(*ARGUMENTS, logdir=tmp_path / "whole")


@on_gpu
def test_stopped_and_resumed(train: Train, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", stopping(loop.train_step, at=31))
        run = train(*ARGUMENTS, "--set", "tracking.checkpoint_seconds=0.001", code=130)
    assert checkpoint.load(run.last_checkpoint)["step"] == 31
    assert main(arguments=["resume", str(run.path)]) == 0
    assert killing.differences(run, whole) == []


def stopping(update: Callable[..., None], at: int) -> Callable[..., None]:
    steps = itertools.count(1)

    def call(*arguments: Any) -> None:
        update(*arguments)
        if next(steps) == at:
            os.kill(os.getpid(), signal.SIGINT)

    return call


@on_gpu
def test_a_run_is_evaluated_again(train: Train) -> None:
    run = train("--device", "cuda", "--epochs", "2")
    before = run.read_metrics()["test"]
    assert main(arguments=["evaluate", str(run.path)]) == 0
    assert run.read_metrics()["test"]["accuracy"] == before["accuracy"]


@on_gpu
def test_an_evaluation_is_that_of_the_cpu(gpu_config: Config, digits: Dataset) -> None:
    there, here = (
        evaluate(models.build((16, 32, 64), 0, device), digits.to(device), digits.to(device).test)
        for device in (GPU, CPU)
    )
    assert there.loss == pytest.approx(here.loss, rel=1e-4)
    assert there.probabilities.device == CPU


@on_gpu
def test_a_full_memory_is_one_sentence(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 2**25) / total)
    try:
        train("--device", "cuda", "--epochs", "1", "--set", "train.batch_size=1200", code=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: try a smaller train.batch_size" in capsys.readouterr().err


@on_two
def test_the_second_gpu_learns_what_the_first_does(train: Train, tmp_path: Path) -> None:
    first = train(*ARGUMENTS, logdir=tmp_path / "first")
    second = train("--device", "cuda:1", *ARGUMENTS[2:], logdir=tmp_path / "second")
    assert killing.differences(first, second) == []
