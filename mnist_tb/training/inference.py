"""What a run's best weights take pictures of anybody's for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mnist_tb.config.schema import Config
from mnist_tb.data import datasets as data
from mnist_tb.data import preprocess as pictures
from mnist_tb.data.datasets import Dataset, Split
from mnist_tb.engine import device as hardware
from mnist_tb.evaluate import predict
from mnist_tb.model import in_precision
from mnist_tb.runs.folder import Run
from mnist_tb.training.results import best_model, run_config

TOP = 3


@dataclass(frozen=True)
class Guess:
    """What a picture is taken for. seen: uint8 [28, 28]; classes: name → probability, of all, the likeliest first."""

    path: Path
    seen: np.ndarray
    classes: dict[str, float]

    @property
    def best(self) -> str:
        return next(iter(self.classes))


def guess(run: Run, paths: Sequence[Path], device: str = "auto", data_root: str | None = None) -> list[Guess]:
    """Raises InputError where the run or its weights are broken, or a file is no picture of something drawn."""
    config = hardware.resolve(run_config(run, device, data_root))
    seen = [pictures.read(path) for path in paths]  # before torch is asked for anything
    dataset = _scale(run, config)
    network = in_precision(best_model(run, config), config.precision)
    images = torch.from_numpy(np.stack(seen)).to(torch.device(config.device))
    probabilities = predict(network.eval(), dataset, images).softmax(1).cpu()
    found = []
    for path, image, row in zip(paths, seen, probabilities, strict=True):
        order = row.argsort(descending=True).tolist()
        found.append(Guess(path, image, {dataset.classes[k]: float(row[k]) for k in order}))
    return found


def _scale(run: Run, config: Config) -> Dataset:
    """A dataset without images, of the run's classes and pixel scale; older runs, without these, need their data."""
    metrics = run.read_metrics()
    known, classes = metrics.get("normalisation"), metrics.get("classes")
    if not isinstance(known, dict) or not isinstance(classes, list):
        return data.load(config.data)
    empty = Split(torch.empty(0, 28, 28, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    return Dataset(
        str(metrics.get("dataset")),
        tuple(map(str, classes)),
        empty,
        empty,
        empty,
        float(known["mean"]),
        float(known["std"]),
    )
