"""What makes a recipe: images moved at random, smoothed labels, averaged weights; against torch and torchvision."""

from __future__ import annotations

import copy
from pathlib import Path

import killing
import pytest
import torch
from conftest import REPOSITORY, Train, scalars
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from mnist_tb.cli.main import main
from mnist_tb.config import load as configuration
from mnist_tb.config.schema import Augment, Averaging, Config
from mnist_tb.data import augment
from mnist_tb.data.datasets import Dataset
from mnist_tb.engine.averaging import Average
from mnist_tb.engine.train_step import GraphUpdater, Updater
from mnist_tb.model import CNN, build
from mnist_tb.training import checkpoint

CPU = torch.device("cpu")
MOVED = {"augment.rotate": 10.0, "augment.shift": 2.0, "augment.scale": 0.1, "augment.shear": 5.0, "augment.warp": 0.7}


# ---- Images moved


@pytest.mark.parametrize(
    ("angle", "scale", "shear", "shift"),
    [
        (0, 1, 0, (0, 0)), (30, 1, 0, (0, 0)), (0, 1.3, 0, (0, 0)), (0, 1, 20, (0, 0)), (0, 1, 0, (3, -2)),
        (-12, 0.8, 9, (2, 5)), (170, 1.1, -30, (-4, 1)),
    ],
)  # fmt: skip
def test_the_map_is_torchvisions(
    angle: float, scale: float, shear: float, shift: tuple[int, int], digits: Dataset
) -> None:
    images = digits.train.images[:5]
    maps = augment.inverse_maps(
        *(torch.full((5,), float(v)) for v in (angle, scale, shear)),
        torch.tensor(shift, dtype=torch.float32)[:, None].expand(2, 5),
    )
    theirs = affine(
        images.float()[:, None], angle, list(shift), scale, [shear, 0.0], InterpolationMode.BILINEAR, fill=[0.0]
    )
    torch.testing.assert_close(augment.move(images, maps), theirs[:, 0], rtol=0, atol=2e-2)


def test_without_a_movement_nothing_changes(digits: Dataset) -> None:
    images = digits.train.images[:7]
    still = augment.inverse_maps(torch.zeros(7), torch.ones(7), torch.zeros(7), torch.zeros(2, 7))
    torch.testing.assert_close(augment.move(images, still), images.float(), rtol=0, atol=1e-3)
    assert augment.draw(Augment(), 7, 0, 0) is None


def test_every_image_is_moved_on_its_own_within_the_bounds() -> None:
    bounds = Augment(rotate=10.0, shift=2.0, scale=0.1, shear=5.0)
    maps = augment.draw(bounds, 4_000, 0, 0)
    assert maps is not None
    assert len(maps.unique(dim=0)) == 4_000
    linear = torch.linalg.inv(maps[:, :, :2].double())  # turn · slant, times the scale
    scale = linear.det().sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    shift = -(linear @ maps[:, :, 2:].double()).squeeze(2) * 14
    for value, middle, bound in ((scale, 1, 0.1), (angle, 0, 10), (shift[:, 0], 0, 2), (shift[:, 1], 0, 2)):
        assert (value - middle).abs().max() <= bound * (1 + 1e-5)
        assert (value - middle).abs().max() > bound * 0.98
        assert (value - middle).mean().abs() < bound * 0.05


def test_the_maps_depend_on_seed_and_step_alone() -> None:
    bounds = Augment(rotate=10.0)
    one, again = augment.draw(bounds, 3, 5, 7), augment.draw(bounds, 3, 5, 7)
    assert one is not None
    assert again is not None
    assert torch.equal(one, again)
    others = [augment.draw(bounds, 3, *at) for at in ((5, 8), (6, 7))]
    assert all(other is not None and not torch.equal(one, other) for other in others)


