"""Digits, typed and drawn, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

DARK, LIGHT = 20, 235
Draw = Callable[[ImageDraw.ImageDraw, int, int], None]


def typed(digit: str, size: int) -> Draw:
    """The digit in a font."""

    def draw(pen: ImageDraw.ImageDraw, middle: int, ink: int) -> None:
        pen.text((middle, middle), digit, ink, ImageFont.load_default(size), anchor="mm")

    return draw


def stroke(points: list[tuple[float, float]], size: int, width: int) -> Draw:
    """A line through points on a scale of -1 to 1, as a pen draws it."""

    def draw(pen: ImageDraw.ImageDraw, middle: int, ink: int) -> None:
        line = [(middle + x * size / 2, middle + y * size / 2) for x, y in points]
        pen.line(line, ink, width, joint="curve")
        for x, y in (line[0], line[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), ink)

    return draw


def arc(x: float, y: float, radius: float, start: float, end: float, squeeze: float = 1.0) -> list[tuple[float, float]]:
    angles = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + radius * squeeze * math.cos(a), y + radius * math.sin(a)) for a in angles]


STROKES = {
    "0": arc(0, 0, 1, -90, 270, 0.65),
    "1": [(-0.25, -0.6), (0.1, -1), (0.1, 1)],
    "2": [*arc(0, -0.5, 0.5, -170, 50), (-0.6, 1), (0.6, 1)],
    "3": [*arc(0, -0.5, 0.5, -150, 80), *arc(0, 0.48, 0.55, -85, 150)],
    "4": [(0.35, 1), (0.35, -1), (-0.6, 0.3), (0.7, 0.3)],
    "5": [(0.6, -1), (-0.45, -1), (-0.5, -0.15), *arc(-0.05, 0.4, 0.58, -120, 140)],
    "6": [(0.35, -1), (-0.3, -0.2), *arc(0, 0.45, 0.52, -170, 190)],
    "7": [(-0.6, -1), (0.6, -1), (-0.1, 1)],
    "8": [*arc(0, -0.5, 0.47, 90, 450), *arc(0, 0.5, 0.52, -90, 270)],
    "9": [*arc(0, -0.45, 0.5, 0, 360), (0.5, -0.45), (0.4, 1)],
}


def paint(draw: Draw, size: int, dark_on_light: bool, middle: float = 0.5) -> Image.Image:
    paper, ink = (LIGHT, DARK) if dark_on_light else (DARK, LIGHT)
    image = Image.new("L", (size, size), paper)
    draw(ImageDraw.Draw(image), int(middle * size), ink)
    return image
