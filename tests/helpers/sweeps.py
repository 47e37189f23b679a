"""Small sweeps, and whether all of their trials are accounted for."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import yaml

from helpers.paths import REPOSITORY
from helpers.zygote import Zygote
from mnist_tb.runs.folder import list_run_folders
from mnist_tb.sweep.plan import Plan
from mnist_tb.sweep.study import Result, Study

TINY: dict[str, Any] = {
    "base": str(REPOSITORY / "configs" / "digits.yaml"),
    "set": {
        "train": {"epochs": 2},
        "model": {"channels": [4, 8, 8]},
        "tracking": {"projector": False, "checkpoint_seconds": 0.1, "images_every": 0},
    },
    "space": {"train.lr": {"low": 1e-3, "high": 1e-1, "log": True}, "train.batch_size": [32, 64]},
    "trials": 4,
    "sampler": {"name": "random"},
}


def write_file(folder: Path, **changes: Any) -> Path:
    """A sweep file: TINY with some keys changed; None removes a key."""
    path = folder / "tiny.yaml"
    kept = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def command(file: Path, logdir: Path, *arguments: str) -> list[str]:
    return ["sweep", str(file), "--logdir", str(logdir), *arguments]


def finish(zygote: Zygote, file: Path, logdir: Path, *arguments: str) -> str:
    code, out, error = zygote.run(*command(file, logdir, *arguments))
    assert code == 0, out + error
    return out


def accounted_for(plan: Plan, folder: Path, storage: str | None = None) -> list[Result]:
    """The sweep's results, after checking that each trial and each of its runs exists exactly once."""
    with Study(plan, folder, storage) as study:
        results = study.results()
        assert study.counts().finished == plan.trials
    assert [one.number for one in results] == list(range(plan.trials))
    found = [run.read_metrics() for run in list_run_folders(folder)]
    names = collections.Counter(
        (facts["sweep"]["trial"], facts["config"]["seed"]) for facts in found if facts["status"] == "completed"
    )
    wanted = {(one.number, seed): 1 for one in results if one.state == "complete" for seed in plan.seeds}
    assert names == wanted
    by_run = {(f["sweep"]["trial"], f["config"]["seed"]): f["val"]["accuracy"] for f in found if "val" in f}
    for one in results:
        for seed, accuracy in one.accuracies.items():
            assert accuracy == by_run[one.number, seed]
    return results


def workers(parent: int) -> list[int]:
    """The worker processes of a running sweep."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                its = int((folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            except OSError:
                continue
            if its == parent and b"mnist_tb.sweep.worker" in words:
                found.append(int(folder.name))
    return found
