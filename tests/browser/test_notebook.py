"""The page inside a notebook: cells that are really executed, and what they show in Chromium."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, expect

from helpers.notebooks import execute, of_cells
from helpers.paths import REPOSITORY
from helpers.ports import free_port
from helpers.processes import wait_until_gone
from mnist_tb.runs.folder import Run

pytestmark = pytest.mark.slow

BOARD = "from mnist_tb.notebook import board, _pages\nboard({logdir!r}, height=700)"
PROCESS = "print([page.process.pid for page in _pages.values()])"
PLAIN = "%load_ext tensorboard\n%tensorboard --logdir {logdir!r} --port {port}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a web server shows it, as a notebook's: at another port than TensorBoard."""
    with http.server.ThreadingHTTPServer(("localhost", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield tmp_path, f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def opened(shown: str, served: tuple[Path, str], context: BrowserContext) -> tuple[Page, FrameLocator]:
    """What a cell shows, in the browser: the page, and TensorBoard's frame in it."""
    folder, address = served
    (folder / "cell.html").write_text(f"<!doctype html><title>cell</title>{shown}")
    page = context.new_page()
    page.goto(f"{address}/cell.html")
    return page, page.frame_locator("iframe")


def test_the_page_in_a_cell(finished: Run, served: tuple[Path, str], context: BrowserContext) -> None:
    """A second cell shows the same page again, which is gone with the kernel."""
    ports, processes = set(), []

    def look(number: int, shown: str) -> None:
        if number == 2:
            processes.extend(int(pid) for pid in shown.strip(" []\n").split(","))
            return
        page, board = opened(shown, served, context)
        board.frame_locator("iframe").get_by_role("button", name=finished.name).wait_for(timeout=60_000)
        ports.add(page.frames[1].url.split(":")[2].split("/")[0])
        expect(page.locator("iframe")).to_have_attribute("height", "700")

    shown = BOARD.format(logdir=str(finished.path.parent))
    execute(of_cells(shown, shown, PROCESS), REPOSITORY, look)
    assert len(ports) == len(processes) == 1
    wait_until_gone(processes)


def test_tensorboards_own_command_has_the_tab_too(
    finished: Run, served: tuple[Path, str], context: BrowserContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its TensorBoard may outlive the kernel: it is ended here, whatever comes before. It alone is in this TMPDIR."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))

    def known() -> list[int]:
        return [json.loads(path.read_text())["pid"] for path in tmp_path.glob(".tensorboard-info/*.info")]

    started: list[int] = []

    def look(number: int, shown: str) -> None:
        started.extend(known())
        _, board = opened(shown, served, context)
        board.get_by_role("tab", name="Live").click(timeout=60_000)
        board.frame_locator("iframe").get_by_role("button", name=finished.name).wait_for(timeout=60_000)

    try:
        execute(of_cells(PLAIN.format(logdir=str(finished.path.parent), port=free_port())), REPOSITORY, look)
    finally:
        processes = [*{*started, *known()}]
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_until_gone(processes)
    assert len(started) == 1
