"""How long it takes from the writing of a value until the open page shows it, in Live and in Time Series.

`make bench` runs it, on a quiet machine; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from page import opened
from playwright.sync_api import Page
from results import machine, spread, table, write_section

from mnist_tb.events.status import Status
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter

STATUS = Status(phase="training", dataset="mnist", device="cpu", precision="fp32")  # no epochs: the page shows steps
RUN = "0001-quiet"


def latencies(values: int, write: Callable[[int], None], shown: Callable[[], int]) -> list[float]:
    """Seconds from each value's writing until the page shows it. The page shows the number that was written."""
    times = []
    for value in range(1, values + 1):
        time.sleep(0.37 * (value % 4))  # at every place between two reloads
        write(value)
        start = time.monotonic()
        while shown() != value:
            if time.monotonic() - start > 30:
                raise TimeoutError(f"value {value} never came")
            time.sleep(0.02)
        times.append(time.monotonic() - start)
    return times


def in_live(page: Page, writer: EventWriter, values: int) -> list[float]:
    progress = page.frame_locator("iframe").locator(".progress span")
    progress.wait_for(timeout=60_000)

    def write(value: int) -> None:
        writer.live_data(value, LIVE_STATUS, replace(STATUS, step=7000 + value).to_json().encode())

    return latencies(values, write, lambda: int(progress.inner_text().split()[0].replace(",", "")) - 7000)


def in_time_series(page: Page, writer: EventWriter, values: int) -> list[float]:
    chart = page.locator("scalar-card", has=page.locator('[title="loss/train"]')).first.locator("line-chart").first
    chart.wait_for(timeout=60_000)

    def write(value: int) -> None:
        writer.scalars(2**value, {"loss/train": float(value)})  # so the newest point stands apart, at the right end
        writer.live_data(2**value, LIVE_STATUS, replace(STATUS, step=2**value).to_json().encode())  # as a training does

    def shown() -> int:
        """What the tooltip says near the right end; not at it, where the line of the selected step says nothing."""
        box = chart.bounding_box()
        if box is None:
            return 0
        page.mouse.move(box["x"] + box["width"] - 75 - time.monotonic_ns() % 3, box["y"] + box["height"] / 2)
        page.wait_for_timeout(60)
        text = str(page.evaluate("[...document.querySelectorAll('table.tooltip')].map(t => t.innerText).join()"))
        step = text.partition(RUN)[2].split()[1:2]
        return int(step[0].replace(",", "")).bit_length() - 1 if step else 0

    return latencies(values, write, shown)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for title, place, measure in (("Live", "", in_live), ("Time Series", "#timeseries", in_time_series)):
        with tempfile.TemporaryDirectory() as folder, EventWriter(made(Path(folder) / RUN)) as writer:
            for step in (0, 1):
                writer.scalars(step, {"loss/train": float(step)})
            writer.live_data(0, LIVE_STATUS, STATUS.to_json().encode())
            writer.flush()
            with opened(Path(folder), place) as page:
                rows.append([title, spread(measure(page, writer, options.values), ".2f")])
                print(rows[-1], flush=True)
    about = f"Seconds from writing a value until the page shows it, {options.values} values. {machine()}"
    write_section("Latency of the page", f"{about}\n\n{table(['page', 'median [least to most]'], rows)}")


if __name__ == "__main__":
    main()
