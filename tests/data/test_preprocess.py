"""Pictures of digits from anywhere: how they are preprocessed, and what is predicted for them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from helpers.drawings import STROKES, paint, stroke, typed
from helpers.paths import REPOSITORY
from mnist_tb.cli.main import main
from mnist_tb.data import preprocess
from mnist_tb.errors import InputError, command_line
from mnist_tb.runs.folder import Run, list_run_folders

# ---- Preprocessing


def test_a_picture_is_prepared_like_mnist() -> None:
    """In a box of 20×20, centred by its centre of mass, light on dark, whatever the original is."""
    pictures = []
    for dark_on_light in (True, False):
        for size, middle in ((100, 0.5), (640, 0.35), (1500, 0.6)):
            image = paint(stroke(STROKES["3"], size // 3, size // 25), size, dark_on_light, middle)
            pictures.append(preprocess.prepare(np.asarray(image)))
    for picture in pictures:
        assert picture is not None
        assert picture.shape == (28, 28)
        assert picture.dtype == np.uint8
        assert picture.max() == 255
        assert picture[:3].max() == 0
        rows, columns = np.flatnonzero(picture.max(1)), np.flatnonzero(picture.max(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        mass = picture.sum()
        for axis in (0, 1):
            middle = (picture.sum(1 - axis) * (np.arange(28) + 0.5)).sum() / mass
            assert abs(middle - 14) <= 0.51
        assert np.abs(picture.astype(int) - pictures[0].astype(int)).mean() < 12, "all alike"  # type: ignore[union-attr]


def test_aspect_ratio_is_kept() -> None:
    prepared = preprocess.prepare(np.asarray(paint(stroke([(0, -1), (0, 1)], 300, 40), 500, True)))
    assert prepared is not None
    assert np.ptp(np.flatnonzero(prepared.max(1))) + 1 == 20
    assert np.ptp(np.flatnonzero(prepared.max(0))) + 1 in (2, 3, 4)


def test_an_mnist_image_hardly_changes(mnist_root: Path) -> None:
    from mnist_tb.data.datasets import read_idx

    images = read_idx(mnist_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte", np.dtype(np.uint8), 3)
    for image in images[:50]:
        prepared = preprocess.prepare(image)
        assert prepared is not None
        shifted = min(
            np.abs(np.roll(prepared, (y, x), (0, 1)).astype(int) - image).mean() for y in (-1, 0, 1) for x in (-1, 0, 1)
        )
        assert shifted < 20


def test_thin_strokes_are_thickened_to_mnists() -> None:
    thin = preprocess.prepare(np.asarray(paint(stroke(STROKES["2"], 800, 6), 1000, True)))
    thick = preprocess.prepare(np.asarray(paint(stroke(STROKES["2"], 800, 90), 1000, True)))
    assert thin is not None
    assert thick is not None
    assert 0.4 < (thin > 127).sum() / (thick > 127).sum() < 1


def test_uneven_light_noise_and_specks() -> None:
    """As in a photograph: lit from one side, noisy, blurred, with specks of dirt."""
    image = paint(stroke(STROKES["5"], 200, 26), 400, True).filter(ImageFilter.GaussianBlur(2))
    clean = preprocess.prepare(np.asarray(image))
    random = np.random.default_rng(0)
    light = np.linspace(0.45, 1, 400)[None, :] * np.linspace(1, 0.8, 400)[:, None]
    photo = np.asarray(image) * light + random.normal(0, 4, (400, 400))
    photo[20:24, 30:34] = 10
    prepared = preprocess.prepare(photo.clip(0, 255).astype(np.uint8))
    assert clean is not None
    assert prepared is not None
    assert np.abs(prepared.astype(int) - clean.astype(int)).mean() < 15


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_transparent_areas_are_paper(ink: tuple[int, int, int], tmp_path: Path) -> None:
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(image).line([(100, 40), (100, 160)], (*ink, 255), 24)
    image.save(tmp_path / "a.png")
    prepared = preprocess.read(tmp_path / "a.png")
    assert 40 < (prepared > 127).sum() < 110, "one upright stroke"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I", "I;16", "F", "LA", "PA", "YCbCr"])
def test_every_pixel_format(mode: str, tmp_path: Path) -> None:
    plain = paint(stroke(STROKES["7"], 60, 8), 100, True)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(plain).astype(np.uint16) * 256)
    else:
        image = plain.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "PA") else plain.convert(mode)
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "F", "YCbCr", "I", "PA") else "a.png")
    image.save(path)
    prepared = preprocess.read(path)
    expected = preprocess.prepare(np.asarray(plain))
    assert expected is not None
    assert np.abs(prepared.astype(int) - expected.astype(int)).mean() < 25


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = paint(stroke(STROKES["7"], 60, 8), 100, True)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = preprocess.prepare(np.asarray(upright))
    assert expected is not None
    assert np.abs(preprocess.read(tmp_path / "a.jpg").astype(int) - expected.astype(int)).mean() < 10


# ---- Unusable files


def blank(path: Path) -> None:
    Image.new("L", (50, 50), 255).save(path)


def text(path: Path) -> None:
    path.write_text("not a picture")


def empty(path: Path) -> None:
    path.touch()


def cut(path: Path) -> None:
    paint(typed("3", 60), 200, True).save(path)
    path.write_bytes(path.read_bytes()[:200])


def huge(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (blank, "the picture is blank"), (text, "is not a readable picture"), (empty, "is not a readable picture"),
        (cut, "is not a readable picture"), (huge, "the picture is too large"), (folder, "Is a directory"),
        (nothing, "no such file"),
    ],
)  # fmt: skip
def test_unusable_file_is_one_sentence(
    make: Callable[[Path], None], sentence: str, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a.png")
    assert main(arguments=["predict", str(finished.path), str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mnist-tb: {tmp_path / 'a.png'}: {sentence}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2), (30, 1), (3, 5)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        prepared = preprocess.prepare(random.integers(0, 256, shape, dtype=np.uint8))
        assert prepared is None or prepared.shape == (28, 28)


# ---- Predictions


@pytest.fixture(scope="module")
def best(mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of best.yaml with fewer epochs."""
    logdir = tmp_path_factory.mktemp("best")
    config = str(REPOSITORY / "configs" / "best.yaml")
    arguments = ["train", "--config", config, "--logdir", str(logdir), "--data-root", str(mnist_root), "--epochs", "2"]
    assert main(arguments=[*arguments, "--set", "tracking.enabled=false"]) == 0
    return list_run_folders(logdir)[0]


