"""HOW things reach an event file: the only module that knows the event writer.

Every call notes what is to be written and returns at once; one thread draws, encodes and writes. The file format is
TensorBoard's own: length, checksum, an `Event` protocol buffer, checksum.
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/summary/writer/record_writer.py
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import summary_v2 as histogram_summary
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from mnist_tb import status as live_status
from mnist_tb.errors import TrainingError

Picture = np.ndarray
"""uint8 [height, width, 3]."""

_STATUS = {
    "completed": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
}
_files = itertools.count()


class Tracker:
    """Writes one run's event file; a context manager that flushes and closes it.

    The step is passed in every call: the number of completed optimiser updates. With no folder it writes nothing.
    An error of the writing thread (disk full, folder gone) is raised as TrainingError by the next call, or at the end.
    Call from one thread.
    """

    FLUSH_SECONDS = 0.5
    """How often what was noted is written: half a second is less than TensorBoard takes to show it."""
    LIMIT = 4096
    """How many calls may wait to be written before the next one waits for the disk."""

    def __init__(self, folder: Path | None) -> None:
        self._jobs: deque[tuple[int, float, Callable[[], Any]]] = deque()
        self._wake = threading.Event()
        self._drained = threading.Condition()
        self._closing = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.path: Path | None = None
        if folder is not None:
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
            self.path = folder / name
            try:
                self._file = open(self.path, "xb", buffering=0)
            except OSError as error:
                raise TrainingError(f"{self.path}: cannot be written: {error.strerror}") from None
            self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
            self._thread.start()
            self._note(0, lambda: event_pb2.Event(file_version="brain.Event:2"))

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TrainingError:
            if error is None:  # else the first error tells more than what it left behind
                raise

    @property
    def enabled(self) -> bool:
        return self._thread is not None

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """One point on each named curve. Tensors hold one number, on any device, and must not change afterwards."""
        values = dict(values)
        self._note_summary(step, lambda: [_scalar(tag, value) for tag, value in values.items()])

    def histograms(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """The distribution of each tensor's elements, NaN and infinities left out. The tensors are copied here."""
        copies = {tag: value.detach().clone() for tag, value in values.items()}
        self._note_summary(step, lambda: [v for tag, value in copies.items() for v in _histogram(tag, value)])

    def images(self, step: int, pictures: Mapping[str, Callable[[], Picture]]) -> None:
        """Pictures, each from a function that draws it on the writing thread."""
        pictures = dict(pictures)
        self._note_summary(step, lambda: [_image(tag, draw()) for tag, draw in pictures.items()])

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        texts = dict(texts)
        self._note_summary(step, lambda: [_text(tag, text) for tag, text in texts.items()])

    def graph(self, graph: graph_pb2.GraphDef) -> None:
        """The network for the Graphs tab; once a run."""
        content = graph.SerializeToString()
        self._note(0, lambda: event_pb2.Event(graph_def=content))

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """The Custom Scalars tab: category → chart title → tags drawn on one chart; once a run."""
        layout = layout_pb2.Layout(
            category=[
                layout_pb2.Category(
                    title=category,
                    chart=[
                        layout_pb2.Chart(
                            title=title, multiline=layout_pb2.MultilineChartContent(tag=[f"^{tag}$" for tag in tags])
                        )
                        for title, tags in titled.items()
                    ],
                )
                for category, titled in charts.items()
            ]
        )
        value = summary_pb2.Summary.Value(
            tag=layout_metadata.CONFIG_SUMMARY_TAG,
            metadata=layout_metadata.create_summary_metadata(),
            tensor=tensor_util.make_tensor_proto(layout.SerializeToString()),
        )
        self._note_summary(0, lambda: [value])

    def hparams(self, values: Mapping[str, Any], group: str) -> None:
        """The run's settings, for the HParams tab; once a run. Runs of one group share a row, as repetitions.

        No experiment summary is written: TensorBoard then unites the settings of all runs, so that one which came
        later has its column too, and takes the live scalars as metrics.
        """
        clean = {key: _hparam(value) for key, value in values.items()}
        summary = hparams_summary.hparams_pb(clean, trial_id=group)
        self._note_summary(0, lambda: summary.value)

    def status(self, status: str) -> None:
        """How the run ended: completed or failed. TensorBoard keeps the first end it reads, so call it once."""
        data = plugin_data_pb2.HParamsPluginData(
            session_end_info=plugin_data_pb2.SessionEndInfo(status=_STATUS[status], end_time_secs=time.time())
        )
        value = summary_pb2.Summary.Value(
            tag=hparams_metadata.SESSION_END_INFO_TAG,
            metadata=hparams_metadata.create_summary_metadata(data),
            tensor=hparams_metadata.NULL_TENSOR,
        )
        self._note_summary(0, lambda: [value])

    def live(self, step: int, text: str) -> None:
        """How the training stands, as JSON, for the Live tab; no other tab shows it."""
        metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
        metadata.plugin_data.plugin_name = live_status.PLUGIN
        value = summary_pb2.Summary.Value(
            tag=live_status.TAG, metadata=metadata, tensor=tensor_util.make_tensor_proto(text.encode())
        )
        self._note_summary(step, lambda: [value])

    def close(self) -> None:
        """Write what is left and close the file. Raises TrainingError where something could not be written."""
        if self._thread is not None and not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self._file.close()
            self._raise_error()

    def _note_summary(self, step: int, values: Callable[[], Any]) -> None:
        self._note(step, lambda: event_pb2.Event(summary=summary_pb2.Summary(value=values())))

    def _note(self, step: int, make: Callable[[], Any]) -> None:
        if self._thread is None:
            return
        self._raise_error()
        if len(self._jobs) >= self.LIMIT:
            self._wake.set()
            with self._drained:
                self._drained.wait_for(lambda: len(self._jobs) < self.LIMIT or self._error is not None)
        self._jobs.append((step, time.time(), make))

    def _raise_error(self) -> None:
        if self._error is not None:
            reason = getattr(self._error, "strerror", None) or f"{type(self._error).__name__}: {self._error}"
            raise TrainingError(f"{self.path}: writing the events failed: {reason}") from self._error

    def _work(self) -> None:
        """The writing thread: every half second, everything that was noted in one write."""
        try:
            while not (self._closing and not self._jobs):
                self._wake.wait(self.FLUSH_SECONDS)
                if not self._closing:
                    self._wake.clear()
                self._write_all(io.BytesIO())
        except Exception as error:  # it must reach the user, who is on the other thread
            self._error = error
            with self._drained:
                self._drained.notify_all()

    def _write_all(self, buffer: io.BytesIO) -> None:
        records = RecordWriter(buffer)
        while self._jobs:
            step, wall_time, make = self._jobs.popleft()
            event = make()
            event.step, event.wall_time = step, wall_time
            records.write(event.SerializeToString())
        with self._drained:
            self._drained.notify_all()
        content = buffer.getbuffer()
        while len(content):
            content = content[self._file.write(content) :]


def _scalar(tag: str, value: float | torch.Tensor) -> Any:
    return summary_pb2.Summary.Value(tag=tag, simple_value=float(value))


def _histogram(tag: str, value: torch.Tensor) -> Any:
    numbers = value.to("cpu", torch.float32).numpy().ravel()
    return histogram_summary.histogram_pb(tag, numbers[np.isfinite(numbers)]).value


def _image(tag: str, picture: Picture) -> Any:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="png")
    height, width, _ = picture.shape
    image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
    return summary_pb2.Summary.Value(tag=tag, image=image)


def _text(tag: str, text: str) -> Any:
    return summary_pb2.Summary.Value(
        tag=tag,
        metadata=text_metadata.create_summary_metadata(display_name=None, description=None),
        tensor=tensor_util.make_tensor_proto([text.encode()], dtype=np.object_, shape=[1]),
    )


def _hparam(value: Any) -> float | str:
    """Numbers stay numbers; TensorBoard would turn booleans into 1.0 and 0.0, so they become texts."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
