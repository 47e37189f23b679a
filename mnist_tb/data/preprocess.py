"""A picture of a digit from anywhere, brought to the form that MNIST's images have. Imports no torch.

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
_WORKING = 256
"""Pixels of the longer side at which ink and paper are told apart."""
_LEAST_CONTRAST = 24
"""Grey levels, of 255, between ink and paper below which there is nothing drawn."""
_LEAST_STROKE = 2.0
"""Pixels of a stroke in the box of 20, as in MNIST; thinner ones are thickened."""
_SPECK = 0.05
"""Share of the largest piece of ink below which a piece is dirt."""


def read(path: Path) -> np.ndarray:
    """A picture file as MNIST would hold it: uint8 [28, 28], light on dark. Raises InputError where it is none."""
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            grey = _grey(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: is too large a picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:  # what Pillow's readers raise
        reason = getattr(error, "strerror", None) or "is no picture that can be read, such as a PNG or JPEG"
        raise InputError(f"{path}: {reason}") from None
    found = prepare(grey)
    if found is None:
        raise InputError(f"{path}: nothing is drawn in it: it is of one grey all over")
    return found


def prepare(grey: np.ndarray) -> np.ndarray | None:
    """Grey levels, uint8 [H, W], dark on light or light on dark → uint8 [28, 28]; None where nothing is drawn."""
    ink = _ink(_smaller(grey))
    if ink is None:
        return None
    ink = _without_specks(ink)
    rows, columns = np.flatnonzero(ink.max(1) > 0.5), np.flatnonzero(ink.max(0) > 0.5)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    ink = _thickened(ink, scale)
    height, width = (max(1, round(size * BOX / max(ink.shape))) for size in ink.shape)
    small = Image.fromarray((ink * 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    return _centred(np.asarray(small, dtype=np.float64))


def _grey(image: Image.Image) -> np.ndarray:
    """uint8 [H, W]. What is transparent becomes paper: white under dark ink, black under light."""
    if image.mode in ("I", "I;16", "F"):
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        return np.asarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    colours = image.convert("RGBA")
    alpha = np.asarray(colours.getchannel("A"), dtype=np.float64) / 255
    grey = np.asarray(colours.convert("RGB").convert("L"), dtype=np.float64)
    drawn = (grey * alpha).sum() / max(alpha.sum(), 1e-9)
    paper = 255.0 if drawn < 128 else 0.0
    return (grey * alpha + paper * (1 - alpha)).round().astype(np.uint8)


def _smaller(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    scale = _WORKING / max(height, width)
    if scale >= 1:
        return grey.astype(np.float64)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.float64)


def _ink(grey: np.ndarray) -> np.ndarray | None:
    """0 where there is paper, 1 where there is ink. The paper may be lit unevenly: it is what strokes leave of it."""
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(edge) > (grey.min() + grey.max()) / 2:
        grey = 255 - grey
    size = max(3, max(grey.shape) // 2)
    paper = ndimage.grey_opening(np.pad(grey, size, mode="edge"), size=(size, size))[size:-size, size:-size]
    difference = grey - paper
    if difference.max() < _LEAST_CONTRAST:
        return None
    middle = _otsu(difference)
    return np.asarray(np.clip((difference - 0.6 * middle) / (0.8 * middle), 0, 1))


def _otsu(values: np.ndarray) -> float:
    """The threshold that divides values best in two. N. Otsu, IEEE Transactions SMC 9 (1979), 62–66."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = counts.cumsum(), counts.sum()
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    return float(centres[np.nanargmax(between[:-1])])


def _without_specks(ink: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(ink > 0.5, structure=np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    if count < 2:
        return ink
    kept = np.flatnonzero(areas >= _SPECK * areas.max()) + 1
    near = ndimage.binary_dilation(np.isin(pieces, kept), iterations=2)
    return np.where(near, ink, 0)


def _thickened(ink: np.ndarray, scale: float) -> np.ndarray:
    """Strokes that would be thinner in the box than MNIST's are made as thick."""
    depth = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))
    stroke = 4 * depth[depth > 0].mean() - 1  # the mean depth of a stroke is a quarter of its width
    lacking = (_LEAST_STROKE / scale - stroke) / 2
    if lacking < 0.5:
        return ink
    reach = round(lacking)
    return np.asarray(ndimage.grey_dilation(np.pad(ink, reach), footprint=_disc(reach)))


def _disc(radius: int) -> np.ndarray:
    line = np.arange(-radius, radius + 1)
    return line[:, None] ** 2 + line[None] ** 2 <= radius**2 + 0.5


def _centred(small: np.ndarray) -> np.ndarray:
    """In the middle of 28×28 by its centre of mass, as far as it stays within; its darkest ink is 255."""
    small = small * (255 / max(small.max(), 1e-9))
    total = small.sum()
    field = np.zeros((SIDE, SIDE))
    corner = []
    for axis, size in enumerate(small.shape):
        middle = (small.sum(1 - axis) * (np.arange(size) + 0.5)).sum() / total
        corner.append(int(np.clip(round(SIDE / 2 - middle), 0, SIDE - size)))
    field[corner[0] : corner[0] + small.shape[0], corner[1] : corner[1] + small.shape[1]] = small
    return field.clip(0, 255).round().astype(np.uint8)
