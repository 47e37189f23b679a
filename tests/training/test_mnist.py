"""The main job on the real MNIST."""

from __future__ import annotations

from pathlib import Path

from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.runs.folder import list_run_folders


def test_one_epoch_of_the_default_learns_mnist(mnist_root: Path, tmp_path: Path) -> None:
    """One of the ten epochs: enough to tell a network that learns from one that does not."""
    arguments = ["--config", str(REPOSITORY / "configs" / "default.yaml"), "--logdir", str(tmp_path), "--epochs", "1"]
    assert main(arguments=["train", *arguments, "--data-root", str(mnist_root)]) == 0
    metrics = list_run_folders(tmp_path)[0].read_metrics()
    assert metrics["dataset"] == "mnist"
    assert metrics["images"] == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert metrics["test"]["accuracy"] > 0.97
    assert metrics["val"]["accuracy"] > 0.97
