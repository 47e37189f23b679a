"""What a sweep costs beyond its trainings: over ever more tiny trials, and over one that is killed three times.

`make bench` runs it; the results are two sections of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from results import machine, table, write_section

from mnist_tb.runs.folder import list_run_folders
from mnist_tb.sweep import plan as plans
from mnist_tb.sweep.storage import JOURNAL
from mnist_tb.sweep.study import Study

ROOT = Path(__file__).parent.parent
WORKERS = 2
TINY: dict[str, Any] = {
    "base": str(ROOT / "configs" / "digits.yaml"),
    "set": {
        "train": {"epochs": 1, "batch_size": 256},
        "model": {"channels": [2, 2, 2]},
        "tracking": {"projector": False, "images_every": 0, "histograms_every": 0},
    },
    "space": {"train.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "train.label_smoothing": {"low": 0.0, "high": 0.2}},
}
SHORT: dict[str, Any] = {
    "base": str(ROOT / "configs" / "default.yaml"),
    "set": {"train": {"epochs": 4}},
    "space": {
        "train.lr": {"low": 2e-4, "high": 1e-2, "log": True},
        "train.label_smoothing": {"low": 0.0, "high": 0.2},
    },
    "sampler": {"name": "tpe"},
}


def command(file: Path, logdir: Path, *arguments: str) -> list[str]:
    words = ["--logdir", str(logdir), "--workers", str(WORKERS), *arguments]
    return [sys.executable, "-m", "mnist_tb", "sweep", str(file), *words]


def write(folder: Path, values: dict[str, Any], trials: int, **more: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**values, "trials": trials, **more}))
    return file


def own_seconds(folder: Path) -> list[float]:
    """How long each run was there as running, from its folder to its end."""
    metrics = [run.read_metrics() for run in list_run_folders(folder)]
    return [known["ended"] - known["started"] for known in metrics]


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def growth(counts: list[int], sampler: str, storage: str | None) -> list[list[str]]:
    """A row for each number of trials."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            file = write(Path(place), TINY, count, name=f"tiny{sampler}{count}", sampler={"name": sampler})
            arguments = [] if storage is None else ["--storage", storage]
            began = time.perf_counter()
            subprocess.run(command(file, Path(place) / "runs", *arguments), check=True, stdout=subprocess.DEVNULL)
            wall = time.perf_counter() - began
            folder = Path(place) / "runs" / f"tiny{sampler}{count}"
            own = own_seconds(folder)
            assert len(own) == count
            between = 1e3 * (WORKERS * wall - sum(own)) / count
            last = _gaps(folder)
            journal = (folder / JOURNAL).stat().st_size / count / 1e3 if storage is None else float("nan")
            rows.append(
                [
                    "journal" if storage is None else "PostgreSQL", sampler, f"{count:,}", f"{wall:.1f}",
                    f"{statistics.mean(own):.3f}", f"{between:,.0f}", f"{1e3 * last:,.0f}",
                    f"{megabytes(folder) / count:.2f}", "–" if storage else f"{journal:.1f}",
                ]
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def _gaps(folder: Path) -> float:
    """The median time between the end of a run and the beginning of its worker's next one, in the last tenth."""
    known = sorted((m["started"], m["ended"]) for m in (run.read_metrics() for run in list_run_folders(folder)))
    ends: list[float] = []
    gaps = []
    for started, ended in known:
        free = [end for end in ends if end <= started]
        if free:
            ends.remove(max(free))
            gaps.append(started - max(free))
        ends.append(ended)
    return statistics.median(gaps[-max(len(gaps) // 10, 1) :])


@contextmanager
def postgres_server() -> Iterator[str | None]:
    """A PostgreSQL of our own, or None where there is none to be had."""
    sys.path.insert(0, str(ROOT / "tests"))
    import postgres

    found = postgres.programs()
    if found is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        server = postgres.Server(found, Path(place) / "server")
        try:
            yield server.url
        finally:
            server.stop()


def killed(trials: int, kills: int, seed: int, data_root: str) -> str:
    """A sweep that is killed, all its processes at once, and started again; what it cost and whether all is there."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        file = write(Path(place), SHORT, trials, name="killed")
        words = command(file, Path(place) / "runs", "--data-root", data_root)
        folder = Path(place) / "runs" / "killed"
        wall, at = 0.0, []
        for kill in range(kills):
            wanted = trials * (kill + chance.uniform(0.3, 1.0)) / (kills + 1)
            began = time.perf_counter()
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                done = sum(run.read_metrics()["status"] == "completed" for run in list_run_folders(folder))
                if line.startswith("Trial ") and done >= wanted:
                    break
            time.sleep(chance.uniform(0, 10))
            children = _children(process.pid)
            for one in (process.pid, *children):
                os.kill(one, signal.SIGKILL)
            process.communicate()
            wall += time.perf_counter() - began
            statuses = collections.Counter(run.read_metrics()["status"] for run in list_run_folders(folder))
            at.append(f"{statuses['completed']} complete and {statuses['running']} under way")
            print(at[-1], flush=True)
        began = time.perf_counter()
        subprocess.run(words, check=True)
        wall += time.perf_counter() - began
        with Study(plans.load_plan(file), folder, None) as study:
            results = study.results()
        metrics = [run.read_metrics() for run in list_run_folders(folder)]
        once = sorted(known["sweep"]["trial"] for known in metrics) == [one.number for one in results]
        complete = sum(known["status"] == "completed" for known in metrics)
        lasted = [known["ended"] - known["started"] for known in metrics]
        typical = statistics.median(lasted)
        own = sum(min(seconds, 2 * typical) if seconds < 2 * typical else typical for seconds in lasted)
        overhead = (WORKERS * wall - own) / own
        return f"""
{machine()}

{trials} trials of four epochs of MNIST, {WORKERS} workers with a thread each, TPE. {kills} times all of its processes
were killed at once, when {"; ".join(at)}; then the same command was given again (seed {seed}).

- trials: {len(results)} finished, {complete} runs complete, each trial's run there once: {once}
- {WORKERS} workers took {wall:.0f} s in all {kills + 1} times together; a trial {typical:.1f} s (median)
- beyond the trials' own time: {overhead:.1%}, with all starts, what was lost by the kills, and the end
"""


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                its = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if its == parent:
                found.append(int(folder.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("MNIST_TB_DATA_ROOT", "data"))
    parser.add_argument("--only", choices=["growth", "killed"])
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 1_000])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    options = parser.parse_args()
    if options.only != "growth":
        write_section(
            "A sweep, killed three times", killed(options.trials, options.kills, options.seed, options.data_root)
        )
    if options.only != "killed":
        rows = growth(options.counts, "tpe", None)
        with postgres_server() as url:
            if url is not None:
                rows += growth(options.counts[:2], "tpe", url)
        titles = ["storage", "sampler", "trials", "wall s", "a run s", "beyond it ms", "of these late ms", "MB a run",
                  "journal kB a trial"]  # fmt: skip
        write_section(
            "Sweeps",
            f"""
{machine()}

Tiny trials, {WORKERS} workers with a thread each: one epoch of scikit-learn's digits, two filters a layer, no pictures.
A run: from its folder to its end. Beyond it: what {WORKERS} workers took in all less the runs, a trial: start-up,
sampling, storage. Of these late: the median pause between two runs of a worker, in the last tenth of the trials.

{table(titles, rows)}
""",
        )


if __name__ == "__main__":
    main()
