"""How a run ended is told, to a real HTTP server; and nothing about it harms a training."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.board import TRAINING, start_board, wait_for_runs, write_status
from helpers.fixtures import Train
from helpers.ports import free_port
from mnist_tb import Tracker
from mnist_tb.board.endings import Endings
from mnist_tb.cli.main import main
from mnist_tb.environment import notify
from mnist_tb.environment.notify import Notifier, end_message
from mnist_tb.errors import InputError, command_line

SIZE = ("--epochs", "1", "--set", "model.channels=[4, 8, 8]", "--set", "tracking.projector=false")
SMALL = ("--config", "digits", *SIZE)


class Heard(list[tuple[str, str]]):
    """Title and text of what has arrived, and where to send it."""

    url = ""
    delay = 0.0
    code = 200


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.append((said["title"], said["message"]))
            time.sleep(found.delay)
            self.send_response(found.code)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"json://localhost:{server.server_port}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_completed_and_failed_and_resumed(heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By --notify and by the environment; the address, which may have a password, is not kept."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "x", "--notify", heard.url])
    monkeypatch.setenv("MNIST_TB_NOTIFY", f"{heard.url}/other")
    logdir = ("--logdir", str(tmp_path))
    assert main(arguments=["train", *SMALL, "--notify", heard.url, *logdir]) == 0
    (run,) = [path for path in tmp_path.iterdir() if path.name.startswith("0001")]
    assert len(heard) == 2
    title, text = heard[0]
    assert title == f"{run.name}: completed"
    assert text.startswith("test accuracy ")
    assert text.endswith(str(run))
    assert heard.url not in (run / "environment.json").read_text()
    monkeypatch.delenv("MNIST_TB_NOTIFY")
    assert main(arguments=["train", *SMALL, "--lr", "1e9", "--notify", heard.url, *logdir]) == 1
    title, text = heard[2]
    assert title.endswith(": failed")
    assert "NaN or infinite at step" in text
    assert main(arguments=["resume", "1", "--epochs", "2", "--notify", heard.url, *logdir]) == 0
    assert heard[3][0] == f"{run.name}: completed"
    assert len(heard) == 4


def test_what_is_said_of_an_interrupted_run_and_of_a_broken_one(train: Train) -> None:
    run = train(*SIZE)
    run.update_metrics(status="interrupted", error="interrupted", test=None)
    title, text = end_message(run)
    assert title == f"{run.name}: interrupted"
    assert f"It resumes with: {command_line('resume', run.path)}" in text
    (run.path / "metrics.json").write_text("{")
    assert "cannot be read" in end_message(run)[1]


def test_of_a_tracker_and_a_loss_that_is_nan(heard: Heard, tmp_path: Path) -> None:
    with Tracker(tmp_path, "mine", notify=[heard.url]) as tracker:
        for step in range(1, 6):
            tracker.scalars(step, {"loss/train": float("nan")})
        until(lambda: len(heard) == 1)
    assert [title for title, _ in heard] == ["0001-mine: loss/train is nan", "0001-mine: completed"]
    assert heard[0][1].startswith("at step 1\n")

    def interrupt() -> None:
        with Tracker(tmp_path, "mine", notify=[heard.url]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert heard[2][0] == "0002-mine: interrupted"


@pytest.mark.parametrize("trouble", ["refused", "error", "slow"])
def test_what_does_not_arrive_harms_nothing(
    trouble: str, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE", 0.5)
    heard.code, heard.delay = (500, 0.0) if trouble == "error" else (200, 2.0)
    url = "json://localhost:1" if trouble == "refused" else heard.url
    with Tracker(tmp_path, "mine", notify=[url]) as tracker:
        pass
    assert tracker.run.read_metrics()["status"] == "completed"
    assert Notifier([url]).tell("a", "b", patience=0.1 if trouble == "slow" else 30) is False


def test_wrong_addresses_are_said_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logdir = ("--logdir", str(tmp_path / "runs"))
    for wrong in ("nonsense", "nosuch://user:secret@host", "", "json://"):
        assert main(arguments=["train", *SMALL, "--notify", wrong, *logdir]) == 2
        error = capsys.readouterr().err
        assert "--notify, address 1: is not an address that Apprise knows" in error
        assert "secret" not in error
    monkeypatch.setenv("MNIST_TB_NOTIFY", "nonsense")
    with pytest.raises(InputError, match="MNIST_TB_NOTIFY: is not an address"):
        Tracker(tmp_path / "runs", "mine")
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert main(arguments=["train", *SMALL, *logdir]) == 2
    assert "-m pip install 'mnist-tb[notify]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_page_tells_of_those_that_fall_silent() -> None:
    told: list[tuple[str, str]] = []
    watch = Endings(lambda title, text: told.append((title, text)))
    old, now = time.time() - 3600, time.time() + 1
    watch.see([{"run": "a", "state": "running", "written": now}])
    for state in ("completed", "failed", "silent"):  # TensorBoard finds old ones later
        watch.see([{"run": f"old {state}", "state": state, "written": old}])
    watch.see([{"run": "foreign", "state": "unknown", "written": now}, {"run": "p", "state": "pruned", "written": now}])
    assert told == []
    watch.see([{"run": "a", "state": "silent", "step": 1200, "written": now}])
    assert told == [("a: silent", "nothing was heard of its process for half a minute\nstep 1,200")]
    watch.see([{"run": "a", "state": "running", "written": now}])
    watch.see([{"run": "quick", "state": "completed", "test_accuracy": 0.991, "written": now}])
    for _ in range(2):
        watch.see([{"run": "a", "state": "failed", "error": "the disk is full", "written": now}])
    assert told[1:] == [("quick: completed", "test accuracy 99.10%"), ("a: failed", "the disk is full")]


@pytest.mark.slow
def test_the_page_tells_of_a_run(heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the address of the environment. The page is asked directly, whatever proxy there is."""
    write_status(tmp_path / "0001-old", replace(TRAINING, state="completed"))
    write_status(tmp_path / "0002-new", TRAINING)
    with monkeypatch.context() as its:
        its.setenv("MNIST_TB_NOTIFY", heard.url)
        its.setenv("http_proxy", "http://127.0.0.1:1")
        its.setenv("no_proxy", heard.url.removeprefix("json://"))
        process, address = start_board("--logdir", str(tmp_path), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 2)
        end = time.monotonic() + 60
        while not heard and time.monotonic() < end:  # until it has seen both, one after the other
            for state, error in (("running", ""), ("failed", "the disk is full")):
                write_status(tmp_path / "0002-new", replace(TRAINING, state=state, error=error))
                time.sleep(4)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert heard[0] == ("0002-new: failed", "the disk is full\nstep 21")
