"""Any picture of a digit, brought to the format of MNIST's images. Imports no torch.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio […] the images were centered in a 28x28 image by computing the center of mass of the
pixels, and translating the image so as to position this point at the center of the 28x28 field."
http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from mnist_tb.errors import InputError

SIDE, BOX = 28, 20
_WORKING_SIZE = 256
"""Larger pictures are shrunk to this many pixels along the longer side before ink is separated from paper."""
_MIN_CONTRAST = 24
"""Smallest difference between ink and paper, in grey levels of 255; with less, the picture counts as blank."""
_MIN_STROKE_WIDTH = 2.0
"""In pixels of the 20×20 box, as in MNIST; thinner strokes are thickened."""
_SPECK_FRACTION = 0.05
"""A connected piece of ink with less than this fraction of the largest piece's area counts as dirt."""


def read(path: Path) -> np.ndarray:
    """Read a picture file and prepare it as an MNIST image: uint8 [28, 28], light on dark.

    Raises InputError if the file is not a readable picture, is too large or is blank.
    """
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            grey = _to_grey(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: the picture is too large") from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:  # what Pillow's readers raise
        reason = getattr(error, "strerror", None) or "is not a readable picture, such as a PNG or JPEG"
        raise InputError(f"{path}: {reason}") from None
    prepared = prepare(grey)
    if prepared is None:
        raise InputError(f"{path}: the picture is blank: ink and paper hardly differ")
    return prepared


def prepare(grey: np.ndarray) -> np.ndarray | None:
    """Grey levels, uint8 [H, W], dark on light or light on dark → uint8 [28, 28], light on dark; None if blank."""
    ink = _extract_ink(_shrink(grey))
    if ink is None:
        return None
    ink = _remove_specks(ink)
    rows, columns = np.flatnonzero(ink.max(1) > 0.5), np.flatnonzero(ink.max(0) > 0.5)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    ink = _thicken(ink, scale)
    height, width = (max(1, round(size * BOX / max(ink.shape))) for size in ink.shape)
    small = Image.fromarray((ink * 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    return _centre(np.asarray(small, dtype=np.float64))


def _to_grey(image: Image.Image) -> np.ndarray:
    """Grey levels, uint8 [H, W]. Transparent areas become paper: white under dark ink, black under light ink."""
    if image.mode in ("I", "I;16", "F"):
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        return np.asarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    rgba = image.convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A"), dtype=np.float64) / 255
    grey = np.asarray(rgba.convert("RGB").convert("L"), dtype=np.float64)
    mean_ink = (grey * alpha).sum() / max(alpha.sum(), 1e-9)
    paper = 255.0 if mean_ink < 128 else 0.0
    return (grey * alpha + paper * (1 - alpha)).round().astype(np.uint8)


def _shrink(grey: np.ndarray) -> np.ndarray:
    """The picture with at most `_WORKING_SIZE` pixels along its longer side, float64."""
    height, width = grey.shape
    scale = _WORKING_SIZE / max(height, width)
    if scale >= 1:
        return grey.astype(np.float64)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.float64)


def _extract_ink(grey: np.ndarray) -> np.ndarray | None:
    """How much ink there is at each pixel, from 0 (paper) to 1; None if the contrast is too low.

    The paper may be lit unevenly: its brightness is estimated by a morphological opening that removes the strokes.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > (grey.min() + grey.max()) / 2:
        grey = 255 - grey
    size = max(3, max(grey.shape) // 2)
    paper = ndimage.grey_opening(np.pad(grey, size, mode="edge"), size=(size, size))[size:-size, size:-size]
    contrast = grey - paper
    if contrast.max() < _MIN_CONTRAST:
        return None
    threshold = _otsu_threshold(contrast)
    return np.asarray(np.clip((contrast - 0.6 * threshold) / (0.8 * threshold), 0, 1))


def _otsu_threshold(values: np.ndarray) -> float:
    """The threshold that maximises the variance between the two classes it separates.

    N. Otsu, A threshold selection method from gray-level histograms, IEEE Transactions SMC 9 (1979), 62–66.
    """
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = counts.cumsum(), counts.sum()
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    return float(centres[np.nanargmax(variance[:-1])])


def _remove_specks(ink: np.ndarray) -> np.ndarray:
    """The ink without pieces much smaller than the largest; what is close to a piece that is kept stays as well."""
    labels, count = ndimage.label(ink > 0.5, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if count < 2:
        return ink
    kept = np.flatnonzero(areas >= _SPECK_FRACTION * areas.max()) + 1
    mask = ndimage.binary_dilation(np.isin(labels, kept), iterations=2)
    return np.where(mask, ink, 0)


def _thicken(ink: np.ndarray, scale: float) -> np.ndarray:
    """Widen strokes that would be thinner than `_MIN_STROKE_WIDTH` once the ink is resized by `scale`."""
    distance = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))
    width = 4 * distance[distance > 0].mean() - 1  # the mean distance to a stroke's edge is a quarter of its width
    radius = (_MIN_STROKE_WIDTH / scale - width) / 2
    if radius < 0.5:
        return ink
    padding = round(radius)
    return np.asarray(ndimage.grey_dilation(np.pad(ink, padding), footprint=_disc(padding)))


def _disc(radius: int) -> np.ndarray:
    line = np.arange(-radius, radius + 1)
    return line[:, None] ** 2 + line[None] ** 2 <= radius**2 + 0.5


def _centre(small: np.ndarray) -> np.ndarray:
    """Place an image by its centre of mass in the middle of 28×28, without cutting it off: uint8, maximum 255."""
    small = small * (255 / max(small.max(), 1e-9))
    total = small.sum()
    canvas = np.zeros((SIDE, SIDE))
    corner = []
    for axis, size in enumerate(small.shape):
        centre_of_mass = (small.sum(1 - axis) * (np.arange(size) + 0.5)).sum() / total
        corner.append(int(np.clip(round(SIDE / 2 - centre_of_mass), 0, SIDE - size)))
    canvas[corner[0] : corner[0] + small.shape[0], corner[1] : corner[1] + small.shape[1]] = small
    return canvas.clip(0, 255).round().astype(np.uint8)
