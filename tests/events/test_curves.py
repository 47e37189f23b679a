"""Which curve of another program is which."""

from __future__ import annotations

import pytest

from mnist_tb.events.curves import best_result, find_curves, thin


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["acc/train", "acc/val", "acc/test"], {"train": "acc/train", "val": "acc/val", "test": "acc/test"}),
        (["accuracy/train", "accuracy/valid"], {"train": "accuracy/train", "val": "accuracy/valid"}),
        (["accuracy/val", "accuracy"], {"val": "accuracy/val", "train": "accuracy"}),
        (["Accuracy", "epoch_accuracy/validation"], {"train": "Accuracy", "val": "epoch_accuracy/validation"}),
        (["accuracy/val", "accuracy_per_class/0"], {"val": "accuracy/val"}),
        (["temperature"], {}),
    ],
)
def test_curves_are_found_by_their_names(tags: list[str], expected: dict[str, str]) -> None:
    assert find_curves(tags) == {("accuracy", split): tag for split, tag in expected.items()}
    assert find_curves(reversed(tags)) == find_curves(tags)


def test_evenly_thinned_with_the_last() -> None:
    assert [list(thin(range(count), 4)) for count in (0, 1, 4, 5, 9)] == [[], [0], [0, 1, 2, 3], [0, 2, 4], [2, 5, 8]]


def test_the_best_result() -> None:
    nan = float("nan")
    assert best_result({1: 0.5, 2: 0.9, 3: nan}, {1: 0.1, 2: 0.2}) == (0.9, 0.2)
    assert best_result({}, {1: 0.3, 2: 0.2, 3: nan}) == (None, 0.2)
    assert best_result({1: nan}, {}) == (None, None)
