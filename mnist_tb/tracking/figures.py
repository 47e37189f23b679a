"""Tensors in, pictures out. A picture is uint8 [height, width, 3], drawn at the size at which it is shown.

Inside, numpy takes the place of torch. Pictures are drawn beside the training, on another thread, and the first
parallel torch operation there would start a second team of OpenMP threads; with more threads than cores, GNU OpenMP
puts those of the training to sleep dozens of times a step, from then on: steps took 1.6 times as long.
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

# Colours that work on TensorBoard's light and dark page alike; green and red differ in lightness too, and by a sign, so
# that they can be distinguished without colour vision.
_PAPER = (250, 250, 250)
_INK = (33, 33, 33)
_FAINT = (110, 110, 110)
_CORRECT = (27, 122, 61)
_WRONG = (214, 40, 40)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def predictions(
    images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], columns: int = 6, title: str = ""
) -> np.ndarray:
    """A grid of images, each with its prediction and the confidence.

    images: uint8 [N, 28, 28]. labels: int64 [N]. probabilities: float [N, C]. All on the CPU. A correct prediction is
    framed green and names the class; a wrong one is framed red: true → predicted. The confidence is rounded down: only
    certainty is 100 %.
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
        true, prediction = int(labels[i]), int(table[i].argmax())
        tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        _cell(pen, sheet, tile, (left, top), classes[true], classes[prediction], float(table[i, prediction]))
    return np.asarray(sheet)


