"""Which curve of another program is which."""

from __future__ import annotations

import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_tb.events import tags as own
from mnist_tb.events.curves import fields, find_curves, find_measured, in_fractions, thin
from mnist_tb.events.reader import Point
from mnist_tb.events.status import Status
from mnist_tb.runs.values import best_result
from mnist_tb.watch.chart import charts

FIELDS = {
    "loss": ["loss", "Loss", "train/loss", "Loss/train", "train_loss_step", "train_loss_epoch", "epoch_loss",
             "avg loss", "batch_loss", "running_loss", "Training Loss", "trainLoss", "train/total_loss",
             "CrossEntropyLoss/train"],
    "accuracy": ["acc", "Accuracy", "train_acc", "epoch_accuracy", "epoch_sparse_categorical_accuracy", "acc1/train",
                 "train/MulticlassAccuracy", "Accuracy/training"],
    "val_loss": ["val_loss", "eval_loss", "eval/loss", "Loss/valid", "validation/loss", "evaluation_loss_vs_iterations",
                 "valLoss", "dev-loss"],
    "val_accuracy": ["val_acc", "val_acc/dataloader_idx_0", "eval/accuracy", "Accuracy/valid", "eval_top1", "val.acc@1",
                     "val/top_1", "evaluation_accuracy_vs_iterations"],
    "test_loss": ["test_loss", "Loss/test", "test/loss_epoch", "TestLoss"],
    "test_accuracy": ["test_acc", "Accuracy/testing", "test/accuracy"],
    "lr": ["lr", "learning_rate", "train/learning_rate", "lr-Adam", "epoch_learning_rate", "lr/pg0", "LearningRate"],
    "images_per_second": ["throughput/images_per_second", "train/images_per_second"],
    None: ["val/acc_top5", "losses/value_loss", "train/value_loss", "losses/entropy", "train/policy_loss",
           "accuracy_per_class/0", "latest/loss", "accelerator/util", "train/box_loss", "val/acc@5",
           "val_loss/class_1", "val_acc_ema",
           "best_val_acc", "loss_scale", "train/loss_vs_val", "eval_samples_per_second", "val/lr", "weights/lr.bias",
           "top1_error", "epoch", "train", "", "temperature", "G_loss", "gradients/acc", "loss/acc"],
}  # fmt: skip
TABLE = [(tag, field) for field, tags in FIELDS.items() for tag in tags]


@pytest.mark.parametrize(("tag", "field"), TABLE)
def test_a_curve_is_what_its_whole_words_say(tag: str, field: str | None) -> None:
    assert fields([tag]).get(tag) == field


@given(st.sampled_from([tag for tag, field in TABLE if field]), st.data())
def test_a_longer_word_is_another_word(tag: str, data: st.DataObject) -> None:
    ends = [match.end() for match in re.finditer(r"[^\W_]+", tag)]
    at = data.draw(st.sampled_from(ends))
    longer = tag[:at] + data.draw(st.text("bdfgkqxz", min_size=1)) + tag[at:]  # which make no other word of the table
    assert not fields([longer])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["acc/train", "acc/val", "acc/test"], {"train": "acc/train", "val": "acc/val", "test": "acc/test"}),
        (["accuracy/train", "accuracy/valid"], {"train": "accuracy/train", "val": "accuracy/valid"}),
        (["accuracy/val", "accuracy"], {"val": "accuracy/val", "train": "accuracy"}),
        (["Accuracy", "epoch_accuracy/validation"], {"train": "Accuracy", "val": "epoch_accuracy/validation"}),
        (["accuracy/val", "acc/val", "val"], {"val": "accuracy/val"}),
        (["val/acc_top5", "val/acc", "val_acc", "acc/valid"], {"val": "val/acc"}),
        (["accuracy/val", "accuracy_per_class/0", "lr"], {"val": "accuracy/val"}),
        (["temperature"], {}),
    ],
)
def test_curves_are_found_by_their_names(tags: list[str], expected: dict[str, str]) -> None:
    assert find_curves(tags) == {("accuracy", split): tag for split, tag in expected.items()}
    assert find_curves(reversed(tags)) == find_curves(tags)


def test_what_is_told_is_not_guessed() -> None:
    told = {("accuracy", "val"): "top5/val"}
    assert find_curves(["val_acc", "top5/val"], told) == {("accuracy", "val"): "top5/val"}
    assert fields(["val_acc"], told) == {"val_acc": "val_accuracy"}


