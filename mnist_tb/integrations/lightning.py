"""Lightning's Logger: `Trainer(logger=TrackerLogger("runs", "mine"))`. Needs the extra `lightning`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import install_line

try:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.fabric.utilities.rank_zero import rank_zero_only, rank_zero_warn
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import Logger
except ImportError as error:
    raise ImportError(f"{__name__} needs Lightning: {install_line('lightning')}") from error

from torch import Tensor, nn

from mnist_tb.integrations.stages import Stages
from mnist_tb.integrations.tracker import Options


class TrackerLogger(Logger):
    """One run of a `Trainer`, with its validation and its test: status, settings, curves, checkpoints, the Live tab.

    Checkpoints go into the run's folder, where the Trainer has no other place for them.
    """

    def __init__(
        self,
        logdir: str | Path = "runs",
        name: str = "lightning",
        *,
        log_graph: bool = False,
        **options: Unpack[Options],
    ) -> None:
        """log_graph: write the module's layers, if it has an `example_input_array`. The others: as for `Tracker`."""
        super().__init__()
        self._logdir, self._log_graph, self._step = Path(logdir), log_graph, 0
        self._stages = Stages(logdir, name, options)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `Tracker`. After the end of one stage, such as `fit`, the next one goes on with the same run."""
        return self._stages.tracker

    @property
    def name(self) -> str:
        """Empty: the run is its version."""
        return ""

    @property
    def version(self) -> str:
        """The run's folder in the log folder, `0007-name`."""
        if self._stages.last is None:
            _ = self.experiment
        return "" if self._stages.last is None else self._stages.last.run.name

    @property
    def save_dir(self) -> str:
        return str(self._logdir)

    @property
    def log_dir(self) -> str:
        return str(self._logdir / self.version)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._step = self._step if step is None else step
        self.experiment.scalars(self._step, metrics)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **named: Any) -> None:
        self.experiment.settings(params)

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        given = getattr(model, "example_input_array", None) if input_array is None else input_array
        if self._log_graph and isinstance(given, Tensor):
            try:
                self.experiment.graph(model, tuple(given.shape))
            except ValueError as error:
                rank_zero_warn(str(error))

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """The paths of the best and the last checkpoint stand in metrics.json."""
        paths = {"best": checkpoint_callback.best_model_path, "last": checkpoint_callback.last_model_path}
        self.experiment.run.update_metrics(checkpoints={name: path for name, path in paths.items() if path})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The end of a stage; Lightning calls it while the error that ended one is handled."""
        self._stages.end(sys.exc_info()[1] if status == "failed" else None)