def test_a_point_that_is_pulled_takes_its_corner_along(digits: Dataset) -> None:
    """By so many pixels there, and not at all at the other points: a corner, an edge's end and the middle."""
    maps = augment.still(1, Augment(warp=1.0))
    maps[0, 0, 3] = 5 / 14  # the first point: five pixels to the right is where its corner comes from
    image = torch.arange(28.0).repeat(28, 1)[None]
    moved = augment.move(image, maps)[0]
    assert moved[0, 0] == pytest.approx(5, abs=1e-4)
    for row, column in ((0, 27), (27, 0), (27, 27), (0, 9), (18, 18)):
        assert moved[row, column] == pytest.approx(column, abs=1e-4)
    assert 0 < moved[3, 3] - 3 < 5


def test_images_are_warped_by_so_many_pixels(digits: Dataset) -> None:
    """The place of a corner is its own plus a normal deviate of that size, in each direction."""
    maps = augment.draw(Augment(warp=0.7), 4_000, 0, 0)
    assert maps is not None
    corner = torch.matmul(maps, augment._fields(CPU))[:, :, 0] * 14 + 13.5
    assert corner.mean(0).abs().max() < 0.05
    assert (corner.std(0) - 0.7).abs().max() < 0.03
    assert torch.corrcoef(corner.T)[0, 1].abs() < 0.05
    still = augment.move(digits.train.images[:3], augment.still(3, Augment(warp=0.7)))
    torch.testing.assert_close(still, digits.train.images[:3].float(), rtol=0, atol=1e-3)


def test_after_their_share_of_the_updates_images_stay(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = augment.draw
    monkeypatch.setattr(augment, "draw", lambda *told: drawn.append(told[3]) or draw(*told))
    train("--epochs", "2", "--set", "augment.shift=1", "--set", "augment.until=0.7")
    assert drawn == list(range(28))  # of forty updates


# ---- Labels smoothed


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("kernels", [True, False])
def test_smoothed_labels_are_torchs(
    smoothing: float, kernels: bool, digits: Dataset, small_config: Config, compiler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not kernels:
        monkeypatch.setenv("MNIST_TB_KERNELS", "off")
    config = configuration.changed(small_config, {"train.label_smoothing": smoothing})
    model = build((16, 32, 64), 0, CPU)  # of one seed in sixty, rounding decides which of two pixels a pooling takes
    update = Updater(config, model, digits)
    assert (update._kernels is not None) == kernels
    reference = copy.deepcopy(model)
    index = torch.arange(50)
    inputs, labels = digits.train_batch(index, torch.float32)
    expected = functional.cross_entropy(reference(inputs), labels, label_smoothing=smoothing)
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    loss, _ = update(index, 0.0)
    torch.testing.assert_close(loss, expected.detach())
    for ours, theirs in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-6)


# ---- Weights averaged


def run_updates(config: Config, digits: Dataset, count: int) -> tuple[Updater, list[torch.Tensor]]:
    """An updater after some updates, and the weights after each."""
    update = Updater(config, CNN(), digits)
    assert update.average is not None
    seen = []
    for step in range(count):
        update(torch.arange(step, step + 16), 0.01)
        update.average.update((step + 1) / count)
        seen.append(update.state()[0].clone())
    update.average.refresh()
    return update, seen


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().permute(0, 2, 3, 1).reshape(-1) if p.dim() == 4 else p.detach().reshape(-1)
                      for p in model.parameters()])  # fmt: skip


def test_the_exponential_average_by_hand(digits: Dataset, small_config: Config) -> None:
    config = configuration.changed(small_config, {"averaging.name": "ema", "averaging.decay": 0.5})
    update, (first, second, third) = run_updates(config, digits, 3)
    assert update.average is not None
    torch.testing.assert_close(flat(update.average.model), first / 4 + second / 4 + third / 2)
    assert not torch.equal(flat(update.average.model), third)


def test_the_plain_average_begins_where_it_is_told(digits: Dataset, small_config: Config) -> None:
    config = configuration.changed(small_config, {"averaging.name": "swa", "averaging.start": 0.5})
    update, seen = run_updates(config, digits, 6)
    assert update.average is not None
    torch.testing.assert_close(flat(update.average.model), torch.stack(seen[2:]).mean(0))


def test_before_there_is_an_average_it_is_the_weights_of_now(digits: Dataset, small_config: Config) -> None:
    config = configuration.changed(small_config, {"averaging.name": "swa", "averaging.start": 0.9})
    update = Updater(config, CNN(), digits)
    assert update.average is not None
    update(torch.arange(16), 0.01)
    update.average.update(0.5)
    update.average.refresh()
    assert torch.equal(flat(update.average.model), update.state()[0])


