"""The page of `mnist-tb watch`, as somebody at a terminal sees and uses it, and what goes elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from textual.pilot import Pilot
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.runs.folder import Run
from mnist_tb.watch.live import LiveRuns
from mnist_tb.watch.page import TerminalPage

PATIENCE = 60.0
Use = Callable[[TerminalPage, "Pilot[None]"], Awaitable[None]]


@pytest.fixture
def logdir(tmp_path: Path, finished: Run) -> Path:
    """Twenty runs of ours, the last but one failed, and one of another program."""
    values = json.loads(finished.metrics.read_text())
    for number in range(1, 21):
        run = Run(tmp_path / "runs" / f"{number:04d}-r{number}")
        shutil.copytree(finished.path, run.path, ignore=shutil.ignore_patterns("checkpoints", "*.pth", "projector"))
        run.write_metrics({**values, "started": 1_000_000.0 + number})
    run = Run(tmp_path / "runs" / "0019-r19")
    run.update_metrics(status="failed", error="the disk is full")
    (run.path / "notes.json").write_text('{"tags": ["good"], "note": "the last one"}')
    with TorchWriter(str(tmp_path / "runs" / "other")) as writer:
        for step in range(50):
            writer.add_scalar("train/loss", 1 / (step + 1), step, walltime=1000.0 + step)
    return tmp_path / "runs"


def screen(page: TerminalPage) -> str:
    """What is on the screen."""
    strips = page.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(page: TerminalPage, pilot: Pilot[None], *patterns: str) -> str:
    """The screen, as soon as each pattern is found on it."""
    end = time.monotonic() + PATIENCE
    while True:
        await pilot.pause()
        text = screen(page)
        if all(re.search(pattern, text, re.M) for pattern in patterns):
            return text
        assert time.monotonic() < end, f"no {patterns} on\n{text}"
        await asyncio.sleep(0.02)


def use(runs: LiveRuns, logdir: Path, size: tuple[int, int], act: Use, until_end: bool = False) -> TerminalPage:
    async def work() -> TerminalPage:
        page = TerminalPage(runs, Path(logdir.name), until_end)
        async with page.run_test(size=size) as pilot:
            await act(page, pilot)
        return page

    with ThreadPoolExecutor(1) as thread:  # in this one, the browser's tests may have an event loop already
        return thread.submit(asyncio.run, work()).result()


def test_states_progress_results_and_charts_at_80_columns(logdir: Path) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        text = await until(page, pilot, "0020-r20  epoch 3 of 3", "loss  train", "⠉|⠒", "q quit")
        lines = text.splitlines()
        assert re.fullmatch(r" runs  19 completed, 1 failed, 1 unknown", lines[0])
        assert re.fullmatch(r" run +state +val % +test % +time", lines[1])
        best = 100 * json.loads((logdir / "0020-r20" / "metrics.json").read_text())["val"]["accuracy"]
        assert re.fullmatch(rf" 0020-r20 +completed +{best:.2f} +9\d.\d\d +\d+ s", lines[2])
        assert re.fullmatch(r" 0019-r19 +failed .*", lines[3])
        assert len(lines) == 24
        assert "q quit" in lines[-1]
        assert "images/s" not in lines[1]

    use(LiveRuns(logdir), logdir, (80, 24), act)


def test_a_wide_terminal_has_more_columns_and_charts_and_may_change_its_size(logdir: Path) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        text = await until(
            page, pilot, "loss  train .* accuracy  train .* grad_norm", "tags$", "q quit", "3/3 +60 .*digits +good$"
        )
        assert len(text.splitlines()) == 50
        await pilot.resize_terminal(130, 40)
        text = await until(page, pilot, "loss  train .* accuracy  train (?!.*grad_norm)", "started")
        for width, height in ((20, 5), (1, 1), (5, 60)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
        await pilot.resize_terminal(80, 24)
        await until(page, pilot, "0020-r20  epoch 3 of 3", r"┤", "^  +0 +20 +40 +60$")

    use(LiveRuns(logdir), logdir, (200, 50), act)


def test_runs_are_chosen_and_their_charts(logdir: Path) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        await until(page, pilot, "0020-r20  epoch", r"loss .* 1 of 15")
        await pilot.press("down")
        await until(page, pilot, "0019-r19  epoch", "^ the disk is full", "^ the last one", "loss  train")
        await pilot.press("right")
        await until(page, pilot, r"accuracy  train .* 2 of 15")
        await pilot.press("l")
        await pilot.press("left", "left")
        await until(page, pilot, r"loss  train .* 1 of 15", "2.3┤|2.30┤")
        await pilot.press("end")
        await until(page, pilot, "other  step 49", "loss  train 0.02", "^  +0 ")

    use(LiveRuns(logdir), logdir, (80, 24), act)


def test_runs_are_found_by_words_and_by_state(logdir: Path) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        await until(page, pilot, "0020-r20  epoch")
        await pilot.press("slash", *"good")
        await until(page, pilot, "1 shown: good", "0019-r19  epoch")
        await pilot.press("enter", "escape")
        await until(page, pilot, "0020-r20 ", "0018-r18 ")
        await pilot.press("s")
        text = await until(page, pilot, "19 shown: completed")
        assert "0019-r19" not in text
        await pilot.press("s")
        await until(page, pilot, "1 shown: failed", "0019-r19")
        await pilot.press("s")
        await until(page, pilot, "1 shown: unknown", "^ other ")
        await pilot.press("slash", *"nothing")
        text = await until(page, pilot, "0 shown: unknown nothing")
        assert "┤" not in text
        await pilot.press("escape")
        await until(page, pilot, "0020-r20 ")

    use(LiveRuns(logdir), logdir, (80, 24), act)


def test_a_training_appears_moves_and_ends(logdir: Path) -> None:
    """The first row is the newest run; who has chosen another one keeps it."""

    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        await until(page, pilot, "0020-r20  epoch")
        with Tracker(logdir, "mine", {"lr": 1}, steps=10) as tracker:
            tracker.scalars(4, {"loss/train": 0.5})
            tracker.state_dict()
            await until(page, pilot, "1 running", "^ 0021-mine +running", "0021-mine  step", "loss  train 0.5")
            tracker.scalars(5, {"loss/train": 0.25})
            tracker.state_dict()
            await until(page, pilot, "loss  train 0.25")
            await pilot.press("down")
            await until(page, pilot, "0020-r20  epoch")
        await until(page, pilot, "20 completed", "^ 0021-mine +completed", "0020-r20  epoch")

    use(LiveRuns(logdir), logdir, (80, 24), act)


def test_no_column_is_cut_while_something_runs(logdir: Path) -> None:
    """What a run's progress needs is taken from the steps first, whole columns at a time."""
    last = {"time": r" \d+ s( left)?\W*$", "started": r" \d\d-\d\d \d\d:\d\d\W*$"}  # and the scrollbar

    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        with Tracker(logdir, "a-name-of-many-settings-is-a-long-name", {"lr": 1}, steps=25_000) as tracker:
            tracker.scalars(12_500, {"loss/train": 0.5})
            tracker.state_dict()
            for width in (120, 125, 130, 135):
                await pilot.resize_terminal(width, 40)
                text = await until(page, pilot, "^ 0021-a-name.* +running +━+ +50%")
                titles, *rows = text.splitlines()[1:5]
                assert "step" not in titles.split() or width > 130
                assert all(re.search(last[titles.split()[-1]], row) for row in rows), text
            await pilot.resize_terminal(179, 40)
            await until(page, pilot, "^ run .* step .* started$", " 12,500 ")

    use(LiveRuns(logdir), logdir, (120, 40), act)


