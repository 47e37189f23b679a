from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from mnist_tb import model as models
from mnist_tb.data import Dataset
from mnist_tb.evaluate import evaluate
from mnist_tb.model import CNN
from mnist_tb.train import update

CPU = torch.device("cpu")


def test_parameter_count() -> None:
    assert models.parameter_count(CNN()) == 54_666


def test_same_function_as_relu_before_pooling() -> None:
    model = models.build((16, 32, 64), 0, CPU)
    x = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = functional.max_pool2d(functional.relu(model.conv1(x)), 2)
    y = functional.max_pool2d(functional.relu(model.conv2(y)), 2)
    y = model.linear(functional.relu(model.conv3(y)).flatten(1))
    assert torch.equal(model(x), y)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_any_batch_gives_ten_logits_an_image(count: int) -> None:
    assert CNN()(torch.zeros(count, 1, 28, 28)).shape == (count, 10)


def test_channels_are_configurable() -> None:
    assert CNN((4, 5, 6))(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_weights_follow_the_seed_and_leave_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (models.build((16, 32, 64), seed, CPU) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_weights_load_into_a_plain_definition_of_the_network() -> None:
    plain = nn.Sequential()
    for name, layer in CNN().named_children():
        plain.add_module(name, layer)
    plain.load_state_dict(models.build((16, 32, 64), 0, CPU).state_dict())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_overfits_one_batch(precision: str, digits: Dataset) -> None:
    model = models.build((16, 32, 64), 0, CPU)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    for _ in range(60):
        update(model, optimizer, digits, images, labels, precision)
    loss, hits = update(model, optimizer, digits, images, labels, precision)
    assert hits == 64
    assert loss < 0.05


def test_evaluation_puts_the_mode_back(digits: Dataset) -> None:
    model = models.build((16, 32, 64), 0, CPU)
    for mode in (True, False):
        model.train(mode)
        evaluate(model, digits, digits.test, "fp32")
        assert model.training is mode


def test_evaluation_runs_in_evaluation_mode(digits: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(784, 10)).train()
    assert evaluate(model, digits, digits.test, "fp32").loss == evaluate(model, digits, digits.test, "fp32").loss


def test_evaluation_counts_every_image_once_also_in_an_uneven_last_batch(digits: Dataset) -> None:
    model = models.build((16, 32, 64), 3, CPU)
    split = digits.train  # 1,249 images: two batches of 500 and one of 249
    result = evaluate(model, digits, split, "fp32")
    with torch.no_grad():
        logits = model(digits.inputs(split.images))
    assert result.probabilities.shape == (1_249, 10)
    assert result.loss == pytest.approx(functional.cross_entropy(logits, split.labels).item(), rel=1e-5)
    assert result.accuracy == (logits.argmax(1) == split.labels).double().mean().item()
    assert result.confusion.sum() == 1_249
    assert result.confusion.diag().sum() == round(result.accuracy * 1_249)