@pytest.mark.parametrize(
    ("values", "unit"),
    [([0.1, 1.0], 1), ([0.5, 1.0000001], 1), ([0.9, 76.1], 100), ([100.0], 100), ([0.5, 101.0], None), ([], 1),
     ([float("nan"), 76.1, float("inf")], 100), ([float("inf")], 1)],
)  # fmt: skip
def test_an_accuracy_may_be_in_percent(values: list[float], unit: int | None) -> None:
    """All that shows it shows the same; a loss may have any value."""
    points = [Point("", step, 0.0, value) for step, value in enumerate(values)]
    expected = {} if unit is None else {("accuracy", "val"): ("val_acc", unit)}
    assert find_measured({"val_acc": points, "loss": points}) == {**expected, ("loss", "train"): ("loss", 1)}
    (chart, *_) = [chart for chart in charts({"val_acc": points}) if chart.title == "accuracy"] or [None]
    assert (chart is None) == (unit is None)
    finite = [value for value in values if math.isfinite(value)]
    if chart is not None:
        assert chart.series["val"][1] == [value / unit for value in finite]
    if values:
        said = in_fractions(Status(val_accuracy=max(finite, default=None), val_loss=101.0))
        assert said.val_accuracy == (max(finite) / unit if unit and finite else None)
        assert said.val_loss == 101


def test_each_field_is_one_of_the_status() -> None:
    ours = [own.LOSS_TRAIN, own.LOSS_VAL, own.LOSS_TEST, own.ACCURACY_TRAIN, own.ACCURACY_VAL, own.ACCURACY_TEST,
            own.LR, own.THROUGHPUT]  # fmt: skip
    found = fields([*ours, *(tag for tag, _ in TABLE)])
    assert list(found) == ours, "its own names come first"
    assert set(found.values()) == set(FIELDS) - {None} <= set(vars(Status()))


def test_evenly_thinned_with_the_last() -> None:
    assert thin([], 4) == []
    assert thin([1, 2, 3], 4) == [1, 2, 3]
    assert thin(range(10), 4) == [0, 4, 8, 9]
    assert thin(range(5), 4) == [0, 2, 4]


def extremes(values: list[float], steps: list[int], width: int) -> set[int]:
    """The places of the minimum, the maximum and the first gap of each bucket of so many steps."""
    buckets: dict[int, list[int]] = {}
    for at in range(len(values)):
        buckets.setdefault((steps[at] - steps[0]) // width, []).append(at)
    kept = set()
    for bucket in buckets.values():
        finite = [at for at in bucket if math.isfinite(values[at])]
        gaps = [at for at in bucket if not math.isfinite(values[at])]
        kept |= {*gaps[:1]} | (
            {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)} if finite else set()
        )
    return kept


def shown(values: list[float], steps: list[int], limit: int) -> tuple[set[int], int]:
    """What is kept of a curve, and how wide its buckets are."""
    kept = {*thin(range(len(values)), limit, values.__getitem__, steps.__getitem__)}
    assert len(kept) <= limit
    if len(values) <= limit:
        assert kept == {*range(len(values))}
        return kept, 1
    widths = (2**bits for bits in range(40))
    width = next(width for width in widths if len(extremes(values, steps, width)) < limit)
    assert kept == extremes(values, steps, width) | {len(values) - 1}
    return kept, width


@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.5, math.nan, math.inf]), min_size=2, max_size=150),
    st.sampled_from([1, 3, 10]),
    st.sampled_from([4, 5, 16, 40]),
)
def test_a_point_that_is_shown_stays_shown(values: list[float], stride: int, limit: int) -> None:
    """But in the newest bucket. Where the width doubles, what is shown is a part of what was shown."""
    steps = [7 + stride * at for at in range(len(values))]
    before, old = shown(values[:1], steps, limit)
    for length in range(2, len(values) + 1):
        after, width = shown(values[:length], steps, limit)
        begin = next(at for at in range(length) if (steps[at] - 7) // width == (steps[length - 2] - 7) // width)
        settled = {at for at in range(length) if at < begin}
        if width == old:
            assert before & settled == after & settled
        assert after & settled <= before
        before, old = after, width


def test_a_spike_is_seen_in_each_of_two_hundred_polls() -> None:
    values = [math.sin(at / 70) + random.Random(at).random() for at in range(20_000)]
    values[7_345] = 30.0
    for length in range(100, 20_001, 100):
        kept = thin(range(length), 400, values.__getitem__, lambda at: 10 * at)
        assert 200 <= len(kept) <= 400 or length < 400
        assert (7_345 in kept) == (length > 7_345)


def test_the_best_result() -> None:
    nan = float("nan")
    assert best_result({1: 0.5, 2: 0.9, 3: nan}, {1: 0.1, 2: 0.2}) == (0.9, 0.2)
    assert best_result({}, {1: 0.3, 2: 0.2, 3: nan}) == (None, 0.2)
    assert best_result({1: nan}, {}) == (None, None)
