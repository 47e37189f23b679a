"""What messages advise can be typed as it stands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tb import errors

PROGRAM = Path(sys.executable).with_name("mnist-tb")


@pytest.mark.parametrize("where", ["elsewhere", "beside the environment", "on PATH"])
def test_a_command_can_be_typed_where_it_is_printed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PROGRAM.parent.parent if where == "beside the environment" else tmp_path / "a folder"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    first = PROGRAM.parent if where == "on PATH" else tmp_path
    monkeypatch.setenv("PATH", os.pathsep.join([str(first), "/usr/bin", "/bin"]))
    line = errors.command_line("configs", "--output", Path("one two.yaml"))
    expected = {"elsewhere": str(PROGRAM), "beside the environment": "bin/mnist-tb", "on PATH": "mnist-tb"}[where]
    assert shlex.split(line) == [expected, "configs", "--output", "one two.yaml"]
    done = subprocess.run(errors.command_line("--version"), shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("mnist-tb, version "), done.stderr


def test_without_the_command_it_is_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that has the package on its path alone."""
    python = tmp_path / "bin" / "python3"
    monkeypatch.setattr(sys, "executable", str(python))
    assert shlex.split(errors.command_line("board")) == [str(python), "-m", "mnist_tb", "board"]
    monkeypatch.chdir(tmp_path)
    assert errors.install_line("figure") == "bin/python3 -m pip install 'mnist-tb[figure]'"


def test_without_a_current_folder_the_path_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PATH", "")
    gone.rmdir()
    try:
        assert shlex.split(errors.command_line()) == [str(PROGRAM)]
    finally:
        os.chdir(tmp_path)


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("lr", "; did you mean train.lr?"),
        ("dta.name", "; did you mean data.name?"),
        ("train.lrr", "; did you mean train.lr?"),
        ("sed", "; did you mean seed?"),
        ("zzz", "; the keys are seed, optimizer.name, data.name, train.lr"),
    ],
)
def test_the_name_that_is_meant(word: str, end: str) -> None:
    assert errors.did_you_mean(word, ["seed", "optimizer.name", "data.name", "train.lr"]) == end