def test_drawn_and_typed_digits(best: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten drawn and ten typed digits: dark and light, off-centre, small and large, some blurred and unevenly lit."""
    random = np.random.default_rng(0)
    paths = []
    for i, digit in enumerate("01234567890123456789"):
        size = (120, 300, 1200, 64)[i % 4]
        height = int(size * (0.6, 0.45, 0.75)[i % 3])
        draw = stroke(STROKES[digit], height, max(3, size // (12 + i))) if i < 10 else typed(digit, height)
        image = paint(draw, size, i % 2 == 0, (0.5, 0.45, 0.55)[i % 3])
        if i % 5 == 0:
            lit = np.asarray(image.filter(ImageFilter.GaussianBlur(size / 200))) * np.linspace(0.6, 1, size)[None, :]
            image = Image.fromarray((lit + random.normal(0, 3, lit.shape)).clip(0, 255).astype(np.uint8))
        paths.append(tmp_path / f"{i:02d}-{digit}.{'jpg' if i % 3 else 'png'}")
        image.save(paths[-1])
    sheet = tmp_path / "seen.png"
    assert main(arguments=["predict", str(best.path), *map(str, paths), "--json", "--show", str(sheet)]) == 0
    found = json.loads(capsys.readouterr().out)
    right = [next(iter(one["classes"])) == Path(one["image"]).stem[-1] for one in found]
    wrong = [Path(one["image"]).name for one, fine in zip(found, right, strict=True) if not fine]
    print(f"{sum(right)} of 20 right, wrong: {wrong}")
    assert sum(right) >= 18, wrong
    assert all(math.isclose(sum(one["classes"].values()), 1, abs_tol=1e-5) for one in found)
    with Image.open(sheet) as shown:
        assert shown.size[0] > 600


def test_the_three_most_probable_classes_are_printed(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(typed("1", 60), 100, True).save(tmp_path / "one.png")
    assert main(arguments=["predict", str(finished.path), str(tmp_path / "one.png")]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{tmp_path / 'one.png'}: ")
    assert line.count("%") == 3


def test_a_run_without_weights_says_how_it_gets_some(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was stopped in its first epoch."""
    paint(typed("1", 60), 100, True).save(tmp_path / "one.png")
    run = Run(shutil.copytree(finished.path, tmp_path / "runs" / finished.name))
    run.best_checkpoint.unlink()
    run.write_metrics({key: value for key, value in run.read_metrics().items() if key != "best_epoch"})
    assert main(arguments=["predict", "last", str(tmp_path / "one.png"), "--logdir", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"mnist-tb: {run.path}: has no best weights yet: it ended before its first epoch did; it resumes with:"
        f" {command_line('resume', run.path)}\n"
    )


@pytest.mark.parametrize(
    ("name", "sentence"), [("no/such/x.png", "cannot be written"), ("x.nothing", "the ending of a")]
)
def test_sheet_that_cannot_be_written(
    name: str, sentence: str, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(typed("1", 60), 100, True).save(tmp_path / "one.png")
    arguments = ["predict", str(finished.path), str(tmp_path / "one.png"), "--show", str(tmp_path / name)]
    assert main(arguments=arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_without_stored_normalisation(finished: Run, tmp_path: Path) -> None:
    import shutil

    from mnist_tb.training import inference

    old = Run(shutil.copytree(finished.path, tmp_path / "0001-old"))
    metrics = old.read_metrics()
    del metrics["normalisation"]
    old.write_metrics(metrics)
    paint(typed("1", 60), 100, True).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="has no classes and normalisation"):
        inference.predict_pictures(old, [tmp_path / "one.png"])


def test_damaged_files_raise_only_input_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paint(typed("3", 60), 100, True).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    for _ in range(300):
        harmed = content.copy()
        for _ in range(3):
            harmed[random.integers(len(harmed))] = random.integers(256)
        (tmp_path / "b.png").write_bytes(harmed)
        try:
            prepared = preprocess.read(tmp_path / "b.png")
        except InputError as error:
            refused = str(error)
        else:
            assert prepared.shape == (28, 28)
            refused = ""
        assert not refused or str(tmp_path) in refused
