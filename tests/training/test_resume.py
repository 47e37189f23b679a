"""Stopped, killed or failed at any instant, a run goes on as if it had not been."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import killing
from helpers.board import get, wait_for_runs
from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from helpers.ports import free_port
from helpers.zygote import HELD, Place, Zygote
from mnist_tb.cli.main import main
from mnist_tb.errors import InputError, command_line
from mnist_tb.events import records
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs import files
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.training import checkpoint, signals
from mnist_tb.training.checkpoint import AsyncCheckpointer
from mnist_tb.training.signals import Interruption


@pytest.fixture
def completed(finished: Run, tmp_path: Path) -> Run:
    """A complete run of three epochs, to do with as one likes."""
    shutil.copytree(finished.path, tmp_path / "runs" / finished.name)
    return Run(tmp_path / "runs" / finished.name)


def resume(run: Run, *arguments: str) -> int:
    return main(arguments=["resume", str(run.path), *arguments])


# ---- Killed and stopped


@pytest.mark.slow
def test_killed_at_random_instants(zygote: Zygote, tmp_path: Path, seed: int) -> None:
    """Eight kills: two runs, four times each."""
    survived, tried, wrong = killing.torture(zygote, tmp_path, 8, 4, seed)
    assert (survived, tried, wrong) == (2, 2, [])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_of_an_epoch(
    number: signal.Signals, code: int, zygote: Zygote, whole: Run, tmp_path: Path
) -> None:
    """It ends after the update that it is at, says how to go on, and goes on in the middle of the epoch."""
    process = zygote.start(*killing.command(tmp_path), hold=Place("mnist_tb.train.log_training", 10))
    process.until(HELD)
    process.send_signal(number)
    process.proceed()
    out, _ = process.communicate()
    (run,) = list_run_folders(tmp_path)
    assert process.returncode == code
    assert f"Stopped; resume with: {command_line('resume', run.path)}\n" in out
    assert run.read_metrics()["status"] == "interrupted"
    assert checkpoint.load(run.last_checkpoint)["step"] == 30, "of 80, a point every three"
    assert killing.differences(killing.complete(zygote, tmp_path), whole) == []


@pytest.mark.slow
def test_a_page_that_stayed_open_shows_one_curve(zygote: Zygote, whole: Run, tmp_path: Path) -> None:
    """It had read what was written after the last checkpoint, and is not told that again."""
    code, _, _ = zygote.run(*killing.command(tmp_path), kill=Place("mnist_tb.train.log_training", 12))
    assert code == -signal.SIGKILL
    boards = []
    for fast in ("true", "false"):
        port = str(free_port())
        arguments = ["--logdir", str(tmp_path), "--port", port, "--load_fast", fast, "--reload_interval", "1"]
        board = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        boards.append((board, f"http://localhost:{port}"))
    try:
        for _, address in boards:
            wait_for_runs(address, 1)
        run = killing.complete(zygote, tmp_path)
        time.sleep(5)
        for _, address in boards:
            for tag, points in killing.curves(whole).items():
                shown = get(f"{address}/data/plugin/scalars/scalars?run={run.name}&tag={tag}")
                assert [(step, value) for _, step, value in shown] == [(s, pytest.approx(v)) for s, v in points]
    finally:
        for board, _ in boards:
            board.terminate()
            board.wait(30)


@pytest.mark.slow
def test_a_second_process_is_refused(zygote: Zygote, tmp_path: Path) -> None:
    process = zygote.start(*killing.command(tmp_path), hold=Place("mnist_tb.train.end_of_epoch"))
    process.until(HELD)
    code, _, error = zygote.run(*killing.command(tmp_path))
    assert code == 2
    assert "this run is in use by another process" in error
    process.proceed()
    process.communicate()
    assert process.returncode == 0


def test_a_signal_within_a_step_waits_for_its_end() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        with signals.deferred() as deferral:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(deferral.requested)
        pytest.fail("raised at the end of the block at the latest")
    assert seen == [True]
    assert interruption.number == signal.SIGTERM


def test_a_signal_within_a_step_within_another_waits_for_both() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt), Interruption():
        with signals.deferred() as outer:
            with signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
            with signals.deferred() as another:
                seen += [outer.requested, another.requested]
        pytest.fail("raised at the end of the outer block at the latest")
    assert seen == [True, True]


# ---- Complete, longer, or gone on with in vain


def test_a_complete_run_is_left_as_it_is(completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in completed.path.rglob("*") if path.is_file()}
    assert resume(completed) == 0
    assert (
        f"{completed.path}: this run is complete; to make it longer: "
        + command_line("resume", completed.path, "--epochs", 2 * completed.read_metrics()["config"]["train.epochs"])
        in capsys.readouterr().out
    )
    assert {path: path.read_bytes() for path in completed.path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_more_epochs_make_it_longer(completed: Run, train: Train, tmp_path: Path) -> None:
    assert resume(completed, "--epochs", "5") == 0
    whole = train("--epochs", "5", logdir=tmp_path / "whole")
    assert killing.differences(completed, whole) == []
    assert "epochs: 5" in completed.config.read_text()


def test_fewer_epochs_are_refused(completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(completed, "--epochs", "2") == 2
    assert "--epochs 2: the run has 3 epochs; it can only be extended" in capsys.readouterr().err


def test_evaluating_again_does_not_take_the_curves_away(completed: Run) -> None:
    """What `evaluate` adds, it adds: TensorBoard forgets nothing for it."""
    before = scalars(completed)
    with EventWriter(completed.path) as tracker:
        tracker.scalars(1, {"loss/train": 3.0})
    after = scalars(completed)
    assert len(after["loss/train"]) == len(before["loss/train"]) + 1


@pytest.mark.slow
def test_what_failed_goes_on_once_the_cause_is_gone(zygote: Zygote, whole: Run, tmp_path: Path) -> None:
    """No file may grow beyond 300 kB, as on a full disk: the checkpoint cannot be written."""
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "from mnist_tb.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", limit, *killing.command(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "File too large" in done.stderr
    assert list_run_folders(tmp_path)[0].read_metrics()["status"] == "failed"
    assert killing.differences(killing.complete(zygote, tmp_path), whole) == []


def test_a_folder_that_is_taken_away_is_said(zygote: Zygote, tmp_path: Path) -> None:
    process = zygote.start(*killing.command(tmp_path), hold=Place("mnist_tb.train.end_of_epoch", 2))
    process.until(HELD)
    (run,) = list_run_folders(tmp_path)
    run.path.rename(tmp_path / ".taken")  # at once: the saver may be writing the checkpoint of the epoch before
    process.proceed()
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith(f"mnist-tb: {run.path}")
    assert "No such file or directory" in error
    assert "Traceback" not in error


def test_an_error_while_saving_reaches_the_next_call() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "last.pt")

    with pytest.raises(OSError, match="No space left"), AsyncCheckpointer() as saver:
        saver.submit(fail)
        saver.submit(lambda: None)
    with pytest.raises(OSError, match="No space left"), AsyncCheckpointer() as saver:
        saver.submit(fail)
    with pytest.raises(KeyError, match="first"), AsyncCheckpointer() as saver:
        saver.submit(fail)
        raise KeyError("first")


# ---- Broken and hostile input


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def hostile(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(path.parent / "evil"),)

    torch.save({"model": Evil()}, path)


def rubbish(path: Path) -> None:
    path.write_bytes(pickle.dumps(["a list"]))


def text(path: Path) -> None:
    path.write_bytes(b"broken")


def of_another_network(path: Path) -> None:
    state = checkpoint.load(path)
    state["model"]["conv1.weight"] = torch.zeros(8, 1, 3, 3)
    checkpoint.save(path, state)


def of_another_version(path: Path) -> None:
    state = checkpoint.load(path)
    del state["window"]
    checkpoint.save(path, state)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm", [truncated, flipped, hostile, rubbish, text, of_another_network, of_another_version, a_folder]
)
def test_a_broken_checkpoint_is_one_sentence(harm: Any, completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    harm(completed.last_checkpoint)
    before = {path: path.read_bytes() for path in completed.path.rglob("*") if path.is_file()}
    assert resume(completed, "--epochs", "9") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mnist-tb: {completed.last_checkpoint}: ")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in completed.path.rglob("*") if path.is_file()} == before, (
        "nothing is lost"
    )
    assert not (completed.last_checkpoint.parent / "evil").exists()


def test_a_bit_that_flips_anywhere_is_seen_or_harmless(completed: Run, tmp_path: Path) -> None:
    content = completed.last_checkpoint.read_bytes()
    state = checkpoint.load(completed.last_checkpoint)
    place, places = tmp_path / "flipped.pt", random.Random(0)
    for _ in range(60):
        changed = bytearray(content)
        changed[places.randrange(len(changed))] ^= 1 << places.randrange(8)
        place.write_bytes(changed)
        try:
            known = checkpoint.load(place)
        except InputError:
            continue
        assert checkpoint._digest(known) == checkpoint._digest(state)


def test_a_missing_or_changed_configuration_is_said(completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = completed.config.read_text()
    completed.config.unlink()
    assert resume(completed, "--epochs", "4") == 2
    assert str(completed.config) in capsys.readouterr().err
    completed.config.write_text(text.replace("- 16\n", "- 32\n"))
    assert resume(completed, "--epochs", "4") == 2
    assert "this checkpoint is of another network or another version" in capsys.readouterr().err
    completed.config.write_text(text + "learning_rate: 3\n")
    assert resume(completed, "--epochs", "4") == 2
    assert "unknown key learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["..", "../..", "nothing", "a\nb", "x" * 300, "ü", "0001-digits/../../.."])
def test_only_runs_are_resumed(which: str, completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(completed.path.parent.parent.rglob("*"))
    assert main(arguments=["resume", which, "--logdir", str(completed.path.parent)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(completed.path.parent.parent.rglob("*")) == before


# ---- The parts


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"a": torch.arange(6).view(2, 3), "b": [1, 2.5, None, "x", True], "c": {"d": torch.tensor(0.5)}}
    checkpoint.save(tmp_path / "c.pt", state)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(loaded["a"], state["a"])  # type: ignore[arg-type]
    assert loaded["b"] == state["b"]
    assert loaded["c"]["d"] == 0.5
    assert loaded.keys() == state.keys()


def test_a_snapshot_is_out_of_reach() -> None:
    tensor = torch.zeros(3)
    copied = checkpoint.snapshot({"a": [tensor, 1], "b": {"c": tensor}})
    tensor += 1
    assert not copied["a"][0].any()
    assert not copied["b"]["c"].any()


def test_flush_says_how_long_the_files_are_then(tmp_path: Path) -> None:
    with EventWriter(tmp_path, 0) as first:
        first.scalars(1, {"a": 1.0})
        lengths = first.flush()
        assert records.sizes(tmp_path) == lengths
        first.scalars(2, {"a": 2.0})
    with EventWriter(tmp_path, 2) as second:
        second.scalars(2, {"a": 3.0})
        assert len(second.flush()) == 2
    files.trim(tmp_path, lengths)
    files.trim(tmp_path, lengths)  # again, as after a kill in between
    assert records.sizes(tmp_path) == lengths
    assert [(e.step, e.value) for e in read_events(Run(tmp_path)).Scalars("a")] == [(1, 1.0)]


def test_what_is_noted_after_the_mark_does_not_count(tmp_path: Path) -> None:
    with EventWriter(tmp_path, 0) as tracker:
        tracker.scalars(1, {"a": 1.0})
        written = tracker.mark()
        tracker.scalars(2, {"a": 2.0})
        lengths = written()
        tracker.flush()
    files.trim(tmp_path, lengths)
    assert [e.step for e in read_events(Run(tmp_path)).Scalars("a")] == [1]


@pytest.mark.slow
def test_a_checkpoint_counts_no_event_that_came_after_it(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the thread that saves comes to it late."""
    save, submit, lengths = checkpoint.save, AsyncCheckpointer.submit, {}

    def late(self: AsyncCheckpointer, work: Any) -> None:
        submit(self, lambda: (time.sleep(0.02), work())[1])

    def note(path: Path, state: Any) -> None:
        if path.name == "last.pt":
            lengths[state["step"]] = dict(state["events"])
        save(path, state)

    monkeypatch.setattr(AsyncCheckpointer, "submit", late)
    monkeypatch.setattr(checkpoint, "save", note)
    settings = ["tracking.checkpoint_seconds=0.01", "tracking.scalars_every=1"]
    run = train("--epochs", "3", *(word for setting in settings for word in ("--set", setting)))
    assert len(lengths) >= 6, "some within epochs too"
    for step, sizes in sorted(lengths.items(), reverse=True):
        files.trim(run.path, sizes)
        found = read_events(run)
        tags = found.Tags()
        seen = [e.step for tag in tags["scalars"] for e in found.Scalars(tag)]
        seen += [e.step for tag in tags["tensors"] if tag.startswith("weights/") for e in found.Tensors(tag)]
        assert max(seen, default=0) <= step


