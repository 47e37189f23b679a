"""The sizes that are promised, and the patches of docs/architecture.md, applied to a copy and trained with."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.events import scalars
from helpers.idx import write_idx
from helpers.paths import REPOSITORY
from mnist_tb.runs.folder import Run, list_run_folders

PACKAGE = REPOSITORY / "mnist_tb"
DOC = (REPOSITORY / "docs" / "architecture.md").read_text()
PATCHES = dict(re.findall(r"### … (.*?)\n.*?```diff\n(.*?)```", DOC, re.S))


# ---- Its size


def test_the_top_level_is_seen_at_a_glance() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "mnist_tb"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.split()
    names = tracked or [
        str(path.relative_to(REPOSITORY)) for path in PACKAGE.rglob("*") if "__pycache__" not in str(path)
    ]
    files = {name for name in names if name.count("/") == 1 and (REPOSITORY / name).is_file()}
    folders = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert len(files) <= 10, files
    assert len(folders) <= 14, folders


def test_no_room_file_or_function_is_too_large() -> None:
    rooms: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        lines = len(text.splitlines())
        rooms[path.parent.name] = rooms.get(path.parent.name, 0) + lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}: {node.name}"
    assert max(rooms.values()) <= 1_420, rooms


def test_every_room_says_what_it_is_for() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text is not None, path
        assert re.search(r"Its faces? (is|are) ", text), path


# ---- The patches


def applied(patch: str, root: Path) -> int:
    """Apply a patch to a copy of the package, each piece where its text is; the number of files that it changes."""
    files = re.split(r"^--- (.*)\n", patch, flags=re.M)[1:]
    for name, body in zip(files[::2], files[1::2], strict=True):
        path = root / name
        for piece in re.findall(r"(?:^[ -].*\n)+(?:^\+.*\n)+|(?:^\+.*\n)+(?:^[ -].*\n)+", body, re.M):
            lines = piece.splitlines()
            old = "\n".join(line[1:] for line in lines if line[0] in " -")
            new = "\n".join(line[1:] for line in lines if line[0] in " +")
            text = path.read_text()
            assert text.count(f"\n{old}\n") == 1, f"{name}: {old}"
            path.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"))
    return len(files) // 2


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be patched."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "mnist_tb", ignore=ignored)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    return tmp_path


def trained(copy: Path, *settings: str) -> Run:
    """A run of the patched package."""
    arguments = ["--epochs", "1", "--logdir", str(copy / "runs"), *(w for s in settings for w in ("--set", s))]
    done = subprocess.run(
        [sys.executable, "-m", "mnist_tb", "train", "--config", "digits", *arguments],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list_run_folders(copy / "runs")[-1]


def test_every_patch_is_tested() -> None:
    assert list(PATCHES) == [
        "a metric to validation", "a picture of the result", "an optimiser", "a dataset of the family", "a network"
    ]  # fmt: skip


@pytest.mark.slow
def test_to_add_a_metric_to_validation(copy: Path) -> None:
    assert applied(PATCHES["a metric to validation"], copy) <= 3
    curves = scalars(trained(copy))
    assert len(curves["top2_accuracy/val"]) == len(curves["accuracy/val"])
    assert curves["top2_accuracy/val"][-1][1] > curves["accuracy/val"][-1][1]


@pytest.mark.slow
def test_to_add_a_picture_of_the_result(copy: Path) -> None:
    assert applied(PATCHES["a picture of the result"], copy) <= 3
    events = EventAccumulator(str(trained(copy).path)).Reload()
    assert "filters/conv1_sorted" in events.Tags()["images"]


@pytest.mark.slow
def test_to_add_an_optimiser(copy: Path) -> None:
    assert applied(PATCHES["an optimiser"], copy) <= 3
    run = trained(copy, "optimizer.name=adagrad", "train.lr=0.01")
    assert run.read_metrics()["val"]["accuracy"] > 0.3
    assert run.name == "0001-digits-adagrad-ep1-lr0.01"


@pytest.mark.slow
def test_to_add_a_dataset_of_the_family(copy: Path) -> None:
    assert applied(PATCHES["a dataset of the family"], copy) <= 3
    random = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 30)):
        for kind, array in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", random.integers(0, 10, count, dtype=np.uint8)),
        ):
            write_idx(copy / "data" / "EMNIST" / "raw" / f"emnist-mnist-{split}-{kind}-ubyte", array)
    run = trained(copy, "data.name=emnist_mnist", f"data.root={copy / 'data'}", "data.download=false")
    assert (run.read_metrics()["dataset"], run.read_metrics()["images"]["test"]) == ("emnist_mnist", 30)


@pytest.mark.slow
def test_to_change_the_network(copy: Path) -> None:
    """The kernels compute another one, so they must not be taken for it."""
    assert applied(PATCHES["a network"], copy) <= 3
    run = trained(copy)
    assert run.read_metrics()["parameters"] == 54_666 + 16 * 16 * 32
    assert run.read_metrics()["val"]["accuracy"] > 0.2
