"""What CUDA records of an update may not wait for the device, nor touch the CPU, nor keep what it allocates.

Without a GPU: the real update, and then whole trainings, on a device whose tensors lie on the CPU behind torch's
dispatcher (helpers/accelerator.py). It shows what a recording would refuse, or worse, replay wrongly, and what would
wait or be of the wrong device; not what CUDA's own kernels compute: that is for test_cuda.py, where there is a GPU.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from helpers import killing
from helpers.accelerator import DEVICE, Device, Recording, record
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from mnist_tb import launch
from mnist_tb import model as models
from mnist_tb import train as loop
from mnist_tb.cli.main import main
from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine import device as devices
from mnist_tb.engine.distributed import Distributed
from mnist_tb.engine.train_step import Capture, CudaGraphTrainStep, TrainStep
from mnist_tb.errors import MemoryFullError, TrainingError
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.training import checkpoint, state
from mnist_tb.training.metrics_window import MetricsWindow


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The device is there, and trainings take it, with their updates recorded. The kernels are the CPU's."""

    def recorded(config: Config, model: CNN, dataset: Dataset, distributed: Distributed) -> CudaGraphTrainStep:
        return graph(config, model, dataset)

    monkeypatch.setenv("MNIST_TB_KERNELS", "off")
    monkeypatch.setattr(state, "build_train_step", recorded)
    monkeypatch.setattr(launch, "use_device", lambda config: DEVICE)
    with Device():
        yield


def graph(config: Config, model: CNN, dataset: Dataset, capture: Capture = record) -> CudaGraphTrainStep:
    step = TrainStep(config, model, dataset)
    augmentation = config.augment if config.augment.enabled else None
    return CudaGraphTrainStep(step, config.train.batch_size, dataset.train.labels.device, capture, augmentation)


RECIPES = [
    {"precision": precision, "optimizer.name": optimizer, **more}
    for precision, optimizer, more in itertools.product(
        ("fp32", "bf16"),
        ("adam", "adamw", "sgd"),
        ({}, {"augment.rotate": 10.0, "augment.warp": 0.7, "averaging.name": "ema", "train.label_smoothing": 0.1}),
    )
]


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(map(str, list(recipe.values())[:2])))
def test_an_update_can_be_recorded(recipe: dict[str, Any], small_config: Config, digits: Dataset) -> None:
    config = replace_config(small_config, recipe)
    update = graph(config, models.build((16, 32, 64), 0, DEVICE), digits.to(DEVICE))
    index = torch.zeros(64, dtype=torch.int64, device=DEVICE)
    transforms = augment.Transforms(config.augment, 64, 64, 0, DEVICE).of(0) if config.augment.enabled else None
    with Recording():  # what is around it, too: between two replays nothing waits either
        loss, num_correct = update(index, 1e-3, transforms)
        if update.average is not None:
            update.average.update(1.0)
            update.average.refresh()
        rest = update(index[:5], 1e-3, None if transforms is None else transforms[:5])
    assert (loss.device, num_correct.dtype, rest[0].shape) == (DEVICE, torch.int64, ())


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


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (_waits, "aten.equal.default waits for the device"),
        (_reads, "aten._local_scalar_dense.default waits for the device"),
        (_crosses, "is of the CPU"),
        (_keeps, "1 tensors outlive the recording"),
    ],
)
def test_each_planted_fault_is_found(
    plant: Callable[..., None], found: str, small_config: Config, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace_config(small_config, {"augment.rotate": 10.0})
    plant(None, monkeypatch)
    with pytest.raises(AssertionError, match=found):
        graph(config, models.build((16, 32, 64), 0, DEVICE), digits.to(DEVICE))


# ---- A whole training

WHOLE = ("augment.rotate=10", "augment.warp=0.7", "averaging.name=ema", "precision=fp32", "tracking.scalars_every=3")
ARGUMENTS = ("--epochs", "2", *itertools.chain(*(("--set", setting) for setting in WHOLE)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same updates, on the CPU."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MNIST_TB_KERNELS", "off")
        patched.setattr(
            state, "build_train_step", lambda config, model, dataset, _: graph(config, model, dataset, _same)
        )
        config, logdir = str(REPOSITORY / "configs" / "digits.yaml"), tmp_path_factory.mktemp("whole")
        assert main(arguments=["train", "--config", config, "--logdir", str(logdir), *ARGUMENTS]) == 0
    return list_run_folders(logdir)[-1]


def _same(work: Callable[[], None]) -> Callable[[], None]:
    return work


@pytest.mark.usefixtures("on_device")
def test_a_training_on_the_device_is_that_on_the_cpu(train: Train, whole: Run) -> None:
    """Everything that is tracked, too: curves, pictures, histograms, checkpoints, the evaluation at the end."""
    assert killing.differences(train(*ARGUMENTS), whole) == []


@pytest.mark.usefixtures("on_device")
def test_between_two_points_nothing_waits_for_the_device(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[int | None] = []
    update, log = loop.train_step, MetricsWindow.close

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with Recording(uploads=True) as recording:
                result = work(*arguments)
            uploads.append(recording.uploads)
            return result

        return call

    monkeypatch.setattr(loop, "train_step", watched(update))
    monkeypatch.setattr(MetricsWindow, "close", watched(log))
    train(*ARGUMENTS)
    assert len(uploads) > 50
    assert sum(count or 0 for count in uploads) == 1, "the transforms of 128 updates"


@pytest.mark.usefixtures("on_device")
def test_waiting_between_two_points_is_found(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: MetricsWindow, loss: torch.Tensor, *others: Any) -> None:
        assert loss.item() > 0

    def watched(*arguments: Any) -> None:
        with Recording(uploads=True):
            update(*arguments)

    update = loop.train_step
    monkeypatch.setattr(MetricsWindow, "add", add)
    monkeypatch.setattr(loop, "train_step", watched)
    with pytest.raises(AssertionError, match=r"_local_scalar_dense\.default waits for the device"):
        train(*ARGUMENTS)


@pytest.mark.slow
@pytest.mark.usefixtures("on_device")
def test_stopped_and_resumed_on_the_device(train: Train, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch: optimiser, averaged weights and the open window come back to the device."""
    steps = itertools.count(1)
    update = loop.train_step

    def stopping(*arguments: Any) -> None:
        update(*arguments)
        if next(steps) == 31:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", stopping)
        run = train(*ARGUMENTS, "--set", "tracking.checkpoint_seconds=0.001", code=130)
    assert checkpoint.load(run.last_checkpoint)["step"] == 31
    assert main(arguments=["resume", str(run.path)]) == 0
    assert killing.differences(run, whole) == []


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
