"""What a disk, a folder or a signal can do to a training, at places chosen by name: one sentence, and it goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import killing
import pytest
from conftest import missing
from test_board import children, read_address

from mnist_tb.cli import main
from mnist_tb.runs import Run, create, listing

PLACES = [  # a function, which of its calls, and what is in the arguments of those that count
    ("mnist_tb.data.load", 1, ""),  # starting up: there is no run yet
    ("pathlib.Path.rename", 1, ""),  # the run's folder is made, and has not got its name yet
    ("mnist_tb.graph.draw", 1, ""),  # the network is drawn for the Graphs tab
    ("mnist_tb.train.look", 1, ""),  # before the first look at validation
    ("mnist_tb.figures.predictions", 2, ""),  # drawing, on the writing thread
    ("mnist_tb.events.trim", 1, ""),  # taking back what came after the checkpoint
    ("mnist_tb.train.evaluate", 2, ""),  # validation
    ("mnist_tb.checkpoint.save_plain", 2, "'batch': 0"),  # after an epoch; its events are written, and it is about to
    ("os.truncate", 1, ""),  # cutting the event file back
    ("os.replace", 4, ""),  # it is written, and has not got its name yet
    ("mnist_tb.train.keep_best", 2, ""),  # between last.pt and best.pt
    ("mnist_tb.scoring.evaluate", 1, ""),  # the test set
    ("mnist_tb.scoring.write_atomically", 1, ""),  # results.png
    ("mnist_tb.reporting.result", 1, ""),  # the result's pictures
    ("mnist_tb.tracking.EventWriter.close", 1, ""),  # the end of the event file
]

KILLED_THERE = """
import importlib, os, signal, sys
place, calls, of = sys.argv[1], int(sys.argv[2]), sys.argv[3]
path, _, name = place.rpartition(".")
try:
    owner = importlib.import_module(path)
except ModuleNotFoundError:
    owner = getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
real, seen = getattr(owner, name), []

def deadly(*arguments, **named):
    seen.extend([1] if of in repr(arguments) else [])
    if len(seen) == calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

setattr(owner, name, deadly)
from mnist_tb.cli import main
sys.exit(main(arguments=sys.argv[4:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing ever happened to. Do not change it."""
    return killing.complete(tmp_path_factory.mktemp("whole"))


def arguments(logdir: Path) -> list[str]:
    """To train, or to go on with the run that is there."""
    return killing.command(logdir, bool(listing(logdir)))[3:]


def test_killed_at_named_places(whole: Run, tmp_path: Path) -> None:
    """One run, killed at one place after the other."""
    for place, calls, of in PLACES:
        done = subprocess.run(
            [sys.executable, "-c", KILLED_THERE, place, str(calls), of, *arguments(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, (
            f"{place} was not come to: {done.stdout[-500:]} {done.stderr[-2000:]}"
        )
    assert len(listing(tmp_path)) == 1
    assert killing.differences(killing.complete(tmp_path), whole) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 kB. Only root can make one: CI can, another person skips."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"no file system can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_again_and_again(whole: Run, small_disk: Path) -> None:
    """At each size the disk is full at another place; the run goes on each time there is a little more room."""
    failed_at = set()
    for kilobytes in (4, 300, 1_200):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(small_disk)], check=True)
        done = subprocess.run(
            [sys.executable, "-m", "mnist_tb", *arguments(small_disk)], capture_output=True, text=True
        )
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith(f"mnist-tb: {small_disk}"), done.stderr
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        failed_at.add(done.stderr.partition(": ")[2].partition(":")[0].rpartition("/")[2])
    assert len(failed_at) >= 2
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert killing.differences(killing.complete(small_disk), whole) == []


def test_a_folder_that_becomes_read_only(whole: Run, tmp_path: Path) -> None:
    """Root, whom no permission stops, lays a read-only mount over it."""
    process = subprocess.Popen(
        [*killing.command(tmp_path, False), "--epochs", "9999"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert any(line.startswith("Epoch: 1") for line in process.stdout)
    run = listing(tmp_path)[0]
    root = os.geteuid() == 0
    folder, reason = (run.path, "Read-only file system") if root else (run.last_checkpoint.parent, "Permission denied")
    if root:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    else:
        folder.chmod(0o555)
    try:
        _, error = process.communicate(timeout=60)
    finally:
        if root:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o755)
    assert process.returncode == 1
    assert error.startswith(f"mnist-tb: {run.path}/")
    assert error.endswith(f": {reason}\n")
    assert error.count("\n") == 1
    assert killing.checkpoint.load(run.last_checkpoint)["step"] < 80, "there is something left to do"
    run.config.write_text(run.config.read_text().replace("epochs: 9999", f"epochs: {killing.EPOCHS}"))
    assert killing.differences(killing.complete(tmp_path), whole) == []


def train_with_page(logdir: Path, *more: str) -> subprocess.Popen[str]:
    command = [*killing.command(logdir, False), "--board", "--no-browser", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_page_that_is_killed_leaves_the_training_alone(tmp_path: Path) -> None:
    process = train_with_page(tmp_path, "--epochs", "12")
    read_address(process)
    (page,) = (child for child in children(process.pid) if "mnist_tb" in Path(f"/proc/{child}/cmdline").read_text())
    os.kill(page, signal.SIGKILL)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    assert out.splitlines()[-1].startswith("The page has ended by itself; it is there again with: make board LOGDIR=")
    assert listing(tmp_path)[0].read_metrics()["status"] == "completed"


def test_a_taken_port_is_no_reason_not_to_train(tmp_path: Path) -> None:
    taken = None
    with suppress(OSError):  # somebody has it already
        taken = socket.create_server(("localhost", 6006))
    try:
        process = train_with_page(tmp_path)
        address = read_address(process)
        assert int(address.rstrip("/").rpartition(":")[2]) > 6006
        assert process.stdout is not None
        assert any(line == "Ctrl-C ends the page.\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)
        assert process.returncode == 0
    finally:
        if taken is not None:
            taken.close()


def test_links_in_the_log_folder_lead_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run is made of does not go where a link leads; links that lead nowhere or in a circle are passed over."""
    outside, logdir = tmp_path / "outside", tmp_path / "runs"
    outside.mkdir()
    logdir.mkdir()
    (logdir / ".unfinished-run").symlink_to(outside)
    (logdir / "0001-circle").symlink_to(logdir / "0001-circle")
    (logdir / "0002-nowhere").symlink_to(tmp_path / "nowhere")
    made = create(logdir, "a", "seed: 0\n", {"status": "running"})
    assert made.name == "0003-a"
    assert not made.path.is_symlink()
    assert list(outside.iterdir()) == []
    assert [run.name for run in listing(logdir)] == ["0003-a"]
    assert main(arguments=["resume", "1", "--logdir", str(logdir)]) == 2
    assert "no run called '1'; there are 0003-a" in capsys.readouterr().err
