"""What a disk, a folder or a signal can do to a training, at places chosen by name: one sentence, and it goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import killing
from helpers.board import children, read_address
from helpers.fixtures import missing
from helpers.zygote import HELD, Forked, Place, Zygote
from mnist_tb.cli.main import main
from mnist_tb.runs.folder import Run, create_run, list_run_folders

PLACES = [
    Place("mnist_tb.launch.load_dataset", 1),  # starting up: there is no run yet
    Place("pathlib.Path.rename", 1),  # the run's folder is made, and has not got its name yet
    Place("mnist_tb.tracking.graph.draw", 1),  # the network is drawn for the Graphs tab
    Place("mnist_tb.train.end_of_epoch", 1),  # before the first look at validation
    Place("mnist_tb.tracking.figures.predictions", 2),  # drawing, on the writing thread
    Place("mnist_tb.training.checkpoint.trim", 1),  # taking back what came after the checkpoint
    Place("mnist_tb.train.evaluate", 2),  # validation
    Place(
        "mnist_tb.training.checkpoint.save_plain", 2, "'batch': 0"
    ),  # after an epoch; its events are written, and it is about to
    Place("os.truncate", 1),  # cutting the event file back
    Place("os.replace", 4),  # it is written, and has not got its name yet
    Place("mnist_tb.training.checkpoint.save_best", 2),  # between last.pt and best.pt
    Place("mnist_tb.training.results.evaluate", 1),  # the test set
    Place("mnist_tb.training.results.write_atomically", 1),  # results.png
    Place("mnist_tb.tracking.charts.result", 1),  # the result's pictures
    Place("mnist_tb.events.writer.EventWriter.close", 1),  # the end of the event file
]


@pytest.mark.slow
def test_killed_at_named_places(zygote: Zygote, whole: Run, tmp_path: Path) -> None:
    """One run, killed at one place after the other."""
    for place in PLACES:
        code, out, error = zygote.run(*killing.command(tmp_path), kill=place)
        assert code == -signal.SIGKILL, f"{place} was not come to: {out[-500:]} {error[-2000:]}"
    assert len(list_run_folders(tmp_path)) == 1
    assert killing.differences(killing.complete(zygote, tmp_path), whole) == []


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


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again(zygote: Zygote, whole: Run, small_disk: Path) -> None:
    """At each size the disk is full at another place; the run goes on each time there is a little more room."""
    failed_at = set()
    for kilobytes in (4, 300, 1_200):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(small_disk)], check=True)
        code, out, error = zygote.run(*killing.command(small_disk))
        assert code == 1, out
        assert error.startswith(f"mnist-tb: {small_disk}"), error
        assert "No space left on device" in error
        assert error.count("\n") == 1
        failed_at.add(error.partition(": ")[2].partition(":")[0].rpartition("/")[2])
    assert len(failed_at) >= 2
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert killing.differences(killing.complete(zygote, small_disk), whole) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Callable[[Run], str]:
    """Makes a run's folder read-only; returns the system's word for it.

    Root, whom no permission stops, lays a mount over it that has been made read-only elsewhere, where nothing is open
    for writing: in one step, whatever is being written in the folder at that instant.
    """

    def make(run: Run) -> str:
        if os.geteuid() != 0:
            run.last_checkpoint.parent.chmod(0o555)
            return "Permission denied"
        aside = tmp_path / "aside"
        aside.mkdir()
        for arguments in (["--bind", run.path, aside], ["-o", "remount,bind,ro", aside], ["--bind", aside, run.path]):
            subprocess.run(["mount", *map(str, arguments)], check=True)
        subprocess.run(["umount", str(aside)], check=True)
        return "Read-only file system"

    return make


def writable(run: Run) -> None:
    """Take back what `read_only` did."""
    if os.geteuid() == 0:
        subprocess.run(["umount", str(run.path)], check=True)
    else:
        run.last_checkpoint.parent.chmod(0o755)


@pytest.mark.slow
def test_a_folder_that_becomes_read_only(
    zygote: Zygote, whole: Run, tmp_path: Path, read_only: Callable[[Run], str]
) -> None:
    """After the first epoch, with something left to do."""
    logdir = tmp_path / "runs"
    process = zygote.start(*killing.command(logdir), hold=Place("mnist_tb.train.end_of_epoch", 2))
    process.until(HELD)
    (run,) = list_run_folders(logdir)
    reason = read_only(run)
    process.proceed()
    _, error = process.communicate()
    writable(run)
    assert process.returncode == 1
    assert error.startswith(f"mnist-tb: {run.path}/")
    assert error.endswith(f": {reason}\n")
    assert error.count("\n") == 1
    assert killing.differences(killing.complete(zygote, logdir), whole) == []


def train_with_page(zygote: Zygote, logdir: Path, hold: Place | None = None) -> Forked:
    return zygote.start(*killing.command(logdir), "--board", "--no-browser", hold=hold)


@pytest.mark.slow
def test_a_page_that_is_killed_leaves_the_training_alone(zygote: Zygote, tmp_path: Path) -> None:
    """Killed while it trains."""
    process = train_with_page(zygote, tmp_path, hold=Place("mnist_tb.train.end_of_epoch", 2))
    process.until(HELD)
    (page,) = (child for child in children(process.pid) if "mnist_tb" in Path(f"/proc/{child}/cmdline").read_text())
    os.kill(page, signal.SIGKILL)
    process.proceed()
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert out.splitlines()[-1].startswith("The page has ended by itself; start it again with: make board LOGDIR=")
    assert list_run_folders(tmp_path)[0].read_metrics()["status"] == "completed"


def test_a_taken_port_is_no_reason_not_to_train(zygote: Zygote, tmp_path: Path) -> None:
    taken = None
    with suppress(OSError):  # somebody has it already
        taken = socket.create_server(("localhost", 6006))
    try:
        process = train_with_page(zygote, tmp_path)
        address = read_address(process)
        assert int(address.rstrip("/").rpartition(":")[2]) > 6006
        process.until("Press Ctrl-C to stop the page.")
        process.send_signal(signal.SIGINT)
        process.communicate()
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
    made = create_run(logdir, "a", "seed: 0\n", {"status": "running"})
    assert made.name == "0001-a"
    assert not made.path.is_symlink()
    assert list(outside.iterdir()) == []
    assert [run.name for run in list_run_folders(logdir)] == ["0001-a"]
    assert main(arguments=["resume", "2", "--logdir", str(logdir)]) == 2
    assert "no run called '2'; there are 0001-a" in capsys.readouterr().err
