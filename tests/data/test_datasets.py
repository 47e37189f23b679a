from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.events import read_events
from helpers.idx import write_idx
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.config.schema import Config, Data, Train
from mnist_tb.data import download
from mnist_tb.data.datasets import (
    Dataset,
    _digits_table,
    batches,
    generator,
    load_dataset,
    total_steps,
)
from mnist_tb.data.files import IDX_FILES
from mnist_tb.errors import InputError
from mnist_tb.events.tags import PER_CLASS
from mnist_tb.runs.folder import list_run_folders
from mnist_tb.tracking.charts import class_tag


def local(root: Path, name: str = "mnist", **settings: object) -> Dataset:
    return load_dataset(Data.model_validate({"name": name, "root": str(root), "download": False, **settings}))


def refusal(root: Path, name: str = "mnist") -> str:
    with pytest.raises(InputError) as caught:
        local(root, name)
    return str(caught.value)


def test_real_mnist_is_read_completely(mnist_root: Path) -> None:
    dataset = local(mnist_root)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [55_000, 5_000, 10_000]
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.train.images.shape == (55_000, 28, 28)
    assert dataset.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The usual constants, computed over all 60,000 images, are 0.1307 and 0.3081.
    assert dataset.mean == pytest.approx(0.1307, abs=2e-4)
    assert dataset.std == pytest.approx(0.3081, abs=2e-4)


def test_inputs_have_mean_0_and_standard_deviation_1(mnist_root: Path) -> None:
    dataset = local(mnist_root)
    inputs = dataset.inputs(dataset.train.images)
    assert inputs.shape == (55_000, 1, 28, 28)
    assert inputs.mean().item() == pytest.approx(0, abs=1e-3)
    assert inputs.std().item() == pytest.approx(1, abs=1e-3)


def test_split_is_seeded_and_disjoint(small_mnist: Path) -> None:
    first, again, other = (local(small_mnist, split_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.validation.images, again.validation.images)
    assert not torch.equal(first.validation.images, other.validation.images)
    whole = local(small_mnist, validation=1)
    rows = {image.numpy().tobytes() for image in torch.cat([whole.train.images, whole.validation.images])}
    kept = {image.numpy().tobytes() for image in first.train.images}
    held = {image.numpy().tobytes() for image in first.validation.images}
    assert kept | held == rows
    assert not kept & held


def test_at_most_one_image_in_six_is_held_out_for_validation(small_mnist: Path) -> None:
    dataset = local(small_mnist)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (109, 21, 37)


def test_mean_and_std_come_from_the_training_split_alone(small_mnist: Path) -> None:
    dataset = local(small_mnist)
    pixels = dataset.train.images.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean().item(), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(correction=0).item(), rel=1e-12)


