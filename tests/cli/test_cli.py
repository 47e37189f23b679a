"""The commands as a person types them: what a run leaves, what is printed, how bad input is answered."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.util import tensor_util

from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from helpers.zygote import HELD, Place, Zygote
from mnist_tb.cli.main import main
from mnist_tb.data import download
from mnist_tb.data.download import DownloadError
from mnist_tb.engine.train_step import TrainStep
from mnist_tb.errors import command_line
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.training import checkpoint

DIGITS = str(REPOSITORY / "configs" / "digits.yaml")


def test_a_run_leaves_every_file_of_the_design(finished: Run) -> None:
    names = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events - {"code.patch"} == {  # there, where this checkout has changes
        "config.yaml", "console.log", "environment.json", "metrics.json", "results.png", "predictions.npy",
        "mnist_cnn.pth", "checkpoints/last.pt", "checkpoints/best.pt", "projector_config.pbtxt",
        "projector/tensors.tsv", "projector/metadata.tsv", "projector/sprites.png",
    }  # fmt: skip
    assert finished.name == "0001-digits-ep3"


def test_metrics_hold_what_they_promise(finished: Run) -> None:
    metrics = finished.read_metrics()
    assert metrics["status"] == "completed"
    assert metrics["dataset"] == "digits"
    assert metrics["fallback_reason"] is None
    assert metrics["parameters"] == 54_666
    assert 1 <= metrics["best_epoch"] <= 3
    for split in ("val", "test"):
        assert 0.8 < metrics[split]["accuracy"] <= 1
        assert 0 < metrics[split]["loss"] < 1
    per_class = metrics["test"]["per_class"]
    assert [row["class"] for row in per_class] == list("0123456789")
    assert sum(row["support"] for row in per_class) == metrics["images"]["test"] == 299
    assert np.trace(metrics["test"]["confusion"]) == round(metrics["test"]["accuracy"] * 299)
    assert metrics["images_per_second"] == pytest.approx(3 * 1249 / metrics["train_seconds"])
    assert metrics["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert metrics["precision"] in ("fp32", "bf16")
    assert metrics["versions"]["torch"] == version("torch")
    assert set(metrics["versions"]) == {"python", "mnist-tb", "torch", "torchvision", "tensorboard"}


def test_weights_load_into_the_network(finished: Run) -> None:
    weights = torch.load(finished.weights, weights_only=True)
    model = CNN()
    model.load_state_dict(weights)
    assert torch.equal(model.linear.weight, weights["linear.weight"])
    assert weights["linear.weight"].shape == (10, 3136)


def test_results_picture_is_a_picture(finished: Run) -> None:
    with Image.open(finished.results) as picture:
        assert picture.size[0] > 800


def test_the_runs_configuration_repeats_the_run(finished: Run, tmp_path: Path) -> None:
    assert main(arguments=["train", "--config", str(finished.config), "--logdir", str(tmp_path)]) == 0
    again = list_run_folders(tmp_path)[-1]
    assert again.name == finished.name
    assert again.config.read_text() == finished.config.read_text()
    first, second = (checkpoint.load(run.last_checkpoint)["model"] for run in (finished, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_train_prints_plain_lines_and_where_the_run_is(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "2")
    out = capsys.readouterr().out
    line = re.search(r"^Epoch: 0, Batch: 10, Loss: (\d\.\d{4}), Accuracy: (\d\.\d{4})$", out, re.MULTILINE)
    assert line is not None
    curves = scalars(run)
    expected = [dict(curves[f"{kind}/train"])[10] for kind in ("loss", "accuracy")]
    assert [float(line[1]), float(line[2])] == pytest.approx(expected, abs=6e-5)
    assert "Epoch: 1, Batch: 20, Loss: " in out
    assert f"The run: {run.path}\nSee it:  make board LOGDIR={run.path.parent}  or  " in out
    assert "precision" in out
    assert "Row: true class, column: predicted class" in out


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 140])
def test_train_shows_a_progress_bar_on_a_terminal(columns: int, tmp_path: Path) -> None:
    """At the usual width no number is cut; with room for it there is a bar, too."""
    master, slave = pty.openpty()
    arguments = ["train", "--config", DIGITS, "--logdir", str(tmp_path), "--epochs", "10"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_tb", *arguments],
        stdout=slave, stderr=slave, cwd=REPOSITORY, env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass  # the terminal's other end is closed: the training is over
    finally:
        os.close(master)
    assert process.wait() == 0
    text = shown.decode()
    assert "images/s" in text
    assert "/200" in text
    shown_while_training = "".join(line for line in text.splitlines() if "images/s" in line and "left" in line)
    assert ("━" in shown_while_training) == (columns == 140)
    assert "…" not in shown_while_training
    assert "Batch:" not in text


def test_no_progress_bar_is_drawn_into_a_pipe_though_colours_are_wanted(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jupyter and some CI systems set FORCE_COLOR for all that they start."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    train("--epochs", "1")
    out = capsys.readouterr().out
    assert "\r" not in out
    assert "Batch: 20" in out


def test_fallback_is_said_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise DownloadError("the network is [bold]down[/bold]")

    monkeypatch.setattr(download, "fetch", fail)
    default = str(REPOSITORY / "configs" / "default.yaml")
    data_root = f"data.root={tmp_path / 'data'}"
    assert (
        main(arguments=["train", "--config", default, "--logdir", str(tmp_path), "--set", data_root, "--epochs", "1"])
        == 0
    )
    run = list_run_folders(tmp_path)[-1]
    out = capsys.readouterr().out
    assert (
        "WARNING: Training on digits, not on mnist: mnist cannot be downloaded: the network is [bold]down[/bold]" in out
    )
    assert run.name == "0001-ep1-digits"
    assert "name: digits" in run.config.read_text()
    metrics = run.read_metrics()
    assert (metrics["dataset"], metrics["fallback_reason"]) == ("digits", "the network is [bold]down[/bold]")
    text = tensor_util.make_ndarray(read_events(run).Tensors("dataset")[0].tensor_proto)[0].decode()
    assert "Not the data that were asked for" in text
    assert "down" in text


def test_small_files_in_the_real_format_train(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_TB_DATA_ROOT", str(small_mnist))
    default = str(REPOSITORY / "configs" / "default.yaml")
    assert main(arguments=["train", "--config", default, "--logdir", str(tmp_path / "runs"), "--epochs", "2"]) == 0
    run = list_run_folders(tmp_path / "runs")[-1]
    assert run.read_metrics()["dataset"] == "mnist"
    assert [step for step, _ in scalars(run)["loss/train"]] == [4], "two updates an epoch, the second on 45 images"


def test_evaluate_gives_the_same_result_again(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished.read_metrics()
    events = read_events(finished).Tags()
    assert main(arguments=["evaluate", "1", "--logdir", str(finished.path.parent), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"] == "0001-digits-ep3"
    assert printed["accuracy"] == before["test"]["accuracy"]
    assert printed["loss"] == pytest.approx(before["test"]["loss"])
    assert printed["confusion"] == before["test"]["confusion"]
    assert finished.read_metrics() == before
    assert read_events(finished).Tags() == events


def test_evaluate_prints_a_table_and_adds_other_splits(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1")
    capsys.readouterr()
    assert main(arguments=["evaluate", str(run.path), "--split", "train"]) == 0
    out = capsys.readouterr().out
    assert "0001-digits-ep1: train images of digits, best weights" in out
    assert "precision" in out
    assert run.read_metrics()["train"]["images"] == 1_249
    assert "test" in run.read_metrics()


def test_evaluate_adds_a_missing_test_result_to_the_event_file(train: Train) -> None:
    run = train("--epochs", "1")
    metrics = run.read_metrics()
    del metrics["test"]
    run.write_metrics(metrics)
    for path in run.path.glob("events.*"):
        path.unlink()
    run.results.unlink()
    assert main(arguments=["evaluate", str(run.path)]) == 0
    assert scalars(run)["accuracy/test"] == [(20, pytest.approx(run.read_metrics()["test"]["accuracy"]))]
    assert run.results.exists()


def test_evaluate_module_is_the_command(finished: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mnist_tb.evaluate", str(finished.path), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["images"] == 299


def test_train_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mnist_tb.train", "--config", DIGITS, "--logdir", str(tmp_path),
         "--epochs", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list_run_folders(tmp_path)[0].read_metrics()["status"] == "completed"


def in_a_fresh_process(code: str, *arguments: str) -> None:
    """Some code has no error in a process that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments: list[str]) -> None:
    in_a_fresh_process(
        "import sys\nfrom mnist_tb.cli.main import main\n"
        f"assert main(arguments={arguments!r}) == 0\n"
        "heavy = {'torch', 'torchvision', 'tensorboard', 'sklearn', 'numpy', 'pydantic', 'rich', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )


def test_training_imports_nothing_slow_that_it_can_do_without(small_mnist: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mnist_tb.cli.main import main\n"
        "assert main(arguments=sys.argv[1:]) == 0\n"
        "slow = {'torch._dynamo', 'torchvision', 'sklearn', 'matplotlib', 'sympy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    default = str(REPOSITORY / "configs" / "default.yaml")
    arguments = [
        "train",
        "--config",
        default,
        "--data-root",
        str(small_mnist),
        "--logdir",
        str(tmp_path),
        "--epochs",
        "1",
    ]
    in_a_fresh_process(code, *arguments)


LIGHT = (
    "config.load config.schema config.hyperparameters events.tags runs.folder errors config.strict_yaml"
    " data.download data.files cli.main cli.runs cli.sweep events.records events.reader runs.query analysis.compare"
    " analysis.significance analysis.tables runs.manage analysis.report events.status data.preprocess"
    " config.presets events.curves events.configurations runs.locks engine.process analysis.plot board.access"
    " analysis.loading board.endings environment.console environment.notify environment.snapshot environment.summary"
    " environment.system environment.texts cli.export runs.values cli.watch watch.chart watch.live"
    " analysis.details runs.files runs.predictions watch.page watch.widgets watch.words"
)


def test_light_modules_import_no_torch() -> None:
    """One after the other, so that the first one that does is named."""
    in_a_fresh_process(
        "import importlib, sys\n"
        f"for module in {LIGHT.split()}:\n"
        "    importlib.import_module(f'mnist_tb.{module}')\n"
        "    assert 'torch' not in sys.modules, module"
    )


def test_configurations_are_listed_and_written_out_to_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments=["configs"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    files = [path.relative_to(REPOSITORY / "configs").with_suffix("") for path in REPOSITORY.glob("configs/**/*.yaml")]
    assert sorted(listed) == sorted(map(str, files))
    for name in listed:
        assert main(arguments=["configs", name]) == 0
        assert capsys.readouterr().out == (REPOSITORY / "configs" / f"{name}.yaml").read_text()
    assert main(arguments=["configs", "digits", "--output", "mine.yaml"]) == 0
    assert f"train with it by: {command_line('train', '--config', 'mine.yaml')}\n" in capsys.readouterr().out
    assert main(arguments=["train", "--config", "mine.yaml", "--epochs", "1"]) == 0
    assert list_run_folders(Path("runs"))[0].name == "0001-mine-ep1"
    capsys.readouterr()
    assert main(arguments=["configs", "digits", "--output", "mine.yaml"]) == 2
    assert main(arguments=["configs", "mine"]) == 2
    assert main(arguments=["train", "--config", "mine"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "mnist-tb: --output mine.yaml: cannot be written: File exists"
    assert said[1].startswith("mnist-tb: mine: there is no configuration of that name; there are best, default, ")
    assert said[2].startswith(
        "mnist-tb: mine: there is no configuration of that name; give a YAML file, or one of best,"
    )
    assert main(arguments=["train", "--config", "defualt"]) == 2
    assert "of that name; did you mean default?" in capsys.readouterr().err
    assert main(arguments=["train", "--config", "sweeps/lr"]) == 2
    assert "lr.yaml: is a sweep, not a configuration; run it by: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_spinning_is_bounded_unless_the_environment_says_something(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(arguments=["configs"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spins


TRAIN_NOWHERE = ["--config", "digits", "--logdir", "/dev/null/runs"]


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("mnist_tb", ["train", *TRAIN_NOWHERE]),
        ("mnist_tb.train", TRAIN_NOWHERE),
        ("mnist_tb.evaluate", ["/dev/", "--json"]),
    ],
)
def test_it_is_bounded_before_torch_is_imported(module: str, arguments: list[str]) -> None:
    """Afterwards it would have no effect. These commands import torch, and then fail."""
    code = (
        "import os, runpy, sys\n"
        "class Noting:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'torch': print('GOMP_SPINCOUNT' in os.environ)\n"
        "sys.meta_path.insert(0, Noting)\n"
        "sys.argv[:] = sys.argv[1:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code, module, *arguments], env=clean, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "True\n"), done.stderr


BAD = {
    "no such option": (["train", "--nope"], 2, "No such option"),
    "no such command": (["nope"], 2, "No such command"),
    "not a number": (["train", "--epochs", "ten"], 2, "'ten' is not a valid integer"),
    "out of range": (
        ["train", "--config", DIGITS, "--batch-size", "0"],
        2,
        "--batch-size: train.batch_size must be at",
    ),
    "no such file": (["train", "--config", "none.yaml"], 2, "none.yaml: no such file"),
    "no such key": (["train", "--config", DIGITS, "--set", "train.lrr=1"], 2, "did you mean train.lr?"),
    "odd gpu": (["train", "--config", DIGITS, "--device", "cuda:01"], 2, "--device: device must be auto, cpu, cuda"),
    "data root too long": (["train", "--data-root", "x" * 300], 2, "cannot be looked into: File name too long"),
    "empty data root": (["train", "--data-root", ""], 2, "--data-root: data.root must not be empty"),
    "unwritable data root": (["train", "--set", "data.root=/dev/null/x"], 2, "the data cannot be downloaded to here"),
    "no such gpu": (["train", "--config", DIGITS, "--device", "cuda:99"], 2, "device cuda:99: "),
    "no such device": (["train", "--config", DIGITS, "--device", "tpu"], 2, "--device: device must be auto, cpu, cuda"),
    "no data there": (["train", "--data-root", "/nowhere"], 2, "/nowhere: holds no mnist"),
    "bad log folder": (["train", "--config", DIGITS, "--logdir", "/dev/null/runs"], 2, "no run can be created here"),
    "bad name": (["train", "--config", DIGITS, "--name", "../up"], 2, "--name: name must be 1 to 40 letters"),
    "no such run": (["evaluate", "77", "--logdir", "/nowhere"], 2, "/nowhere: no run called '77'"),
    "no such split": (["evaluate", "1", "--split", "all"], 2, "'all' is not one of"),
    "run is no run": (["evaluate", "/dev/"], 2, "is not a run"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_one_clear_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, code, said = BAD[kind]
    monkeypatch.chdir(REPOSITORY)
    if arguments[0] == "train" and "--logdir" not in arguments:
        arguments = [*arguments, "--logdir", str(tmp_path / "runs")]
    assert main(arguments=arguments) == code
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists(), "nothing half-made is left behind"


@pytest.mark.parametrize("damage", ["missing", "truncated", "other network", "no weights"])
def test_evaluate_refuses_broken_weights(damage: str, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1")
    content = run.best_checkpoint.read_bytes()
    if damage == "missing":
        run.best_checkpoint.unlink()
    elif damage == "truncated":
        run.best_checkpoint.write_bytes(content[:1000])
    elif damage == "other network":
        checkpoint.save(run.best_checkpoint, {"model": CNN((1, 2, 3)).state_dict(), "step": 1})
    else:
        checkpoint.save(run.best_checkpoint, {"step": 1})
    assert main(arguments=["evaluate", str(run.path)]) == 2
    assert "best.pt: " in capsys.readouterr().err


SECOND_EPOCH = Place("mnist_tb.train.end_of_epoch", 2)
TRAIN = ("train", "--config", DIGITS, "--epochs", "3", "--logdir")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupted_run_says_so(number: signal.Signals, code: int, word: str, zygote: Zygote, tmp_path: Path) -> None:
    process = zygote.start(*TRAIN, str(tmp_path), hold=SECOND_EPOCH)
    process.until(HELD)
    run = list_run_folders(tmp_path)[0]
    assert run.read_metrics()["status"] == "running"
    process.send_signal(number)
    process.proceed()
    _, error = process.communicate()
    assert process.returncode == code
    assert error.strip() == f"mnist-tb: {word}"
    assert run.read_metrics()["status"] == "interrupted"
    tags = read_events(run).Tags()
    assert "loss/train" in tags["scalars"]
    assert "_hparams_/session_end_info" not in tags["tensors"], "the run may go on, so its end stays open"


def test_evaluate_refuses_a_run_that_is_being_trained(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1")
    before = run.metrics.read_text()
    with run.in_use():
        assert main(arguments=["evaluate", str(run.path)]) == 2
    assert "in use by another process" in capsys.readouterr().err
    assert run.metrics.read_text() == before


def test_evaluate_refuses_data_that_are_not_the_runs(
    train: Train, small_mnist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("--epochs", "1")
    before = run.metrics.read_text()
    run.config.write_text(run.config.read_text().replace("name: digits\n  root", "name: mnist\n  root"))
    assert main(arguments=["evaluate", str(run.path), "--data-root", str(small_mnist)]) == 2
    assert "but these are mnist with {'train': 109, 'val': 21, 'test': 37} images" in capsys.readouterr().err
    assert run.metrics.read_text() == before


def test_full_memory_is_one_sentence(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(TrainStep, "__call__", full)
    run = train("--epochs", "1", code=1)
    assert "out of memory: try a smaller train.batch_size" in capsys.readouterr().err
    assert run.read_metrics()["status"] == "failed"


def test_a_bug_is_not_hidden(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train("--epochs", "1")


def test_many_signals_end_the_run_once(zygote: Zygote, tmp_path: Path) -> None:
    """One press of Ctrl-C can arrive several times; the run is still marked, and nothing is a traceback."""
    process = zygote.start(*TRAIN, str(tmp_path), hold=SECOND_EPOCH)
    process.until(HELD)
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    process.proceed()
    _, error = process.communicate()
    assert (process.returncode, error.strip()) == (130, "mnist-tb: interrupted")
    assert list_run_folders(tmp_path)[0].read_metrics()["status"] == "interrupted"


def test_closed_output_marks_the_run_interrupted(zygote: Zygote, tmp_path: Path) -> None:
    process = zygote.start(*TRAIN, str(tmp_path), hold=SECOND_EPOCH)
    process.until(HELD)
    process.stdout.close()
    process.proceed()
    assert process.wait() != 0
    assert "Traceback" not in process.stderr.read()
    assert list_run_folders(tmp_path)[0].read_metrics()["status"] == "interrupted"


def test_metrics_are_valid_json_at_every_moment(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread reads them all the while, and one read falls between any two writes."""
    seen: list[str] = []
    written = Run.write_metrics

    def read() -> None:
        for run in list_run_folders(tmp_path / "runs"):
            seen.append(json.loads(run.metrics.read_text())["status"])

    def write(run: Run, metrics: dict[str, Any]) -> None:
        read()
        written(run, metrics)
        read()

    monkeypatch.setattr(Run, "write_metrics", write)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            read()

    with ThreadPoolExecutor(1) as other:
        watching = other.submit(watch)
        train("--epochs", "5")
        ended.set()
        watching.result()
    assert set(seen) == {"running", "completed"}
    assert len(seen) > 20


def test_a_really_full_disk_is_reported(tmp_path: Path) -> None:
    """No file may grow beyond 300 kB: a checkpoint with the optimiser's state does."""
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from mnist_tb.cli.main import main; sys.exit(main())"
    )
    arguments = ["train", "--config", DIGITS, "--logdir", str(tmp_path), "--epochs", "1"]
    done = subprocess.run([sys.executable, "-c", limit, *arguments], capture_output=True, text=True)
    run = list_run_folders(tmp_path)[0]
    assert done.returncode == 1
    assert done.stderr == f"mnist-tb: {run.last_checkpoint}: File too large\n"
    assert run.read_metrics()["status"] == "failed"
    assert not [path for path in run.path.rglob(".*") if path.is_file()], "no half-written file is left"
    assert "loss/val" in read_events(run).Tags()["scalars"]


def test_a_full_disk_is_reported(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, state: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save", full)
    run = train("--epochs", "1", code=1)
    assert capsys.readouterr().err == f"mnist-tb: {run.last_checkpoint}: No space left on device\n"
    metrics = run.read_metrics()
    assert metrics["status"] == "failed"
    assert "No space left" in metrics["error"]
    assert "_hparams_/session_end_info" in read_events(run).Tags()["tensors"]
