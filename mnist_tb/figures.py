"""Pure: tensors in, pictures out. A picture is uint8 [height, width, 3], drawn at the size at which it is shown.

Inside, numpy takes the place of torch. Pictures are drawn beside the training, on another thread, and the first torch
operation that OpenMP shares out there starts a second team of threads; with more of them than cores, GNU's OpenMP stops
spinning and puts the training's threads to sleep dozens of times a step, for good: steps took 1.6 times as long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_SCALE = 4  # screen pixels per image pixel; TensorBoard's cards show six columns of them at about half that size
_TILE = 28 * _SCALE
_CAPTION = 30
_EDGE = 4
_NAME = 26  # font sizes in pixels
_PERCENT = 18
_ARROW = 22
_GAP = 8
_CELL_WIDTH = _TILE + 2 * _EDGE + _GAP
_CELL_HEIGHT = _TILE + _EDGE + _CAPTION + _GAP
_HEADER = 44

# Paper and ink that stand on TensorBoard's light and dark page alike; green and red of different lightness, and a sign
# beside them, so that they are told apart without colour vision.
_PAPER = (250, 250, 250)
_INK = (33, 33, 33)
_FAINT = (110, 110, 110)
_RIGHT = (27, 122, 61)
_WRONG = (214, 40, 40)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def predictions(
    images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], columns: int = 6, title: str = ""
) -> np.ndarray:
    """A grid of images, each with what the network takes it for and how surely.

    images: uint8 [N, 28, 28]; labels: int64 [N]; probabilities: float [N, C], all on the CPU. A right prediction is
    framed green and says the class; a wrong one is framed red and says true → predicted. The confidence is cut, not
    rounded: only certainty is 100 %.
    """
    rows = max(1, -(-len(images) // columns))
    header = _HEADER if title else 0
    sheet = Image.new("RGB", (columns * _CELL_WIDTH + _GAP, header + rows * _CELL_HEIGHT + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((_GAP + _EDGE, header / 2 + 2), title, _INK, _font(24), anchor="lm")
    table = probabilities.numpy()
    for i, image in enumerate(images.numpy()):
        left = _GAP + i % columns * _CELL_WIDTH
        top = header + _GAP + i // columns * _CELL_HEIGHT
        true, guess = int(labels[i]), int(table[i].argmax())
        tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        _cell(pen, sheet, tile, (left, top), classes[true], classes[guess], float(table[i, guess]))
    return np.asarray(sheet)


def _cell(
    pen: ImageDraw.ImageDraw,
    sheet: Image.Image,
    tile: Image.Image,
    corner: tuple[int, int],
    true: str,
    guess: str,
    sure: float,
) -> None:
    left, top = corner
    colour = _RIGHT if true == guess else _WRONG
    pen.rectangle((left, top, left + _TILE + 2 * _EDGE - 1, top + _TILE + _EDGE + _CAPTION - 1), fill=colour)
    sheet.paste(tile, (left + _EDGE, top + _EDGE))
    percent = f"{int(100 * sure)}%"
    middle = top + _EDGE + _TILE + _CAPTION / 2
    pen.text((left + _EDGE + _TILE - 2, middle), percent, "white", _font(_PERCENT), anchor="rm")
    start = left + _EDGE + 2
    room = _TILE - 6 - pen.textlength(percent, _font(_PERCENT))
    if true == guess:
        pen.text((start, middle), _shorten(pen, guess, room), "white", _font(_NAME), anchor="lm")
        return
    true = _shorten(pen, true, (room - _ARROW) / 2)
    pen.text((start, middle), true, "white", _font(_NAME), anchor="lm")
    tail = start + pen.textlength(true, _font(_NAME)) + 3
    tip = tail + _ARROW - 6
    pen.line((tail, middle, tip - 4, middle), "white", 2)
    pen.polygon(((tip, middle), (tip - 7, middle - 5), (tip - 7, middle + 5)), "white")
    pen.text((tip + 3, middle), _shorten(pen, guess, (room - _ARROW) / 2), "white", _font(_NAME), anchor="lm")


def _shorten(pen: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """The text, or as much of it as there is room for, with a full stop for what is left out."""
    if pen.textlength(text, _font(_NAME)) <= room:
        return text
    while text and pen.textlength(text + ".", _font(_NAME)) > room:
        text = text[:-1]
    return text + "."


def confusion(matrix: Tensor, classes: Sequence[str]) -> np.ndarray:
    """A confusion matrix: row the true class, column the predicted one, each cell its count.

    matrix: int64 [C, C]. The diagonal is shaded by recall, the rest by its share of the row, on a scale of its own:
    mistakes are rare, and would all look empty on the diagonal's.
    """
    count = len(classes)
    cell, margin = 50, 20 + max(int(_font(21).getlength(name)) for name in classes)
    size = margin + count * cell + _GAP
    sheet = Image.new("RGB", (size, size + 30), _PAPER)
    pen = ImageDraw.Draw(sheet)
    counts = matrix.numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    mistakes = shares - np.diag(shares.diagonal())
    worst = max(float(mistakes.max()), 1e-9)
    for row in range(count):
        for column in range(count):
            hit = row == column
            strength = float(shares[row, column]) if hit else float(mistakes[row, column]) / worst
            shade = _mix(_PAPER, _RIGHT if hit else _WRONG, strength * (0.85 if hit else 1.0))
            left, top = margin + column * cell, margin + row * cell
            pen.rectangle((left, top, left + cell - 2, top + cell - 2), fill=shade)
            number = int(counts[row, column])
            ink = "white" if strength > 0.5 else (_INK if number else (205, 205, 205))
            pen.text(
                (left + cell / 2 - 1, top + cell / 2 - 1),
                str(number),
                ink,
                _fitting(str(number), cell - 8),
                anchor="mm",
            )
    for i, name in enumerate(classes):
        middle = margin + i * cell + cell / 2
        pen.text((margin - 8, middle), name, _INK, _font(21), anchor="rm")
        _column_name(sheet, name, middle, margin)
    pen.text((margin, size + 8), "row: true class, column: predicted", _FAINT, _font(21), anchor="lm")
    return np.asarray(sheet)


def _fitting(text: str, room: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font, of 21 pixels at most, in which a text is no wider than the room."""
    return next((_font(size) for size in range(21, 8, -1) if _font(size).getlength(text) <= room), _font(8))


def _column_name(sheet: Image.Image, name: str, middle: float, margin: int) -> None:
    """A column's heading: upright where it is a digit, turned where it is a word."""
    if len(name) <= 3:
        ImageDraw.Draw(sheet).text((middle, margin - 8), name, _INK, _font(21), anchor="mb")
        return
    strip = Image.new("RGB", (margin - 8, 26), _PAPER)
    ImageDraw.Draw(strip).text((0, 13), name, _INK, _font(21), anchor="lm")
    sheet.paste(strip.rotate(90, expand=True), (int(middle) - 13, 0))


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue
