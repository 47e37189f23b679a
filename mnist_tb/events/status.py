"""The status of a run: its words, and what the Live tab shows, written by the training, read by the board."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar

RUNNING, COMPLETED, INTERRUPTED, PRUNED, FAILED = "running", "completed", "interrupted", "pruned", "failed"
STATES = (RUNNING, COMPLETED, INTERRUPTED, PRUNED, FAILED)
"""What a training says of itself, in metrics.json and in the event file."""
KILLED, SILENT, UNKNOWN = "killed", "silent", "unknown"
"""What others say of it: no process has it, though it says running; the same as Live says it, which knows event files
alone and hears nothing of it; and a run of another program."""
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

    __pydantic_config__: ClassVar[dict[str, Any]] = {"allow_inf_nan": False}

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
        values = vars(self).items()
        return json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values})


def status_from_json(text: str | bytes) -> Status | None:
    """A Status from its JSON; None if it is something else. Keys of a later version are ignored."""
    from pydantic import ValidationError

    try:
        status: Status = _form().validate_json(text, strict=True)
    except ValidationError:
        return None
    return status if status.state in STATES else None


@functools.cache
def _form() -> Any:
    from pydantic import TypeAdapter  # slow to import

    return TypeAdapter(Status)
