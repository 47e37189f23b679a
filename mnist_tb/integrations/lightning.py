"""Lightning's logger as a run: `Trainer(logger=TrackerLogger("runs", "mine"))`. Needs the extra `lightning`."""

from __future__ import annotations

import mmap
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any, Unpack

from mnist_tb.errors import install_line

try:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.fabric.utilities.logger import _add_prefix
    from lightning.fabric.utilities.rank_zero import rank_zero_only, rank_zero_warn
    from lightning.fabric.wrappers import _unwrap_objects
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.utilities.exceptions import SIGTERMException
except ImportError as error:
    raise ImportError(f"{__name__} needs Lightning: {install_line('lightning')}") from error

from tensorboard.compat.proto import event_pb2
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from mnist_tb.config.hyperparameters import sanitize_name
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.integrations.summary_writer import RunWriter
from mnist_tb.integrations.tracker import Options
from mnist_tb.runs.folder import Run, run_number
from mnist_tb.tracking import graph

_LONGEST = 256
"""Bytes of a folder's name, and one more."""


class WriterOptions(Options, total=False):
    """What a SummaryWriter takes, too; of these a run of its own folder needs none."""

    purge_step: int | None
    max_queue: int
    flush_secs: int
    filename_suffix: str


class TrackerLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger with the same methods and arguments; see its documentation.

    What it logs is a run: status, settings, curves, checkpoints, the Live tab. All stages of all trainers that have it
    are one run, also in other processes, and so are those of copies that are made once it is used.
    What differs: the run's folder is `0007-name` in the log folder. This is the logger's version, and its own name is
    empty; but with a version that is given, a sub_dir, or an address such as s3://, folders are TensorBoardLogger's.
    `experiment` is a SummaryWriter of this package. Settings need no metric. The graph is that of the layers, and
    drawing it changes nothing of the model.
    """

    _experiment: RunWriter | None

    def __init__(
        self,
        save_dir: str | Path = "runs",
        name: str | None = "lightning",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = False,
        prefix: str = "",
        sub_dir: str | Path | None = None,
        *,
        logdir: str | Path | None = None,
        root_dir: str | Path | None = None,
        **options: Unpack[WriterOptions],
    ) -> None:
        """logdir, root_dir: other names of save_dir. options: those of a `Tracker` and of a SummaryWriter.

        version: the number of a folder, or its name; `0007-name` to go on with that run.
        """
        save_dir = os.fspath(logdir or root_dir or save_dir)
        self._is_remote = "://" in save_dir
        self._logdir = Path(os.path.expandvars(save_dir)).expanduser()
        self._is_numbered = version is None and sub_dir is None and not self._is_remote
        is_run = self._is_numbered or (isinstance(version, str) and run_number(self._logdir / version) is not None)
        super().__init__(
            save_dir, "" if is_run else name, version, log_graph, default_hp_metric, prefix, sub_dir, **options
        )
        self._run_name = sanitize_name(name or "") or "lightning"
        self._pid, self._shared = os.getpid(), mmap.mmap(-1, _LONGEST)  # which forks see: the version, once it is used

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `SummaryWriter`. After the end of one stage, such as `fit`, the next one goes on with the same run."""
        if self._experiment is None or self._pid != os.getpid():  # a fork has a writer of its own
            self._experiment, self._pid = None, os.getpid()
            folder = self.log_dir  # which makes the run, if there is none
            self._experiment = self._experiment or RunWriter(folder, **self._kwargs)
            self._share(str(self.version))
        return self._experiment

    def _get_next_version(self) -> Any:
        if not self._is_numbered:
            return super()._get_next_version()
        if not self._is_used and rank_zero_only.rank == 0:
            options: Any = {key: self._kwargs[key] for key in self._kwargs if key in Options.__annotations__}
            self._experiment, self._pid = RunWriter.in_logdir(self._logdir, self._run_name, **options), os.getpid()
            run = Run(Path(self._experiment.log_dir))
            run.config.unlink()  # LightningCLI keeps its own there; the settings are in metrics.json and hparams.yaml
            self._share(run.name)
            return run.name
        return self._shared[:].rstrip(b"\0").decode()

    def _share(self, version: str) -> None:
        self._shared[:] = version.encode()[: _LONGEST - 1].ljust(_LONGEST, b"\0")

    @property
    def _is_used(self) -> bool:
        """Whether there is a run, in whatever process."""
        return self._experiment is not None or self._shared[0] != 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Points on curves, nested ones as `eval/loss`. What is no number is left out, which is said once."""
        if self._is_remote:
            super().log_metrics(metrics, step)
        else:
            self.experiment.log(_add_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR), step)

    @rank_zero_only
    def log_hyperparams(
        self,
        params: Mapping[str, Any] | Namespace | None,
        metrics: Mapping[str, Any] | float | None = None,
        step: int | None = None,
    ) -> None:
        """Settings, which join those of before; metrics: further points."""
        if self._is_remote:
            super().log_hyperparams(params, metrics, step)
            return
        super().log_hyperparams(params, {}, step)  # keeps them for hparams.yaml
        self.experiment._get_file_writer().settings(params or {})
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        self.log_metrics(metrics if isinstance(metrics, Mapping) else {"hp_metric": metrics}, step)

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Any = None) -> None:
        """The layers of the model, for a tensor, or for its arguments by their places or names.

        input_array: None for the model's `example_input_array`, if the logger was made with log_graph.
        """
        given: Any = getattr(model, "example_input_array", None) if input_array is None else input_array
        parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, tuple) else [given]
        is_wanted = self._log_graph or input_array is not None
        if not is_wanted or not any(isinstance(part, Tensor) for part in parts):
            super().log_graph(model, input_array)  # which says why not
            return
        try:
            drawn = graph.draw(_unwrap_objects(model), given)
        except ValueError as error:
            rank_zero_warn(f"Could not log computational graph to TensorBoard: {error}")
            return
        self.experiment._get_file_writer().add_event(event_pb2.Event(graph_def=drawn.SerializeToString()))

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """The paths of the best and the last checkpoint stand in metrics.json."""
        paths = {name: getattr(checkpoint_callback, f"{name}_model_path", "") for name in ("best", "last")}
        with suppress(OSError, InputError):  # the folder is gone, or is none
            Run(Path(self.log_dir)).update_metrics(checkpoints={name: path for name, path in paths.items() if path})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The end of a stage; Lightning calls it while the error that ended one is handled."""
        error = _ending(status)
        if error is not None and self._is_used:
            writer = self.experiment
            writer._get_file_writer()  # again, if it has been closed, here or in another process
            writer.end(error)
        super().finalize(status)
        if self._experiment is not None:  # opened by the last line, maybe
            self._experiment.close()

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None and rank_zero_only.rank == 0:  # that process goes on with the run
            self.experiment.close()
        return {**super().__getstate__(), "_shared": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _shared=mmap.mmap(-1, _LONGEST))


def _ending(status: str) -> BaseException | None:
    """What has ended a stage, if it is not complete."""
    error = sys.exc_info()[1]
    if status != "failed":
        return KeyboardInterrupt(status) if status == "aborted" else None
    if isinstance(error, SIGTERMException):
        return KeyboardInterrupt("SIGTERM")
    if isinstance(error, ProcessRaisedException):  # whose text is that process's traceback
        return TrainingError(str(error).strip().rpartition("\n")[2])
    return error or TrainingError('finalize("failed") was called')
