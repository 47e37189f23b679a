"""`mnist-tb board` over a log folder, and its page in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@contextmanager
def opened(logdir: Path, place: str = "") -> Iterator[Page]:
    """The page at a place such as `#timeseries`, until the end of the block."""
    command = [sys.executable, "-m", "mnist_tb", "board", "--no-browser", "--logdir", str(logdir)]
    board = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert board.stdout is not None
    try:
        address = next(line.split()[1] for line in board.stdout if line.startswith("TensorBoard: "))
        with sync_playwright() as playwright:
            path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(f"{address}{place}")
            yield page
            browser.close()
    finally:
        board.terminate()
        board.communicate(timeout=30)
