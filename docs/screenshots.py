"""Take pictures of every tab of the board, and of a report, in headless Chromium, over the runs of a log folder.

`make screenshots` runs it, and keeps those that the README shows in docs/; all the others go to docs/tabs/, which git
does not keep. Needs Chromium or Chrome on the PATH, or its path in CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import BrowserContext, Page, sync_playwright

from mnist_tb.events import reader, tags
from mnist_tb.runs.folder import list_run_folders
from mnist_tb.tracking import figures

HERE = Path(__file__).parent
PINNED = ("loss/train", "accuracy/train", "loss/val")
PICTURES = ("predictions/test", "mistakes/test", "confusion/test")
TABS = ("custom_scalars", "images", "graphs", "distributions", "histograms", "text", "hparams", "scalars")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
SETTLED_MS = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logdir", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "mnist_tb", "board", "--no-browser", "--port", "6206"]
    board = subprocess.Popen([*command, "--logdir", str(arguments.logdir)], stdout=subprocess.PIPE, text=True)
    try:
        assert board.stdout is not None
        address = next(line.split()[1] for line in board.stdout if line.startswith("TensorBoard: "))
        contact_sheet(list_run_folders(arguments.logdir)[-1].path, arguments.out)
        run = newest_run(f"{address}data/plugin/images/tags")
        (arguments.out / "tabs").mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            for theme in ("light", "dark"):
                with tempfile.TemporaryDirectory() as profile:
                    browser = playwright.chromium.launch_persistent_context(
                        profile, executable_path=chromium(), args=FLAGS, viewport={"width": 1440, "height": 990}
                    )
                    shoot_all(browser, address, run, arguments.out, theme)
                    if theme == "light":
                        shoot_learning(browser, address, run, arguments.out)
                    shoot_report(browser, arguments.logdir, arguments.out, theme)
                    browser.close()
    finally:
        board.terminate()
        board.wait()


def chromium() -> str:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("no Chromium found; install it (Debian: apt-get install chromium) or set CHROMIUM")
    return path


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


def shoot_all(browser: BrowserContext, address: str, run: str, out: Path, theme: str) -> None:
    page = browser.new_page()
    page.goto(address)
    if theme == "dark":
        settings = "localStorage._tb_global_settings"
        page.evaluate(f"{settings} = JSON.stringify({{...JSON.parse({settings}), theme: 'dark'}})")
        page.reload()
    live = page.frame_locator("iframe")
    live.locator(".picture img").first.wait_for(timeout=60_000)
    page.set_viewport_size({"width": 1440, "height": 1760})  # down to the confusion matrix
    page.wait_for_timeout(SETTLED_MS)
    save(page, out, "live", theme)
    page.set_viewport_size({"width": 1440, "height": 990})
    page.goto(time_series(address, run))
    page.wait_for_selector("scalar-card", timeout=60_000)
    page.locator("button", has_text="Settings").click()  # close the panel: room for the curves
    page.wait_for_timeout(SETTLED_MS)
    save(page, out, "time_series", theme)
    for tab in TABS:
        page.goto("about:blank")
        page.goto(f"{address}#{tab}")
        page.wait_for_timeout(SETTLED_MS)
        save(page, out / "tabs", tab, theme)


LATE_LEARNT = """
async ([address, run]) => {
  const {parse, parseResult, probabilities} = await import(address + 'data/plugin/live/static/network.js');
  const ask = async path => (await fetch(`${address}data/plugin/live/${path}`));
  const {epochs} = await (await ask(`epochs?run=${run}`)).json();
  const networks = await Promise.all(epochs.map(async ([epoch]) =>
    parse(await (await ask(`weights?run=${run}&epoch=${epoch}`)).arrayBuffer())));
  const {images, classes} = await parseResult(await (await ask(`result?run=${run}`)).arrayBuffer());
  const courses = images.filter(({label, prediction}) => label === prediction).map(({index, label, pixels}) =>
    ({index, name: classes[label], course: networks.map(network => probabilities(network, pixels)[label])}));
  const known = courses.filter(({course}) => course.slice(-3).every(share => share > 0.93));
  const doubt = ({course}) => course.reduce((sum, share) => sum + 1 - share, 0);
  return known.sort((a, b) => doubt(b) - doubt(a))[0];
}
"""
"""Of the test images that are recognised in the end, the one that was in doubt for the longest."""


def shoot_learning(browser: BrowserContext, address: str, run: str, out: Path) -> None:
    """A test image becoming clear to the network, epoch after epoch: the time machine, played."""
    page = browser.new_page()
    page.set_viewport_size({"width": 1090, "height": 1100})
    page.goto(address)
    card = page.frame_locator("iframe").locator(".run").filter(has_text=run)
    card.locator(".matrix").wait_for(timeout=60_000)
    image = page.evaluate(LATE_LEARNT, [address, urllib.parse.quote(run)])
    card.locator(f'.matrix button[aria-label^="{image["name"]}, recognised"]').click()
    card.locator(f'.matrix button[title="test image {image["index"]}"]').click()
    slider, when = card.get_by_role("slider", name="epoch", exact=True), card.locator(".time output")
    card.evaluate("card => card.querySelector('.pad').style.padding = '12px'")
    frames = []
    for epoch in range(len(image["course"])):
        slider.evaluate("(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')); }", epoch)
        when.filter(has_text="untrained" if epoch == 0 else f"after epoch {epoch},").wait_for()
        page.wait_for_timeout(700)
        frames.append(Image.open(io.BytesIO(card.locator(".pad").screenshot())).convert("RGB"))
    times = [1_200, *[450] * (len(frames) - 2), 2_500]
    frames[0].save(
        out / "learning.webp", save_all=True, append_images=frames[1:], duration=times, loop=0, quality=82, method=6
    )


def shoot_report(browser: BrowserContext, logdir: Path, out: Path, theme: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        command = [sys.executable, "-m", "mnist_tb", "compare", "--group", "--logdir", str(logdir)]
        subprocess.run([*command, "--report", str(path)], check=True)
        page = browser.new_page()
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        page.goto(path.as_uri())
        page.wait_for_timeout(SETTLED_MS / 5)
        save(page, out, "report", theme)


def contact_sheet(run: Path, out: Path) -> None:
    """All pictures of a run's result on one sheet."""
    found = reader.read(run).pictures
    wanted = (tags.RESULTS, tags.CONFUSION, tags.MISTAKES, tags.CALIBRATION, tags.UNCERTAIN,
              tags.FILTERS, tags.FEATURES)  # fmt: skip
    pictures = [np.asarray(Image.open(io.BytesIO(found[tag][1])).convert("RGB")) for tag in wanted]
    Image.fromarray(figures.beside(pictures)).save(out / "pictures.png")


def time_series(address: str, run: str) -> str:
    """Time Series with the main curves and the last run's pictures pinned on top."""
    cards: list[dict[str, Any]] = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    cards += [{"plugin": "images", "runId": f"defaultExperimentId/{run}", "tag": tag, "sample": 0} for tag in PICTURES]
    query = urllib.parse.urlencode({"smoothing": 0, "pinnedCards": json.dumps(cards)})
    return f"{address}?{query}#timeseries"


def save(page: Page, out: Path, name: str, theme: str) -> None:
    folder = out if theme == "light" or out.name == "tabs" else out / "tabs"
    page.screenshot(path=str(folder / (f"{name}.png" if theme == "light" else f"{name}-{theme}.png")))


if __name__ == "__main__":
    main()