def test_flush_from_another_thread_and_without_a_folder(tmp_path: Path) -> None:
    assert EventWriter(None).flush() == {}
    found: list[dict[str, int]] = []
    with EventWriter(tmp_path, 0) as tracker:
        other = threading.Thread(target=lambda: found.append(tracker.flush()))
        other.start()
        for step in range(100):
            tracker.scalars(step, {"a": 0.0})
        other.join(10)
    assert len(found) == 1


def test_a_new_file_is_read_last_though_the_clock_was_set_back(tmp_path: Path) -> None:
    late = f"events.out.tfevents.{int(time.time()) + 86_400:010d}.host.1.0"
    assert records.new_name({late: 5}) > late
    assert records.new_name({}) < records.new_name({late: 5})
    assert "tfevents" in records.new_name({"tfevents.without.a.time": 3})


def test_checkpoints_hold_tensors_and_plain_values_only(completed: Run) -> None:
    with zipfile.ZipFile(io.BytesIO(completed.last_checkpoint.read_bytes())) as archive:
        assert any(name.endswith("data.pkl") for name in archive.namelist())
    assert torch.load(completed.last_checkpoint, weights_only=True)["step"] == 60
    assert (REPOSITORY / "mnist_tb" / "training" / "checkpoint.py").read_text().count("weights_only=True") == 1


