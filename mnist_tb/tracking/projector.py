"""The Projector tab: the last activations of test images as points in space, each with its picture and class.

TensorBoard reads it from files in the run's folder, not from the events.
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/projector/projector_config.proto
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run

DIMENSIONS = 32
NAME = "penultimate"
_FOLDER = "projector"


def principal_components(features: Tensor, dimensions: int = DIMENSIONS) -> Tensor:
    """The first principal components, float32 [N, D], of features [N, F]; D is no more than N and F."""
    centred = features.float() - features.float().mean(0)
    most = min(dimensions, *centred.shape)
    with torch.random.fork_rng(devices=[]):  # pca_lowrank draws a random start
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(centred, q=most, center=False)
    return centred @ directions


def write(
    run: Run, images: Tensor, labels: Tensor, predictions: Tensor, features: Tensor, classes: Sequence[str]
) -> None:
    """Write the files. Raises OSError.

    images: uint8 [N, 28, 28]. labels, predictions: int64 [N]. features: float [N, D]. All on the CPU.
    """
    folder = run.path / _FOLDER
    folder.mkdir(exist_ok=True)
    lines = ("\t".join(f"{value:.5g}" for value in row) for row in features.tolist())
    write_atomically(folder / "tensors.tsv", "\n".join(lines).encode() + b"\n")
    rows = ["true\tpredicted\tis"]
    for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
        rows.append(f"{classes[label]}\t{classes[prediction]}\t{'right' if label == prediction else 'wrong'}")
    write_atomically(folder / "metadata.tsv", ("\n".join(rows) + "\n").encode())
    write_atomically(folder / "sprites.png", _sprites(images.numpy()))
    config = f"""embeddings {{
  tensor_name: "{NAME}"
  tensor_path: "{_FOLDER}/tensors.tsv"
  metadata_path: "{_FOLDER}/metadata.tsv"
  sprite {{
    image_path: "{_FOLDER}/sprites.png"
    single_image_dim: 28
    single_image_dim: 28
  }}
}}
"""
    write_atomically(run.path / "projector_config.pbtxt", config.encode())


def _sprites(images: np.ndarray) -> bytes:
    """All images on one square sheet, row by row, as TensorBoard expects it: a PNG, dark on light."""
    side = int(np.ceil(np.sqrt(len(images))))
    sheet = np.zeros((side * side, 28, 28), dtype=np.uint8)
    sheet[: len(images)] = images
    square = 255 - sheet.reshape(side, side, 28, 28).transpose(0, 2, 1, 3).reshape(side * 28, side * 28)
    encoded = io.BytesIO()
    Image.fromarray(square).save(encoded, format="png")
    return encoded.getvalue()
