"""Whatever lies in a log folder costs its own run only: the others are listed, and no answer is waited for."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mnist_tb.cli.main import main
from mnist_tb.errors import InUseError
from mnist_tb.runs import folder as run_folder
from mnist_tb.runs.folder import Run, create_run
from mnist_tb.runs.query import list_runs

Odd = Callable[[Path], None]


def metrics(text: str) -> Odd:
    """A run whose metrics.json has this text."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "metrics.json").write_text(text)

    return make


def hparams(text: str) -> Odd:
    """A run of another program, with this hparams.yaml."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "events.out.tfevents.1.x").write_bytes(b"")
        (path / "hparams.yaml").write_text(text)

    return make


def pipe(name: str) -> Odd:
    def make(path: Path) -> None:
        path.mkdir()
        os.mkfifo(path / name)

    return make


def predictions_pipe(path: Path) -> None:
    """Of the same data as the healthy run, so that the two are tested against each other."""
    known = {"config": {}, "dataset": "digits", "images": {"test": 299}, "test": {"accuracy": 0.5}}
    metrics(json.dumps(known))(path)
    os.mkfifo(path / "predictions.npy")


def listening(path: Path) -> None:
    path.mkdir()
    here = os.getcwd()
    os.chdir(path)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("metrics.json")
    finally:
        os.chdir(here)


def dangling(path: Path) -> None:
    path.mkdir()
    (path / "events.out.tfevents.1.x").symlink_to("nowhere")


def binary_name(path: Path) -> None:
    os.mkdir(os.fsencode(path) + b"\xff\xfe")
    with open(os.fsencode(path) + b"\xff\xfe/events.out.tfevents.1.x", "wb"):
        pass


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
ODD: dict[str, Odd] = {
    "recursive YAML": hparams("a: &a\n  b: *a\n"),
    "exponential YAML": hparams(BOMB),
    "deep YAML": hparams("[" * 5_000),
    "deep JSON": metrics('{"config": ' + "[" * 200_000 + "]" * 200_000 + "}"),
    "far away in time": metrics('{"config": {}, "started": 1e300}'),
    "infinite settings": metrics('{"config": {"lr": Infinity, "decay": NaN}, "test": {"accuracy": NaN}}'),
    "settings that are none": metrics('{"config": {"a": {"b": [[1], {"c": 2}]}, "d": [null]}}'),
    "a number of a thousand digits": metrics('{"config": {"n": ' + "9" * 1_000 + '}, "epoch": ' + "9" * 1_000 + "}"),
    "a pipe for metrics": pipe("metrics.json"),
    "a pipe for events": pipe("events.out.tfevents.1.x"),
    "a pipe for predictions": predictions_pipe,
    "a socket": listening,
    "a dangling link": dangling,
    "a name of any bytes": binary_name,
}


@pytest.mark.parametrize("odd", list(ODD))
def test_one_odd_folder_ends_no_listing(
    odd: str, finished: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / "0001-healthy")
    ODD[odd](tmp_path / "runs" / "0002-odd")
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


SHAPES = ("[]", "null", "0", '"x"', '{"config": 3}', '{"config": {"x": [[]]}, "val": 1e999}', "{" * 999)


def rubbish(random: random.Random, path: Path, healthy: Run) -> None:
    """A folder of anything: files of a real run, changed, cut or replaced, and things that are no files."""
    path.mkdir()
    events = [each.name for each in healthy.path.glob("*tfevents*")]
    for file in ("metrics.json", "config.yaml", "predictions.npy", "hparams.yaml", *events):
        source = healthy.path / file
        content = bytearray(source.read_bytes() if source.exists() else b"a: {b: [1, 2.5, null]}\n")
        content = content[: random.choice([40, 400, 4_000, 10**7])]
        for _ in range(random.choice([0, 1, 1, 20])):
            content[random.randrange(len(content))] = random.randrange(256)
        kind = random.randrange(9)
        if kind == 0:
            os.mkfifo(path / file)
        elif kind == 1:
            (path / file).symlink_to(random.choice(["nowhere", ".", file, "/dev/zero", "/proc/self/mem"]))
        elif kind == 2:
            (path / file).mkdir()
        elif kind == 3:
            (path / file).write_text(random.choice(SHAPES))
        elif kind > 4:
            (path / file).write_bytes(content)


def test_folders_of_random_rubbish(seed: int, finished: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """MNIST_TB_TEST_RUBBISH folders, 60 unless it says how many; the healthy one is always there."""
    source = random.Random(seed)
    runs = tmp_path / "runs"
    shutil.copytree(finished.path, runs / "0001-healthy")
    for number in range(int(os.environ.get("MNIST_TB_TEST_RUBBISH", "60"))):
        rubbish(source, runs / (f"{number + 2:04d}-odd" if source.random() < 0.7 else f"odd{number}"), finished)
    for command in (["runs", "list"], ["compare", "--format", "json"], ["export", "--tag", "loss/val"]):
        assert main(arguments=[*command, "--logdir", str(runs)]) in (0, 1)
        out, error = capfd.readouterr()
        assert "Traceback" not in error
        assert "0001-healthy" in out


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
