"""The status of a run: its words, and what the Live tab shows, written by the training, read by the board."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

RUNNING, COMPLETED, INTERRUPTED, PRUNED, FAILED = "running", "completed", "interrupted", "pruned", "failed"
STATES = (RUNNING, COMPLETED, INTERRUPTED, PRUNED, FAILED)
"""What a training says of itself, in metrics.json and in the event file."""
KILLED, UNKNOWN = "killed", "unknown"
"""What a listing says of a run besides: no process has it, though it says running; and another program's."""
SILENT, FOREIGN = "silent", "foreign"
"""The same, as the Live tab says it, which knows event files alone: nothing is heard of it; and another program's."""
PLUGIN = "live"
"""The Live tab's name in TensorBoard."""


@dataclass(frozen=True)
class Status:
    """The status of a run. What is not known yet is None.

    state: one of STATES. phase: what it is doing, in a word or two.
    seed: of the training; runs that share it and the settings of HParams are repeats.
    epoch, batch: from 1. step: completed updates. Losses in nats, accuracies from 0 to 1.
    seconds: since the run began. remaining: seconds of training that are left, at the rate so far.
    """

    state: str = RUNNING
    phase: str = "starting"
    dataset: str = ""
    device: str = ""
    precision: str = ""
    epoch: int = 0
    epochs: int = 0
    batch: int = 0
    batches: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_images: int | None = None
    lr: float | None = None
    images_per_second: float | None = None
    seconds: float = 0.0
    remaining: float | None = None
    error: str = ""
    seed: int | float | str | None = None

    def to_json(self) -> str:
        """As JSON; numbers that are not finite become null."""
        return json.dumps({key: _finite(value) for key, value in asdict(self).items()}, ensure_ascii=False)


def status_from_json(text: str | bytes) -> Status | None:
    """A Status from its JSON; None where it is something else. Keys of a later version are ignored."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("state") not in STATES:
        return None
    known = {field.name: (field, values[field.name]) for field in fields(Status) if field.name in values}
    if not all(_fits(field.type, value) for field, value in known.values()):
        return None
    return Status(**{name: value for name, (_, value) in known.items()})


def _fits(kind: Any, value: Any) -> bool:
    names = str(kind).split(" | ")
    if value is None:
        return "None" in names
    if isinstance(value, bool):
        return False
    return (
        ("str" in names and isinstance(value, str))
        or ("int" in names and isinstance(value, int))
        or ("float" in names and isinstance(value, (int, float)) and math.isfinite(value))
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
