"""The files of the datasets: which there are, where they lie, and bringing those that are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mnist_tb.config.schema import Data
from mnist_tb.data import download
from mnist_tb.errors import InputError

DIGITS = tuple("0123456789")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass(frozen=True)
class IdxFiles:
    """A dataset's IDX files as torchvision stores them in a root folder: (images, labels) of each split."""

    folder: str
    train: tuple[str, str]
    test: tuple[str, str]
    classes: tuple[str, ...] = DIGITS
    transposed: bool = False  # EMNIST stores each image with rows and columns swapped


_MNIST_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_MNIST_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_FILES = {
    "mnist": IdxFiles("MNIST", _MNIST_TRAIN, _MNIST_TEST),
    "fashion_mnist": IdxFiles("FashionMNIST", _MNIST_TRAIN, _MNIST_TEST, _FASHION),
    "kmnist": IdxFiles("KMNIST", _MNIST_TRAIN, _MNIST_TEST, _HIRAGANA),
    "qmnist": IdxFiles(
        "QMNIST",
        ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
        ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
    ),
    "emnist_digits": IdxFiles(
        "EMNIST",
        ("emnist-digits-train-images-idx3-ubyte", "emnist-digits-train-labels-idx1-ubyte"),
        ("emnist-digits-test-images-idx3-ubyte", "emnist-digits-test-labels-idx1-ubyte"),
        transposed=True,
    ),
}


def provide(config: Data, say: Callable[[str], None] = lambda message: None) -> str | None:
    """Download the dataset's files where they are missing and `config.download` allows it.

    say: called with a message for the user before a download.
    Returns why there are none, where the fallback is to replace them; otherwise they are there.
    Raises InputError if they are missing, and neither a download nor a fallback replaces them.
    """
    files = IDX_FILES.get(config.name)
    if files is None:  # in the package
        return None
    root = Path(config.root)
    try:
        missing = [name for name in (*files.train, *files.test) if find_file(root, files.folder, name) is None]
    except OSError as error:
        raise InputError(f"{root}: cannot be looked into: {error.strerror}") from None
    if missing:
        expected = root / files.folder / "raw"
        if not config.download:
            raise InputError(f"{root}: holds no {config.name}: {missing[0]} is neither there nor in {expected}")
        say(f"Downloading {config.name} into {expected} …")
        try:
            download.fetch(config.name, root, expected, config.mirror, config.download_seconds)
        except download.DownloadError as error:
            if config.fallback is None:
                raise InputError(
                    f"{config.name} cannot be downloaded: {error}. Put its files into {expected}, point --data-root at"
                    " them, or train on the built-in digits: --set data.name=digits"
                ) from None
            return str(error)
    return None


def find_file(root: Path, folder: str, name: str) -> Path | None:
    """The path of a file in torchvision's subfolders or in the root itself, plain or gzipped; None if it is missing."""
    places = (root / folder / "raw", root / "raw", root)
    candidates = (place / (name + suffix) for place in places for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)
