"""What makes a recipe: augmentation, label smoothing and averaged weights, compared with torch and torchvision."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from helpers import killing
from helpers.events import scalars
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.config.load import load_config, replace_config
from mnist_tb.config.schema import Augment, Averaging, Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine.averaging import AveragedWeights
from mnist_tb.engine.train_step import CudaGraphTrainStep, TrainStep
from mnist_tb.model import CNN, build, flatten
from mnist_tb.training import checkpoint

CPU = torch.device("cpu")
AUGMENTATION = {
    "augment.rotate": 10.0,
    "augment.shift": 2.0,
    "augment.scale": 0.1,
    "augment.shear": 5.0,
    "augment.warp": 0.7,
}


# ---- Augmentation


@pytest.mark.parametrize(
    ("angle", "scale", "shear", "shift"),
    [
        (0, 1, 0, (0, 0)), (30, 1, 0, (0, 0)), (0, 1.3, 0, (0, 0)), (0, 1, 20, (0, 0)), (0, 1, 0, (3, -2)),
        (-12, 0.8, 9, (2, 5)), (170, 1.1, -30, (-4, 1)),
    ],
)  # fmt: skip
def test_affine_transforms_are_torchvisions(
    angle: float, scale: float, shear: float, shift: tuple[int, int], digits: Dataset
) -> None:
    images = digits.train.images[:5]
    transforms = augment.inverse_transforms(
        *(torch.full((5,), float(v)) for v in (angle, scale, shear)),
        torch.tensor(shift, dtype=torch.float32)[:, None].expand(2, 5),
    )
    expected = affine(
        images.float()[:, None], angle, list(shift), scale, [shear, 0.0], InterpolationMode.BILINEAR, fill=[0.0]
    )
    torch.testing.assert_close(augment.warp(images, transforms), expected[:, 0], rtol=0, atol=2e-2)


def test_identity_changes_nothing(digits: Dataset) -> None:
    images = digits.train.images[:7]
    identity = augment.inverse_transforms(torch.zeros(7), torch.ones(7), torch.zeros(7), torch.zeros(2, 7))
    torch.testing.assert_close(augment.warp(images, identity), images.float(), rtol=0, atol=1e-3)


def test_every_image_has_its_own_transform_within_the_bounds() -> None:
    bounds = Augment(rotate=10.0, shift=2.0, scale=0.1, shear=5.0)
    transforms = augment.sample(bounds, [4_000], 0)
    assert len(transforms.unique(dim=0)) == 4_000
    linear = torch.linalg.inv(transforms[:, :, :2].double())  # rotation · shear, times the scale
    scale = linear.det().sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    shift = -(linear @ transforms[:, :, 2:].double()).squeeze(2) * 14
    for value, middle, bound in ((scale, 1, 0.1), (angle, 0, 10), (shift[:, 0], 0, 2), (shift[:, 1], 0, 2)):
        assert (value - middle).abs().max() <= bound * (1 + 1e-5)
        assert (value - middle).abs().max() > bound * 0.98
        assert (value - middle).mean().abs() < bound * 0.05


@pytest.mark.parametrize("warp", [0.0, 0.7])
def test_transforms_depend_on_seed_and_step_alone(warp: float) -> None:
    """However they are asked for: all in order, or one after a resume; no two updates get the same ones."""
    bounds = Augment(rotate=10.0, shift=2.0, warp=warp)
    whole = augment.Transforms(bounds, 5_700, 1_000, 5, CPU)
    in_order = [whole.of(step).clone() for step in range(20)]
    assert [len(transforms) for transforms in in_order[:7]] == [1_000] * 5 + [700, 1_000]
    for step in (19, 3, 8, 5):
        assert torch.equal(augment.Transforms(bounds, 5_700, 1_000, 5, CPU).of(step), in_order[step])
    assert len(torch.cat(in_order).unique(dim=0)) == sum(map(len, in_order))
    assert not torch.equal(augment.Transforms(bounds, 5_700, 1_000, 6, CPU).of(0), in_order[0])


def test_a_large_batch_gets_its_transforms_too() -> None:
    bounds = Augment(rotate=10.0)
    assert augment.Transforms(bounds, 50_000, 10_000, 5, CPU).of(2).shape == (10_000, 2, 3)


def test_transforms_leave_for_the_device_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    transforms = augment.Transforms(Augment(rotate=10.0), 64_000, 64, 0, torch.device("cuda:1"))
    for step in range(128):
        transforms.of(step)
    assert calls == ["pinned", ((torch.device("cuda:1"),), {"non_blocking": True})]


def test_displaced_control_point_moves_its_surroundings() -> None:
    """By its displacement at the point itself, by less near it, and not at all at the other control points."""
    transforms = augment.identity(1, Augment(warp=1.0))
    transforms[0, 0, 3] = 5 / 14  # the first control point, at a corner: its pixel comes from five pixels to the right
    image = torch.arange(28.0).repeat(28, 1)[None]
    warped = augment.warp(image, transforms)[0]
    assert warped[0, 0] == pytest.approx(5, abs=1e-4)
    for row, column in ((0, 27), (27, 0), (27, 27), (0, 9), (18, 18)):
        assert warped[row, column] == pytest.approx(column, abs=1e-4)
    assert 0 < warped[3, 3] - 3 < 5


def test_elastic_displacements_have_the_configured_size(digits: Dataset) -> None:
    """In each direction the displacement of a corner is normal, with `warp` pixels as its standard deviation."""
    transforms = augment.sample(Augment(warp=0.7), [4_000], 0)
    corner = torch.matmul(transforms, augment._basis(CPU))[:, :, 0] * 14 + 13.5
    assert corner.mean(0).abs().max() < 0.05
    assert (corner.std(0) - 0.7).abs().max() < 0.03
    assert torch.corrcoef(corner.T)[0, 1].abs() < 0.05
    unchanged = augment.warp(digits.train.images[:3], augment.identity(3, Augment(warp=0.7)))
    torch.testing.assert_close(unchanged, digits.train.images[:3].float(), rtol=0, atol=1e-3)


def test_augmentation_ends_after_its_fraction_of_the_updates(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    of = augment.Transforms.of
    monkeypatch.setattr(augment.Transforms, "of", lambda self, step: steps.append(step) or of(self, step))
    train("--epochs", "2", "--set", "augment.shift=1", "--set", "augment.until=0.7")
    assert steps == list(range(28))  # of 40 updates


# ---- Label smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("kernels", [True, False])
def test_label_smoothing_is_torchs(
    smoothing: float, kernels: bool, digits: Dataset, small_config: Config, compiler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not kernels:
        monkeypatch.setenv("MNIST_TB_KERNELS", "off")
    config = replace_config(small_config, {"train.label_smoothing": smoothing})
    model = build((16, 32, 64), 0, CPU)  # with one seed in sixty, rounding decides which of two pixels a pooling takes
    step = TrainStep(config, model, digits)
    assert (step._kernels is not None) == kernels
    reference = copy.deepcopy(model)
    index = torch.arange(50)
    inputs, labels = digits.train_batch(index, torch.float32)
    expected = functional.cross_entropy(reference(inputs), labels, label_smoothing=smoothing)
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    loss, _ = step(index, 0.0)
    torch.testing.assert_close(loss, expected.detach())
    for ours, theirs in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-6)


# ---- Averaged weights


def run_updates(config: Config, digits: Dataset, count: int) -> tuple[TrainStep, list[torch.Tensor]]:
    """A train step after some updates, and the weights after each update."""
    step = TrainStep(config, CNN(), digits)
    assert step.average is not None
    weights = []
    for i in range(count):
        step(torch.arange(i, i + 16), 0.01)
        step.average.update((i + 1) / count)
        weights.append(step.tensors()[0].clone())
    step.average.refresh()
    return step, weights


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().permute(0, 2, 3, 1).reshape(-1) if p.dim() == 4 else p.detach().reshape(-1)
                      for p in model.parameters()])  # fmt: skip


def test_ema_by_hand(digits: Dataset, small_config: Config) -> None:
    config = replace_config(small_config, {"averaging.name": "ema", "averaging.decay": 0.5})
    step, (first, second, third) = run_updates(config, digits, 3)
    assert step.average is not None
    torch.testing.assert_close(flat(step.average.master_model), first / 4 + second / 4 + third / 2)
    assert not torch.equal(flat(step.average.master_model), third)


def test_swa_averages_from_its_start(digits: Dataset, small_config: Config) -> None:
    config = replace_config(small_config, {"averaging.name": "swa", "averaging.start": 0.5})
    step, weights = run_updates(config, digits, 6)
    assert step.average is not None
    torch.testing.assert_close(flat(step.average.master_model), torch.stack(weights[2:]).mean(0))


def test_before_its_start_the_average_is_the_current_weights(digits: Dataset, small_config: Config) -> None:
    config = replace_config(small_config, {"averaging.name": "swa", "averaging.start": 0.9})
    step = TrainStep(config, CNN(), digits)
    assert step.average is not None
    step(torch.arange(16), 0.01)
    step.average.update(0.5)
    step.average.refresh()
    assert torch.equal(flat(step.average.master_model), step.tensors()[0])


def test_average_is_torchs_averaged_model() -> None:
    """AveragedModel over the flat vector equals AveragedModel over the model."""
    model = CNN()
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    other = copy.deepcopy(model)
    vector, _ = flatten(other)
    ours = AveragedWeights(Averaging(name="ema", decay=0.9), other, vector, "fp32")
    for _ in range(5):
        noise = torch.randn(len(vector))
        vector.add_(noise)
        for parameter, moved in zip(model.parameters(), other.parameters(), strict=True):
            parameter.data.copy_(moved)
        expected.update_parameters(model)
        ours.update(1.0)
    ours.refresh()
    for one, reference in zip(ours.master_model.parameters(), expected.module.parameters(), strict=True):
        torch.testing.assert_close(one, reference)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compute_model_holds_the_average_in_its_precision(
    precision: str, digits: Dataset, small_config: Config
) -> None:
    config = replace_config(small_config, {"averaging.name": "ema", "precision": precision})
    step, _ = run_updates(config, digits, 4)
    assert step.average is not None
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    average = step.average
    for master, compute in zip(average.master_model.parameters(), average.compute_model.parameters(), strict=True):
        assert compute.dtype == dtype
        assert torch.equal(master.to(dtype), compute)


# ---- In a whole training


SETTINGS = {**AUGMENTATION, "averaging.name": "ema", "averaging.decay": 0.95, "train.label_smoothing": 0.1}
RECIPE = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.slow
def test_resumed_recipe_equals_an_uninterrupted_one(train: Train, tmp_path: Path) -> None:
    whole = train(*RECIPE, "--epochs", "4", logdir=tmp_path / "whole")
    part = train(*RECIPE, "--epochs", "2", logdir=tmp_path / "part")
    assert main(arguments=["resume", str(part.path), "--epochs", "4"]) == 0
    assert killing.differences(part, whole) == []
    saved, expected = (checkpoint.load(run.last_checkpoint)["average"] for run in (part, whole))
    assert torch.equal(saved["average"], expected["average"])
    assert int(saved["count"]) == 80


def test_best_weights_are_the_averaged_ones(train: Train) -> None:
    run = train("--set", "averaging.name=ema", "--set", "averaging.decay=0.9", "--epochs", "2")
    saved = checkpoint.load(run.last_checkpoint)
    best = torch.load(run.weights, weights_only=True)
    model = CNN()
    model.load_state_dict(best)
    torch.testing.assert_close(flat(model), saved["average"]["average"])
    model.load_state_dict(saved["model"])
    assert not torch.equal(flat(model), saved["average"]["average"])
    assert scalars(run)["accuracy/val"][0][0] == 0


def test_checkpoint_without_the_average_is_one_sentence(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1")
    text = run.config.read_text()
    run.config.write_text(text.replace("averaging:\n  name: none", "averaging:\n  name: ema"))
    assert run.config.read_text() != text
    assert main(arguments=["resume", str(run.path), "--epochs", "2"]) == 2
    assert "checkpoint is of another network or another version" in capsys.readouterr().err


def test_graph_takes_the_transforms_of_each_update(digits: Dataset, small_config: Config) -> None:
    """As on CUDA, but with a fake capture."""
    config = replace_config(small_config, AUGMENTATION)
    torch.manual_seed(0)
    model = CNN()
    plain, recorded = TrainStep(config, copy.deepcopy(model), digits), TrainStep(config, model, digits)
    graph = CudaGraphTrainStep(recorded, 32, CPU, lambda work: work, config.augment)
    for i in range(4):
        index = torch.arange(i, i + (32 if i < 3 else 5))
        transforms = augment.sample(config.augment, [len(index)], 0, i) if i != 1 else None
        one, other = plain(index, 0.01, transforms), graph(index, 0.01, transforms)
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(plain.tensors(), recorded.tensors())


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml")))
def test_every_recipe_is_valid(recipe: str) -> None:
    config = load_config(REPOSITORY / "configs" / f"{recipe}.yaml")
    assert config.model.channels == (16, 32, 64), "the same 54,666 parameters"