def test_it_is_torchs_average_of_the_model(digits: Dataset) -> None:
    """AveragedModel over the flat vector is AveragedModel over the network."""
    model = CNN()
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    mine = copy.deepcopy(model)
    from mnist_tb.model import flatten

    vector, _ = flatten(mine)
    ours = Average(Averaging(name="ema", decay=0.9), mine, vector, "fp32")
    for _ in range(5):
        noise = torch.randn(len(vector))
        vector.add_(noise)
        for parameter, moved in zip(model.parameters(), mine.parameters(), strict=True):
            parameter.data.copy_(moved)
        theirs.update_parameters(model)
        ours.update(1.0)
    ours.refresh()
    for one, other in zip(ours.model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_averaged_network_computes_with_the_average(precision: str, digits: Dataset, small_config: Config) -> None:
    config = configuration.changed(small_config, {"averaging.name": "ema", "precision": precision})
    update, _ = run_updates(config, digits, 4)
    assert update.average is not None
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    for mine, network in zip(update.average.model.parameters(), update.average.network.parameters(), strict=True):
        assert network.dtype == dtype
        assert torch.equal(mine.to(dtype), network)


# ---- All of it in a training


SETTINGS = {**MOVED, "averaging.name": "ema", "averaging.decay": 0.95, "train.label_smoothing": 0.1}
RECIPE = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


def test_a_recipe_goes_on_as_if_it_had_not_been_stopped(train: Train, tmp_path: Path) -> None:
    whole = train(*RECIPE, "--epochs", "4", logdir=tmp_path / "whole")
    part = train(*RECIPE, "--epochs", "2", logdir=tmp_path / "part")
    assert main(arguments=["resume", str(part.path), "--epochs", "4"]) == 0
    assert killing.differences(part, whole) == []
    saved, known = (checkpoint.load(run.last_checkpoint)["average"] for run in (part, whole))
    assert torch.equal(saved["average"], known["average"])
    assert int(saved["count"]) == 80


def test_the_averaged_weights_are_those_that_are_kept(train: Train) -> None:
    run = train("--set", "averaging.name=ema", "--set", "averaging.decay=0.9", "--epochs", "2")
    saved = checkpoint.load(run.last_checkpoint)
    kept = torch.load(run.weights, weights_only=True)
    model = CNN()
    model.load_state_dict(kept)
    torch.testing.assert_close(flat(model), saved["average"]["average"])
    model.load_state_dict(saved["model"])
    assert not torch.equal(flat(model), saved["average"]["average"])
    assert scalars(run)["accuracy/val"][0][0] == 0


def test_a_checkpoint_without_the_average_is_one_sentence(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1")
    text = run.config.read_text()
    run.config.write_text(text.replace("averaging:\n  name: none", "averaging:\n  name: ema"))
    assert run.config.read_text() != text
    assert main(arguments=["resume", str(run.path), "--epochs", "2"]) == 2
    assert "is the checkpoint of another network or version" in capsys.readouterr().err


def test_a_graph_takes_the_maps_of_each_update(digits: Dataset, small_config: Config) -> None:
    """As on CUDA, with a stand-in for the recording."""
    config = configuration.changed(small_config, MOVED)
    torch.manual_seed(0)
    model = CNN()
    plain, recorded = Updater(config, copy.deepcopy(model), digits), Updater(config, model, digits)
    graph = GraphUpdater(recorded, 32, CPU, lambda work: work, config.augment)
    for step in range(4):
        index = torch.arange(step, step + (32 if step < 3 else 5))
        maps = augment.draw(config.augment, len(index), 0, step) if step != 1 else None
        one, other = plain(index, 0.01, maps), graph(index, 0.01, maps)
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(plain.state(), recorded.state())


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml")))
def test_every_recipe_can_be_read(recipe: str) -> None:
    made = configuration.load(REPOSITORY / "configs" / f"{recipe}.yaml")
    assert made.model.channels == (16, 32, 64), "the same 54,666 parameters"