# ---- Made longer


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("schedule.name=one_cycle", "schedule.name"),
        ("schedule.name=cosine", "schedule.name"),
        ("augment.until=0.5", "augment.until"),
        ("averaging.start=0.5", "averaging.start"),
    ],
)
def test_what_is_laid_out_over_all_epochs_forbids_more(
    setting: str, named: str, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("--epochs", "1", "--set", "augment.shift=1.0", "--set", "averaging.name=ema", "--set", setting)
    before = run.config.read_text()
    assert resume(run, "--epochs", "2") == 2
    said = capsys.readouterr().err
    assert f"--epochs 2: {named} of this run is laid out over its 1 epochs" in said
    assert "--schedule-from-here constant" in said
    assert f"mnist-tb train --init-from {run.path}" in said
    assert run.config.read_text() == before


@pytest.mark.slow
def test_a_schedule_that_has_ended_goes_on_at_a_constant_rate_and_config_yaml_repeats_the_whole(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    laid_out = [
        *("schedule.name=one_cycle", "augment.shift=1.0", "augment.until=0.5"),
        *("averaging.name=ema", "averaging.decay=0.9", "averaging.start=0.5"),
    ]
    run = train("--epochs", "2", *(part for setting in laid_out for part in ("--set", setting)))
    before = scalars(run)["lr"]
    assert resume(run, "--epochs", "3", "--schedule-from-here", "constant", "--lr", "2e-4") == 0
    after = scalars(run)["lr"]
    assert after[: len(before)] == before
    assert all(value == pytest.approx(2e-4) for _, value in after[len(before) :])
    assert len(after) > len(before)

    settings = yaml.safe_load(run.config.read_text())
    assert (settings["schedule"]["epochs"], settings["schedule"]["after"], settings["train"]["epochs"]) == (2, 2e-4, 3)
    assert main(arguments=["runs", "show", str(run.path)]) == 0
    assert "2 epochs laid out as one_cycle, then 1 at the constant learning rate 2e-4" in capsys.readouterr().out

    # The whole again, in one piece, from what it says of itself; and longer still, without a further word.
    repeated = train("--config", str(run.config))
    ours, theirs = (checkpoint.load(each.last_checkpoint)["model"] for each in (repeated, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resume(run, "--epochs", "4") == 0
    assert all(value == pytest.approx(2e-4) for _, value in scalars(run)["lr"][len(before) :])


@pytest.mark.parametrize(
    ("setting", "arguments", "sentence"),
    [
        ("schedule.name=cosine", ("--lr", "1e-4"), "--lr: is the rate of added epochs, and needs --schedule-from-here"),
        ("schedule.name=cosine", ("--schedule-from-here", "constant"), "needs --epochs with more than the 1 that"),
        (
            "schedule.name=constant",
            ("--schedule-from-here", "constant", "--epochs", "2"),
            "no schedule of this run ends here; extend it by --epochs alone",
        ),
        (
            "schedule.name=cosine",
            ("--schedule-from-here", "constant", "--epochs", "2", "--lr", "0"),
            "--lr: schedule.after must be greater than 0.0, not 0.0",
        ),
    ],
)
def test_a_constant_rate_where_it_makes_no_sense_is_one_sentence(
    setting: str, arguments: tuple[str, ...], sentence: str, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("--epochs", "1", "--set", setting)
    before = run.config.read_text()
    assert resume(run, *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert run.config.read_text() == before


def test_an_impossible_number_of_epochs_is_one_sentence(completed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(completed, "--epochs", "999999") == 2
    assert "--epochs: train.epochs must be at most 100000, not 999999" in capsys.readouterr().err
