"""torch.utils.tensorboard's SummaryWriter, written by our thread, with a true status, the Live tab and comparisons."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import torch
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from torch.utils import tensorboard
from torch.utils.tensorboard import summary
from torch.utils.tensorboard._convert_np import make_np
from torch.utils.tensorboard._utils import convert_to_HWC

from mnist_tb.config.hyperparameters import plain_settings
from mnist_tb.config.redaction import hide_settings
from mnist_tb.errors import InputError, InUseError, TrainingError
from mnist_tb.events import summaries
from mnist_tb.events.writer import EventWriter
from mnist_tb.integrations.tracker import Options, Tracker
from mnist_tb.integrations.tracker import _in_another_process as _idle_tracker
from mnist_tb.runs.folder import Run
from mnist_tb.runs.values import mapping
from mnist_tb.tracking.recording import open_in

_LOG = logging.getLogger(__name__)
_HPARAMS = "_hparams_/"
"""How the tags begin of what only the HParams tab reads."""


class SummaryWriter(tensorboard.SummaryWriter):
    """torch's class with the same methods and arguments; see its documentation.

    The folder becomes a run, as by `Tracker.adopt`: running until it is closed, failed if an error leaves its `with`
    block or ends the program. Histograms and pictures are encoded, and all is written, by one thread.
    What differs: `add_scalars` and `add_hparams` make no runs of their own. The first writes the curves
    `main_tag/key`, and puts them on one chart of Custom Scalars. The latter adds to the run's settings.
    max_queue and flush_secs have no effect: what is logged is on the disk after half a second.
    In a fork, and in a copy that was pickled, calls do nothing. If the folder is removed, that is said once.
    """

    file_writer: Any
    all_writers: Any
    _kept: _FileWriter | None = None  # also while it is closed

    def __init__(
        self,
        log_dir: str | Path | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        **options: Unpack[Options],
    ) -> None:
        """As torch's; options: those of `Tracker`, such as `code=False` or `dataset="mnist"`."""
        self._options = options
        super().__init__(log_dir, comment, purge_step, max_queue, flush_secs, filename_suffix)

    @classmethod
    def in_logdir(cls, logdir: str | Path, name: str, **options: Unpack[Options]) -> Self:
        """A run of its own in a log folder, `0007-name`, whose settings come with `add_hparams`.

        options: as for a `Tracker`. Raises InputError if the name or the log folder cannot be used.
        """
        tracker = Tracker._start(logdir, name, options)
        return _made(cls, _FileWriter(str(tracker.run.path), None, "", options, tracker))

    @property
    def tracker(self) -> Tracker | None:
        """The `Tracker` of the run, open; None in a fork, and if another writer has the folder."""
        writer = self._get_file_writer()
        return writer.tracker if isinstance(writer, _FileWriter) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_another_process, (type(self), str(self.log_dir))

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            if "://" in str(self.log_dir):  # which torch's own writer knows how to reach
                return super()._get_file_writer()
            if self._kept is None:
                purge_step = None if self.purge_step is None else int(self.purge_step)
                self._kept = _FileWriter(str(self.log_dir), purge_step, self.filename_suffix, self._options)
                self.purge_step = None
            self._kept.reopen()
            self.file_writer, self.all_writers = self._kept, {self._kept.get_logdir(): self._kept}
        return self.file_writer

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """As torch's."""
        writer = self.file_writer or self._get_file_writer()
        if not isinstance(writer, _FileWriter):
            super().add_scalar(tag, scalar_value, global_step, walltime, new_style, double_precision)
            return
        if isinstance(scalar_value, torch.Tensor) and scalar_value.numel() == 1:
            scalar_value = scalar_value.item()
        elif type(scalar_value) is not float and type(scalar_value) is not int:
            scalar_value = _one_number(scalar_value)
        step, values = int(global_step or 0), [(tag, float(scalar_value))]
        if new_style or double_precision:
            super().add_scalar(tag, scalar_value, global_step, walltime, new_style, double_precision)
            writer.see(step, values)
        else:
            writer.scalars(step, values, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """As torch's, but for the curves' names: `main_tag/key`, in this run."""
        writer = self._get_file_writer()
        if not isinstance(writer, _FileWriter):
            super().add_scalars(main_tag, tag_scalar_dict, global_step, walltime)
            return
        values = [(f"{main_tag}/{key}", float(_one_number(value))) for key, value in tag_scalar_dict.items()]
        writer.show_together(main_tag, [tag for tag, _ in values])
        writer.scalars(int(global_step or 0), values, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """As torch's; the bins are counted by the writing thread."""
        writer, array = self._get_file_writer(), make_np(values)
        is_usual = isinstance(bins, str) and bins == "tensorflow" and array.dtype.kind in "fiub" and array.size > 0
        if not is_usual or not isinstance(writer, _FileWriter) or not _within(array, self.default_bins[-1]):
            super().add_histogram(tag, values, global_step, bins, walltime, max_bins)
            return
        bounds = self.default_bins
        writer.summary(tag, array, lambda kept: summary.histogram(tag, kept, bounds, max_bins), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """As torch's; the picture is compressed by the writing thread."""
        if not self._add_picture(tag, img_tensor, global_step, walltime, dataformats):
            super().add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """As torch's; the pictures are compressed by the writing thread."""
        if not self._add_picture(tag, img_tensor, global_step, walltime, dataformats):
            super().add_images(tag, img_tensor, global_step, walltime, dataformats)

    def _add_picture(self, tag: str, pixels: Any, step: int | None, walltime: float | None, dataformats: str) -> bool:
        """Whether it is one that the writing thread can compress without fail."""
        picture = convert_to_HWC(make_np(pixels), dataformats)
        writer = self._get_file_writer()
        is_usual = picture.dtype.kind in "fiub" and picture.size > 0 and picture.shape[2] in (3, 4)
        if not is_usual or not isinstance(writer, _FileWriter):
            return False
        writer.summary(tag, picture, lambda kept: summary.image(tag, kept, dataformats="HWC"), step, walltime)
        return True

    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        hparam_domain_discrete: dict[str, list[Any]] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Settings of the run, and further points on curves; run_name and the domains have no effect."""
        writer = self._get_file_writer()
        if not isinstance(writer, _FileWriter):
            super().add_hparams(hparam_dict, metric_dict, hparam_domain_discrete, run_name, global_step)
            return
        if type(hparam_dict) is not dict or type(metric_dict) is not dict:
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        summary.hparams(hparam_dict, metric_dict, hparam_domain_discrete)  # raises what torch's would
        writer.settings(hparam_dict)
        for tag, value in metric_dict.items():
            self.add_scalar(tag, value, global_step)

    def add_custom_scalars(self, layout: Any) -> None:
        """As torch's; in place of the charts of `add_scalars`."""
        writer = self._get_file_writer()
        if isinstance(writer, _FileWriter):
            writer.together = None
        super().add_custom_scalars(layout)

    def close(self) -> None:
        """As torch's."""
        writer = self.file_writer
        if not isinstance(writer, _FileWriter):
            super().close()
            return
        self.file_writer = self.all_writers = None  # whatever fails now, it is closed
        writer.close()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.end(exc_val)

    def end(self, error: BaseException | None) -> None:
        """As `close`; the run has failed, if an error has ended the training."""
        if isinstance(self.file_writer, _FileWriter):
            self.file_writer.error = error
        self.close()


class RunWriter(SummaryWriter):
    """What trainers of others write to; it has the methods of its `Tracker` too, which it was in version 1.0."""

    _left_out: frozenset[str] = frozenset()

    @classmethod
    def idle(cls, log_dir: str) -> Self:
        """Whose calls do nothing."""
        return _in_another_process(cls, log_dir)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name != "run" and not hasattr(Tracker, name)):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}", name=name, obj=self)
        return getattr(self.tracker or _idle_tracker(Tracker), name)

    def plan(self, steps: int) -> None:
        """How many steps are planned, if it is known only now."""
        if (tracker := self.tracker) is not None and (recording := open_in(tracker.run.path)) is not None:
            recording.live.update(recording.live.step, steps=steps)

    def log(self, values: Mapping[Any, Any], step: int | None = None, group: str = "", **named: Any) -> None:
        """What a trainer reports: numbers, also in arrays of one; texts; nested, as `group/key`, these of a group.

        What is none of these is left out, which is said once. named: as for `add_scalar`, and for `add_text`.
        """
        found: dict[str, Any] = {}
        for key, value in values.items():
            tag = f"{group}/{key}" if group else str(key)
            if isinstance(value, Mapping):
                self.log(value, step, tag, **named)
            elif isinstance(value, str):
                self.add_text(tag, value, step, **named)
            else:
                try:
                    found[tag] = summaries.number(value)
                except (TypeError, ValueError, OverflowError) as error:
                    self._leave_out(tag, error)
        writer = self._get_file_writer()
        if group and found:
            writer.show_together(group, [*found])
        for tag, value in found.items() if named else ():
            self.add_scalar(tag, value, step, **named)
        if found and not named:
            writer.scalars(int(step or 0), [*found.items()])

    def _leave_out(self, tag: str, error: Exception) -> None:
        if tag not in self._left_out:
            self._left_out |= {tag}
            _LOG.warning("%s: %s is not written: %s", self.log_dir, tag, error)


class _FileWriter(tensorboard.FileWriter):
    """torch's FileWriter, on a run of ours. Its other methods come down to `add_event`."""

    def __init__(
        self, log_dir: str, purge_step: int | None, suffix: str, options: Options, tracker: Tracker | None = None
    ) -> None:
        """It is open after `reopen`. tracker: of a run that is open; None if there is none of its own."""
        self._log_dir, self._purge_step, self._suffix, self._options = log_dir, purge_step, suffix, options
        self._folder = Path(log_dir).absolute()  # wherever the program goes from here
        self.pid: int | None = os.getpid()  # whose calls write
        self.tracker, self._events, self._is_closed = tracker, EventWriter(None), True
        self.error: BaseException | None = None
        self.together: dict[str, list[str]] | None = {}
        self._changing, self._is_new = threading.RLock(), False

    @property
    def event_writer(self) -> SimpleNamespace:
        """As torch's, which takes events as they are, with their steps and times."""
        add = lambda event: self.add_event(event, None, event.wall_time)  # noqa: E731
        return SimpleNamespace(add_event=add, flush=self.flush, close=self.close, get_logdir=self.get_logdir)

    def reopen(self) -> None:
        """As torch's."""
        if not self._is_closed:
            return
        self._is_closed, self.error = False, None
        try:
            self.tracker = self._open() if self.pid == os.getpid() else None
            self._events = EventWriter(None) if self.tracker is None else self.tracker._writer
        except InUseError:  # by another writer, which says how the run is
            self.tracker = None
            self._events = EventWriter(self._folder, self._purge_step, suffix=self._suffix, may_vanish=True)
            weakref.finalize(self, self._events.close)
        self._purge_step = None
        write_layout = weakref.WeakMethod(self._write_layout)  # else the writing thread would keep this one
        self._events.every.append(lambda: (call := write_layout()) and call())
        self.scalars = self._events.points if self.tracker is None else self.tracker._points

    def _open(self) -> Tracker:
        if self.tracker is not None:
            if self.tracker.is_open:
                return self.tracker
            try:
                return self.tracker._go_on(self._options.get("notify", ()))
            except InUseError:
                raise
            except (InputError, TrainingError):  # its folder is gone
                pass
        return Tracker._adopt(self._folder, self._purge_step, self._options, self._suffix)

    def get_logdir(self) -> str:
        return self._log_dir

    def summary(self, tag: str, array: np.ndarray, make: Any, step: int | None, walltime: float | None) -> None:
        """A summary of an array, made on the writing thread from a copy; of a large one it is made here."""
        if array.nbytes > EventWriter.LIMIT // 4:
            self.add_event(event_pb2.Event(summary=make(array)), step, walltime)
        else:
            kept = np.array(array)
            self._events.later(int(step or 0), tag, kept.nbytes, lambda: make(kept).value, walltime)

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        """As torch's; what is for HParams becomes the run's settings."""
        for value in event.summary.value:
            if value.tag == hparams_metadata.SESSION_START_INFO_TAG:
                content = value.metadata.plugin_data.content
                given = hparams_metadata.parse_session_start_info_plugin_data(content).hparams.items()
                self.settings({name: getattr(each, each.WhichOneof("kind") or "", None) for name, each in given})
        if not any(value.tag.startswith(_HPARAMS) for value in event.summary.value):
            self._events.event(event.step if step is None else int(step), event, walltime)

    def see(self, step: int, values: list[tuple[str, float]]) -> None:
        """Points that are written already."""
        if self.tracker is not None:
            self.tracker._see(step, values)

    def settings(self, values: Any) -> None:
        if self._events.enabled:
            recording, given = open_in(self._folder), hide_settings(plain_settings(values, strict=False))
            if recording is not None:
                recording.add_settings(given)
            else:  # another process has the run
                with suppress(OSError, InputError):
                    run = Run(self._folder)
                    run.update_metrics(config={**mapping(run.read_metrics().get("config")), **given})

    def show_together(self, main_tag: str, tags: list[str]) -> None:
        """The curves of one `add_scalars` on one chart, unless the user has a layout."""
        if not self._events.enabled:  # asked before the lock: in a fork another thread may have left it locked
            return
        with self._changing:
            if self.together is not None and not {*tags} <= {*self.together.get(main_tag, ())}:
                self.together = {**self.together, main_tag: sorted({*self.together.get(main_tag, ()), *tags})}
                self._is_new = True

    def _write_layout(self) -> None:
        """If it has changed: twice a second, and at the end."""
        if self._is_new and self.together is not None:
            self._is_new = False
            self._events.layout({"add_scalars": self.together})

    def flush(self) -> None:
        self._write_layout()
        self._events.flush()

    def close(self) -> None:
        self._is_closed = True
        with suppress(TrainingError):  # what has failed is said below
            self._write_layout()
        if self.tracker is None:
            self._events.close()
        else:
            self.tracker.__exit__(None, self.error, None)


_Kind = TypeVar("_Kind", bound=SummaryWriter)


def _in_another_process(kind: type[_Kind], log_dir: str) -> _Kind:
    """Its calls do nothing."""
    writer = _FileWriter(log_dir, None, "", {})
    writer.pid = None
    return _made(kind, writer)


def _made(kind: type[_Kind], writer: _FileWriter) -> _Kind:
    made = kind.__new__(kind)
    made._options, made._kept = {}, writer
    tensorboard.SummaryWriter.__init__(made, writer.get_logdir())
    return made


def _within(array: np.ndarray, bound: float) -> bool:
    """Whether all of it is between -bound and bound; NaN is not."""
    return -bound < float(array.min()) and float(array.max()) < bound


def _one_number(value: Any) -> Any:
    """As torch's class takes it."""
    found = make_np(value).squeeze()
    if found.ndim:
        raise ValueError("scalar should be 0D")
    return found
