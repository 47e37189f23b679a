"""What event files contain, of whatever program: curves, pictures and settings. Imports no torch."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2, types_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from mnist_tb.events import records
from mnist_tb.events.curves import find_curves
from mnist_tb.events.records import Damage
from mnist_tb.events.tags import LIVE_STATUS

_SESSION_START = "_hparams_/session_start_info"
_SESSION_END = "_hparams_/session_end_info"
_ENDS = {1: "completed", 2: "failed"}
_START = event_pb2.SessionLog.START
_NUMBERS = {types_pb2.DT_FLOAT: ("<f", "float_val"), types_pb2.DT_DOUBLE: ("<d", "double_val")}


@dataclass(frozen=True, slots=True)
class Point:
    """A scalar. wall_time: seconds since 1970. value: as written, mostly a 32-bit number; may be NaN or infinite.

    place: the number of its event among all that were read.
    """

    tag: str
    step: int
    wall_time: float
    value: float
    place: int = 0


@dataclass
class Contents:
    """What a run's event files contain.

    curves: tag → its points, in the order of the files. pictures: tag → step and encoded picture, the newest only.
    settings: from HParams. status: completed or failed where HParams says so, else unknown. said: the newest status of
    the Live tab, JSON, and when it was written. first, last: wall times. damage: file name → what could not be read; a
    string where it could not be opened at all.
    """

    curves: dict[str, list[Point]] = field(default_factory=dict)
    pictures: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    status: str = "unknown"
    said: tuple[bytes, float] | None = None
    first: float | None = None
    last: float | None = None
    damage: dict[str, Damage | str] = field(default_factory=dict)


class Reader:
    """The contents of a run's event files, read on as the files grow.

    contents: what has been read so far. What a restart of the training takes back is left out, as by TensorBoard's
    EventAccumulator: at a SessionLog.START all from its step on; in files older than version 2, at a step that is lower
    than one before, its own tags from there on.
    limit: how many points of a curve are kept, evenly spaced, the newest always among them; a curve has twice as many
    at most. None: all. Curves that hold a result are kept whole. begin: file name → the byte from which on it is read.
    """

    def __init__(self, folder: Path, limit: int | None = None, begin: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._limit = limit
        self._begin(begin or {})

    def _begin(self, begin: Mapping[str, int]) -> None:
        self.contents = Contents()
        self._is_marked = any(begin.values())  # whether the events tell of restarts, as the first one of a file says
        self._newest = -1  # the last step, where they do not
        self._place = 0
        self._sizes: dict[str, int] = {}
        self._read = {name: Damage(end=byte) for name, byte in begin.items()}
        self._counts: dict[str, int] = {}
        self._strides: dict[str, int] = {}

    def update(self) -> bool:
        """Read what is new; whether there was anything. What was cut back by a resumed training is forgotten."""
        sizes = _sizes(self._folder, self.contents.damage)
        if sizes == self._sizes:
            return False
        if any(sizes.get(name, 0) < before.end for name, before in self._read.items()):
            self._begin({})
        grown = [name for name, size in sizes.items() if size != self._sizes.get(name)]
        for name in grown:
            for event in _events(self._folder / name, self._read.setdefault(name, Damage()), self.contents.damage):
                self._take(event)
        self._sizes = sizes
        return True

    def _take(self, event: Any) -> None:
        found = self.contents
        if event.wall_time > 0:
            found.first = min(event.wall_time, found.first or event.wall_time)
            found.last = max(event.wall_time, found.last or event.wall_time)
        self._take_back(event)
        self._place += 1
        for value in event.summary.value:
            number = _scalar(value)
            if number is None:
                _take_other(found, event, value)
                continue
            point = Point(value.tag, event.step, event.wall_time, number, self._place)
            if self._limit is None or _is_result(value.tag):
                found.curves.setdefault(value.tag, []).append(point)
            else:
                self._thin(point, self._limit)

    def _take_back(self, event: Any) -> None:
        """Leave out what a restart makes void, if this event tells of one."""
        if event.HasField("file_version"):
            self._is_marked = event.file_version == "brain.Event:2"
        tags: Iterable[str] = ()
        if self._is_marked:
            if event.session_log.status == _START:
                tags = [*self.contents.curves, *self.contents.pictures]
        elif event.step < self._newest and event.HasField("summary"):
            tags = [value.tag for value in event.summary.value]
        else:
            self._newest = event.step
        for tag in tags:
            curve = [point for point in self.contents.curves.pop(tag, ()) if point.step < event.step]
            if curve:
                self.contents.curves[tag] = curve
            self._counts[tag] = max(len(curve) - 1, 0) * self._strides.get(tag, 1) + bool(curve)
            if self.contents.pictures.get(tag, (event.step - 1,))[0] >= event.step:
                del self.contents.pictures[tag]

    def _thin(self, point: Point, limit: int) -> None:
        """Add a point to its curve; the last one stays until another comes, however it is spaced."""
        curve = self.contents.curves.setdefault(point.tag, [])
        count, stride = self._counts.get(point.tag, 0), self._strides.setdefault(point.tag, 1)
        if count and (count - 1) % stride:
            curve[-1] = point
        else:
            curve.append(point)
        self._counts[point.tag] = count + 1
        if len(curve) > 2 * limit:
            del curve[1::2]
            self._strides[point.tag] = 2 * stride


@functools.lru_cache(4096)
def _is_result(tag: str) -> bool:
    """Whether it may be a curve of a validation or a test."""
    return any(split != "train" for _, split in find_curves([tag]))


def read(folder: Path) -> Contents:
    """The contents of all of a run's event files, as far as they can be read."""
    reader = Reader(folder)
    reader.update()
    return reader.contents


