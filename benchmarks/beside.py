"""How fast a training is beside other work: busy processes, and its own page open in a browser on the same cores.

    python benchmarks/beside.py --data-root data [--other CHECKOUT]

One epoch of the default configuration a measurement. --other: an older checkout, measured in turn with this one in
every condition. The result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from page import opened
from results import machine, spread, table, write_section

HERE = Path(__file__).parent.parent
BUSY = (0, 1, 2, 4)
PAGES = {"Live open": "", "Time Series open": "#timeseries"}


def speed(checkout: Path, data_root: str, logdir: Path, environment: dict[str, str]) -> float:
    """Images per second of a training of one epoch, in the log folder."""
    config = ["--config", str(checkout / "configs" / "default.yaml"), "--epochs", "1"]
    known = {path.name for path in logdir.iterdir()}
    subprocess.run(
        [sys.executable, "-m", "mnist_tb", "train", *config, "--logdir", str(logdir), "--data-root", data_root],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (made,) = (path for path in logdir.iterdir() if path.name not in known and (path / "metrics.json").exists())
    return float(json.loads((made / "metrics.json").read_text())["images_per_second"])


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--other", type=Path, help="an older checkout")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    root = str(Path(options.data_root).resolve())
    variants = {"now": HERE, **({"before": options.other.resolve()} if options.other else {})}
    found: dict[tuple[str, str], list[float]] = {}

    def measure(condition: str, logdir: Path, order: list[str]) -> None:
        for name in order:
            found.setdefault((condition, name), []).append(speed(variants[name], root, logdir, {}))
            print(condition, name, f"{found[condition, name][-1]:,.0f}", flush=True)

    for turn in range(options.rounds):
        order = [*variants][:: -1 if turn % 2 else 1]  # who is first changes from round to round
        with tempfile.TemporaryDirectory() as folder:
            for count in BUSY:
                with busy(count):
                    measure(f"{count} busy" if count else "quiet", Path(folder), order)
        for condition, place in PAGES.items():
            with tempfile.TemporaryDirectory() as folder:
                speed(HERE, root, Path(folder), {})  # something to show
                with opened(Path(folder), place) as page:
                    page.wait_for_timeout(5_000)
                    measure(condition, Path(folder), order)
    conditions = list(dict.fromkeys(condition for condition, _ in found))
    rows = []
    for condition in conditions:
        cells = [condition]
        for name in variants:
            share = statistics.median(found[condition, name]) / statistics.median(found["quiet", name])
            cells += [spread(found[condition, name], ",.0f"), f"{share:.0%}"]
        if len(variants) > 1:
            pairs = zip(found[condition, "now"], found[condition, "before"], strict=True)
            cells.append(f"{statistics.median(now / before for now, before in pairs):.2f}")
        rows.append(cells)
    titles = ["condition", *(word for name in variants for word in (f"{name}: images/s", "of quiet"))]
    titles += ["now / before, median of pairs"] if len(variants) > 1 else []
    about = f"One epoch of the default configuration, {options.rounds} rounds, all conditions and variants in turn."
    write_section("Beside other work", f"{about} {machine()}\n\n{table(titles, rows)}")


if __name__ == "__main__":
    main()
