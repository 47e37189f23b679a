"""What a run's best weights predict for anybody's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mnist_tb.data import preprocess
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.engine.device import resolve_auto, use_device
from mnist_tb.errors import InputError
from mnist_tb.evaluate import predict
from mnist_tb.model import in_precision
from mnist_tb.runs.folder import Run
from mnist_tb.training.results import best_model, run_config

TOP = 3
"""Classes that are printed for a picture."""


@dataclass(frozen=True)
class Prediction:
    """What a picture shows.

    pixels: the picture as the network saw it, uint8 [28, 28]. classes: name → probability, the most probable first.
    """

    path: Path
    pixels: np.ndarray
    classes: dict[str, float]

    @property
    def best(self) -> str:
        return next(iter(self.classes))


def predict_pictures(
    run: Run, paths: Sequence[Path], device: str = "auto", data_root: str | None = None
) -> list[Prediction]:
    """Predict the class of each picture file by the run's best weights.

    Raises InputError where the run or its weights are broken, or a file is not a picture of something drawn.
    """
    config = resolve_auto(run_config(run, device, data_root))
    pixels = [preprocess.read(path) for path in paths]
    dataset = _without_images(run)
    model = in_precision(best_model(run, config), config.precision)
    images = torch.from_numpy(np.stack(pixels)).to(use_device(config))
    probabilities = predict(model.eval(), dataset, images).softmax(1).cpu()
    predictions = []
    for path, picture, row in zip(paths, pixels, probabilities, strict=True):
        order = row.argsort(descending=True).tolist()
        predictions.append(Prediction(path, picture, {dataset.classes[k]: float(row[k]) for k in order}))
    return predictions


def _without_images(run: Run) -> Dataset:
    """A dataset with the run's classes and normalisation, but no images."""
    known = run.read_metrics()
    scale, classes = known.get("normalisation"), known.get("classes")
    if not isinstance(scale, dict) or not isinstance(classes, list):
        raise InputError(f"{run.metrics}: has no classes and normalisation: it is not of mnist-tb train")
    empty = Split(torch.empty(0, 28, 28, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    names = tuple(map(str, classes))
    return Dataset(str(known.get("dataset")), names, empty, empty, empty, float(scale["mean"]), float(scale["std"]))
