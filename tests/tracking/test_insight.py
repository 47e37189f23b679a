"""What a result says: numbers worked by hand and against scikit-learn, and that each picture shows what it should."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_recall_curve
from tensorboard.util import tensor_util
from torch.nn import functional

from helpers.board import get, start_board, wait_for_runs
from helpers.events import read_events
from mnist_tb import metrics
from mnist_tb.data.datasets import Dataset
from mnist_tb.evaluate import features, penultimate, predict
from mnist_tb.metrics import Evaluation
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import charts, figures, projector

DIGITS = tuple("0123456789")
GREEN, RED = (27, 122, 61), (214, 40, 40)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(2).sum())


# ---- Numbers


def test_calibration_by_hand() -> None:
    """Four predictions in two of five bins: (0.4, 0.6] with 0.5 and 0.58, one right; (0.8, 1] with 0.9 and 1.0, both.

    Error: (2 |0.5 - 0.54| + 2 |1 - 0.95|) / 4 = 0.045.
    """
    probabilities = torch.tensor([[0.5, 0.5], [0.58, 0.42], [0.9, 0.1], [0.0, 1.0]])
    found = metrics.calibration(torch.tensor([1, 0, 0, 1]), probabilities, bins=5)
    assert found.count == [0, 0, 2, 0, 2]
    assert found.accuracy == [0, 0, 0.5, 0, 1]
    assert found.confidence == pytest.approx([0, 0, 0.54, 0, 0.95])
    assert found.error == pytest.approx(0.045)


def test_a_perfectly_calibrated_network() -> None:
    """Right in 70 % of cases when it is 70 % confident."""
    probabilities = torch.tensor([[0.7, 0.3]]).expand(10, 2)
    found = metrics.calibration(torch.tensor([0] * 7 + [1] * 3), probabilities)
    assert found.error == pytest.approx(0, abs=1e-7)
    assert sum(found.count) == 10


def test_precision_and_recall_by_hand() -> None:
    """Thresholds 0, 0.5, 1 and scores 0.2 (no), 0.5 (yes), 0.7 (no), 1 (yes)."""
    table = metrics.precision_recall(torch.tensor([False, True, False, True]), torch.tensor([0.2, 0.5, 0.7, 1.0]), 3)
    assert table.tolist() == [
        [2, 2, 1], [2, 1, 0], [0, 1, 2], [0, 0, 1], [0.5, pytest.approx(2 / 3), 1], [1, 1, 0.5],
    ]  # fmt: skip


def test_precision_and_recall_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    positive, scores = random.random(500) < 0.3, np.round(random.random(500) * 126) / 126
    table = metrics.precision_recall(torch.from_numpy(positive), torch.from_numpy(scores))
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    for p, r, threshold in zip(precision, recall, thresholds, strict=False):
        column = round(threshold * 126)
        assert (table[4, column], table[5, column]) == (pytest.approx(p), pytest.approx(r))


def test_no_positives_and_no_scores() -> None:
    table = metrics.precision_recall(torch.zeros(3, dtype=torch.bool), torch.zeros(3))
    assert torch.isfinite(table).all()
    assert table[5].eq(0).all()
    assert metrics.calibration(torch.empty(0, dtype=torch.long), torch.empty(0, 10)).error == 0


def test_the_pairs_confused_most() -> None:
    matrix = torch.tensor([[50, 2, 0], [7, 40, 1], [0, 2, 60]])
    assert metrics.most_confused(matrix, 3) == [(1, 0, 7), (0, 1, 2), (2, 1, 2)]
    assert metrics.most_confused(torch.eye(3, dtype=torch.long), 3) == []


# ---- Pictures


def evaluation(labels: list[int], predictions: list[int], confidences: list[float]) -> Evaluation:
    table = torch.full((len(labels), 10), 0.0)
    for row, (prediction, confidence) in enumerate(zip(predictions, confidences, strict=True)):
        table[row] = (1 - confidence) / 9
        table[row, prediction] = confidence
    right = sum(a == b for a, b in zip(labels, predictions, strict=True))
    return Evaluation(0.1, right / len(labels), torch.tensor(labels), table)


def pictures_of(result: Evaluation, digits: Dataset) -> dict[str, np.ndarray]:
    count = len(result.labels)
    from dataclasses import replace

    from mnist_tb.data.datasets import Split

    images = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, 28, 28) + 100  # each known by its grey
    dataset = replace(digits, test=Split(images.contiguous(), result.labels))
    model = CNN()
    layers = [layer[0] for layer in features(model, dataset, dataset.test.images[:1])]
    weights = model.conv1.weight.detach()
    return charts.result_pictures(dataset, dataset.test, result.probabilities, result, weights, layers)


def test_a_planted_mistake_is_in_the_gallery_and_nothing_else(digits: Dataset) -> None:
    result = evaluation([1, 2, 3, 4], [1, 2, 8, 4], [0.9, 0.5, 0.95, 0.6])
    found = pictures_of(result, digits)

    def shown(tag: str) -> list[int]:
        """Which of the images are on a picture; single pixels may have an image's grey by chance."""
        return [i for i in range(4) if count(found[tag], (100 + i,) * 3) > (28 * 4) ** 2 / 2]

    assert shown("mistakes/test") == [2]
    assert shown("uncertain/test") == [0, 1, 3]
    assert shown("results/test") == [0, 1, 2, 3]
    places = [np.median(np.argwhere((found["uncertain/test"] == 100 + i).all(2))[:, 1]) for i in (1, 3, 0)]
    assert places == sorted(places), "the least certain first"
    assert count(found["mistakes/test"], GREEN) == 0
    assert count(found["uncertain/test"], RED) == 0


