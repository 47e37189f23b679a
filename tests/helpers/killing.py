"""Trainings that are killed at random instants of their life, resumed, and compared with one that was not.

`make torture` runs it with fifty kills; the tests use it with a few. Everything is seeded by --seed but the operating
system's own timing.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from helpers.paths import REPOSITORY
from helpers.zygote import Zygote
from mnist_tb.events import records, tags
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.training import checkpoint

CONFIG = REPOSITORY / "configs" / "digits.yaml"
TIMED = "throughput/images_per_second"  # the only curve that is not the same twice
EPOCHS = 4
SETTINGS = ("tracking.checkpoint_seconds=0.05", "tracking.scalars_every=3")

Curves = dict[str, list[tuple[int, float]]]


def command(logdir: Path, epochs: int = EPOCHS) -> list[str]:
    """The arguments to train, or to resume the run that is there."""
    if list_run_folders(logdir):
        return ["resume", "last", "--logdir", str(logdir)]
    settings = [word for setting in (f"train.epochs={epochs}", *SETTINGS) for word in ("--set", setting)]
    return ["train", "--config", str(CONFIG), "--logdir", str(logdir), *settings]


def complete(zygote: Zygote, logdir: Path, epochs: int = EPOCHS) -> Run:
    """Train or resume until the run is complete."""
    code, out, error = zygote.run(*command(logdir, epochs))
    assert code == 0, out + error
    run = list_run_folders(logdir)[-1]
    assert run.read_metrics()["status"] == "completed"
    return run


def kill(zygote: Zygote, logdir: Path, seconds: float, epochs: int = EPOCHS) -> str:
    """Train or resume, and kill that after so many seconds, or let it end before; what the run then is."""
    process = zygote.start(*command(logdir, epochs))
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    found = list_run_folders(logdir)
    if not found:
        return "not begun"
    known = found[-1].read_metrics()
    saved = found[-1].last_checkpoint
    return known["status"] if not saved.exists() else f"{known['status']}, step {checkpoint.load(saved)['step']}"


OF_THE_PROCESS = (tags.LIVE_STATUS, tags.ENVIRONMENT_TEXT)
"""What each process says that works on a run: that of a resumed run has it once more."""


def curves(run: Run) -> Curves:
    """Every scalar but the timed one, through TensorBoard's Python reader, nothing sampled away."""
    sizes = dict.fromkeys(("scalars", "images", "histograms", "compressedHistograms", "tensors", "audio"), 0)
    read = EventAccumulator(str(run.path), size_guidance=sizes).Reload()
    known = read.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in known if tag != TIMED}


def record_counts(run: Run) -> collections.Counter[tuple[str, int]]:
    """How often each tag stands at each step in the files, read one after the other, record by record."""
    found: collections.Counter[tuple[str, int]] = collections.Counter()
    for name in records.sizes(run.path):
        for event in EventFileLoader(str(run.path / name)).Load():
            found.update((value.tag, event.step) for value in event.summary.value if value.tag not in OF_THE_PROCESS)
    return found


def differences(run: Run, whole: Run) -> list[str]:
    """What a resumed run has otherwise than one that was never interrupted; nothing, it is to be hoped."""
    found = []
    for name in ("model", "optimizer"):
        ours, theirs = (checkpoint.load(r.last_checkpoint)[name] for r in (run, whole))
        found += [f"{name} {key}" for key in theirs if not torch.equal(ours[key], theirs[key])]
    ours, theirs = (torch.load(r.weights, weights_only=True) for r in (run, whole))
    found += [f"weights {key}" for key in theirs if not torch.equal(ours[key], theirs[key])]
    if curves(run) != curves(whole):
        found.append("curves")
    ours, theirs = record_counts(run), record_counts(whole)
    found += [f"{tag} at {step}: {ours[tag, step]} times" for tag, step in ours | theirs if ours[tag, step] != 1]
    if ours != theirs:
        found.append("records")
    one, other = (json.loads(r.metrics.read_text(encoding="utf-8")) for r in (run, whole))
    found += [f"metrics: {key}" for key in ("test", "val", "best_step", "epoch", "step") if one[key] != other[key]]
    return found


def torture(
    zygote: Zygote, folder: Path, kills: int, kills_a_run: int, seed: int, epochs: int = EPOCHS
) -> tuple[int, int, list[str]]:
    """Kill so often, some times a run; runs that came out as if nothing had been, runs tried, and what was wrong."""
    instants = random.Random(seed)
    start = time.monotonic()
    whole = complete(zygote, folder / "whole", epochs)
    life = time.monotonic() - start
    survived, tried, wrong = 0, 0, []
    while tried * kills_a_run < kills:
        logdir = folder / f"{tried:02d}"
        states = [kill(zygote, logdir, instants.uniform(0, 1.05) * life, epochs) for _ in range(kills_a_run)]
        found = differences(complete(zygote, logdir, epochs), whole)
        tried += 1
        survived += not found
        wrong += [f"run {tried} ({'; '.join(states)}): {difference}" for difference in found]
        print(f"run {tried}: killed when {'; '.join(states)}: {found or 'as if nothing had been'}", flush=True)
    return survived, tried, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-a-run", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=100, help="so many that most of its life is training")
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    options = parser.parse_args()
    print(f"--seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        zygote = Zygote()
        how_often = (options.kills, options.kills_a_run, options.seed, options.epochs)
        survived, tried, wrong = torture(zygote, Path(folder), *how_often)
        zygote.close()
    print(f"survived / tried: {survived} / {tried}, {options.kills_a_run} kill(s) each")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