def test_a_long_name_leaves_room_for_the_rest(tmp_path: Path) -> None:
    with TorchWriter(str(tmp_path / "experiments" / ("x" * 50) / "lightning_logs" / "version_3")) as writer:
        writer.add_scalar("val_acc", 0.5, 1)

    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        text = await until(page, pilot, r"^ experimen…g_logs/version_3 +unknown +50.00")
        assert max(map(len, text.splitlines())) <= 80
        await pilot.resize_terminal(200, 50)
        await until(page, pilot, r"^ experiments/x+…x*/lightning_logs/version_3 +unknown")
        await pilot.press("slash", *"version", "ctrl+c")
        while page.is_running:
            await pilot.pause(0.05)

    use(LiveRuns(tmp_path), tmp_path, (80, 24), act)


def test_more_runs_than_fit(tmp_path: Path, finished: Run) -> None:
    for number in range(1, 301):
        (tmp_path / f"{number:04d}-r").mkdir()
        shutil.copy(finished.metrics, tmp_path / f"{number:04d}-r")

    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        text = await until(page, pilot, "300 completed$", "^ 0001-r ", "q quit")  # all began at once, so by their names
        assert len(text.splitlines()) == 24
        await pilot.press("end")
        await until(page, pilot, "0300-r  epoch")
        await pilot.press("k")
        await until(page, pilot, "0299-r  epoch")
        await pilot.press("home", "j")
        await until(page, pilot, "0002-r  epoch")

    use(LiveRuns(tmp_path), tmp_path, (80, 24), act)


