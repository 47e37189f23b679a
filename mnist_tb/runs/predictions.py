"""predictions.npy: what a run's best weights make of each test image, so that runs can be compared image by image."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from mnist_tb.events.records import open_regular
from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run

if TYPE_CHECKING:
    import numpy as np  # slow to import: those that save have it, and those that list runs are not to wait

_ROW = [("label", "<i4"), ("prediction", "<i4"), ("confidence", "<f4")]


def save_predictions(run: Run, labels: Any, probabilities: Any) -> None:
    """Write label, prediction and confidence of each test image, in the order of the dataset.

    labels: an integer array [N]. probabilities: a float array [N, C]. Raises OSError.
    """
    import numpy as np

    table = np.empty(len(labels), _ROW)
    table["label"], table["prediction"], table["confidence"] = labels, probabilities.argmax(1), probabilities.max(1)
    encoded = io.BytesIO()
    np.save(encoded, table, allow_pickle=False)
    write_atomically(run.predictions, encoded.getvalue())


def read_predictions(run: Run) -> np.ndarray | None:
    """The rows, [N] with the fields label, prediction and confidence; None where there are none or they are broken."""
    import numpy as np

    try:
        with open_regular(run.predictions) as file:
            table = np.lib.format.read_array(file, allow_pickle=False)
    except Exception:  # numpy raises all kinds, even of its tokenizer
        return None
    return table if table.dtype == np.dtype(_ROW) else None
