from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from mnist_tb import model as models
from mnist_tb.data.datasets import Dataset
from mnist_tb.evaluate import evaluate
from mnist_tb.model import CNN

CPU = torch.device("cpu")


def test_parameter_count() -> None:
    assert models.parameter_count(CNN()) == 54_666


def test_relu_after_pooling_is_relu_before_pooling_to_the_bit() -> None:
    x = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    pool = functional.max_pool2d
    assert torch.equal(functional.relu(pool(x, 2)), pool(functional.relu(x), 2))


def test_same_function_as_relu_before_pooling() -> None:
    model = models.build((16, 32, 64), 0, CPU)
    x = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = functional.max_pool2d(functional.relu(model.conv1(x)), 2)
    y = functional.max_pool2d(functional.relu(model.conv2(y)), 2)
    y = functional.linear(functional.relu(model.conv3(y)).flatten(1), model.linear.weight, model.linear.bias)
    assert torch.allclose(model(x), y, atol=1e-6)


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
        if name == "linear":
            plain.add_module("flatten", nn.Flatten())
            layer = nn.Linear(7 * 7 * 64, 10)
        plain.add_module(name, layer)
    model = models.build((16, 32, 64), 0, CPU)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plain(x), model(x), atol=1e-6)


def test_parameters_become_views_of_one_vector() -> None:
    model = models.build((16, 32, 64), 0, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vector, gradient = models.flatten(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert vector.numel() == 54_666
    vector.zero_()
    gradient.fill_(2)
    assert all(not parameter.any() for parameter in model.parameters())
    assert all((parameter.grad == 2).all() for parameter in model.parameters())
    assert model.conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_puts_the_mode_back(digits: Dataset) -> None:
    model = models.build((16, 32, 64), 0, CPU)
    for mode in (True, False):
        model.train(mode)
        evaluate(model, digits, digits.test)
        assert model.training is mode


def test_evaluation_runs_in_evaluation_mode(digits: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(784, 10)).train()
    assert evaluate(model, digits, digits.test).loss == evaluate(model, digits, digits.test).loss


def test_evaluation_counts_every_image_once_also_in_an_uneven_last_batch(digits: Dataset) -> None:
    model = models.build((16, 32, 64), 3, CPU)
    split = digits.train  # 1,249 images: two batches of 500 and one of 249
    result = evaluate(model, digits, split)
    with torch.no_grad():
        logits = model(digits.inputs(split.images))
    assert result.probabilities.shape == (1_249, 10)
    assert result.loss == pytest.approx(functional.cross_entropy(logits, split.labels).item(), rel=1e-5)
    assert result.accuracy == (logits.argmax(1) == split.labels).double().mean().item()
    assert result.confusion.sum() == 1_249
    assert result.confusion.diag().sum() == round(result.accuracy * 1_249)
