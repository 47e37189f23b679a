"""Runs whose numbers are infinite, too large, or words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from helpers.board import TRAINING, write_status
from mnist_tb import Tracker
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter

ODD = {"inf": math.inf, "minus-inf": -math.inf, "nan": math.nan, "1e308": 1e308, "minus-1e308": -1e308}


def write_odd(logdir: Path) -> None:
    """Runs with odd numbers in every curve and status, of a Tracker and of another program; and a healthy one."""
    for name, value in ODD.items():
        with Tracker(logdir, name, {"lr": 0.1}, code=False) as tracker:
            for step, number in enumerate((0.5, value, 0.25, value)):
                tracker.scalars(
                    step, {f"{kind}/{split}": number for kind in ("loss", "accuracy") for split in ("train", "val")}
                )
        with SummaryWriter(str(logdir / f"other {name}")) as other:
            for step, number in enumerate((0.5, value)):
                for tag in ("loss", "acc", "val_loss", "val_acc"):
                    other.add_scalar(tag, number, step)
    odd_statuses: dict[str, dict[str, Any]] = {
        "words": {"loss": "infinite", "lr": "high", "step": "many"},
        "huge": {"state": "completed", "step": 10**400, "seconds": 1e308, "loss": 1e308, "test_images": 10**400},
    }
    for name, fields in odd_statuses.items():
        (logdir / name).mkdir()
        with EventWriter(logdir / name) as writer:
            writer.scalars(1, {"loss/train": 0.5})
            writer.live_data(1, LIVE_STATUS, json.dumps(asdict(TRAINING) | fields).encode())
    write_status(logdir / "healthy", replace(TRAINING, state="completed"))
