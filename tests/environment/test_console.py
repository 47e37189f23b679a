"""What a training prints is kept, as a terminal shows it in the end."""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from helpers.fixtures import Train
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.environment import console
from mnist_tb.environment.console import NAME, ConsoleLog, Screen, read_console


def shown(text: str, chunk: int = 10_000) -> str:
    screen = Screen()
    left = "".join(screen.feed(text[at : at + chunk]) for at in range(0, len(text), chunk))
    return left + screen.text()


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("a\nb\n", "a\nb\n"),
        ("10 %\r 50 %\r100 %\ndone", "100 %\ndone"),
        ("long\rab", "abng"),
        ("a\nb\x1b[1A\rx\n", "x\nb"),
        ("one\ntwo\nthree\x1b[2A\x1b[Jx", "one  x"),
        ("abc\x1b[2K\rd", "d"),
        ("abc\b\bX", "aXc"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "red plainlink"),
        ("bell\x07 nul\x00 \x9b31m del\x7f", "bell nul 31m del"),
        ("a\x1b[5Gb\x1b[2Dc\x1b[Cd", "a  cbd"),
        ("no end\x1b[", "no end"),
        ("x\x1b(By", "xBy"),
    ],
)
def test_what_is_printed_over_is_gone(printed: str, seen: str) -> None:
    assert shown(printed) == seen
    assert shown(printed, chunk=1) == seen, "sequences may come in pieces"


def test_no_sequence_swallows_what_follows() -> None:
    for start in ("\x1b]", "\x1b[", "\x1b[3;", "\x1bP", "\x1b"):
        assert shown(start + "\n" + "text " * 100).rstrip().endswith("text text")


@given(st.text(alphabet="ab\n\r\b\t\x1b[]0;2AKJHDCGm\x07é☃", max_size=200), st.integers(1, 20))
def test_pieces_do_not_matter(text: str, chunk: int) -> None:
    found = shown(text, chunk)
    assert found == shown(text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", found)


def test_progress_bars_are_their_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rich, on a terminal, redrawn many times with lines in between."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log = ConsoleLog()
    log.attach(tmp_path)
    with Progress(console=Console(force_terminal=True, width=60), refresh_per_second=1000) as progress:
        task = progress.add_task("work", total=50)
        for i in range(50):
            progress.update(task, completed=i + 1, refresh=True)
            if i % 10 == 0:
                progress.console.print(f"line {i}")
            log.flush()
    print("end")
    log.close()
    text = (tmp_path / NAME).read_text()
    assert [line for line in text.splitlines() if line.startswith("line")] == [f"line {i}" for i in range(0, 50, 10)]
    assert text.count("work") == 1
    assert "100%" in text
    assert text.endswith("end\n")
    assert isinstance(sys.stdout, io.StringIO), "as it was before"


def test_threads_and_streams_and_what_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ConsoleLog()
    log.attach(tmp_path)
    threads = [
        threading.Thread(target=lambda k=k: [sys.stdout.write(f"{k}.{i}\n") for i in range(200)]) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("to stderr", file=sys.stderr)
    sys.stdout.writelines(["one\n", "two ☃\n"])
    with pytest.raises(UnicodeEncodeError):
        print("three \udcff")
    assert sys.stdout.isatty() is False
    log.close()
    print("after")
    lines = (tmp_path / NAME).read_text().split("\n")
    numbers = re.findall(r"\d\.\d+", "\n".join(lines))
    assert sorted(numbers) == sorted(f"{k}.{i}" for k in range(4) for i in range(200))
    assert "to stderr" in lines
    assert "two ☃" in lines
    assert "three ?" in lines
    assert "after" not in lines
    assert "after" in capsys.readouterr().out


def test_bytes_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient(io.StringIO):
        def write(self, text: str | bytes) -> int:
            return super().write(str(text))

    monkeypatch.setattr(sys, "stdout", Lenient())
    log = ConsoleLog()
    log.attach(tmp_path)
    sys.stdout.write(b"bytes")  # type: ignore[arg-type]
    print("text")
    log.close()
    assert read_console(tmp_path) == "text\n"
    assert sys.stdout.getvalue() == "b'bytes'text\n"  # type: ignore[attr-defined]


def test_it_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning and the end stay; one line without an end is cut."""
    monkeypatch.setattr(console, "LIMIT", 40_000)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log = ConsoleLog()
    log.attach(tmp_path)
    for i in range(20_000):
        print(f"line {i}")
        if i % 500 == 0:
            log.flush()
            assert (tmp_path / NAME).stat().st_size < 60_000
    print("x" * 1_000_000)
    log.close()
    text = (tmp_path / NAME).read_text()
    assert len(text) < 60_000
    lines = text.split("\n")
    assert lines[:1_000] == [f"line {i}" for i in range(1_000)]
    assert "… some of what was printed is left out here …" in lines
    assert lines[-3] == "line 19999"
    assert lines[-2] == "x" * 4_000


def test_a_log_that_cannot_be_written_harms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kind in enumerate(("folder", "gone", "full")):
        folder = tmp_path / str(number)
        if kind != "gone":
            folder.mkdir()
        if kind == "folder":
            (folder / NAME).mkdir()
        if kind == "full":
            (folder / NAME).symlink_to("/dev/full")
        log = ConsoleLog()
        log.attach(folder)
        print("a" * 100_000)
        log.flush()
        print("b")
        log.close()
    assert capsys.readouterr().out.endswith("b\n")


def test_two_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trackers whose lives cross."""
    before = sys.stdout
    one = Tracker(tmp_path, "one")
    print("first")
    two = Tracker(tmp_path, "two")
    print("both")
    one.__exit__(None, None, None)
    print("second")
    two.__exit__(None, None, None)
    assert sys.stdout is before
    assert [read_console(each.run.path) for each in (one, two)] == ["first\n", "both\nsecond\n"], (
        "each is the newest one's"
    )
    assert capsys.readouterr().out == "first\nboth\nsecond\n"


def test_of_a_training_that_fails_and_is_resumed(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1", "--set", "model.channels=[4, 8, 8]", "--set", "tracking.projector=false")
    first = read_console(run.path)
    assert first is not None
    assert first.startswith(f"Run {run.path}: digits")
    assert "Test set of digits" in first
    capsys.readouterr()
    logdir = ("--logdir", str(run.path.parent))
    assert main(arguments=["runs", "show", "1", "--log", *logdir]) == 0
    assert capsys.readouterr().out == first
    assert main(arguments=["resume", "1", "--epochs", "2", *logdir]) == 0
    both = read_console(run.path)
    assert both is not None
    assert both.startswith(first)
    assert re.search(r"──── resumed \d{4}-.* ────\n.*from step 20", both)
    (run.path / NAME).unlink()
    assert main(arguments=["runs", "show", "1", "--log", *logdir]) == 0
    assert "has no console.log" in capsys.readouterr().out


def test_the_error_is_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Tracker(tmp_path, "mine"):
            print("before")
            raise RuntimeError("the cat is on the keyboard")

    with pytest.raises(RuntimeError):
        fail()
    text = read_console(tmp_path / "0001-mine")
    assert text is not None
    assert text.startswith("before\nTraceback")
    assert text.endswith("RuntimeError: the cat is on the keyboard\n")


def test_what_somebody_else_wrote_is_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"a\x1b[2J\x07b\r\n\xff" + b"x" * 100)
    assert read_console(tmp_path) == "a[2Jb\n\ufffd" + "x" * 100
    assert read_console(tmp_path, most=10) == "x" * 10
    assert read_console(tmp_path / "nothing") is None
