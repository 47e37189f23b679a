"""Locks that end with their process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tb.runs.locks import is_locked, locked, sync_folder


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_lock_is_one_holders(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir() if kind == "folder" else path.touch()
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(BlockingIOError, match="is locked by another process"), locked(path, wait=False):
            pass
        assert is_locked(path), "asking for it takes nothing from who has it"
    assert not is_locked(path)
    with locked(path, wait=False):
        assert is_locked(path)
    assert list(tmp_path.rglob("*")) == [path], "and nothing is left of it"


def test_a_lock_is_waited_for_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from mnist_tb.runs.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('there', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    assert is_locked(tmp_path)
    process.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        assert process.wait(30) == -signal.SIGKILL


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    assert not is_locked(nothing)
    with pytest.raises(FileNotFoundError), locked(nothing):
        pass
    with pytest.raises(FileNotFoundError):
        sync_folder(nothing)
    assert not nothing.exists()
