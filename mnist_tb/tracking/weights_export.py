"""A network's weights in the format that the Live tab reads: a line of JSON, then float32 values, little-endian."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def encode(weights: Mapping[str, Tensor], classes: Sequence[str], mean: float, std: float) -> bytes:
    """Encode a state dict, in its order, and the names of the classes; mean, std: of the pixels, from 0 to 1."""
    header = {
        "shapes": {name: list(value.shape) for name, value in weights.items()},
        "classes": list(classes),
        "mean": mean,
        "std": std,
    }
    values = [value.detach().cpu().contiguous().numpy().astype("<f4").ravel() for value in weights.values()]
    return json.dumps(header).encode() + b"\n" + np.concatenate(values).tobytes()
