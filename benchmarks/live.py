"""What the Live tab asks of its server and of the browser: answers, the main thread, and the page's memory over time.

    python benchmarks/live.py --data-root data [--minutes 30]

1,000 runs, three of which write a status twice a second; then a real training with its page open for half an hour. The
result is a section of benchmarks/RESULTS.md. The memory is measured after the browser has collected its garbage.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from page import opened
from playwright.sync_api import CDPSession, Page
from results import machine, spread, table, write_section

from mnist_tb.events.status import Status
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter

RUNS, RUNNING, ASKED = 1_000, 3, 40
STATUS = Status(dataset="invented", device="cpu", precision="fp32", epoch=1, epochs=3, batch=10, batches=100, steps=300)


def invent(logdir: Path) -> None:
    for number in range(RUNS - RUNNING):
        with writer_of(logdir, number) as writer:
            for step in (100, 200, 300):
                writer.scalars(step, {f"{kind}/{split}": 1 / step for kind in ("loss", "accuracy")
                                      for split in ("train", "val")})  # fmt: skip
            said = replace(STATUS, state="completed", step=300, test_accuracy=0.9).to_json()
            writer.live_data(300, LIVE_STATUS, said.encode())


def writer_of(logdir: Path, number: int) -> EventWriter:
    folder = logdir / f"{number:04d}-invented"
    folder.mkdir(parents=True)
    return EventWriter(folder)


@contextmanager
def running(logdir: Path) -> Iterator[None]:
    """Three runs that write their status twice a second, until the end of the block."""
    ended = threading.Event()
    with ExitStack() as stack:
        writers = [stack.enter_context(writer_of(logdir, RUNS + number)) for number in range(RUNNING)]

        def work() -> None:
            step = 0
            while not ended.wait(0.5):
                step += 1
                for writer in writers:
                    writer.scalars(step, {"loss/train": 1 / step, "accuracy/train": 1 - 1 / step})
                    said = replace(STATUS, phase="training", step=step, loss=1 / step).to_json()
                    writer.live_data(step, LIVE_STATUS, said.encode())

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def answers(address: str) -> tuple[list[float], list[float]]:
    """Milliseconds of an answer that tells of all runs, and of those that tell of what has changed."""
    times: dict[str, list[float]] = {"0": [], "changed": []}
    number = "0"
    for _ in range(ASKED):
        for since, kind in (("0", "0"), (number, "changed")):
            start = time.perf_counter()
            with urllib.request.urlopen(f"{address}data/plugin/live/runs?since={since}", timeout=30) as answer:
                text = answer.read()
            times[kind].append(1e3 * (time.perf_counter() - start))
            number = text.partition(b'"number": ')[2].partition(b",")[0].decode() or "0"
        time.sleep(0.2)
    return times["0"], times["changed"]


def metrics(session: CDPSession) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}


HIDE = "hidden => Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true})"


def main_thread(page: Page, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of processor time of the page's main thread for each poll of ours, and without them.

    Over windows of five seconds, in turn: the tab asks nothing while it believes to be hidden, and TensorBoard goes on.
    """
    session, polls = page.context.new_cdp_session(page), [0]
    session.send("Performance.enable")
    page.on("request", lambda request: polls.append(1) if "/plugin/live/runs" in request.url else None)
    found: dict[bool, list[float]] = {False: [], True: []}
    for window in range(2 * round(seconds / 10)):
        hidden = window % 2 == 1
        page.frames[1].evaluate(HIDE, hidden)
        page.wait_for_timeout(1_500)  # what is under way ends
        polls.clear()
        before = metrics(session)["ThreadTime"]
        page.wait_for_timeout(5_000)
        found[hidden].append(1e3 * (metrics(session)["ThreadTime"] - before) / (10 if hidden else max(len(polls), 1)))
    return found[False], found[True]


def memory(data_root: str, minutes: int) -> list[float]:
    """Megabytes of the page's heap, each minute of a training."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["train", "--logdir", folder, "--epochs", "2000", "--data-root", data_root]
        training = subprocess.Popen(
            [sys.executable, "-m", "mnist_tb", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # the other core is the browser's
        )
        try:
            with opened(Path(folder)) as page:
                page.frame_locator("iframe").locator(".panel.evidence").wait_for(timeout=300_000)
                session, found = page.context.new_cdp_session(page), []
                session.send("Performance.enable")
                for _ in range(minutes):
                    page.wait_for_timeout(60_000)
                    session.send("HeapProfiler.collectGarbage")
                    found.append(metrics(session)["JSHeapUsedSize"] / 1e6)
                    print(f"{found[-1]:.1f} MB", flush=True)
        finally:
            training.terminate()
            training.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--minutes", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        invent(logdir)
        with running(logdir), opened(logdir) as page:
            page.frame_locator("iframe").locator(".row").nth(RUNS - 1).wait_for(state="attached", timeout=120_000)
            page.wait_for_timeout(5_000)
            busy, without = main_thread(page, 60)
            all_runs, changed = answers(page.url.partition("#")[0])
    rows = [
        ["answer to `/runs`, all of 1,000 runs, ms", spread(all_runs, ".0f")],
        ["answer to `/runs`, what has changed, ms", spread(changed, ".0f")],
        ["main thread a poll, 1,000 runs, three of them running and unfolded, ms", spread(busy, ".0f")],
        ["the same while the tab is hidden: TensorBoard's own", spread(without, ".0f")],
    ]
    text = f"{machine()}\n\n{table(['', 'median [least to most]'], rows)}"
    if options.minutes:
        heap = memory(options.data_root, options.minutes)
        third = max(len(heap) // 3, 1)
        parts = [statistics.mean(heap[third * part :][:third]) for part in range(3)]
        text += (
            f"\n\nThe page's heap over {options.minutes} minutes of a training of MNIST, its time machine open, MB: "
        )
        text += f"{heap[0]:.1f} after a minute; means of the thirds {', '.join(f'{part:.1f}' for part in parts)}."
    write_section("The Live tab", text)


if __name__ == "__main__":
    main()
