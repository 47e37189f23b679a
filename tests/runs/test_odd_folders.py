"""Whatever lies in a log folder costs its own run only: the others are listed, and no answer is waited for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from helpers import odd
from mnist_tb.cli.main import main
from mnist_tb.errors import InUseError
from mnist_tb.runs import folder as run_folder
from mnist_tb.runs.folder import Run, create_run
from mnist_tb.runs.query import list_runs


@pytest.mark.parametrize("kind", list(odd.ODD))
def test_one_odd_folder_ends_no_listing(
    kind: str, finished: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / "0001-healthy")
    odd.ODD[kind](tmp_path / "runs" / "0002-odd")
    make_ours(tmp_path / "runs" / "0002-odd")
    report, figure = str(tmp_path / "report.html"), str(tmp_path / "figure.pdf")
    for command in (
        ["runs", "list"],
        ["compare"],
        ["compare", "--group"],
        ["compare", "--format", "json"],
        ["compare", "--format", "csv"],
        ["compare", "--group", "--report", report],
        ["compare", "--group", "--figure", figure, "--tag", "loss/val"],
        ["export"],
    ):
        code = main(arguments=[*command, "--logdir", str(tmp_path / "runs")])
        out, error = capfd.readouterr()
        assert code in (0, 1), error
        assert "Traceback" not in error
        if not {"--report", "--figure"} & {*command}:
            assert "healthy" in out or command[0] == "compare", out
        if command[-1] == "json":
            json.loads(out, parse_constant=pytest.fail)
    assert "0001-healthy" in (tmp_path / "report.html").read_text()
    assert "0001-healthy" in [run.name for run in list_runs(tmp_path / "runs").runs]


@pytest.mark.parametrize("epochs", ['"ten"', "[3]", "true", "1e400", "2.5"])
def test_settings_of_any_type_are_shown(epochs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = f'"schedule.epochs": {epochs}, "train.epochs": 5, "train.lr": []'
    odd.metrics('{"config": {' + settings + "}}")(tmp_path / "0001-a")
    make_ours(tmp_path / "0001-a")
    assert main(arguments=["runs", "show", "1", "--logdir", str(tmp_path)]) == 0
    assert "schedule.epochs" in capsys.readouterr().out


def test_folders_of_random_rubbish(finished: Run, tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Ten a log folder, 50 log folders unless MNIST_TB_TEST_RUBBISH says how many; the healthy run is always there.

    While they are read, one of the folders vanishes and comes back. With -s it says which answer took longest.
    """
    slowest = ("", 0.0)

    @hypothesis.seed(seed)
    @settings(
        max_examples=int(os.environ.get("MNIST_TB_TEST_RUBBISH", "50")),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(odd.folders(finished))
    def read(made: dict[bytes, dict[str, Any]]) -> None:
        nonlocal slowest
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            logdir = Path(folder) / "runs"
            shutil.copytree(finished.path, logdir / "0001-healthy")
            odd.write(logdir, made)
            for name in made:
                make_ours(logdir / os.fsdecode(name))
            with vanishing(logdir, finished):
                for command in commands(Path(folder)):
                    begin = time.perf_counter()
                    code = main(arguments=[*command, "--logdir", str(logdir)])
                    slowest = max(slowest, (" ".join(command), time.perf_counter() - begin), key=lambda one: one[1])
                    out, error = capfd.readouterr()
                    assert code in (0, 1), error
                    assert "Traceback" not in error
                    assert (
                        "healthy" in out or {"--report", "--figure"} & {*command} or command == ["compare", "--group"]
                    )
            assert "0001-healthy" in (Path(folder) / "report.html").read_text(errors="replace")
            assert "0001-healthy" in [run.name for run in list_runs(logdir).runs]

    read()
    with capfd.disabled():
        if "MNIST_TB_TEST_RUBBISH" in os.environ:
            print(f"\nthe slowest answer: {slowest[1]:.2f} s, {slowest[0]}")


def make_ours(folder: Path) -> None:
    """What lies beside the metrics.json of a run of ours, and proves that it is one, however broken it is."""
    if folder.is_dir():
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "events.out.tfevents.2.mnist_tb").touch()


def commands(folder: Path) -> list[list[str]]:
    return [
        ["runs", "list"],
        ["compare", "--format", "json"],
        ["compare", "--group"],
        ["compare", "--report", str(folder / "report.html")],
        ["export", "--tag", "loss/val"],
    ]


@contextmanager
def vanishing(logdir: Path, healthy: Run) -> Iterator[None]:
    """Meanwhile, a healthy run and one of another program come and go."""
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.wait(0.001):
            shutil.copytree(healthy.path, logdir / "0777-comes", dirs_exist_ok=True)
            (logdir / "0777-comes").rename(logdir / "goes")
            (logdir / "goes" / "metrics.json").unlink()
            shutil.rmtree(logdir / "goes")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# ---- In use, or not


def test_who_asks_is_not_taken_for_a_training(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing has the lock for an instant: whoever starts a training then tries again."""
    run = Run(shutil.copytree(finished.path, tmp_path / "0001-a"))
    real, asked = run_folder.locked, []

    def locked(path: Path, wait: bool = True) -> object:
        asked.append(path)
        if len(asked) == 1:
            raise BlockingIOError
        return real(path, wait)

    monkeypatch.setattr(run_folder, "locked", locked)
    with run.in_use():
        assert len(asked) == 2
        with pytest.raises(InUseError), run.in_use():
            pass


def test_a_new_run_is_in_use_from_its_first_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in the very instant in which it appears, it is no killed run."""
    seen = []
    monkeypatch.setattr(
        run_folder, "sync_folder", lambda path: seen.extend(run.status for run in list_runs(tmp_path).runs)
    )
    with ExitStack() as held:
        create_run(tmp_path, "a", "", {"status": "running", "config": {}}, held=held)
    assert set(seen) == {"running"}


def test_what_a_killed_write_left_is_removed(finished: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished.path, tmp_path / "0001-a"))
    for name in (".metrics.json.123.456", "checkpoints/.last.pt.1.2"):
        (run.path / name).write_text("x")
    (run.path / ".keep").write_text("mine")
    run.remove_temporaries()
    assert not list(run.path.rglob(".*.[0-9]*"))
    assert (run.path / ".keep").exists()


def test_numbers_that_are_not_finite_are_null_in_metrics(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "", {"test": {"loss": float("inf"), "per_class": [float("nan"), 1.5]}})
    assert run.read_metrics() == {"test": {"loss": None, "per_class": [None, 1.5]}}
