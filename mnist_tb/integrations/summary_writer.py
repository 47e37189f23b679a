"""torch.utils.tensorboard's SummaryWriter, written by our thread, with a true status, the Live tab and comparisons."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import numpy as np
import torch
from tensorboard.compat.proto import event_pb2
from torch.utils import tensorboard
from torch.utils.tensorboard import summary
from torch.utils.tensorboard._convert_np import make_np
from torch.utils.tensorboard._utils import convert_to_HWC

from mnist_tb.errors import InUseError, TrainingError
from mnist_tb.events.writer import EventWriter
from mnist_tb.integrations.tracker import Options, Tracker


class SummaryWriter(tensorboard.SummaryWriter):
    """torch's class with the same methods and arguments; see its documentation.

    The folder becomes a run, as by `Tracker.adopt`: running until it is closed, failed if an error leaves its `with`
    block or ends the program. Histograms and pictures are encoded, and all is written, by one thread.
    What differs: `add_scalars` and `add_hparams` make no runs of their own. The first writes the curves
    `main_tag/key`, and puts them on one chart of Custom Scalars. The latter gives the run its settings, once.
    max_queue and flush_secs have no effect: what is logged is on the disk after half a second.
    In a fork, and in a copy that was pickled, calls do nothing.
    """

    file_writer: Any
    all_writers: Any

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
        self._options, self._pid = options, os.getpid()
        self._folder: Path | None = None
        super().__init__(log_dir, comment, purge_step, max_queue, flush_secs, filename_suffix)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_another_process, (type(self), self.log_dir)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            if "://" in str(self.log_dir):  # which torch's own writer knows how to reach
                return super()._get_file_writer()
            self._folder = self._folder or Path(self.log_dir).absolute()  # wherever the program goes from here
            folder = self._folder if self._pid == os.getpid() else None
            purge_step = None if self.purge_step is None else int(self.purge_step)
            self.file_writer = _FileWriter(folder, str(self.log_dir), purge_step, self._options)
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
            self.purge_step = None
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
        """The run's settings, once, and further points on curves; run_name and the domains have no effect."""
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
        if isinstance(self.file_writer, _FileWriter):
            self.file_writer.error = exc_val
        self.close()


class _FileWriter(tensorboard.FileWriter):
    """torch's FileWriter, on a run of ours. Its other methods come down to `add_event`."""

    def __init__(self, folder: Path | None, log_dir: str, purge_step: int | None, options: Options) -> None:
        """folder: None to write nothing."""
        self._log_dir = log_dir
        self.error: BaseException | None = None
        self.together: dict[str, list[str]] | None = {}
        self._changing, self._is_new = threading.RLock(), False
        self._tracker: Tracker | None = None
        try:
            if folder is not None:
                self._tracker = Tracker.adopt(folder, purge_step=purge_step, **options)
            self._events = EventWriter(None) if self._tracker is None else self._tracker._writer
        except InUseError:  # by another writer, which says how the run is
            self._events = EventWriter(folder, purge_step)
            weakref.finalize(self, self._events.close)
        write_layout = weakref.WeakMethod(self._write_layout)  # else the writing thread would keep this one
        self._events.every.append(lambda: (call := write_layout()) and call())
        self.scalars = self._events.points if self._tracker is None else self._tracker._points

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
        self._events.event(int(step or 0), event, walltime)

    def see(self, step: int, values: list[tuple[str, float]]) -> None:
        """Points that are written already."""
        if self._tracker is not None:
            self._tracker._see(step, values)

    def settings(self, values: Mapping[str, Any]) -> None:
        if self._tracker is not None:
            self._tracker.settings(values)

    def show_together(self, main_tag: str, tags: list[str]) -> None:
        """The curves of one `add_scalars` on one chart, unless the user has a layout."""
        if not self._events.enabled:  # asked before the lock: in a fork another thread may have left it locked
            return
        with self._changing:
            patterns = {re.escape(tag) for tag in tags}
            if self.together is not None and not patterns <= set(self.together.get(main_tag, ())):
                self.together = {**self.together, main_tag: sorted({*self.together.get(main_tag, ()), *patterns})}
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
        with suppress(TrainingError):  # what has failed is said below
            self._write_layout()
        if self._tracker is None:
            self._events.close()
        else:
            self._tracker.__exit__(None, self.error, None)


def _in_another_process(kind: type[SummaryWriter], log_dir: str) -> SummaryWriter:
    made = kind.__new__(kind)
    made._options, made._pid, made._folder = {}, 0, None
    tensorboard.SummaryWriter.__init__(made, log_dir)
    return made


def _within(array: np.ndarray, bound: float) -> bool:
    """Whether all of it is between -bound and bound; NaN is not."""
    return bool(-bound < array.min() and array.max() < bound)


def _one_number(value: Any) -> Any:
    """As torch's class takes it."""
    found = make_np(value).squeeze()
    if found.ndim:
        raise ValueError("scalar should be 0D")
    return found
