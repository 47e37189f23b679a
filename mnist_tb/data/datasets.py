"""Datasets as tensors in memory: read, checked, split, and cut into batches."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb.config.schema import Data
from mnist_tb.data import download
from mnist_tb.errors import InputError

_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Split:
    """Images and what they show. images: uint8 [N, 28, 28]; labels: int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    classes: the ten names, in the order of the labels.
    mean, std: of the training pixels (validation left out), on the scale 0 to 1.
    fallback_reason: why these are not the data that were asked for; None where they are.
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
        """uint8 or float [N, 28, 28], 0 to 255 → dtype [N, 1, 28, 28] of the training set's mean 0 and deviation 1."""
        mean, scale = self.scaling
        return images.unsqueeze(1).to(torch.float32, copy=True).sub_(mean).mul_(scale).to(dtype)

    @property
    def scaling(self) -> tuple[float, float]:
        """What is taken from a pixel, 0 to 255, and by what the rest is multiplied, to bring it to scale."""
        return self.mean * 255, 1 / (self.std * 255)

    def train_batch(
        self, index: Tensor, dtype: torch.dtype, change: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The training images at `index`, int64 [B]: inputs, dtype [B, 1, 28, 28], and labels, int64 [B].

        change: what becomes of the images, uint8 [B, 28, 28], before they are brought to the inputs' scale.
        """
        images, labels = self.train.images.index_select(0, index), self.train.labels.index_select(0, index)
        return self.inputs(images if change is None else change(images), dtype), labels

    def to(self, device: torch.device) -> Dataset:
        train, validation, test = (split.to(device) for split in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


@dataclass(frozen=True)
class _Files:
    """Where a dataset keeps its IDX files, as torchvision lays them out below a root folder."""

    folder: str
    train: tuple[str, str]
    test: tuple[str, str]
    classes: tuple[str, ...] = _DIGITS
    transposed: bool = False  # EMNIST stores each image with rows and columns exchanged


_MNIST_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_MNIST_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_FAMILY = {
    "mnist": _Files("MNIST", _MNIST_TRAIN, _MNIST_TEST),
    "fashion_mnist": _Files("FashionMNIST", _MNIST_TRAIN, _MNIST_TEST, _CLOTHES),
    "kmnist": _Files("KMNIST", _MNIST_TRAIN, _MNIST_TEST, _KANA),
    "qmnist": _Files(
        "QMNIST",
        ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
        ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
    ),
    "emnist_digits": _Files(
        "EMNIST",
        ("emnist-digits-train-images-idx3-ubyte", "emnist-digits-train-labels-idx1-ubyte"),
        ("emnist-digits-test-images-idx3-ubyte", "emnist-digits-test-labels-idx1-ubyte"),
        transposed=True,
    ),
}


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU random generator of its own for each purpose, so that no use of one can move another."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load(config: Data, say: Callable[[str], None] = lambda message: None) -> Dataset:
    """Read the configured dataset into memory, downloading it first where that is allowed and needed.

    say: receives one sentence before a wait that the user should know of.
    Raises InputError where files are broken, or missing with no way (left) to get them.
    """
    if config.name == "digits":
        return _split(config, _DIGITS, *_builtin_digits())
    files = _FAMILY[config.name]
    root = Path(config.root)
    try:
        missing = [name for name in (*files.train, *files.test) if _locate(root, files.folder, name) is None]
    except OSError as error:
        raise InputError(f"{root}: cannot be looked into: {error.strerror}") from None
    if missing:
        expected = root / files.folder / "raw"
        if not config.download:
            raise InputError(f"{root}: holds no {config.name}: {missing[0]} is not there (nor in {expected})")
        say(f"Downloading {config.name} into {expected} …")
        try:
            download.fetch(config.name, root, expected, config.mirror, config.download_seconds)
        except download.DownloadError as error:
            if config.fallback is None:
                raise InputError(
                    f"{config.name} cannot be downloaded: {error}. Put its files into {expected}, point --data-root at"
                    " them, or set data.fallback to digits"
                ) from None
            return replace(_split(config, _DIGITS, *_builtin_digits(), name="digits"), fallback_reason=str(error))
    train, test = (_read_split(root, files, names) for names in (files.train, files.test))
    return _split(config, files.classes, train, test)


def batches(count: int, size: int, order: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """One epoch: a fresh permutation of 0 … count-1, int64, in pieces of `size`; the last may be smaller."""
    yield from torch.randperm(count, generator=order).to(device).split(size)


def _split(config: Data, classes: tuple[str, ...], train: Split, test: Split, name: str | None = None) -> Dataset:
    """Hold the last images of a seeded shuffle out for validation, at most a sixth of them."""
    held_out = min(config.validation, len(train) // 6)
    order = torch.randperm(len(train), generator=generator(config.split_seed, "validation split"))
    kept, held = order[: len(train) - held_out], order[len(train) - held_out :]
    if len(held) == 0:
        raise InputError(f"{config.name}: {len(train)} training images are too few to hold some out for validation")
    training = Split(train.images[kept], train.labels[kept])
    validation = Split(train.images[held], train.labels[held])
    return Dataset(name or config.name, classes, training, validation, test, *_mean_and_std(training.images))


def _mean_and_std(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 pixels on the scale 0 to 1; from integer counts, so exact in any order."""
    counts = torch.bincount(images.reshape(-1), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return float(mean), max(float(std), 1e-3)  # images of one single grey would divide by zero


def _builtin_digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits, 8×8 in 17 grey levels, at MNIST's scale: 20×20 amid 28×28. A sixth is for the test.

    https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
    """
    table = _digits_table()
    small = torch.from_numpy(table[:, :64].reshape(-1, 1, 8, 8)).float() * (255 / 16)
    large = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(large, (4, 4, 4, 4)).squeeze(1).round().to(torch.uint8)
    labels = torch.from_numpy(table[:, 64]).long()
    order = torch.randperm(len(labels), generator=generator(0, "digits test split"))
    tested, trained = order[: len(order) // 6], order[len(order) // 6 :]
    return Split(images[trained], labels[trained]), Split(images[tested], labels[tested])


def _digits_table() -> np.ndarray:
    """A row an image: 64 grey levels, 0 to 16, and the digit. Importing scikit-learn would take a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None, "declared in setup.cfg"
    path = Path(str(package.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.exists():  # another version may keep it elsewhere
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return np.column_stack([bunch.data, bunch.target])
    lines = gzip.decompress(path.read_bytes()).decode().split()
    return np.array([line.split(",") for line in lines], dtype=np.float64)


def _read_split(root: Path, files: _Files, names: tuple[str, str]) -> Split:
    image_path, label_path = (_locate(root, files.folder, name) for name in names)
    if image_path is None or label_path is None:
        raise InputError(f"{root}: the download left out {' or '.join(names)}")
    images = read_idx(image_path, np.dtype(np.uint8), 3)
    integers = np.dtype(">i4") if names[1].endswith("-int") else np.dtype(np.uint8)
    labels = read_idx(label_path, integers, 2 if names[1].endswith("-int") else 1)
    labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST: the class, then where the digit comes from
    if images.shape[1:] != (28, 28):
        raise InputError(f"{image_path}: the images are {images.shape[1]}×{images.shape[2]}, not 28×28")
    if len(images) != len(labels):
        raise InputError(f"{label_path}: {len(labels)} labels for the {len(images)} images in {image_path.name}")
    if len(images) == 0:
        raise InputError(f"{image_path}: holds no images")
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise InputError(f"{label_path}: label {labels[wrong[0]]} at position {wrong[0]}, but labels are 0 to 9")
    if files.transposed:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path, dtype: np.dtype, dimensions: int) -> np.ndarray:
    """Read an IDX file (gzipped where its name ends in .gz) of one element type and number of dimensions.

    The format: two zero bytes, a type code, the number of dimensions, each size as a big-endian int32, the elements.
    http://yann.lecun.com/exdb/mnist/ (at its end). Raises InputError where the file is anything else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    magic = bytes([0, 0, {1: 0x08, 4: 0x0C}[dtype.itemsize], dimensions])
    start = 4 + 4 * dimensions
    if content[:4] != magic or len(content) < start:
        raise InputError(
            f"{path}: is no IDX file of this kind: it begins with {content[:4].hex(' ')}, not {magic.hex(' ')}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", dimensions, 4))
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize if min(shape) >= 0 else -1
    if len(content) - start != expected:
        raise InputError(
            f"{path}: is truncated or too long: its header says {'×'.join(map(str, shape))} elements,"
            f" {expected} bytes, but {len(content) - start} bytes follow"
        )
    return np.frombuffer(bytearray(content), dtype, offset=start).reshape(shape)


def _locate(root: Path, folder: str, name: str) -> Path | None:
    """The file below torchvision's folders or directly in the root, plain or gzipped."""
    places = (root / folder / "raw", root / "raw", root)
    candidates = (place / (name + suffix) for place in places for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)