@pytest.mark.parametrize("layout", ["MNIST/raw", "raw", "."])
def test_files_are_found_in_three_layouts_and_gzipped(small_mnist: Path, layout: str, tmp_path: Path) -> None:
    target = tmp_path / "other" / layout
    target.mkdir(parents=True)
    for file in (small_mnist / "MNIST" / "raw").iterdir():
        (target / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert torch.equal(local(tmp_path / "other").test.images, local(small_mnist).test.images)


def test_fashion_mnist_and_kmnist_have_their_class_names(small_mnist: Path) -> None:
    root = small_mnist / "MNIST"
    assert local(root, "fashion_mnist").classes[9] == "Ankle boot"
    assert local(root, "kmnist").classes[0] == "o"


def test_qmnist_class_is_the_first_column_of_the_labels(tmp_path: Path, digits: Dataset) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    for part in ("train", "test"):
        write_idx(raw / f"qmnist-{part}-images-idx3-ubyte", digits.train.images[:40].numpy())
        labels = np.zeros((40, 8), np.int32)
        labels[:, 0] = digits.train.labels[:40]
        labels[:, 1] = 77_777
        write_idx(raw / f"qmnist-{part}-labels-idx2-int", labels)
    assert torch.equal(local(tmp_path, "qmnist").test.labels, digits.train.labels[:40])


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "qmnist", "emnist_digits"])
def test_every_dataset_trains_and_reports_its_class_names(
    name: str, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files in the original formats to the curves, the table and metrics.json."""
    files = IDX_FILES[name]
    for (images, labels), split, count in ((files.train, digits.train, 300), (files.test, digits.test, 90)):
        raw = tmp_path / files.folder / "raw"
        pixels, classes = split.images[:count].numpy(), split.labels[:count].numpy()
        write_idx(raw / images, pixels.transpose(0, 2, 1) if name == "emnist_digits" else pixels)
        wide = np.stack([classes, classes + 100], 1).astype(np.int32)
        write_idx(raw / labels, wide if name == "qmnist" else classes.astype(np.uint8))
    words = ["--config", str(REPOSITORY / "configs" / "default.yaml"), "--set", f"data.name={name}", "--epochs", "1"]
    logdir = tmp_path / "runs"
    assert main(arguments=["train", *words, "--data-root", str(tmp_path), "--logdir", str(logdir)]) == 0
    (run,) = list_run_folders(logdir)
    metrics = run.read_metrics()
    assert metrics["dataset"] == name
    assert metrics["images"] == {"train": 250, "val": 50, "test": 90}
    assert [row["class"] for row in metrics["test"]["per_class"]] == list(files.classes)
    tags = read_events(run).Tags()["scalars"]
    assert {class_tag(PER_CLASS, one) for one in files.classes} <= set(tags)
    out = capsys.readouterr().out
    assert all(one in out for one in files.classes)
    assert f"Test set of {name}, best weights" in out


def test_emnist_digits_are_transposed(tmp_path: Path, digits: Dataset) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    for part in ("train", "test"):
        upright = digits.train.images[:40].numpy()
        write_idx(raw / f"emnist-digits-{part}-images-idx3-ubyte", upright.transpose(0, 2, 1))
        write_idx(raw / f"emnist-digits-{part}-labels-idx1-ubyte", digits.train.labels[:40].numpy().astype(np.uint8))
    assert torch.equal(local(tmp_path, "emnist_digits").test.images, digits.train.images[:40])


def test_builtin_digits_are_those_of_the_uci_repository() -> None:
    images, labels = _digits_table()
    content = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert content == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    assert content in (REPOSITORY / "mnist_tb" / "data" / "digits.txt").read_text()
    assert (images.shape, labels.shape) == ((1_797, 8, 8), (1_797,))
    assert images.dtype == labels.dtype == np.uint8
    assert (images.min(), images.max(), labels.min(), labels.max()) == (0, 16, 0, 9)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_builtin_digits_are_framed_like_mnist(digits: Dataset) -> None:
    assert sum(len(split) for split in (digits.train, digits.validation, digits.test)) == 1_797
    assert set(digits.train.labels.tolist()) == set(range(10))
    frame = digits.train.images.clone()
    frame[:, 4:24, 4:24] = 0
    assert not frame.any()
    assert digits.train.images.max() == 255


BROKEN = {
    "truncated": (lambda raw: raw[:-1], "train-images-idx3-ubyte", "truncated or too long"),
    "too long": (lambda raw: raw + b"\0", "train-images-idx3-ubyte", "truncated or too long"),
    "empty": (lambda raw: b"", "train-labels-idx1-ubyte", "begins with nothing"),
    "header cut off": (lambda raw: raw[:6], "train-images-idx3-ubyte", "header should have 16 bytes, but it has 6"),
    "labels as images": (lambda raw: raw, "train-images-idx3-ubyte", "begins with 00 00 08 01, not 00 00 08 03"),
    "another format": (lambda raw: b"\x89PNG" + raw, "t10k-images-idx3-ubyte", "begins with 89 50 4e 47"),
    "negative size": (lambda raw: raw[:4] + b"\xff" * 4 + raw[8:], "t10k-labels-idx1-ubyte", "truncated or too long"),
    "huge size": (lambda raw: raw[:4] + b"\x7f" * 12 + raw[16:], "t10k-images-idx3-ubyte", "truncated or too long"),
    "label 10": (lambda raw: raw[:-1] + b"\x0a", "train-labels-idx1-ubyte", "label 10 at position 129"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_file_is_named_with_what_is_wrong(kind: str, small_mnist: Path) -> None:
    damage, name, said = BROKEN[kind]
    path = small_mnist / "MNIST" / "raw" / name
    content = (path.parent / "train-labels-idx1-ubyte" if kind == "labels as images" else path).read_bytes()
    path.write_bytes(damage(content))
    message = refusal(small_mnist)
    assert message.startswith(str(path))
    assert said in message


def test_truncated_gzip_is_named(small_mnist: Path) -> None:
    path = small_mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(packed[:-12])
    assert f"{path}.gz: cannot be read" in refusal(small_mnist)


def test_damaged_gzip_is_named(small_mnist: Path) -> None:
    path = small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[500:600] = b"\xff" * 100
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(packed)
    assert f"{path}.gz: cannot be read" in refusal(small_mnist)


def test_counts_and_sizes_must_match(small_mnist: Path, digits: Dataset) -> None:
    raw = small_mnist / "MNIST" / "raw"
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(129, np.uint8))
    assert "129 labels for the 130 images in train-images-idx3-ubyte" in refusal(small_mnist)
    write_idx(raw / "train-images-idx3-ubyte", np.zeros((130, 32, 32), np.uint8))
    assert "the images are 32×32, not 28×28" in refusal(small_mnist)
    for name, shape in (("images-idx3", (0, 28, 28)), ("labels-idx1", (0,))):
        write_idx(raw / f"train-{name}-ubyte", np.zeros(shape, np.uint8))
    assert "contains no images" in refusal(small_mnist)
    for name, shape in (("images-idx3", (5, 28, 28)), ("labels-idx1", (5,))):
        write_idx(raw / f"train-{name}-ubyte", np.zeros(shape, np.uint8))
    assert "5 training images are too few" in refusal(small_mnist)


def test_missing_files_without_download_are_named(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "train-images-idx3-ubyte is neither there nor in" in message


def test_failed_download_falls_back_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise download.DownloadError("no route to host")

    monkeypatch.setattr(download, "fetch", fail)
    said: list[str] = []
    dataset = load_dataset(Data(root=str(tmp_path)), said.append)
    assert (dataset.name, dataset.fallback_reason) == ("digits", "no route to host")
    assert "Downloading mnist" in said[0]
    with pytest.raises(InputError, match=r"cannot be downloaded: no route to host\..*--data-root.*data\.name=digits"):
        load_dataset(Data(root=str(tmp_path), fallback=None))


def test_damaged_files_do_not_fall_back(small_mnist: Path) -> None:
    (small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"broken")
    with pytest.raises(InputError, match="not an IDX file"):
        load_dataset(Data(root=str(small_mnist)))


def test_batches_cover_every_image_once_and_the_last_may_be_smaller() -> None:
    parts = list(batches(109, 16, generator(0, "test"), torch.device("cpu")))
    assert [len(part) for part in parts] == [16] * 6 + [13]
    assert torch.cat(parts).sort().values.tolist() == list(range(109))


def test_total_steps_count_the_smaller_last_batches() -> None:
    config = Config(train=Train(epochs=3, batch_size=16))
    assert [total_steps(config, count) for count in (109, 112, 113)] == [21, 21, 24]


def test_each_purpose_and_seed_has_its_own_random_stream() -> None:
    def draw(seed: int, purpose: str) -> list[int]:
        return torch.randperm(100, generator=generator(seed, purpose)).tolist()

    assert draw(0, "a") == draw(0, "a")
    assert draw(0, "a") != draw(0, "b")
    assert draw(0, "a") != draw(1, "a")
