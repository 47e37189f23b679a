"""How time, memory and files grow: with epochs, with points a curve, and with runs in TensorBoard.

`make bench` runs it; the result is a section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from results import machine, table, write_section
from speed import ours, run

from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import create_run, list_run_folders
from mnist_tb.tracking import charts

CURVES = 9
SAMPLES = "scalars=20000,images=100,histograms=200,text=100"


def with_epochs(data_root: str, counts: list[int]) -> str:
    rows = []
    for epochs in counts:
        result = run(ours(), data_root, epochs, 0)
        rows.append(
            [
                f"{epochs:,}",
                f"{result.seconds:.1f}",
                f"{result.seconds / epochs:.2f}",
                f"{result.memory:.0f}",
                f"{result.events:.2f}",
                f"{1e3 * result.events / epochs:.0f}",
            ]
        )
        print(rows[-1], flush=True)
    return table(["epochs", "training s", "s an epoch", "peak memory MB", "event file MB", "kB an epoch"], rows)


def with_points(data_root: str, everies: list[int], epochs: int) -> str:
    """Ever more points from the same training, then how long TensorBoard takes to serve a whole curve."""
    rows = []
    for every in everies:
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--data-root", data_root, "--logdir", folder, "--epochs", str(epochs)]
            settings = ["--set", f"tracking.scalars_every={every}"]
            command = [sys.executable, *ours().command, *arguments, *settings]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit("the training failed")
            finished = list_run_folders(Path(folder))[0]
            size = sum(path.stat().st_size for path in finished.path.glob("events.*"))
            points = epochs * 860 // every
            served = serving_seconds(Path(folder), partial(shows_points, finished.name, points))
            row = [f"{points:,}", f"{finished.read_metrics()['train_seconds']:.1f}", f"{usage.ru_maxrss / 1e3:.0f}"]
            rows.append([*row, f"{size / 1e6:.2f}", f"{served:.1f}"])
            print(rows[-1], flush=True)
    return table(
        ["points a curve", "training s", "peak memory MB", "event file MB", "TensorBoard serves it after s"], rows
    )


def with_runs(counts: list[int], points: int) -> str:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        for count in counts:
            for i in range(len(list_run_folders(logdir)), count):
                invent(logdir, points, seed=i)
            seconds = serving_seconds(logdir, partial(shows_runs, count))
            size = sum(path.stat().st_size for path in logdir.rglob("events.*")) / 1e6
            rows.append([f"{count:,}", f"{size:.1f}", f"{seconds:.1f}"])
            print(rows[-1], flush=True)
    return table(["runs", "event files MB", "TensorBoard lists them all after s"], rows)


def invent(logdir: Path, points: int, seed: int) -> None:
    """A run with the curves of a training, but invented values, through the real writer."""
    random = np.random.default_rng(seed)
    made = create_run(logdir, "invented", "", {"status": "completed"})
    names = (charts.LOSS_TRAIN, charts.ACCURACY_TRAIN, charts.LR, charts.GRAD_NORM, charts.THROUGHPUT)
    more = (charts.LOSS_VAL, charts.ACCURACY_VAL, charts.LOSS_TEST, charts.ACCURACY_TEST)
    assert len(names + more) == CURVES
    with EventWriter(made.path) as writer:
        writer.hparams({"train.lr": float(random.random()), "seed": seed}, made.name)
        for step in range(points):
            writer.scalars(step, {name: float(random.random()) for name in names + more})
        writer.status("completed")


def serving_seconds(logdir: Path, complete: Callable[[str], bool]) -> float:
    """From starting TensorBoard, as `make board` does, until `complete(address)`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    start = time.perf_counter()
    board = subprocess.Popen(
        [*command, "--reload_interval", "1", "--samples_per_plugin", SAMPLES],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.perf_counter() - start < 300:
            try:
                if complete(f"http://127.0.0.1:{port}"):
                    return time.perf_counter() - start
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("TensorBoard does not show everything after five minutes")
    finally:
        board.terminate()
        board.wait()


def shows_runs(count: int, address: str) -> bool:
    """Whether so many runs are listed with all their curves."""
    with urllib.request.urlopen(f"{address}/data/plugin/scalars/tags", timeout=60) as answer:
        found: dict[str, dict[str, object]] = json.load(answer)
    return sum(len(tags) >= CURVES for tags in found.values()) >= count


def shows_points(name: str, count: int, address: str) -> bool:
    """Whether so many points of the training loss are served."""
    query = urllib.parse.urlencode({"run": name, "tag": charts.LOSS_TRAIN})
    try:
        with urllib.request.urlopen(f"{address}/data/plugin/scalars/scalars?{query}", timeout=60) as answer:
            return len(json.load(answer)) >= count
    except urllib.error.HTTPError:  # not read yet
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--epochs", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--scalars-every", type=int, nargs="*", default=[17, 4, 1])
    parser.add_argument("--points-epochs", type=int, default=20)
    parser.add_argument("--runs", type=int, nargs="*", default=[10, 100, 1_000])
    options = parser.parse_args()
    text = f"""
{machine()}

The default configuration, everything tracked, a process each.

{with_epochs(options.data_root, options.epochs)}

{options.points_epochs} epochs each, a point of the training curves ever more often; then TensorBoard on that run.

{with_points(options.data_root, options.scalars_every, options.points_epochs)}

Invented runs of {CURVES} curves with 100 points each, written through the writer.

{with_runs(options.runs, 100)}
"""
    write_section("Growth", text)


if __name__ == "__main__":
    main()