def test_a_perfect_classifier_has_no_mistakes(digits: Dataset) -> None:
    found = pictures_of(evaluation([1, 2, 3], [1, 2, 3], [0.9, 0.8, 1.0]), digits)
    assert count(found["mistakes/test"], RED) == 0
    assert count(found["confusion/test"], RED) == 0


def test_the_confusion_matrix_has_its_rates() -> None:
    matrix = torch.eye(10, dtype=torch.long) * 9
    plain = figures.confusion(matrix, DIGITS)
    matrix[2, 7] = 1
    other = figures.confusion(matrix, DIGITS)
    assert plain.shape == other.shape
    differing = np.argwhere((plain != other).any(2))
    rows = {int(y) for y, x in differing if x > plain.shape[1] - 70}
    assert rows, "the recall of that row"
    assert max(rows) - min(rows) < 30
    columns = {int(x) for y, x in differing if 530 < y < plain.shape[0] - 30}
    assert columns, "the precision of that column"
    assert max(columns) - min(columns) < 50
    assert figures._percent(0, 0) == "–"
    assert figures._percent(9999, 10_000) == "99.9"


def test_the_reliability_diagram_tells_too_sure_from_too_modest() -> None:
    confident = torch.tensor([[0.95, 0.05]]).expand(10, 2)
    overconfident = figures.reliability(metrics.calibration(torch.tensor([0] * 5 + [1] * 5), confident))
    modest = figures.reliability(
        metrics.calibration(torch.zeros(10, dtype=torch.long), torch.tensor([[0.6, 0.4]] * 10))
    )
    assert count(overconfident, RED) > 50
    assert count(overconfident, GREEN) == 0
    assert count(modest, GREEN) > 50
    assert count(modest, RED) == 0


def test_filters_are_blue_and_red_by_sign() -> None:
    weights = torch.zeros(16, 1, 3, 3)
    weights[0, 0, 0, 0], weights[3, 0, 1, 1] = 2.0, -2.0
    picture = figures.filters(weights)
    assert count(picture, (178, 24, 43)) == 28 * 28
    assert count(picture, (33, 102, 172)) == 28 * 28
    assert np.isfinite(figures.filters(torch.full((2, 1, 3, 3), float("nan")))).all()


def test_feature_maps_show_the_image_and_each_layer(digits: Dataset) -> None:
    layers = features(CNN(), digits, digits.test.images[:3])
    assert [tuple(layer.shape) for layer in layers] == [(3, 16, 14, 14), (3, 32, 7, 7), (3, 64, 7, 7)]
    assert all(bool((layer >= 0).all()) for layer in layers)
    picture = figures.feature_maps(digits.test.images[0], [layer[0] for layer in layers])
    assert picture.shape[0] == (1 + 1 + 2 + 2) * 60 + 4
    assert picture.max() > 200


