from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from mnist_tb.tracking import figures

DIGITS = tuple("0123456789")
GREEN, RED = (27, 122, 61), (214, 40, 40)


def grid(labels: list[int], predictions: list[int], classes: tuple[str, ...] = DIGITS, **options: object) -> np.ndarray:
    images = torch.full((len(labels), 28, 28), 200, dtype=torch.uint8)
    probabilities = torch.nn.functional.one_hot(torch.tensor(predictions, dtype=torch.long), len(classes)).float()
    return figures.predictions(images, torch.tensor(labels), probabilities, classes, **options)  # type: ignore[arg-type]


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(2).sum())


def test_right_is_green_and_wrong_is_red() -> None:
    right, wrong = grid([3], [3]), grid([3], [5])
    assert right.dtype == np.uint8
    assert count(right, GREEN) > 1000
    assert count(right, RED) == 0
    assert count(wrong, RED) > 1000
    assert count(wrong, GREEN) == 0


def test_caption_tells_predictions_apart() -> None:
    assert not np.array_equal(grid([3], [5]), grid([3], [6]))
    assert not np.array_equal(grid([3], [5]), grid([4], [5]))


def test_image_is_shown_enlarged_and_unchanged() -> None:
    assert count(grid([1], [1]), (200, 200, 200)) == (28 * 4) ** 2


def test_grid_grows_by_rows_and_takes_a_title() -> None:
    row, two, titled = grid([1] * 6, [1] * 6), grid([1] * 7, [1] * 7), grid([1] * 6, [1] * 6, title="A title")
    assert row.shape[1] == two.shape[1] == titled.shape[1]
    assert two.shape[0] > titled.shape[0] > row.shape[0]


def test_no_images_give_an_empty_grid() -> None:
    assert count(grid([], []), RED) == 0


@pytest.mark.parametrize("names", [DIGITS, tuple(f"a long name {i}" for i in range(10))])
def test_names_stay_inside_their_cell(names: tuple[str, ...]) -> None:
    edge = grid([0], [1], names)[:, :8]
    assert (edge == edge[0, 0]).all()


def test_confusion_shades_hits_green_and_mistakes_red() -> None:
    perfect = figures.confusion(torch.eye(10, dtype=torch.int64) * 100, DIGITS)
    matrix = torch.eye(10, dtype=torch.int64) * 100
    matrix[4, 9] = 3
    mistaken = figures.confusion(matrix, DIGITS)
    assert count(perfect, RED) == 0
    assert count(mistaken, RED) > 1000
    row, column = np.argwhere((mistaken == RED).all(2)).mean(0)
    assert row < column, "true 4 taken for 9 is right of the diagonal"


def test_drawing_on_another_thread_starts_no_second_team_of_threads() -> None:
    """A torch operation shared out by OpenMP there would slow the training down for good."""
    code = """
import os, threading, torch
from mnist_tb.tracking import figures

def draw():
    images, labels = torch.zeros(18, 28, 28, dtype=torch.uint8), torch.zeros(18, dtype=torch.long)
    figures.predictions(images, labels, torch.rand(18, 10, generator=random), "0123456789")
    figures.confusion(torch.eye(10, dtype=torch.int64), "0123456789")
    seen.append(len(os.listdir("/proc/self/task")))

random, seen = torch.Generator(), []
torch.ones(2_000, 2_000).add_(1).sum()  # the first team, the main thread's
before = len(os.listdir("/proc/self/task"))
thread = threading.Thread(target=draw)
thread.start()
thread.join()
assert seen == [before + 1], (seen, before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [9, 980, 1_135, 24_000])
def test_counts_stay_inside_their_cell(number: int) -> None:
    """The shade of the first cell, a hit, shows on both sides of its count."""
    picture = figures.confusion(torch.eye(10, dtype=torch.int64) * number, DIGITS).astype(int)
    rows, columns = np.nonzero((picture[..., 1] - picture[..., 0] > 60) & (picture[..., 0] < 120))
    top, left = rows.min(), columns[rows == rows.min()].min()
    cell = picture[top : top + 49, left : left + 49]
    assert (cell[:, :3] == cell[0, 0]).all()
    assert (cell[:, -3:] == cell[0, 0]).all()
    assert (cell != cell[0, 0]).any(), "the count is there"


def test_confusion_makes_room_for_words() -> None:
    matrix = torch.eye(10, dtype=torch.int64)
    assert figures.confusion(matrix, ("T-shirt/top",) * 10).shape[1] > figures.confusion(matrix, DIGITS).shape[1]
