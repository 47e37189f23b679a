"""TensorBoard as a process, and statuses for it to show."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.paths import REPOSITORY
from helpers.ports import free_port
from helpers.zygote import Forked
from mnist_tb.events.status import Status
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter

HOSTILE = "<img src=x onerror=alert(1)>"


TRAINING = Status(phase="training", dataset="mnist", device="cpu", precision="fp32", epoch=2, epochs=3, batch=1,
                  batches=20, step=21, steps=60, loss=0.5, accuracy=0.75, lr=0.001, images_per_second=10.0)  # fmt: skip


def get(address: str, token: str = "") -> Any:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
        return json.loads(content) if "json" in answer.headers.get("Content-Type", "") else content


def write_status(folder: Path, state: Status, wall_time: float | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, EventWriter(folder) as tracker:
        if wall_time is not None:
            patch.setattr("mnist_tb.events.writer.time.time", lambda: wall_time)
        tracker.scalars(state.step, {"loss/train": 0.5, "accuracy/train": 0.75})
        tracker.live_data(state.step, LIVE_STATUS, state.to_json().encode())


def wait_for_runs(address: str, count: int, token: str = "") -> None:
    """Wait until the page shows so many runs, and until none of those that have ended says anything new."""
    end, seen, since = time.monotonic() + 60, None, 0.0
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            answer = get(f"{address}/data/plugin/live/runs", token)
            ended = [run for run in answer["runs"] if run["state"] != "running"]
            if ended != seen or len(answer["names"]) < count:
                seen, since = ended, time.monotonic()
            elif time.monotonic() - since > 2:
                return
        time.sleep(0.3)
    raise AssertionError(f"{count} runs were not there within a minute")


def start_board(
    *arguments: str, command: Sequence[str] = ("-m", "mnist_tb"), stderr: int = subprocess.PIPE
) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, *command, "board", "--no-browser", *arguments],
        stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8", cwd=REPOSITORY,
    )  # fmt: skip
    return process, read_address(process)


@contextlib.contextmanager
def served(logdir: Path, runs: int) -> Iterator[str]:
    """The address of a page that shows so many runs, until the end of the block."""
    process, address = start_board("--logdir", str(logdir), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), runs)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)


def read_address(process: subprocess.Popen[str] | Forked) -> str:
    assert process.stdout is not None
    return next(
        line.removeprefix("TensorBoard: ").strip() for line in process.stdout if line.startswith("TensorBoard: ")
    )


def children(parent: int) -> list[int]:
    return [child.pid for child in psutil.Process(parent).children()]


NAME = "0001-digits"


class Board:
    """A running TensorBoard."""

    def __init__(self, logdir: Path, *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port),
             "--host", "127.0.0.1", "--reload_interval", "1", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def get(self, path: str, body: object = None, **query: str) -> Any:
        address = f"{self.url}/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    def wait_for_run(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.get("data/plugin/scalars/tags").get(NAME, {}).get("accuracy/test") is not None:
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise AssertionError("TensorBoard did not show the run within 60 s")
