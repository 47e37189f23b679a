"""Drawing the graph of a model changes nothing of it, whether it succeeds or fails."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.compat.proto import graph_pb2
from torch import Tensor, nn

from mnist_tb.tracking import graph


class Lazy(nn.Module):
    """Keeps what it has computed first, as position encodings do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = torch.arange(8.0) * 1
        return x + self.cache * self.weight


class Counting(nn.Module):
    """Counts its calls in a buffer, a list and a parameter."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.register_buffer("count", torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.calls.append("called")
        self.scale.data.mul_(2)
        return x * self.scale


class Parent(nn.Module):
    """Does what it is told with its layers' output: torch.fx runs that code itself."""

    def __init__(self, work: Callable[[Any, Any], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), *layers)
        self.work = work
        self.note: object = None
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Any:
        return self.work(self, self.layers(x))


def keep(parent: Any, x: Any) -> Any:
    parent.note = x
    return x


def draw_numbers(parent: Any, x: Any) -> Any:
    noise = torch.rand(8) + random.random() + float(np.random.rand()) + torch.rand(8, generator=parent.generator)
    return x + noise


def kept_result() -> nn.Module:
    model = Parent(keep)
    model(torch.ones(1, 8))
    return model


def frozen_norm() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    model[1].eval()
    return model


def failing(parent: Any, x: Any) -> Any:
    raise RuntimeError("no")


MODELS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "frozen batch norm": (frozen_norm, True),
    "dropout": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), True),
    "lazy cache": (lambda: nn.Sequential(Lazy()), True),
    "counters": (lambda: nn.Sequential(Counting()), True),
    "counters below": (lambda: Parent(lambda _, x: x, Counting()), True),
    "keeps its result": (lambda: Parent(keep), True),
    "has kept its result": (kept_result, True),
    "random numbers": (lambda: Parent(draw_numbers), True),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))), True),
    "no layers": (lambda: nn.Linear(8, 8), True),
    "bf16": (lambda: nn.Sequential(nn.Linear(8, 8)).bfloat16(), True),
    "wrong size": (lambda: nn.Sequential(nn.Linear(9, 9), nn.Dropout(0.5)), True),
    "no forward": (lambda: Parent(failing, nn.Dropout(0.5)), False),
    "control flow": (lambda: Parent(lambda _, x: x if x.sum() > 0 else -x, nn.Dropout(0.5)), False),
    "two failures": (lambda: Parent(lambda parent, x: failing(parent, draw_numbers(parent, x)), Counting()), False),
    "embedding": (lambda: nn.Sequential(nn.Embedding(10, 4), nn.Dropout(0.5)), True),
}


def state(model: nn.Module) -> tuple[Any, ...]:
    """All that drawing may not change, as plain values."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist(), value.requires_grad, value.is_inference(), value.is_leaf and value.grad is None
        if isinstance(value, torch.Generator):
            return value.get_state().tolist()
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return copy.copy(value) if isinstance(value, list) else value

    modules = [(name, plain(vars(module))) for name, module in model.named_modules()]
    return modules, torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def shapes(drawn: graph_pb2.GraphDef) -> dict[str, list[int] | None]:
    return {
        node.name: [dim.size for dim in node.attr["_output_shapes"].list.shape[0].dim]
        if "_output_shapes" in node.attr
        else None
        for node in drawn.node
    }


@pytest.mark.parametrize(("make", "succeeds"), MODELS.values(), ids=MODELS)
def test_drawing_changes_nothing(make: Callable[[], nn.Module], succeeds: bool) -> None:
    model, called = make(), []
    for module in model.modules():
        module.register_forward_hook(lambda *given: called.append(given))
        module.register_forward_pre_hook(lambda *given: called.append(given))
    before = state(model)
    if succeeds:
        assert len(graph.draw(model, (1, 8)).node) >= 3
    else:
        with pytest.raises(ValueError, match="the graph of Parent cannot be drawn: "):
            graph.draw(model, (1, 8))
    assert state(model) == before
    assert called == []


@pytest.mark.parametrize("kind", [Lazy, Counting, lambda: Parent(keep), frozen_norm, kept_result])
def test_a_model_trains_after_it_has_been_drawn(kind: Callable[[], nn.Module]) -> None:
    model = kind()
    graph.draw(nn.Sequential(model), (1, 8))
    model(torch.ones(4, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_embedding_is_drawn_with_whole_numbers() -> None:
    drawn = shapes(graph.draw(nn.Sequential(nn.Embedding(10, 4), nn.Dropout(0.5)), (1, 8)))
    assert drawn["0/Embedding"] == [1, 8, 4]


def test_what_cannot_be_computed_has_no_shape() -> None:
    drawn = shapes(graph.draw(nn.Sequential(nn.Linear(8, 6), nn.Linear(5, 5), nn.ReLU()), (1, 8)))
    assert drawn["0/Linear"] == [1, 6]
    assert drawn["1/Linear"] is None
    assert drawn["1/weight"] == [5, 5]
    assert drawn["2/ReLU"] is None


def test_a_model_without_parameters_is_drawn() -> None:
    assert shapes(graph.draw(nn.Sequential(nn.Flatten()), (2, 3, 4)))["0/Flatten"] == [2, 12]


def test_hooks_that_cannot_be_copied_are_no_obstacle_and_attributes_are_named() -> None:
    model, lock = nn.Sequential(nn.Linear(8, 8)), threading.Lock()
    model[0].register_forward_hook(lambda *given, lock=lock: None)
    assert shapes(graph.draw(model, (1, 8)))["0/Linear"] == [1, 8]
    model.lock = lock  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"the graph of Sequential cannot be drawn: .*lock"):
        graph.draw(model, (1, 8))


class Two(nn.Module):
    """Takes two inputs, the second of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.words = nn.Linear(8, 4), nn.Embedding(10, 4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.line(x) + self.words(y)


X, Y = torch.ones(1, 8), torch.tensor([9])


@pytest.mark.parametrize("given", [(X, Y), {"y": Y, "x": X}], ids=["places", "names"])
def test_several_inputs_are_drawn_with_what_is_given(given: Any) -> None:
    drawn = shapes(graph.draw(Two(), given))
    assert (drawn["line/Linear"], drawn["words/Embedding"]) == ([1, 4], [1, 4])


def test_an_input_stays_as_it_is() -> None:
    x = torch.ones(1, 8)
    assert shapes(graph.draw(nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)), -x))["0/ReLU"]
    assert torch.equal(x, torch.ones(1, 8))