def test_what_the_linear_layer_is_given_batch_after_batch(digits: Dataset) -> None:
    images = digits.train.images[:501]  # one more than a batch
    model = CNN().requires_grad_(False)
    given = penultimate(model, digits, images)
    torch.testing.assert_close(given, features(model, digits, images)[-1].flatten(1))
    logits = functional.linear(given, model.linear.weight, model.linear.bias)
    torch.testing.assert_close(logits, predict(model, digits, images))


def test_pictures_side_by_side() -> None:
    one, other = np.full((3, 5, 3), 1, np.uint8), np.full((4, 2, 3), 2, np.uint8)
    sheet = figures.beside([one, other, other])
    assert sheet.shape == (8, 7, 3)
    assert (sheet[:3, :5] == 1).all()
    assert (sheet[:4, 5:] == 2).all()
    assert (sheet[4:, :2] == 2).all()


# ---- In a real run


def test_metrics_json_has_it_all(finished: Run) -> None:
    test = json.loads(finished.metrics.read_text())["test"]
    assert 0 < test["calibration_error"] < 0.2
    for pair in test["most_confused"]:
        assert test["confusion"][int(pair["true"])][int(pair["predicted"])] == pair["count"] > 0
    counts = [pair["count"] for pair in test["most_confused"]]
    assert counts == sorted(counts, reverse=True)


def test_accuracy_per_class_is_each_classes_recall(finished: Run) -> None:
    events = read_events(finished)
    metrics_ = json.loads(finished.metrics.read_text())
    best = [e for e in events.Scalars("accuracy_per_class/3") if e.step == metrics_["best_step"]]
    assert best[0].value == pytest.approx(metrics_["val"]["per_class"][3]["recall"])
    assert len(events.Scalars("accuracy_per_class/9")) == 4


def test_the_precision_recall_curves_are_drawn_by_tensorboard(finished: Run) -> None:
    process, address = start_board("--logdir", str(finished.path.parent))
    try:
        wait_for_runs(address.rstrip("/"), 1)
        (curve,) = get(f"{address}data/plugin/pr_curves/pr_curves?tag=precision_recall/3&run={finished.name}")[
            finished.name
        ]
        assert max(curve["precision"]) == 1
        assert curve["recall"][0] == 1
        embeddings = get(f"{address}data/plugin/projector/info?run={finished.name}")["embeddings"]
        assert embeddings[0]["tensorName"] == projector.NAME
        tensor = tensor_util.make_ndarray(read_events(finished).Tensors("precision_recall/3")[0].tensor_proto)
        assert tensor.shape == (6, 127)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_projectors_files_fit(finished: Run, digits: Dataset) -> None:
    folder = finished.path / "projector"
    points = np.loadtxt(folder / "tensors.tsv")
    rows = list(csv.DictReader((folder / "metadata.tsv").read_text().splitlines(), delimiter="\t"))
    assert points.shape == (299, projector.DIMENSIONS)
    assert [row["true"] for row in rows] == [str(label) for label in digits.test.labels.tolist()]
    wrong = sum(row["is"] == "wrong" for row in rows)
    test = json.loads(finished.metrics.read_text())["test"]
    assert wrong == round((1 - test["accuracy"]) * 299)
    sprites = np.asarray(Image.open(folder / "sprites.png"))
    assert sprites.shape == (18 * 28, 18 * 28)
    assert (255 - sprites[28:56, 28:56] == digits.test.images[19].numpy()).all()


def test_principal_components_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = torch.randn(200, 5) @ torch.diag(torch.tensor([9.0, 5.0, 2.0, 0.3, 0.1])) @ torch.randn(5, 30)
    state = torch.get_rng_state()
    ours = projector.principal_components(data, 3)
    theirs = PCA(3, svd_solver="full").fit_transform(data.numpy())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(before, state)
    np.testing.assert_allclose(np.abs(ours.numpy()), np.abs(theirs), atol=1e-2)


def test_without_the_projector(small_config: object, train: object) -> None:
    run = train("--epochs", "1", "--set", "tracking.projector=false")  # type: ignore[operator]
    assert not (run.path / "projector_config.pbtxt").exists()
