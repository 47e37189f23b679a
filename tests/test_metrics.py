from __future__ import annotations

import math
import time

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mnist_tb import metrics
from mnist_tb.training.metrics_window import MetricsWindow


def test_confusion_by_hand() -> None:
    labels, predictions = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 2])
    assert metrics.confusion_matrix(labels, predictions, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_scores_by_hand() -> None:
    scores = metrics.class_scores(torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 2]]))
    assert [s.precision for s in scores] == [1 / 2, 1 / 2, 1]
    assert [s.recall for s in scores] == [1 / 2, 1, 2 / 3]
    assert [s.f1 for s in scores] == pytest.approx([1 / 2, 2 / 3, 4 / 5])
    assert [s.support for s in scores] == [2, 1, 3]


def test_a_class_that_never_occurs_scores_0_without_a_division() -> None:
    assert metrics.class_scores(torch.tensor([[2, 0], [0, 0]]))[1] == metrics.ClassScore(0.0, 0.0, 0.0, 0)


def test_agrees_with_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(0, 10, (500,), generator=random) for _ in range(2))
    ours = metrics.confusion_matrix(labels, predictions, 10)
    assert ours.tolist() == confusion_matrix(labels, predictions).tolist()
    theirs = precision_recall_fscore_support(labels, predictions)
    for i, score in enumerate(metrics.class_scores(ours)):
        assert (score.precision, score.recall, score.f1) == pytest.approx([part[i] for part in theirs[:3]])
        assert score.support == theirs[3][i]


def test_num_correct_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.9], [2.0, 1.0], [0.0, 5.0]])
    assert metrics.num_correct(logits, torch.tensor([1, 1, 1])) == 2


def test_window_weighs_batches_by_their_images() -> None:
    window = MetricsWindow()
    window.resume()
    window.add(torch.tensor(1.0), torch.tensor(64), 64, 0.1)
    window.add(torch.tensor(3.0), torch.tensor(0), 16, 0.2)
    assert len(window) == 2
    assert window.first_nonfinite() is None
    window_metrics = window.close(torch.tensor([3.0, 4.0, 12.0]))()
    assert window_metrics.loss == pytest.approx((1 * 64 + 3 * 16) / 80)
    assert window_metrics.accuracy == 64 / 80
    assert (window_metrics.lr, window_metrics.grad_norm, window_metrics.first_nonfinite) == (0.2, 13, None)
    assert len(window) == 0


def test_a_closed_window_keeps_its_numbers_while_the_next_one_fills() -> None:
    window, gradient = MetricsWindow(), torch.ones(1)
    window.resume()
    window.add(torch.tensor(1.0), torch.tensor(2), 4, 0.1)
    first = window.close(gradient)
    window.add(torch.tensor(5.0), torch.tensor(4), 4, 0.3)
    gradient.fill_(7)
    window_metrics = first()
    assert (window_metrics.loss, window_metrics.accuracy, window_metrics.lr, window_metrics.grad_norm) == (
        1,
        0.5,
        0.1,
        1,
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_window_finds_the_first_loss_that_is_not_finite(bad: float) -> None:
    window = MetricsWindow()
    window.resume()
    assert window.first_nonfinite() is None
    for loss, lr in ((1.0, 0.1), (bad, 0.2), (math.inf, 0.3)):
        window.add(torch.tensor(loss), torch.tensor(0), 8, lr)
    assert window.first_nonfinite() == (1, 0.2)
    assert window.close(torch.ones(1))().first_nonfinite == (1, 0.2)


def test_window_leaves_pauses_out_of_the_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.0, 2.0, 100.0, 103.0, 103.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    window = MetricsWindow()
    window.resume()
    window.add(torch.tensor(1.0), torch.tensor(1), 50, 0.1)
    window.pause()
    window.resume()
    assert window.close(torch.ones(1))().images_per_second == 10
