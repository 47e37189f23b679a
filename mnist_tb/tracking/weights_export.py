"""A network's weights, and images to try it on, in the format that the Live tab reads: a line of JSON, then numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from mnist_tb.data.datasets import Split


def encode(weights: Mapping[str, Tensor], classes: Sequence[str], mean: float, std: float, half: bool = False) -> bytes:
    """Encode a state dict, in its order, and the names of the classes; mean, std: of the pixels, from 0 to 1.

    The values follow as float32, or if `half` as float16, little-endian.
    """
    header = {
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


def encode_samples(samples: Split) -> bytes:
    """Encode images, uint8 [N, 28, 28], with the indices of their classes."""
    header = {"labels": samples.labels.tolist()}
    return json.dumps(header).encode() + b"\n" + samples.images.cpu().contiguous().numpy().tobytes()
