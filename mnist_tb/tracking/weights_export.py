"""A network's weights, and images to try it on, in the format that the Live tab reads: a line of JSON, then bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from mnist_tb.data.datasets import Split
from mnist_tb.metrics import Evaluation

_IN_A_CELL = 24
_IN_ALL = 600
"""Images of a result: about 150 kB."""
_SAME = {"mnist_tb.model.FeatureLinear": "Linear"}
"""Our layers, and those of torch that give the same."""
_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "ceil_mode")


def encode(model: nn.Module, classes: Sequence[str], mean: float, std: float, half: bool = False) -> bytes:
    """Encode a network, its weights in the order of its state dict, and the names of the classes.

    mean, std: of the pixels, from 0 to 1. The values follow as float32, or if `half` as float16, little-endian.
    """
    weights = model.state_dict()
    header = {
        "modules": describe(model),
        "shapes": {name: list(value.shape) for name, value in weights.items()},
        "type": "float16" if half else "float32",
        "classes": list(classes),
        "mean": mean,
        "std": std,
    }
    numbers = "<f2" if half else "<f4"
    with np.errstate(over="ignore"):  # a weight beyond 65,504 is infinite in 16 bits
        values = [value.detach().cpu().contiguous().numpy().ravel().astype(numbers) for value in weights.values()]
    return json.dumps(header).encode() + b"\n" + np.concatenate(values).tobytes()


class _Tracer(fx.Tracer):  # type: ignore[misc, unused-ignore]
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _name(module) in _SAME or bool(super().is_leaf_module(module, name))


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def describe(model: nn.Module) -> list[dict[str, Any]]:
    """The layers that an image goes through, in order: `name`, `kind`, and the settings of that kind.

    Whatever else the network does has a kind that nobody computes: the name of the function or class.
    """
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception as error:  # its code cannot be followed
        return [{"name": type(model).__name__, "kind": type(error).__name__}]
    layers = []
    for before, node in pairwise(nodes):
        target = node.target
        if node.args != (before,) or node.op not in ("call_module", "output"):
            layers.append({"name": node.name, "kind": getattr(target, "__name__", str(target))})
        elif node.op == "call_module":
            layer = model.get_submodule(str(target))
            settings = {key: getattr(layer, key) for key in _SETTINGS if hasattr(layer, key)}
            layers.append({"name": target, "kind": _SAME.get(_name(layer), type(layer).__name__), **settings})
    return layers


def encode_samples(samples: Split) -> bytes:
    """Encode images, uint8 [N, 28, 28], with the indices of their classes."""
    header = {"labels": samples.labels.tolist()}
    return json.dumps(header).encode() + b"\n" + samples.images.cpu().contiguous().numpy().tobytes()


def encode_result(images: Tensor, evaluation: Evaluation, classes: Sequence[str]) -> bytes:
    """Encode a confusion matrix, and up to 24 images of each of its cells.

    Of mistakes these are the most confident ones, of the others the least confident.

    images: uint8 [N, 28, 28], that the evaluation is of. The header names the classes, has the matrix, a row for each
    true class, and for each image its number in the split, its true class, its predicted class and the confidence, 0 to
    1; mistakes come first. After it come the pixels, compressed by zlib.
    """
    labels, predictions = evaluation.labels.numpy(), evaluation.predictions.numpy()
    confidence = evaluation.probabilities.numpy().max(1, initial=0)
    mistaken = labels != predictions
    order = np.lexsort((np.where(mistaken, -confidence, confidence), ~mistaken))
    place = _places_in_cell(labels[order] * len(classes) + predictions[order])
    in_a_cell = next(most for most in range(_IN_A_CELL, -1, -1) if (place < most).sum() <= _IN_ALL)
    chosen = order[place < in_a_cell]
    header = {
        "classes": list(classes),
        "counts": evaluation.confusion.tolist(),
        "images": [[int(i), int(labels[i]), int(predictions[i]), round(float(confidence[i]), 4)] for i in chosen],
    }
    pixels = images.cpu().numpy()[chosen]
    return json.dumps(header).encode() + b"\n" + zlib.compress(pixels.tobytes(), 9)


def _places_in_cell(cells: np.ndarray) -> np.ndarray:
    """For each element, how many of the same value came before it."""
    by_cell = np.argsort(cells, kind="stable")
    _, starts, counts = np.unique(cells[by_cell], return_index=True, return_counts=True)
    places = np.empty(len(cells), dtype=np.int64)
    places[by_cell] = np.arange(len(cells)) - np.repeat(starts, counts)
    return places
