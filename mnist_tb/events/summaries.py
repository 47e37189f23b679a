"""Values in, TensorBoard's protocol buffers out, in the form that its own plugins write. Pure functions only."""

from __future__ import annotations

import functools
import io
import math
import re
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import summary_v2 as histogram_summary
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.pr_curve import metadata as pr_curve_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from mnist_tb.config.hyperparameters import to_hparam
from mnist_tb.events import status

if TYPE_CHECKING:
    import torch

Picture = np.ndarray
"""uint8 [height, width, 3], or [height, width] of greys."""

_ENDS = {"completed": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}


def numbers(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Tags and numbers, each from `number`."""
    return [(tag, value if type(value) is float else number(value)) for tag, value in values.items()]


def number(value: Any) -> Any:
    """A number, or a tensor or an array that holds one, as a float; of a tensor on another device a copy, there.

    Raises TypeError, ValueError or OverflowError if it is no number that a point can have.
    """
    if isinstance(value, (str, bytes, complex)):
        raise TypeError(f"a point is a number, not {value!r:.60}")
    if hasattr(value, "detach"):
        value = value.detach()
        if value.numel() != 1 or value.is_complex() or value.device.type == "meta":
            raise ValueError(f"a point is one real number, not a tensor of {value.numel()}, {value.dtype}")
        return float(value.item()) if value.device.type == "cpu" else value.clone()
    return float(value.item() if isinstance(value, np.ndarray) else value)


def counted(value: Any) -> tuple[Any, int]:
    """A tensor or an array whose elements can be counted, out of autograd's graph, and its bytes. Raises TypeError."""
    found = value.detach() if hasattr(value, "detach") else np.asarray(value)
    if "complex" in str(found.dtype) or (isinstance(found, np.ndarray) and found.dtype.kind not in "fiub"):
        raise TypeError(f"a histogram is of real numbers, not of {found.dtype}")
    return found, found.nbytes


def scalars_event(step: int, wall_time: float, values: Iterable[tuple[str, float]]) -> bytes:
    """An `Event` with a point on each named curve, as its protocol buffer has it on the disk.

    Made here, a field after the other: protocol buffers' own objects take several times as long.
    https://protobuf.dev/programming-guides/encoding/
    """
    summary = b"".join([_scalar_head(tag) + _float(value) for tag, value in values])
    head = b"\x09" + _DOUBLE(wall_time) + b"\x10" + _varint(step)
    return head + b"\x2a" + _varint(len(summary)) + summary


_DOUBLE, _FLOAT = struct.Struct("<d").pack, struct.Struct("<f").pack


@functools.lru_cache(4096)
def _scalar_head(tag: str) -> bytes:
    """What stands in a summary before the four bytes of a value. Raises TypeError or ValueError if it is no tag."""
    if not isinstance(tag, str):
        raise TypeError(f"a tag is a string, not {tag!r:.60}")
    name = tag.encode()
    field = b"\x0a" + _varint(len(name)) + name + b"\x15"
    return b"\x0a" + _varint(len(field) + 4) + field


def _float(value: float) -> bytes:
    try:
        return _FLOAT(value)
    except OverflowError:
        return _FLOAT(math.copysign(math.inf, value))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; negative ones as 64 bits."""
    if 0 <= number < 0x80:
        return bytes((number,))
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"a step is a number of 64 bits, not {number}")
    number &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def histogram(tag: str, value: torch.Tensor | np.ndarray) -> Any:
    array = value if isinstance(value, np.ndarray) else value.cpu().float().numpy()
    numbers = array.astype(np.float32, copy=False).ravel()
    return histogram_summary.histogram_pb(tag, numbers[np.isfinite(numbers)]).value


def picture(given: Any) -> Picture:
    """A copy of a picture, an array or a tensor. Raises ValueError if it is none."""
    array = np.array(given.detach().cpu().numpy() if hasattr(given, "detach") else given)
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise ValueError(f"a picture is uint8 [height, width, 3] or [height, width], not {array.dtype} {array.shape}")
    return np.repeat(array[:, :, None], 3, 2) if grey else array


def image(tag: str, given: Picture | Callable[[], Any]) -> Any:
    """A picture, or what a function draws."""
    drawn = picture(given()) if callable(given) else given
    encoded = io.BytesIO()
    Image.fromarray(drawn).save(encoded, format="png", compress_level=1)  # half the time, an eighth larger
    height, width, _ = drawn.shape
    image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue())
    return [summary_pb2.Summary.Value(tag=tag, image=image)]


def pr_curve(tag: str, table: torch.Tensor) -> Any:
    """A precision-recall curve, from `metrics.precision_recall`."""
    return summary_pb2.Summary.Value(
        tag=tag,
        metadata=pr_curve_metadata.create_summary_metadata(None, None, num_thresholds=table.shape[1]),
        tensor=tensor_util.make_tensor_proto(table.numpy().astype(np.float32)),
    )


def text(tag: str, text: str) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"a text is a string, not {text!r:.60}")
    return summary_pb2.Summary.Value(
        tag=tag,
        metadata=text_metadata.create_summary_metadata(display_name=None, description=None),
        tensor=tensor_util.make_tensor_proto([text.encode()], dtype=np.object_, shape=[1]),
    )


class Below(str):
    """All tags that begin with this."""


def layout(charts: Mapping[str, Mapping[str, Sequence[str]]]) -> Any:
    """The Custom Scalars tab: category → chart title → tags drawn on one chart, for which it has Python's patterns."""
    proto = layout_pb2.Layout()
    for category, titled in charts.items():
        added = proto.category.add(title=category)
        for title, tags in titled.items():
            patterns = (re.escape(tag) + ("" if isinstance(tag, Below) else r"$(?!\n)") for tag in tags)
            added.chart.add(title=title).multiline.tag.extend(f"^{pattern}" for pattern in patterns)
    return summary_pb2.Summary.Value(
        tag=layout_metadata.CONFIG_SUMMARY_TAG,
        metadata=layout_metadata.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(proto.SerializeToString()),
    )


def hparams(values: Mapping[str, Any], group: str) -> Any:
    """A run's hyperparameters, and the group of runs that it is a repetition of."""
    return hparams_summary.hparams_pb({key: to_hparam(value) for key, value in values.items()}, trial_id=group).value


def end(state: str) -> Any:
    """The end of a run, now: completed or failed."""
    data = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=_ENDS[state], end_time_secs=time.time())
    )
    return summary_pb2.Summary.Value(
        tag=hparams_metadata.SESSION_END_INFO_TAG,
        metadata=hparams_metadata.create_summary_metadata(data),
        tensor=hparams_metadata.NULL_TENSOR,
    )


def live(tag: str, content: bytes) -> Any:
    """What only the Live tab reads: a Status as JSON, or weights."""
    metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = status.PLUGIN
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor_util.make_tensor_proto(content))
