"""Datasets as tensors in memory: read, checked, split into training, validation and test, and cut into batches."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb.config.schema import Config, Data
from mnist_tb.data.files import DIGITS, IDX_FILES, IdxFiles, find_file, provide
from mnist_tb.errors import InputError


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N, 28, 28], and their labels, int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    classes: the names of the ten classes, in the order of the labels.
    mean, std: of the training pixels, without the validation set, on a scale from 0 to 1.
    fallback_reason: why this is the fallback rather than the dataset asked for; None if it is the one asked for.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: float
    std: float
    fallback_reason: str | None = None

    def inputs(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalise images: uint8 or float [N, 28, 28], 0 to 255 → dtype [N, 1, 28, 28].

        Over the training set the result has mean 0 and standard deviation 1.
        """
        mean, scale = self.scaling
        return images.unsqueeze(1).to(torch.float32, copy=True).sub_(mean).mul_(scale).to(dtype)

    @property
    def scaling(self) -> tuple[float, float]:
        """(mean, scale) of the normalisation (pixel - mean) · scale, for pixels from 0 to 255."""
        return self.mean * 255, 1 / (self.std * 255)

    def train_batch(
        self, index: Tensor, dtype: torch.dtype, transform: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The training images at `index`, int64 [B]: inputs, dtype [B, 1, 28, 28], and labels, int64 [B].

        transform: applied to the images, uint8 [B, 28, 28], before they are normalised.
        """
        images, labels = self.train.images.index_select(0, index), self.train.labels.index_select(0, index)
        return self.inputs(images if transform is None else transform(images), dtype), labels

    def to(self, device: torch.device) -> Dataset:
        train, validation, test = (split.to(device) for split in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def generator(seed: int, purpose: str) -> torch.Generator:
    """A random generator on the CPU; each seed and purpose has an independent stream."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load_dataset(config: Data, say: Callable[[str], None] = lambda message: None) -> Dataset:
    """Load the configured dataset into memory; download it first if it is missing and `config.download` allows it.

    say: called with a message for the user before a download.
    Raises InputError if files are damaged, or if they are missing and neither a download nor a fallback replaces them.
    """
    if config.name == "digits":
        return _hold_out(config, DIGITS, *_builtin_digits())
    reason = provide(config, say)
    if reason is not None:
        return replace(_hold_out(config, DIGITS, *_builtin_digits(), name="digits"), fallback_reason=reason)
    root, files = Path(config.root), IDX_FILES[config.name]
    train, test = (_read_split(root, files, names) for names in (files.train, files.test))
    return _hold_out(config, files.classes, train, test)


def batches(count: int, size: int, order: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """The batches of one epoch: a new permutation of 0 … count-1, int64, `size` at a time; the last may be smaller."""
    yield from torch.randperm(count, generator=order).to(device).split(size)


def total_steps(config: Config, num_images: int) -> int:
    """Optimiser updates of a whole training."""
    return config.train.epochs * math.ceil(num_images / config.train.batch_size)


def schedule_steps(config: Config, num_images: int) -> int:
    """Optimiser updates over which the schedule, and what else is a share of all updates, is laid out."""
    return (config.schedule.epochs or config.train.epochs) * math.ceil(num_images / config.train.batch_size)


def _hold_out(config: Data, classes: tuple[str, ...], train: Split, test: Split, name: str | None = None) -> Dataset:
    """Hold out the last `config.validation` images of a seeded shuffle for validation, but at most one in six."""
    num_held_out = min(config.validation, len(train) // 6)
    order = torch.randperm(len(train), generator=generator(config.split_seed, "validation split"))
    kept, held_out = order[: len(train) - num_held_out], order[len(train) - num_held_out :]
    if len(held_out) == 0:
        raise InputError(f"{config.name}: {len(train)} training images are too few to hold any out for validation")
    training = Split(train.images[kept], train.labels[kept])
    validation = Split(train.images[held_out], train.labels[held_out])
    return Dataset(name or config.name, classes, training, validation, test, *_mean_and_std(training.images))


def _mean_and_std(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 pixels, scaled to 0 to 1.

    Computed from the histogram, whose counts are exact, so that the order of the images makes no difference.
    """
    counts = torch.bincount(images.reshape(-1), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return float(mean), max(float(std), 1e-3)  # no division by zero if all pixels are equal


def _builtin_digits() -> tuple[Split, Split]:
    """Training and test split of the 1,797 digits in the package, resized as MNIST's are: 20×20 centred in 28×28.

    One in six is for the test.
    """
    images, labels = _digits_table()
    pixels = torch.from_numpy(images).unsqueeze(1).float() * (255 / 16)
    large = functional.interpolate(pixels, size=(20, 20), mode="bilinear", align_corners=False)
    padded = functional.pad(large, (4, 4, 4, 4)).squeeze(1).round().to(torch.uint8)
    classes = torch.from_numpy(labels).long()
    order = torch.randperm(len(classes), generator=generator(0, "digits test split"))
    test, train = order[: len(order) // 6], order[len(order) // 6 :]
    return Split(padded[train], classes[train]), Split(padded[test], classes[test])


def _digits_table() -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [1797, 8, 8] from 0 to 16, and labels, uint8 [1797]. Their source and licence: digits.txt."""
    with np.load(Path(__file__).with_name("digits.npz")) as arrays:
        return arrays["images"], arrays["labels"]


def _read_split(root: Path, files: IdxFiles, names: tuple[str, str]) -> Split:
    image_path, label_path = (find_file(root, files.folder, name) for name in names)
    if image_path is None or label_path is None:
        raise InputError(f"{root}: the download did not include {' or '.join(names)}")
    images = read_idx(image_path, np.dtype(np.uint8), 3)
    is_int = names[1].endswith("-int")
    labels = read_idx(label_path, np.dtype(">i4" if is_int else np.uint8), 2 if is_int else 1)
    labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's other columns say where a digit comes from
    if images.shape[1:] != (28, 28):
        raise InputError(f"{image_path}: the images are {images.shape[1]}×{images.shape[2]}, not 28×28")
    if len(images) != len(labels):
        raise InputError(f"{label_path}: {len(labels)} labels for the {len(images)} images in {image_path.name}")
    if len(images) == 0:
        raise InputError(f"{image_path}: contains no images")
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise InputError(f"{label_path}: label {labels[wrong[0]]} at position {wrong[0]}, but labels are 0 to 9")
    if files.transposed:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path, dtype: np.dtype, dimensions: int) -> np.ndarray:
    """Read an IDX file with elements of this type (uint8 or big-endian int32) and this number of dimensions.

    A file whose name ends in .gz is decompressed. The format: two zero bytes, a type code, the number of dimensions,
    the size of each as a big-endian int32, the elements (http://yann.lecun.com/exdb/mnist/, at the end of the page).
    Raises InputError if the file cannot be read or has another format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    magic = bytes([0, 0, {1: 0x08, 4: 0x0C}[dtype.itemsize], dimensions])
    start = 4 + 4 * dimensions
    if content[:4] != magic:
        raise InputError(
            f"{path}: is not an IDX file of the expected type: it begins with {content[:4].hex(' ') or 'nothing'},"
            f" not {magic.hex(' ')}"
        )
    if len(content) < start:
        raise InputError(f"{path}: is truncated: its header should have {start} bytes, but it has {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", dimensions, 4))
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize if min(shape) >= 0 else -1
    if len(content) - start != expected:
        raise InputError(
            f"{path}: is truncated or too long: its header says {'×'.join(map(str, shape))} elements,"
            f" {expected} bytes, but {len(content) - start} bytes follow"
        )
    return np.frombuffer(bytearray(content), dtype, offset=start).reshape(shape)
