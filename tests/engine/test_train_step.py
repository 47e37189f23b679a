"""One optimiser update: by the compiled kernels, by torch, and as a graph records it, it is the textbook's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from mnist_tb import model as models
from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine.train_step import CudaGraphTrainStep, TrainStep, build_train_step
from mnist_tb.model import CNN

CPU = torch.device("cpu")


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    """Every test here goes both ways."""
    if request.param == "torch":
        monkeypatch.setenv("MNIST_TB_KERNELS", "off")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_overfits_one_batch(precision: str, digits: Dataset, small_config: Config) -> None:
    update = TrainStep(replace_config(small_config, {"precision": precision}), CNN(), digits)
    index = torch.arange(16)  # few, for bf16 is slow on processors that have none
    for _ in range(60):
        update(index, 1e-3)
    loss, num_correct = update(index, 1e-3)
    assert num_correct == 16
    assert loss < 0.05


def autocast_update(
    model: CNN, optimizer: torch.optim.Optimizer, data: Dataset, index: torch.Tensor, bf16: bool
) -> None:
    """The update as the textbook writes it."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(data.inputs(data.train.images[index]))
    functional.cross_entropy(logits.float(), data.train.labels[index]).backward()
    optimizer.step()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_update_is_the_textbooks(
    precision: str,
    name: str,
    kind: type[torch.optim.Optimizer],
    digits: Dataset,
    small_config: Config,
    request: pytest.FixtureRequest,
) -> None:
    """One vector and a bf16 copy give what separate parameters under autocast give."""
    betas = (0.9, 0.999) if name == "adam" else (0.7, 0.9)
    config = replace_config(small_config, {"precision": precision, "optimizer.name": name, "optimizer.betas": betas})
    ours, textbook = (models.build((16, 32, 64), 0, CPU) for _ in range(2))
    start = torch.cat(models.as_vector(p.detach() for p in textbook.parameters()))
    update = TrainStep(config, ours, digits)
    optimizer = kind(textbook.parameters(), lr=1e-3, weight_decay=0.0, betas=betas)  # type: ignore[call-arg]
    for first in (0, 64, 128):
        index = torch.arange(first, first + 64)
        update(index, 1e-3)
        autocast_update(textbook, optimizer, digits, index, precision == "bf16")
    one, other = (torch.cat(models.as_vector(p.detach() for p in model.parameters())) for model in (ours, textbook))
    gradient = torch.cat(models.as_vector(p.grad for p in textbook.parameters() if p.grad is not None))
    same_rounding = precision == "fp32" or request.node.callspec.params["way"] == "torch"
    if same_rounding:
        assert torch.allclose(one, other, atol=2e-6)
        assert torch.allclose(update.gradient, gradient, atol=1e-6)
    else:  # the kernels round to bf16 in other places than autocast does
        norm = torch.linalg.vector_norm
        assert norm(one - other) < 0.2 * norm(other - start)
        assert norm(update.gradient - gradient) < 0.05 * norm(gradient)


def capture_without_a_device(work: Callable[[], None]) -> Callable[[], None]:
    """What record_cuda_graph does, as far as a CPU reaches: warms up, and hands the work back to be replayed."""
    for _ in range(3):
        work()
    return work


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_recorded_update_is_the_plain_one(precision: str, name: str, digits: Dataset, small_config: Config) -> None:
    """Warming up leaves no trace, an uneven batch takes the same weights, results are not overwritten."""
    config = replace_config(small_config, {"precision": precision, "optimizer.name": name})
    plain, recorded = (models.build((16, 32, 64), 0, CPU) for _ in range(2))
    one = TrainStep(config, plain, digits)
    other = CudaGraphTrainStep(TrainStep(config, recorded, digits), 64, CPU, capture_without_a_device)
    expected, results = [], []
    for start, end in ((0, 64), (64, 128), (128, 149), (149, 213)):
        index = torch.arange(start, end)
        expected.append(one(index, 2**-9))
        results.append(other(index, 2**-9))
    assert [(float(loss), int(num_correct)) for loss, num_correct in results] == [
        (float(loss), int(num_correct)) for loss, num_correct in expected
    ]
    assert len({float(loss) for loss, _ in results}) == 4
    for ours, theirs in zip(recorded.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-7)
    assert torch.allclose(other.gradient, one.gradient, rtol=0, atol=1e-6)


def test_a_cpu_records_nothing(digits: Dataset, small_config: Config) -> None:
    assert isinstance(build_train_step(small_config, CNN(), digits), TrainStep)
