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

from mnist_tb.metrics import Calibration

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


def captioned(images: Sequence[np.ndarray], captions: Sequence[tuple[str, float]], columns: int = 6) -> np.ndarray:
    """A grid of images, uint8 [28, 28] each, with what each is taken for and how surely; nothing is right or wrong."""
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    sheet = Image.new("RGB", (columns * _CELL_WIDTH + _GAP, rows * _CELL_HEIGHT + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (image, (guess, sure)) in enumerate(zip(images, captions, strict=True)):
        corner = _GAP + i % columns * _CELL_WIDTH, _GAP + i // columns * _CELL_HEIGHT
        tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        _cell(pen, sheet, tile, corner, guess, guess, sure, _FAINT)
    return np.asarray(sheet)


def _cell(
    pen: ImageDraw.ImageDraw,
    sheet: Image.Image,
    tile: Image.Image,
    corner: tuple[int, int],
    true: str,
    guess: str,
    sure: float,
    colour: tuple[int, int, int] | None = None,
) -> None:
    left, top = corner
    colour = colour or (_RIGHT if true == guess else _WRONG)
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
    """A confusion matrix: row the true class, column the predicted one, each cell its count; recall and precision.

    matrix: int64 [C, C]. The diagonal is shaded by recall, the rest by its share of the row, on a scale of its own:
    mistakes are rare, and would all look empty on the diagonal's. At the end of each row its recall, of each column its
    precision, in percent.
    """
    count = len(classes)
    cell, margin, rate = 50, 20 + max(int(_font(21).getlength(name)) for name in classes), 66
    size = margin + count * cell
    sheet = Image.new("RGB", (size + rate + _GAP, size + 36 + 30), _PAPER)
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
    hits, taken = counts.diagonal(), counts.sum(0)
    for i, name in enumerate(classes):
        middle = margin + i * cell + cell / 2
        pen.text((margin - 8, middle), name, _INK, _font(21), anchor="rm")
        _column_name(sheet, name, middle, margin)
        pen.text((size + 6, middle), _percent(hits[i], counts[i].sum()), _FAINT, _font(_PERCENT), anchor="lm")
        share = _percent(hits[i], taken[i])
        pen.text((middle, size + 14), share, _FAINT, _fitting(share, cell - 4, _PERCENT), anchor="mm")
    pen.text(
        (margin, size + 40), "row: true, column: predicted; recall, precision in %", _FAINT, _font(19), anchor="lm"
    )
    return np.asarray(sheet)


def _percent(part: float, whole: float) -> str:
    """Cut, not rounded, as only all is 100 %."""
    return "–" if whole == 0 else "100" if part == whole else f"{int(1000 * part / whole) / 10:.1f}"


def reliability(calibration: Calibration) -> np.ndarray:
    """The reliability diagram: in each bin of confidence, how often the prediction is right, and how many there are.

    On the diagonal a network is right as often as it is sure; below it is too sure of itself.
    """
    side, left, top = 420, 74, 44
    sheet = Image.new("RGB", (left + side + 24, top + side + 150), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 20), f"expected calibration error {calibration.error:.2%}", _INK, _font(21), anchor="lm")
    bins, total = len(calibration.count), max(sum(calibration.count), 1)
    width = side / bins
    base = top + side + 40 + 70
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = top + side * (1 - share)
        pen.line((left, y, left + side, y), (225, 225, 225))
        pen.text((left - 8, y), f"{share:.0%}", _FAINT, _font(17), anchor="rm")
        pen.text((left + side * share, top + side + 14), f"{share:.0%}", _FAINT, _font(17), anchor="mm")
    for i, number in enumerate(calibration.count):
        if number:
            x, accuracy, confidence = left + i * width, calibration.accuracy[i], calibration.confidence[i]
            colour = _WRONG if confidence > accuracy else _RIGHT
            high, low = (top + side * (1 - value) for value in (max(accuracy, confidence), min(accuracy, confidence)))
            pen.rectangle((x + 1, top + side * (1 - accuracy), x + width - 2, top + side), fill=(120, 144, 180))
            pen.rectangle((x + 1, high, x + width - 2, low), outline=colour, width=2)
            pen.rectangle((x + 1, base - 70 * number / max(calibration.count), x + width - 2, base), fill=_FAINT)
    pen.line((left, top + side, left + side, top), _INK, 2)
    pen.line((left, base, left + side, base), _FAINT)
    pen.text((left - 8, base - 35), f"{total:,}", _FAINT, _font(17), anchor="rm")
    caption = "across: confidence, up: how often right; below: predictions"
    pen.text((left - 60, base + 20), caption, _FAINT, _font(17), anchor="lm")
    return np.asarray(sheet)


def filters(weights: Tensor, columns: int = 8) -> np.ndarray:
    """The first layer's filters: blue where they subtract, red where they add, white where they do nothing.

    weights: float [C, 1, 3, 3] on the CPU; one scale for all.
    """
    values = weights.detach().numpy()[:, 0]
    scale = max(float(np.abs(values[np.isfinite(values)]).max(initial=0)), 1e-9)
    cell, gap = 28, 12
    rows = -(-len(values) // columns)
    columns = min(columns, len(values))
    sheet = np.full((rows * (3 * cell + gap) + gap, columns * (3 * cell + gap) + gap, 3), _PAPER, dtype=np.uint8)
    for i, kernel in enumerate(values):
        picture = _signed(np.kron(np.nan_to_num(kernel) / scale, np.ones((cell, cell))))
        top, left = gap + i // columns * (3 * cell + gap), gap + i % columns * (3 * cell + gap)
        sheet[top : top + 3 * cell, left : left + 3 * cell] = picture
    return sheet


def feature_maps(image: Tensor, layers: Sequence[Tensor], columns: int = 16) -> np.ndarray:
    """An image and what each layer makes of it: its first maps, each from nothing (dark) to its layer's most (light).

    image: uint8 [28, 28]; layers: float [C, H, W] each, none negative, on the CPU.
    """
    side, gap = 56, 4
    parts = [[image.numpy()]]
    for layer in layers:
        maps = layer.numpy()
        most = max(float(maps.max()), 1e-9)
        parts.append([(255 * (each / most).clip(0, 1)).astype(np.uint8) for each in maps[: 2 * columns]])
    rows = [part[start : start + columns] for part in parts for start in range(0, len(part), columns)]
    sheet = Image.new("RGB", (columns * (side + gap) + gap, len(rows) * (side + gap) + gap), _PAPER)
    for y, row in enumerate(rows):
        for x, each in enumerate(row):
            tile = Image.fromarray(np.ascontiguousarray(each)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (gap + x * (side + gap), gap + y * (side + gap)))
    return np.asarray(sheet)


def beside(pictures: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Pictures on one sheet, row by row, each at the top left of its place."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(min(columns, len(pictures)))]
    sheet = np.full((sum(heights), sum(widths), 3), _PAPER, dtype=np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = sum(heights[:y]), sum(widths[:x])
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _signed(values: np.ndarray) -> np.ndarray:
    """-1 to 1 → blue, white, red: uint8 [H, W, 3]."""
    strength = np.abs(values).clip(0, 1)[:, :, None]
    ends = np.where(values[:, :, None] < 0, np.array((33, 102, 172.0)), np.array((178, 24, 43.0)))
    return np.asarray(255 * (1 - strength) + ends * strength, dtype=np.uint8)


def _fitting(text: str, room: float, most: int = 21) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font, of so many pixels at most, in which a text is no wider than the room."""
    return next((_font(size) for size in range(most, 8, -1) if _font(size).getlength(text) <= room), _font(8))


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