def points(folder: Path, damage: dict[str, Damage | str], positions: dict[str, int] | None = None) -> Iterator[Point]:
    """Every scalar of a run's event files, in the order of the files. damage: as in `Contents`.

    positions: file name → the byte from which on it is read; at the end, where the next call may go on. Of a file that
    is shorter now, because the run was resumed, nothing is read again.
    """
    positions = {} if positions is None else positions
    sizes = _sizes(folder, damage)
    reader = Reader(folder, begin={name: min(positions.get(name, 0), size) for name, size in sizes.items()})
    reader.update()
    damage.update(reader.contents.damage)
    positions.update({name: read.end for name, read in reader._read.items()})
    return merge(*reader.contents.curves.values(), key=lambda point: point.place)


def _sizes(folder: Path, damage: dict[str, Damage | str]) -> dict[str, int]:
    """The event files in a folder; none where it cannot be listed, as when it was just removed."""
    try:
        return records.sizes(folder)
    except OSError as error:
        damage["."] = error.strerror or str(error)
        return {}


def _events(path: Path, read: Damage, damage: dict[str, Damage | str]) -> Iterator[Any]:
    """The events of a file from `read.end` on."""
    damage.pop(path.name, None)
    try:
        for content in records.contents(path, read):
            try:
                yield event_pb2.Event.FromString(content)
            except DecodeError:
                read.broken += 1
    except OSError as error:
        damage[path.name] = error.strerror or str(error)
        return
    if read:
        damage[path.name] = read


def _take_other(found: Contents, event: Any, value: Any) -> None:
    """Of what is no scalar, that which counts."""
    if value.WhichOneof("value") == "image":
        found.pictures[value.tag] = event.step, value.image.encoded_image_string
    elif value.tag == LIVE_STATUS and value.tensor.string_val:
        found.said = value.tensor.string_val[0], event.wall_time
    elif value.tag == _SESSION_START and not found.settings:  # the first one counts, as in TensorBoard
        for name, setting in _hparams(value).session_start_info.hparams.items():
            found.settings[name] = getattr(setting, setting.WhichOneof("kind") or "", None)
    elif value.tag == _SESSION_END and found.status == "unknown":
        found.status = _ENDS.get(_hparams(value).session_end_info.status, "unknown")


def _hparams(value: Any) -> Any:
    try:
        return plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    except DecodeError:
        return plugin_data_pb2.HParamsPluginData()


def _scalar(value: Any) -> float | None:
    """The number of a scalar: a simple value, or a tensor of rank 0, as TensorFlow 2 writes them."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.tensor.tensor_shape.dim or value.tensor.dtype not in _NUMBERS:
        return None
    form, name = _NUMBERS[value.tensor.dtype]
    packed = value.tensor.tensor_content
    if packed:
        return float(struct.unpack(form, packed)[0]) if len(packed) == struct.calcsize(form) else None
    numbers = getattr(value.tensor, name)
    return float(numbers[0]) if numbers else 0.0
