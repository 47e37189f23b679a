"""What CUDA records of an update may not wait for the device, nor touch the CPU, nor keep what it allocates.

Without a GPU: the real update on tensors without content (`meta`), and each of its operations is looked at. It shows
what a recording would refuse, or worse, replay wrongly; not what CUDA computes.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mnist_tb import model as models
from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import device as devices
from mnist_tb.engine.train_step import CudaGraphTrainStep, TrainStep
from mnist_tb.errors import MemoryFullError, TrainingError

META = torch.device("meta")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.")
"""Operations whose result the CPU has to know."""


class Recording(TorchDispatchMode):
    """Looks at each operation as a recording would."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        assert not any(word in name for word in WAITING), f"{name} waits for the device"
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        is_optimizer = "_fused_" in name  # in place: without content there is nothing to do
        result = None if is_optimizer else func(*args, **(kwargs or {}))
        got = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        kinds = {tensor.device.type for tensor in [*given, *got]}
        assert kinds <= {"meta"}, f"{name} is of the CPU"
        self.made += [weakref.ref(tensor) for tensor in got if not any(tensor is other for other in given)]
        self.count += 1
        return result


def record(work: Callable[[], None]) -> Callable[[], None]:
    """A `Capture`: what the work allocates must be gone when it ends, for a replay writes to the same places again."""
    with Recording():
        work()  # what is made once, as when CUDA warms up
    with Recording() as recording:
        work()
    gc.collect()
    kept = [tensor for reference in recording.made if (tensor := reference()) is not None]
    assert not kept, f"{len(kept)} tensors outlive the recording"
    assert recording.count > 30
    return work


@pytest.fixture(autouse=True)
def without_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be compared there, and the kernels are the CPU's."""
    monkeypatch.setenv("MNIST_TB_KERNELS", "off")
    monkeypatch.setattr(CudaGraphTrainStep, "_check", lambda self, weights: None)


def graph(config: Config, digits: Dataset) -> CudaGraphTrainStep:
    dataset = digits.to(META)
    step = TrainStep(config, models.build((16, 32, 64), 0, META), dataset)
    return CudaGraphTrainStep(step, 64, META, record, config.augment if config.augment.enabled else None)


RECIPES = [
    {"precision": precision, "optimizer.name": optimizer, **more}
    for precision, optimizer, more in itertools.product(
        ("fp32", "bf16"),
        ("adam", "adamw", "sgd"),
        ({}, {"augment.rotate": 10.0, "augment.warp": 0.7, "averaging.name": "ema", "train.label_smoothing": 0.1}),
    )
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(map(str, list(recipe.values())[:2])))
def test_an_update_can_be_recorded(recipe: dict[str, Any], small_config: Config, digits: Dataset) -> None:
    config = replace_config(small_config, recipe)
    update = graph(config, digits)
    index = torch.zeros(64, dtype=torch.int64, device=META)
    transforms = augment.sample(config.augment, 64, 0, 0)
    given = None if transforms is None else transforms.to(META)
    with Recording():  # what is around it, too: between two replays nothing waits either
        loss, num_correct = update(index, 1e-3, given)
        if update.average is not None:
            update.average.update(1.0)
            update.average.refresh()
        rest = update(index[:5], 1e-3, None if given is None else given[:5])
    assert (loss.device, num_correct.dtype, rest[0].shape) == (META, torch.int64, ())


def _waits(step: TrainStep, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = TrainStep._backward_by_torch

    def waiting(self: TrainStep, *arguments: Any) -> Any:
        loss, num_correct = backward(self, *arguments)
        torch.equal(loss, loss)
        return loss, num_correct

    monkeypatch.setattr(TrainStep, "_backward_by_torch", waiting)


def _reads(step: TrainStep, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = TrainStep._backward_by_torch

    def reading(self: TrainStep, *arguments: Any) -> Any:
        loss, num_correct = backward(self, *arguments)
        if loss.item() > 0:
            loss = loss * 1
        return loss, num_correct

    monkeypatch.setattr(TrainStep, "_backward_by_torch", reading)


def _crosses(step: TrainStep, monkeypatch: pytest.MonkeyPatch) -> None:
    basis = augment._basis(torch.device("cpu"))
    monkeypatch.setattr(augment, "_basis", lambda device: basis.to(device))


def _keeps(step: TrainStep, monkeypatch: pytest.MonkeyPatch) -> None:
    update = CudaGraphTrainStep._update

    def keeping(self: CudaGraphTrainStep) -> None:
        update(self)
        self.kept = self._loss * 1  # type: ignore[attr-defined]

    monkeypatch.setattr(CudaGraphTrainStep, "_update", keeping)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (_waits, "aten.equal.default waits for the device"),
        (_reads, "meta tensors|waits for the device"),
        (_crosses, "is of the CPU"),
        (_keeps, "1 tensors outlive the recording"),
    ],
)
def test_each_planted_fault_is_found(
    plant: Callable[..., None], found: str, small_config: Config, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace_config(small_config, {"augment.rotate": 10.0})
    plant(None, monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=found):
        graph(config, digits)


# ---- What else CUDA needs


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Two GPUs, as far as the questions reach that are asked before anything is computed."""
    said: dict[str, Any] = {"capability": (7, 5)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: said["capability"])
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: said.update(current=index))
    before = torch.backends.cudnn.allow_tf32
    yield said
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_the_device_is_the_current_one_and_fp32_is_fp32(
    name: str, index: int, small_config: Config, cuda: dict[str, Any]
) -> None:
    torch.backends.cudnn.allow_tf32 = True
    config = devices.resolve_auto(replace_config(small_config, {"device": name}))
    assert devices.use_device(config) == torch.device(name)
    assert cuda["current"] == index
    assert not torch.backends.cudnn.allow_tf32


def test_bf16_is_refused_where_the_gpu_has_none(small_config: Config, cuda: dict[str, Any]) -> None:
    config = replace_config(small_config, {"device": "cuda", "precision": "bf16"})
    with pytest.raises(Exception, match="precision bf16: the GPU cuda has none"):
        devices.resolve_auto(config)
    assert devices.resolve_auto(replace_config(config, {"precision": "auto"})).precision == "fp32"
    cuda["capability"] = (8, 0)
    assert devices.resolve_auto(config).precision == "bf16"


def test_an_empty_graph_is_no_training(small_config: Config, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another device was the current one when it was recorded."""
    monkeypatch.undo()
    step = TrainStep(small_config, models.build((16, 32, 64), 0, torch.device("cpu")), digits)
    with pytest.raises(TrainingError, match="the CUDA graph of an update is empty on cpu"):
        CudaGraphTrainStep(step, 64, torch.device("cpu"), lambda work: lambda: None)


def test_no_memory_within_a_recording_is_recognised() -> None:
    """The recording cannot be ended then, and that is the error that is seen."""
    with pytest.raises(MemoryFullError), devices.memory_errors():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"):
        with pytest.raises(MemoryFullError), devices.memory_errors():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="something else"), devices.memory_errors():
        raise RuntimeError("something else")


def test_values_leave_for_the_device_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    values = torch.arange(3.0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    devices.to_device(values, torch.device("cuda:1"))
    assert calls == ["pinned", ((torch.device("cuda:1"),), {"non_blocking": True})]
