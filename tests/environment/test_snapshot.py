"""What a run was made with: kept, shown, compared, and enough to repeat it; whatever git and the machine do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.events import read_events
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.environment import snapshot
from mnist_tb.environment.log import environment_text
from mnist_tb.runs.folder import Run, create_run, list_run_folders

SMALL = ("--epochs", "1", "--set", "model.channels=[4, 8, 8]", "--set", "tracking.projector=false")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "code.py").write_text("print(1)\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of what another test has gathered."""
    monkeypatch.setattr(snapshot, "_gathered", {})


def gather(source: Path) -> tuple[dict, bytes]:  # type: ignore[type-arg]
    return snapshot.gather(source)


def record(run: Run, source: Path) -> None:
    snapshot.record(run, *gather(source))


def of(run: Run) -> dict:  # type: ignore[type-arg]
    return snapshot.read_environment(run)


@pytest.mark.slow
def test_a_dirty_tree_is_repeated_bit_for_bit(tmp_path: Path) -> None:
    """By the commands that `runs reproduce` prints, in another folder. The change to the code changes the weights."""
    project, there = tmp_path / "project", tmp_path / "elsewhere"
    there.mkdir()
    for name in ("mnist_tb", "configs"):
        shutil.copytree(REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".gitignore").write_text("runs\n__pycache__\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), variables["PATH"]))

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    train = ["python", "-m", "mnist_tb", "train", "--config", "digits", *SMALL]
    run(project, *train)
    datasets = project / "mnist_tb" / "data" / "datasets.py"
    datasets.write_text(datasets.read_text().replace('f"{seed}/{purpose}"', 'f"{seed}/{purpose}/changed"'))
    run(project, *train)
    clean, dirty = list_run_folders(project / "runs")
    assert of(clean)["code"]["dirty"] is False
    changes = of(dirty)["code"]["changes"]
    assert of(dirty)["code"] == {**of(clean)["code"], "dirty": True, "changes": changes, "patch": "code.patch"}
    commands = run(project, "python", "-m", "mnist_tb", "runs", "reproduce", "2")
    run(there, "bash", "-euc", commands)
    (repeated,) = list_run_folders(there / f"repeat-{dirty.name}" / "runs")
    weights = [torch.load(each.weights, weights_only=True) for each in (clean, dirty, repeated)]
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    differences = run(project, "python", "-m", "mnist_tb", "runs", "diff", "1", "2")
    assert "changes" in differences
    assert "package" not in differences


def test_it_is_shown(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*SMALL)
    found = of(run)
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
    )
    assert found["host"]["cores"] == os.cpu_count()
    text = read_events(run).Tensors("environment")[-1].tensor_proto.string_val[0].decode()
    assert found["host"]["cpu"] in text
    assert "| torch |" in text
    capsys.readouterr()
    assert main(arguments=["runs", "show", "1", "--logdir", str(run.path.parent)]) == 0
    out = capsys.readouterr().out
    assert "made with" in out
    assert found["host"]["cpu"] in out


def test_nothing_in_it_breaks_the_table() -> None:
    text = environment_text({"command": "a | b `c`\nd", "variables": {"OMP_X": "|"}, "packages": {"a_b": "1"}})
    assert "| command | `` a | b `c` d `` |" in text
    assert "| `OMP_X` | `|` |" in text
    assert "| a\\_b | 1 |" in text


def test_off_it_keeps_no_code(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*SMALL, "--set", "tracking.code=false")
    assert of(run)["code"] == {}
    assert not (run.path / "code.patch").exists()
    capsys.readouterr()
    assert main(arguments=["runs", "reproduce", "1", "--logdir", str(run.path.parent)]) == 2
    assert "the code that it was made with is not known" in capsys.readouterr().err


def test_commit_branch_patch_and_what_git_does_not_know(repository: Path, tmp_path: Path) -> None:
    found, patch = gather(repository)
    commit = git(repository, "rev-parse", "HEAD")
    assert found["code"] == {"repository": str(repository), "commit": commit, "branch": "main", "dirty": False}
    assert patch == b""
    (repository / "code.py").write_text("print(2)\n")
    (repository / "new ☃.py").write_text("x")
    git(repository, "remote", "add", "origin", "https://me:secret@example.org/a.git")
    git(repository, "checkout", "-q", "--detach")
    found, patch = gather(repository)
    assert found["code"]["untracked"] == ["new ☃.py"]
    assert found["code"]["remote"] == "https://(hidden)@example.org/a.git"
    assert "branch" not in found["code"]
    assert b"+print(2)" in patch
    (repository / "code.py").write_text("y" * 3_000_000)
    found, patch = gather(repository)
    assert found["code"]["patch_too_large"] is True
    assert patch == b""