def test_it_ends_with_the_last_run_and_tells_which_failed(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        while page.is_running:
            await pilot.pause(0.05)

    page = use(LiveRuns(logdir, ("19",)), logdir, (80, 24), act, until_end=True)
    assert [run.summary.status for run in page.runs] == ["failed"]
    assert main(arguments=["watch", "19", "20", "--until-end", "--logdir", str(logdir)]) == 1
    out, err = capsys.readouterr()
    assert [line.partition(",")[0] for line in out.splitlines()] == ["0019-r19: failed", "0020-r20: completed"]
    assert "the disk is full" in out
    assert err == "mnist-tb: 0019-r19: failed\n"
    assert main(arguments=["watch", "--until-end", "--logdir", str(logdir)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 21
    assert err == ""


def test_a_run_that_goes_ends_it_with_a_sentence(logdir: Path) -> None:
    async def act(page: TerminalPage, pilot: Pilot[None]) -> None:
        await until(page, pilot, "0020-r20  epoch")
        shutil.rmtree(logdir / "0020-r20")
        while page.is_running:
            await pilot.pause(0.05)

    page = use(LiveRuns(logdir, ("20",)), logdir, (80, 24), act)
    assert page.error is not None
    assert "no run called '20'" in str(page.error)


# ---- In a real terminal, and without one


COMMAND = [sys.executable, "-m", "mnist_tb", "watch"]


@pytest.fixture
def terminal(logdir: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of 80 × 24, and the terminal's other end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        [*COMMAND, "--logdir", str(logdir)], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def heard(descriptor: int, text: bytes, process: subprocess.Popen[bytes]) -> bytes:
    """What the terminal is sent until it has a text, or until the process has ended."""
    found, end = b"", time.monotonic() + PATIENCE
    while text not in found and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            found += os.read(descriptor, 65536)
        elif process.poll() is not None:
            break
    assert text in found, found
    return found


@pytest.mark.parametrize(("how", "code"), [("q", 0), ("\x03", 0), (signal.SIGTERM, 143)])
def test_it_leaves_the_terminal_as_it_was(
    terminal: tuple[subprocess.Popen[bytes], int], how: str | signal.Signals, code: int
) -> None:
    process, ours = terminal
    before = termios.tcgetattr(ours)
    heard(ours, b"0020-r20", process)
    if isinstance(how, str):
        os.write(ours, how.encode())
    else:
        process.send_signal(how)
    heard(ours, b"\x1b[?1049l", process)  # the alternate screen is left
    while process.poll() is None:  # it may have more to say
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 65536)
    assert process.returncode == code
    assert termios.tcgetattr(ours) == before


def test_it_ends_with_its_terminal(logdir: Path) -> None:
    """Of a terminal that is not its session's nobody sends a SIGHUP: it went on, as fast as a core can."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--logdir", str(logdir)], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    try:
        os.close(theirs)
        with open(ours, "rb", buffering=0):  # closed whatever happens
            heard(ours, b"0020-r20", process)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    """A run that begins, goes on and ends, as a program hears it."""
    (tmp_path / "runs").mkdir()
    with subprocess.Popen(
        [*COMMAND, "--json", "--logdir", str(tmp_path / "runs")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            with Tracker(tmp_path / "runs", "mine", {"lr": 1}, steps=10) as tracker:
                tracker.scalars(1, {"loss/train": 0.5})
                first = json.loads(process.stdout.readline())
            last = json.loads(process.stdout.readline())
        finally:
            process.terminate()
    assert (first["run"], first["status"], first["settings.lr"]) == ("0001-mine", "running", 1)
    assert (last["run"], last["status"], last["loss"]) == ("0001-mine", "completed", None)
    assert process.returncode == 143
