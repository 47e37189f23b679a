"""What event files contain, of whatever program: curves, pictures and settings. Imports no torch."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2, types_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from mnist_tb.events import records
from mnist_tb.events.records import Damage

_SESSION_START = "_hparams_/session_start_info"
_SESSION_END = "_hparams_/session_end_info"
_ENDS = {1: "completed", 2: "failed"}
_NUMBERS = {types_pb2.DT_FLOAT: ("<f", "float_val"), types_pb2.DT_DOUBLE: ("<d", "double_val")}


@dataclass(frozen=True)
class Point:
    """A scalar. wall_time: seconds since 1970. value: as written, mostly a 32-bit number; may be NaN or infinite."""

    tag: str
    step: int
    wall_time: float
    value: float


@dataclass
class Contents:
    """What a run's event files contain.

    curves: tag → its points, in the order of the files. pictures: tag → step and encoded picture, the newest only.
    settings: from HParams. status: completed or failed where HParams says so, else unknown.
    first, last: wall times. damage: file name → what could not be read; a string where it could not be opened at all.
    """

    curves: dict[str, list[Point]] = field(default_factory=dict)
    pictures: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    status: str = "unknown"
    first: float | None = None
    last: float | None = None
    damage: dict[str, Damage | str] = field(default_factory=dict)


def read(folder: Path) -> Contents:
    """The contents of all of a run's event files, as far as they can be read."""
    found = Contents()
    for name in _files(folder, found.damage):
        for event in _events(folder / name, found.damage):
            if event.wall_time > 0:
                found.first = min(event.wall_time, found.first or event.wall_time)
                found.last = max(event.wall_time, found.last or event.wall_time)
            for value in event.summary.value:
                _take(found, event, value)
    return found


def points(folder: Path, damage: dict[str, Damage | str]) -> Iterator[Point]:
    """Every scalar of a run's event files, one at a time, without keeping them. damage: as in `Contents`."""
    for name in _files(folder, damage):
        for event in _events(folder / name, damage):
            for value in event.summary.value:
                number = _scalar(value)
                if number is not None:
                    yield Point(value.tag, event.step, event.wall_time, number)


def _files(folder: Path, damage: dict[str, Damage | str]) -> list[str]:
    """The names of the event files in a folder; none where it cannot be listed, as when it was just removed."""
    try:
        return list(records.sizes(folder))
    except OSError as error:
        damage["."] = error.strerror or str(error)
        return []


def _events(path: Path, damage: dict[str, Damage | str]) -> Iterator[Any]:
    broken = Damage()
    try:
        for content in records.contents(path, broken):
            try:
                yield event_pb2.Event.FromString(content)
            except DecodeError:
                broken.broken += 1
    except OSError as error:
        damage[path.name] = error.strerror or str(error)
        return
    if broken:
        damage[path.name] = broken


def _take(found: Contents, event: Any, value: Any) -> None:
    number = _scalar(value)
    if number is not None:
        found.curves.setdefault(value.tag, []).append(Point(value.tag, event.step, event.wall_time, number))
    elif value.WhichOneof("value") == "image":
        found.pictures[value.tag] = event.step, value.image.encoded_image_string
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