@pytest.mark.parametrize("kind", ["none", "bare", "empty", "ignored", "gone"])
def test_no_repository_no_problem(kind: str, repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    if kind != "gone":
        folder.mkdir()
    if kind == "bare":
        git(folder, "init", "-q", "--bare")
    if kind == "empty":
        git(folder, "init", "-q")
    if kind == "ignored":
        (repository / ".gitignore").write_text(".venv\n")
        folder = repository / ".venv"
        folder.mkdir()
    found, patch = gather(folder)
    assert "commit" not in found["code"]
    assert patch == b""
    assert found["packages"]


def fake_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(folder), os.environ["PATH"])))


def test_a_git_that_hangs_delays_no_training(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps the output open: both are ended."""
    fake_git(tmp_path / "bin", "sleep 600 & wait", monkeypatch)
    monkeypatch.setattr(snapshot, "_PATIENCE", 0.5)
    start = time.monotonic()
    run = train(*SMALL)
    assert of(run)["code"] == {}
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("script", ["exit 3", "yes garbage", "printf '\\377\\000\\n'", "kill -9 $$"])
def test_a_git_that_is_broken(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    fake_git(tmp_path / "bin", script, monkeypatch)
    monkeypatch.setattr(snapshot, "_PATIENCE", 1.0)
    found, patch = gather(repository)
    assert "commit" not in found["code"]
    assert patch == b""
    assert found["host"]


def test_secrets_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MNIST_TB_API_KEY", "geheim-1")
    monkeypatch.setenv("PYTHON_INDEX", "https://me:geheim-2@example.org")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim-3")
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    words = [
        "python",
        "x",
        "--storage",
        "postgresql://me:geheim-4@host/db",
        "--token",
        "geheim-5",
        "--password=geheim-6",
    ]
    monkeypatch.setattr(sys, "orig_argv", words)
    found, _ = gather(tmp_path)
    assert "geheim" not in json.dumps(found)
    assert found["variables"]["OMP_PROC_BIND"] == "true"
    assert found["variables"]["MNIST_TB_API_KEY"] == "(hidden)"
    assert "AWS_SECRET_ACCESS_KEY" not in found["variables"]
    assert found["command"].startswith("python x --storage 'postgresql://(hidden)@host/db' --token ")


def test_a_machine_that_is_odd(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of any bytes, a folder that is gone, a broken installation: the training has its pages all the same."""

    class Broken:
        metadata = {"Name": None}  # noqa: RUF012
        version = None

    real = snapshot.distributions
    monkeypatch.setattr(snapshot, "distributions", lambda: [*real(), Broken()])
    monkeypatch.setattr(sys, "orig_argv", ["python", "\udcff", "☃"])
    monkeypatch.setenv("OMP_X", os.fsdecode(b"\xff|"))
    snapshot.packages.cache_clear()
    run = train(*SMALL)
    snapshot.packages.cache_clear()
    found = of(run)
    assert found["command"] == "python '?' '☃'"
    assert found["variables"]["OMP_X"] == "?|"
    assert found["packages"]["torch"]
    assert "environment" in read_events(run).Tags()["tensors"]
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert gather(tmp_path)[0]["folder"] == ""


def test_a_resumption_with_other_code_is_added(tmp_path: Path, repository: Path) -> None:
    run = create_run(tmp_path / "runs", "a", "", {"config": {}})
    record(run, repository)
    record(run, repository)
    assert "resumed" not in of(run), "the same again is nothing new"
    (repository / "code.py").write_text("print(3)\n")
    record(run, repository)
    record(run, repository)
    (resumed,) = of(run)["resumed"]
    assert resumed["code"]["patch"] == "code-2.patch"
    assert b"print(3)" in (run.path / "code-2.patch").read_bytes()


def test_of_a_tracker(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(repository / "code.py"), raising=False)
    with Tracker(tmp_path / "runs", "mine") as tracker:
        tracker.scalars(1, {"loss/train": 1.0})
    assert of(tracker.run)["code"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert "environment" in read_events(tracker.run).Tags()["tensors"]
    with Tracker(tmp_path / "runs", "mine", code=False) as tracker:
        pass
    assert of(tracker.run)["code"] == {}


def test_a_run_from_before_is_shown_and_told_from_others(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = train(*SMALL), train(*SMALL, "--seed", "1")
    (one.path / "environment.json").unlink()
    logdir = ["--logdir", str(one.path.parent)]
    capsys.readouterr()
    assert main(arguments=["runs", "show", "1", *logdir]) == 0
    assert "made with" not in capsys.readouterr().out
    assert main(arguments=["runs", "diff", "1", "2", *logdir]) == 0
    assert "package torch" in capsys.readouterr().out
    for content in ("{", "[]", "[" * 100_000):
        (other.path / "environment.json").write_text(content)
        assert main(arguments=["runs", "show", "2", *logdir]) == 2
        assert "environment.json: cannot be read: " in capsys.readouterr().err
        assert main(arguments=["runs", "list", *logdir]) == 0
    assert main(arguments=["resume", str(other.path), "--epochs", "2"]) == 0
    assert of(other)["host"]