def captioned(images: Sequence[np.ndarray], captions: Sequence[tuple[str, float]], columns: int = 6) -> np.ndarray:
    """A grid of images, uint8 [28, 28] each, with prediction and confidence, where the true class is unknown."""
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    sheet = Image.new("RGB", (columns * _CELL_WIDTH + _GAP, rows * _CELL_HEIGHT + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (image, (prediction, confidence)) in enumerate(zip(images, captions, strict=True)):
        corner = _GAP + i % columns * _CELL_WIDTH, _GAP + i // columns * _CELL_HEIGHT
        tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        _cell(pen, sheet, tile, corner, prediction, prediction, confidence, _FAINT)
    return np.asarray(sheet)


def _cell(
    pen: ImageDraw.ImageDraw,
    sheet: Image.Image,
    tile: Image.Image,
    corner: tuple[int, int],
    true: str,
    prediction: str,
    confidence: float,
    colour: tuple[int, int, int] | None = None,
) -> None:
    left, top = corner
    colour = colour or (_CORRECT if true == prediction else _WRONG)
    pen.rectangle((left, top, left + _TILE + 2 * _EDGE - 1, top + _TILE + _EDGE + _CAPTION - 1), fill=colour)
    sheet.paste(tile, (left + _EDGE, top + _EDGE))
    percent = f"{confidence:.0%}"
    middle = top + _EDGE + _TILE + _CAPTION / 2
    pen.text((left + _EDGE + _TILE - 2, middle), percent, "white", _font(_PERCENT), anchor="rm")
    start = left + _EDGE + 2
    room = _TILE - 6 - pen.textlength(percent, _font(_PERCENT))
    if true == prediction:
        pen.text((start, middle), _shorten(pen, prediction, room), "white", _font(_NAME), anchor="lm")
        return
    true = _shorten(pen, true, (room - _ARROW) / 2)
    pen.text((start, middle), true, "white", _font(_NAME), anchor="lm")
    tail = start + pen.textlength(true, _font(_NAME)) + 3
    tip = tail + _ARROW - 6
    pen.line((tail, middle, tip - 4, middle), "white", 2)
    pen.polygon(((tip, middle), (tip - 7, middle - 5), (tip - 7, middle + 5)), "white")
    pen.text((tip + 3, middle), _shorten(pen, prediction, (room - _ARROW) / 2), "white", _font(_NAME), anchor="lm")


def _shorten(pen: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """The text, or as much of it as fits, with a full stop for the rest."""
    if pen.textlength(text, _font(_NAME)) <= room:
        return text
    while text and pen.textlength(text + ".", _font(_NAME)) > room:
        text = text[:-1]
    return text + "."


def confusion(matrix: Tensor, classes: Sequence[str]) -> np.ndarray:
    """A confusion matrix, int64 [C, C]: the row is the true class, the column the predicted one, each cell a count.

    The diagonal is shaded by recall, the other cells by their fraction of the row, on a scale of their own: mistakes
    are rare, and would look empty on that of the diagonal. At the end of each row is its recall, of each column its
    precision, in percent.
    """
    count = len(classes)
    cell, margin, rate = 50, 20 + max(int(_font(21).getlength(name)) for name in classes), 66
    size = margin + count * cell
    sheet = Image.new("RGB", (size + rate + _GAP, size + 36 + 30), _PAPER)
    pen = ImageDraw.Draw(sheet)
    counts = matrix.numpy()
    fractions = counts / counts.sum(1, keepdims=True).clip(min=1)
    mistakes = fractions - np.diag(fractions.diagonal())
    worst = max(float(mistakes.max()), 1e-9)
    for row in range(count):
        for column in range(count):
            is_correct = row == column
            strength = float(fractions[row, column]) if is_correct else float(mistakes[row, column]) / worst
            shade = _mix(_PAPER, _CORRECT if is_correct else _WRONG, strength * (0.85 if is_correct else 1.0))
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
    correct, predicted = counts.diagonal(), counts.sum(0)
    for i, name in enumerate(classes):
        middle = margin + i * cell + cell / 2
        pen.text((margin - 8, middle), name, _INK, _font(21), anchor="rm")
        _column_name(sheet, name, middle, margin)
        pen.text((size + 6, middle), _percent(correct[i], counts[i].sum()), _FAINT, _font(_PERCENT), anchor="lm")
        precision = _percent(correct[i], predicted[i])
        pen.text((middle, size + 14), precision, _FAINT, _fitting(precision, cell - 4, _PERCENT), anchor="mm")
    pen.text(
        (margin, size + 40), "row: true, column: predicted; recall, precision in %", _FAINT, _font(19), anchor="lm"
    )
    return np.asarray(sheet)


def _percent(part: float, whole: float) -> str:
    """Rounded down, so that only all is 100 %."""
    return "–" if whole == 0 else "100" if part == whole else f"{int(1000 * part / whole) / 10:.1f}"


def reliability(calibration: Calibration) -> np.ndarray:
    """A reliability diagram: in each bin of confidence the accuracy, and below it the number of predictions.

    On the diagonal the accuracy equals the confidence; below it the network is overconfident.
    """
    side, left, top = 420, 74, 44
    sheet = Image.new("RGB", (left + side + 24, top + side + 150), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 20), f"expected calibration error {calibration.error:.2%}", _INK, _font(21), anchor="lm")
    bins, total = len(calibration.count), max(sum(calibration.count), 1)
    width = side / bins
    base = top + side + 40 + 70
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        y = top + side * (1 - fraction)
        pen.line((left, y, left + side, y), (225, 225, 225))
        pen.text((left - 8, y), f"{fraction:.0%}", _FAINT, _font(17), anchor="rm")
        pen.text((left + side * fraction, top + side + 14), f"{fraction:.0%}", _FAINT, _font(17), anchor="mm")
    for i, number in enumerate(calibration.count):
        if number:
            x, accuracy, confidence = left + i * width, calibration.accuracy[i], calibration.confidence[i]
            colour = _WRONG if confidence > accuracy else _CORRECT
            high, low = (top + side * (1 - value) for value in (max(accuracy, confidence), min(accuracy, confidence)))
            pen.rectangle((x + 1, top + side * (1 - accuracy), x + width - 2, top + side), fill=(120, 144, 180))
            pen.rectangle((x + 1, high, x + width - 2, low), outline=colour, width=2)
            pen.rectangle((x + 1, base - 70 * number / max(calibration.count), x + width - 2, base), fill=_FAINT)
    pen.line((left, top + side, left + side, top), _INK, 2)
    pen.line((left, base, left + side, base), _FAINT)
    pen.text((left - 8, base - 35), f"{total:,}", _FAINT, _font(17), anchor="rm")
    caption = "x: confidence, y: accuracy; below: number of predictions"
    pen.text((left - 60, base + 20), caption, _FAINT, _font(17), anchor="lm")
    return np.asarray(sheet)


def filters(weights: Tensor, columns: int = 8) -> np.ndarray:
    """The filters of the first layer: negative weights blue, positive ones red, zeros white, on one scale.

    weights: float [C, 1, 3, 3] on the CPU.
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
    """An image and the first feature maps of each layer, from zero (dark) to the maximum of the layer (light).

    image: uint8 [28, 28]. layers: float [C, H, W] each, not negative. All on the CPU.
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
    """Pictures side by side on one sheet, row by row, each at the top left of its cell."""
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
    """The largest font, at most of this size in pixels, in which a text fits."""
    return next((_font(size) for size in range(most, 8, -1) if _font(size).getlength(text) <= room), _font(8))


def _column_name(sheet: Image.Image, name: str, middle: float, margin: int) -> None:
    """The heading of a column: upright if it is short, turned if it is a word."""
    if len(name) <= 3:
        ImageDraw.Draw(sheet).text((middle, margin - 8), name, _INK, _font(21), anchor="mb")
        return
    strip = Image.new("RGB", (margin - 8, 26), _PAPER)
    ImageDraw.Draw(strip).text((0, 13), name, _INK, _font(21), anchor="lm")
    sheet.paste(strip.rotate(90, expand=True), (int(middle) - 13, 0))


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], fraction: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * fraction) for a, b in zip(low, high, strict=True))
    return red, green, blue
