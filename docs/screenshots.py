"""Take the README's picture: TensorBoard in headless Chromium, over the runs of a log folder.

`make screenshots` runs it. Needs Chromium or Chrome on the PATH, or its path in CHROMIUM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

PINNED = ("loss/train", "accuracy/train", "loss/val")
PICTURES = ("predictions/test", "mistakes/test", "confusion/test")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tensorboard.png")
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(arguments.logdir), "--port", str(port)]
    samples = ["--samples_per_plugin", "scalars=5000,images=100"]
    board = subprocess.Popen([*command, *samples], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run = newest_run(f"http://localhost:{port}/data/plugin/images/tags")
        shoot(f"http://localhost:{port}/", run, arguments.out)
    finally:
        board.terminate()
        board.wait()


def newest_run(address: str) -> str:
    """Wait until TensorBoard has read the runs, at most a minute; the name of the last of them."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if runs := json.load(answer):
                    return max(runs)
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit("TensorBoard shows no runs; train first")


def shoot(address: str, run: str, out: Path) -> None:
    """Time Series with the main curves and the last run's pictures pinned on top."""
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium found; install it (Debian: apt-get install chromium) or set CHROMIUM")
    cards = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    cards += [{"plugin": "images", "runId": f"defaultExperimentId/{run}", "tag": tag, "sample": 0} for tag in PICTURES]
    query = urllib.parse.urlencode({"smoothing": 0, "pinnedCards": json.dumps(cards)})
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser_path, args=FLAGS, viewport={"width": 1440, "height": 990}
        )
        page = context.new_page()
        page.goto(f"{address}?{query}#timeseries")
        page.wait_for_selector("scalar-card", timeout=60_000)
        page.locator("button", has_text="Settings").click()  # close the panel: room for the curves
        page.wait_for_timeout(5_000)
        page.screenshot(path=str(out))
        context.close()


if __name__ == "__main__":
    main()
