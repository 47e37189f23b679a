"""The training loop: what it writes, that watching it changes nothing, and how it ends when it cannot go on."""

from __future__ import annotations

import itertools
import types
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from mnist_tb.config.schema import Optimizer, Schedule
from mnist_tb.engine.optim import VectorOptimizer, learning_rate
from mnist_tb.runs.folder import Run
from mnist_tb.training import checkpoint
from mnist_tb.training.metrics_window import MetricsWindow

PARAMETERS = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "conv3.weight", "conv3.bias",
              "linear.weight", "linear.bias")  # fmt: skip


def weights(run: Run) -> dict[str, torch.Tensor]:
    return checkpoint.load(run.last_checkpoint)["model"]


def assert_same_weights(one: Run, other: Run) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_exact_set_of_tags(finished: Run) -> None:
    tags = read_events(finished).Tags()
    assert set(tags["scalars"]) == {
        "loss/train", "loss/val", "loss/test", "accuracy/train", "accuracy/val", "accuracy/test",
        "lr", "grad_norm", "throughput/images_per_second", *(f"accuracy_per_class/{digit}" for digit in range(10)),
    }  # fmt: skip
    assert set(tags["images"]) == {
        "predictions/test", "results/test", "mistakes/test", "uncertain/test", "confusion/test",
        "calibration/test", "filters/conv1", "features/test",
    }  # fmt: skip
    histograms = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in PARAMETERS}
    texts = {"config", "dataset", "results", "environment"}
    not_for_eyes = {
        "custom_scalars__config__",
        "live/status",
        "live/weights",
        "live/samples",
        "live/result",
        *(f"live/epoch/{epoch}" for epoch in range(4)),
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    precision_recall = {f"precision_recall/{digit}" for digit in range(10)}
    assert set(tags["tensors"]) == histograms | texts | not_for_eyes | precision_recall
    assert tags["graph"] is True
    assert len(list(finished.path.glob("events.out.tfevents.*"))) == 1


def test_points_stand_at_completed_updates(finished: Run) -> None:
    curves = scalars(finished)  # 1,249 images in batches of 64: 20 updates an epoch, three epochs
    training = [10, 20, 30, 40, 50, 60]
    for tag in ("loss/train", "accuracy/train", "lr", "grad_norm", "throughput/images_per_second"):
        assert [step for step, _ in curves[tag]] == training
    for tag in ("loss/val", "accuracy/val"):
        assert [step for step, _ in curves[tag]] == [0, 20, 40, 60]
    best = finished.read_metrics()["best_step"]
    assert [step for step, _ in curves["accuracy/test"]] == [best]
    events = read_events(finished)
    assert [e.step for e in events.Images("predictions/test")] == [0, 20, 40, 60]
    assert [e.step for e in events.Tensors("weights/conv1.weight")] == [0, 20, 40, 60]
    assert [e.step for e in events.Tensors("gradients/conv1.weight")] == [20, 40, 60]


def test_curves_hold_what_the_metrics_file_says(finished: Run) -> None:
    curves, metrics = scalars(finished), finished.read_metrics()
    assert curves["accuracy/test"][0][1] == pytest.approx(metrics["test"]["accuracy"])
    assert curves["loss/test"][0][1] == pytest.approx(metrics["test"]["loss"])
    best = max(curves["accuracy/val"][1:], key=lambda point: point[1])
    assert metrics["val"]["accuracy"] == pytest.approx(best[1])
    assert curves["lr"][0][1] == pytest.approx(0.001)


def test_the_last_window_is_written_though_it_is_short(train: Train) -> None:
    run = train("--set", "tracking.scalars_every=15", "--epochs", "1")  # 20 updates
    assert [step for step, _ in scalars(run)["loss/train"]] == [15, 20]


def test_a_point_has_the_time_at_which_it_was_measured(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written one window later, or before an evaluation."""
    clock = itertools.count(1_000_000_000)
    monkeypatch.setattr("mnist_tb.train.time", types.SimpleNamespace(time=lambda: float(next(clock))))
    points = read_events(train("--set", "tracking.scalars_every=3", "--epochs", "2")).Scalars("loss/train")
    assert len(points) > 3
    assert [point.wall_time for point in points] == [1_000_000_000.0 + i for i in range(len(points))]


def test_the_last_line_names_the_last_epoch(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    train("--set", "tracking.scalars_every=15", "--epochs", "1")
    assert "Epoch: 0, Batch: 20, " in capsys.readouterr().out


def test_windows_continue_over_the_end_of_an_epoch(train: Train) -> None:
    run = train("--set", "tracking.scalars_every=15", "--epochs", "2")
    assert [step for step, _ in scalars(run)["loss/train"]] == [15, 30, 40]


def test_watching_changes_nothing(train: Train) -> None:
    """Bit-identical weights on the CPU, however much is tracked and evaluated."""
    watched = train("--epochs", "2")
    assert_same_weights(watched, train("--epochs", "2", "--set", "tracking.enabled=false"))
    assert_same_weights(watched, train("--epochs", "2", "--set", "train.evaluate_every=0"))
    assert_same_weights(watched, train("--epochs", "2", "--set", "tracking.histograms_every=0"))
    assert_same_weights(watched, train("--epochs", "2", "--set", "tracking.scalars_every=3"))


def test_same_seed_gives_the_same_scalars_and_another_does_not(train: Train) -> None:
    first, again, other = (scalars(train("--epochs", "1", "--seed", seed)) for seed in ("5", "5", "6"))
    for curves in (first, again, other):
        del curves["throughput/images_per_second"]
    assert first == again
    assert first != other


def test_untracked_run_writes_no_event_file_but_all_else(train: Train) -> None:
    run = train("--epochs", "1", "--set", "tracking.enabled=false")
    assert sorted({path.name for path in run.path.iterdir()} - {"code.patch"}) == [
        "checkpoints", "config.yaml", "console.log", "environment.json", "metrics.json", "mnist_cnn.pth",
        "predictions.npy", "results.png",
    ]  # fmt: skip
    assert run.read_metrics()["status"] == "completed"


def test_never_evaluating_still_evaluates_at_the_end(train: Train) -> None:
    run = train("--epochs", "2", "--set", "train.evaluate_every=0")
    assert [step for step, _ in scalars(run)["loss/val"]] == [40]
    assert run.read_metrics()["best_epoch"] == 2


def test_pictures_and_histograms_can_be_switched_off(train: Train) -> None:
    run = train("--epochs", "1", "--set", "tracking.images_every=0", "--set", "tracking.histograms_every=0")
    tags = read_events(run).Tags()
    assert "predictions/test" not in tags["images"]
    assert "results/test" in tags["images"]
    assert not any(tag.startswith(("weights/", "gradients/")) for tag in tags["tensors"])


def test_best_weights_are_kept_by_validation(train: Train) -> None:
    """With a learning rate that is too high the last epoch is not the best one, and the best one is kept."""
    run = train("--epochs", "6", "--lr", "0.02")
    curve = scalars(run)["accuracy/val"][1:]
    losses = dict(scalars(run)["loss/val"])
    best = max(curve, key=lambda point: (point[1], -losses[point[0]]))
    metrics = run.read_metrics()
    assert (metrics["best_step"], metrics["best_epoch"]) == (best[0], best[0] // 20)
    kept = checkpoint.load(run.best_checkpoint)
    assert (kept["step"], kept["epoch"]) == (best[0], best[0] // 20)
    plain = torch.load(run.weights, weights_only=True)
    assert all(torch.equal(kept["model"][name], plain[name]) for name in plain)


@pytest.mark.parametrize("every", ["1", "7"])
def test_loss_that_is_no_number_stops_the_run(every: str, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--lr", "1e30", "--set", f"tracking.scalars_every={every}", "--set", "precision=fp32", code=1)
    assert capsys.readouterr().err == (
        "mnist-tb: the training loss is NaN or infinite at step 2 (learning rate 1e+30): try a smaller train.lr\n"
    )
    metrics = run.read_metrics()
    assert metrics["status"] == "failed"
    assert "step 2" in metrics["error"]
    events = read_events(run)
    assert [e.step for e in events.Scalars("loss/val")] == [0], "what was written before is intact"
    assert "_hparams_/session_end_info" in events.Tags()["tensors"]


def test_a_bad_loss_within_a_window_is_found_before_the_evaluation(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--lr", "1e30", "--set", "precision=fp32", "--set", "optimizer.name=sgd")
    train(*arguments, "--set", "tracking.scalars_every=100", code=1)
    assert "the training loss is NaN or infinite at step 2 (learning rate 1e+30)" in capsys.readouterr().err


def test_validation_loss_that_is_no_number_stops_the_run(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MetricsWindow, "first_nonfinite", lambda self: None
    )  # as if the last update alone had gone wrong
    run = train("--lr", "1e30", "--set", "tracking.scalars_every=100", "--set", "precision=fp32", code=1)
    assert "the validation loss is NaN or infinite at step 20: try a smaller train.lr" in capsys.readouterr().err
    assert run.read_metrics()["status"] == "failed"


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_are_torchs(name: str, decay: float) -> None:
    start = torch.linspace(-1, 1, 9)
    theirs = torch.nn.Parameter(start.clone())
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    options = {"momentum": 0.9} if name == "sgd" else {}
    reference = kind([theirs], lr=0.1, weight_decay=decay, **options)  # type: ignore[arg-type]
    ours = start.clone()
    optimizer = VectorOptimizer(Optimizer(name=name, weight_decay=decay), ours)  # type: ignore[arg-type]
    for step in range(5):
        gradient = torch.sin(torch.arange(9.0) + step)
        theirs.grad = gradient.clone()
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        optimizer.step(gradient.clone(), 0.1 / (step + 1))
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def torchs_rates(kind: str, steps: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.5)
    if kind == "cosine":
        moving = CosineAnnealingLR(optimizer, T_max=steps)
    else:
        moving = OneCycleLR(optimizer, 0.5, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        moving.step()
    return rates


@pytest.mark.parametrize(
    ("kind", "warmup"), [("cosine", 0.3), ("one_cycle", 0.25), ("one_cycle", 0.3), ("one_cycle", 0.9)]
)
def test_schedules_are_torchs(kind: str, warmup: float) -> None:
    schedule = Schedule(name=kind, warmup=warmup)  # type: ignore[arg-type]
    ours = [learning_rate(schedule, 0.5, step, 100) for step in range(100)]
    assert ours == pytest.approx(torchs_rates(kind, 100, warmup), rel=1e-6)


def test_constant_schedule_and_very_short_ones() -> None:
    assert {learning_rate(Schedule(), 0.5, step, 9) for step in range(9)} == {0.5}
    for steps in range(1, 30):
        for warmup in (0.01, 0.05, 0.5, 0.99):
            for step in range(steps):
                assert 0 < learning_rate(Schedule(name="one_cycle", warmup=warmup), 0.5, step, steps) <= 0.5


@pytest.mark.parametrize("config", ["one_cycle", "sgd"])
def test_recipes_train(config: str, tmp_path: Path, train: Train) -> None:
    path = REPOSITORY / "configs" / f"{config}.yaml"
    run = train("--config", str(path), "--set", "data.name=digits", "--epochs", "2")
    rates = [value for _, value in scalars(run)["lr"]]
    assert len(set(rates)) == len(rates), "the schedule moves"
