"""What a run needs to go on: its configuration with what is to be different, its metrics and its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mnist_tb.config.load import settings_over_total
from mnist_tb.config.schema import Config
from mnist_tb.errors import InputError, command_line
from mnist_tb.runs.folder import Run
from mnist_tb.training.checkpoint import load
from mnist_tb.training.results import run_config


@dataclass(frozen=True)
class ResumeOptions:
    """What is to be different when a run goes on; None leaves it as it was.

    epochs: how many there are to be in all; more than before extend the run.
    constant: whether the epochs that are added have a constant learning rate: lr, or else the run's `train.lr`. It is
    needed where the run's schedule is laid out over the epochs it has.
    """

    epochs: int | None = None
    device: str | None = None
    data_root: str | None = None
    constant: bool = False
    lr: float | None = None


def read_to_resume(run: Run, options: ResumeOptions) -> tuple[Config, dict[str, Any], dict[str, Any] | None]:
    """A run's configuration, its metrics, and its last checkpoint if it has one.

    Raises InputError where the run cannot be resumed so.
    """
    known = run.read_metrics()
    config = _resumed_config(run, options)
    return config, known, load(run.last_checkpoint) if run.last_checkpoint.exists() else None


def _resumed_config(run: Run, options: ResumeOptions) -> Config:
    before = run_config(run, options.device, options.data_root)
    epochs, laid_out = before.train.epochs, settings_over_total(before)
    if options.lr is not None and not options.constant:
        raise InputError("--lr: is the rate of added epochs, and needs --schedule-from-here constant")
    changes: list[tuple[str, str, object]] = []
    if options.epochs is not None:
        changes.append(("--epochs", "train.epochs", options.epochs))
    if options.constant and laid_out:
        changes.append(("--schedule-from-here", "schedule.epochs", epochs))
    if options.lr is not None:
        changes.append(("--lr", "schedule.after", options.lr))
    config = run_config(run, options.device, options.data_root, changes)
    if config.train.epochs < epochs:
        raise InputError(f"--epochs {options.epochs}: the run has {epochs} epochs; it can only be extended")
    if options.constant and config.train.epochs == epochs:
        raise InputError(f"--schedule-from-here: needs --epochs with more than the {epochs} that the run has")
    if options.constant and not laid_out:
        raise InputError("--schedule-from-here: no schedule of this run ends here; extend it by --epochs alone")
    if config.train.epochs > epochs and laid_out and not options.constant:
        verb = "is" if len(laid_out) == 1 else "are"
        raise InputError(
            f"--epochs {options.epochs}: {' and '.join(laid_out)} of this run {verb} laid out over its {epochs} epochs,"
            " and would change what has been trained. Either the added epochs have a constant learning rate:"
            " --schedule-from-here constant; or begin a new run from its weights:"
            f" {command_line('train', '--init-from', run.path)}"
        )
    return config
