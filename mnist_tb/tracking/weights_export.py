"""A network's weights as the Live tab's page reads them: a line of JSON, then float32 values, little-endian."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def encode(weights: Mapping[str, Tensor], classes: Sequence[str], mean: float, std: float) -> bytes:
    """A state dict, in its order, with the classes' names and the scale of the pixels, 0 to 1."""
    header = {
        "shapes": {name: list(value.shape) for name, value in weights.items()},
        "classes": list(classes),
        "mean": mean,
        "std": std,
    }
    values = [value.detach().cpu().contiguous().numpy().astype("<f4").ravel() for value in weights.values()]
    return json.dumps(header).encode() + b"\n" + np.concatenate(values).tobytes()
