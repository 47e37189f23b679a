"""A digit drawn in the Live tab, and the network that answers in the browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import FrameLocator, Page, expect
from torch import nn

from helpers.board import served, start_board, wait_for_runs
from helpers.drawings import STROKES, paint, stroke
from helpers.events import read_events
from helpers.fixtures import Open, Train
from helpers.ports import free_port
from helpers.zygote import HELD, Place, Zygote
from mnist_tb import evaluate
from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.data import preprocess
from mnist_tb.data.datasets import Dataset
from mnist_tb.events.writer import EventWriter
from mnist_tb.metrics import Evaluation
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import charts, weights_export
from mnist_tb.training import checkpoint

pytestmark = pytest.mark.slow

NETWORK = "data/plugin/live/static/network.js"


@pytest.fixture(scope="module")
def address(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a finished run."""
    logdir = tmp_path_factory.mktemp("drawn")
    shutil.copytree(finished.path, logdir / finished.name)
    with served(logdir, 1) as where:
        yield where


def best(run: Run) -> CNN:
    model = CNN()
    model.load_state_dict(checkpoint.load(run.best_checkpoint)["model"])
    return model.eval()


def test_the_browser_computes_what_the_network_does(address: str, finished: Run, digits: Dataset, visit: Open) -> None:
    page = visit(address)
    images = digits.test.images[:40]
    shares = page.evaluate(
        """async ([address, run, images]) => {
          const {parse, probabilities} = await import(address + 'data/plugin/live/static/network.js');
          const answer = await fetch(`${address}data/plugin/live/weights?run=${run}`);
          const network = parse(await answer.arrayBuffer());
          return images.map((pixels) => probabilities(network, pixels));
        }""",
        [address, finished.name, images.flatten(1).tolist()],
    )
    with torch.inference_mode():
        expected = best(finished)(digits.inputs(images)).softmax(1)
    torch.testing.assert_close(torch.tensor(shares), expected, rtol=0, atol=1e-3)
    assert np.abs(np.array(shares) - expected.numpy()).max() < 1e-5, "far better, in fact"


def test_every_layer_of_every_epoch_is_torchs(address: str, finished: Run, digits: Dataset, visit: Open) -> None:
    """Weights in 16 bit, in the browser, against torch with the same weights; to 1e-3, which is asked for."""
    page = visit(address)
    images = digits.test.images[:20]
    found = page.evaluate(
        """async ([address, run, images]) => {
          const {evidence, forward, parse} = await import(address + 'data/plugin/live/static/network.js');
          const base = `${address}data/plugin/live/`;
          const {epochs} = await (await fetch(`${base}epochs?run=${run}`)).json();
          const made = [];
          for (const [epoch] of epochs) {
            const network = parse(await (await fetch(`${base}weights?run=${run}&epoch=${epoch}`)).arrayBuffer());
            const seen = images.map(pixels => forward(network, pixels));
            made.push({
              first: Array.from(network.layers['conv1.weight'].values),
              probabilities: seen.map(({probabilities}) => probabilities),
              layers: [1, 2, 3].map(at => seen.map(({layers}) => layers[at].maps.map(map => Array.from(map)))),
              evidence: Array.from(evidence(network, seen[0].layers[3].maps, 7)), logit: seen[0].logits[7],
            });
          }
          return {epochs, made};
        }""",
        [address, finished.name, images.flatten(1).tolist()],
    )
    assert found["epochs"] == [[0, 0], [1, 20], [2, 40], [3, 60]]
    weights = {event.step: event for event in read_events(finished).Tensors("weights/conv1.weight")}
    assert weights.keys() == {0, 20, 40, 60}
    for (epoch, _), made in zip(found["epochs"], found["made"], strict=True):
        model = CNN()
        model.load_state_dict(epoch_weights(finished, epoch))
        with torch.inference_mode():
            inputs = digits.inputs(images)
            expected = model(inputs).softmax(1)
            layers = evaluate.features(model, digits, images)
        torch.testing.assert_close(torch.tensor(made["probabilities"]), expected, rtol=0, atol=1e-3)
        for ours, theirs in zip(made["layers"], layers, strict=True):
            torch.testing.assert_close(torch.tensor(ours).view_as(theirs), theirs, rtol=1e-3, atol=1e-3)
        assert sum(made["evidence"]) + model.linear.bias[7].item() == pytest.approx(made["logit"], abs=1e-4)
    first, last = (torch.tensor(each["first"]) for each in (found["made"][0], found["made"][-1]))
    assert not torch.allclose(first, last)
    trained = checkpoint.load(finished.last_checkpoint)["model"]["conv1.weight"].flatten()
    torch.testing.assert_close(last, trained, rtol=1e-3, atol=1e-4)


def epoch_weights(run: Run, epoch: int) -> dict[str, torch.Tensor]:
    """The weights in a run's event file, decoded with numpy."""
    (event,) = read_events(run).Tensors(f"live/epoch/{epoch}")
    header, _, values = event.tensor_proto.string_val[0].partition(b"\n")
    flat = torch.from_numpy(np.frombuffer(values, "<f2").astype(np.float32))
    shapes = json.loads(header)["shapes"]
    parts = flat.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def test_weights_of_every_epoch_cost_little_and_can_be_left_out(train: Train) -> None:
    on = train("--epochs", "3")
    off = train("--epochs", "3", "--set", "tracking.weights_every=0")
    tags = {tag for tag in read_events(off).Tags()["tensors"] if tag.startswith("live/")}
    assert tags == {"live/status", "live/weights", "live/result"}
    size = [sum(path.stat().st_size for path in run.path.glob("*tfevents*")) for run in (on, off)]
    assert (size[0] - size[1]) / 4 < 130_000, "bytes an epoch, the watched images included"
    second = train("--epochs", "3", "--set", "tracking.weights_every=2")
    kept = {tag for tag in read_events(second).Tags()["tensors"] if tag.startswith("live/epoch/")}
    assert kept == {"live/epoch/0", "live/epoch/2", "live/epoch/3"}, "and the last one"


def test_a_large_networks_weights_are_not_kept_and_that_is_said(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("--epochs", "1", "--set", "model.channels=[64,96,160]")
    assert "Its 272,842 parameters are too many to keep each epoch's for the Live tab: 250,000 are the" in (
        capsys.readouterr().out
    )
    assert not any(tag.startswith("live/epoch/") for tag in read_events(run).Tags()["tensors"])


def test_of_many_epochs_a_hundred_are_kept() -> None:
    config = replace_config(Config(), {"train.epochs": 1_000})
    assert charts.epochs_between_weights(config, CNN()) == 10
    assert charts.epochs_between_weights(replace_config(config, {"tracking.weights_every": 0}), CNN()) == 0


def test_what_is_exported(finished: Run, digits: Dataset) -> None:
    model = best(finished)
    content = weights_export.encode(model, digits.classes, digits.mean, digits.std)
    header, _, values = content.partition(b"\n")
    assert b'"conv1.weight": [16, 1, 3, 3]' in header
    assert len(values) == 4 * 54_666
    assert np.frombuffer(values, "<f4")[:9].tolist() == model.conv1.weight[0, 0].flatten().tolist()


def test_a_confusion_matrix_and_images_of_its_cells(digits: Dataset) -> None:
    """Of each cell the most confident mistakes, or the least confident of those that are right; few enough of each."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (2_000,), generator=generator)
    logits = torch.randn(2_000, 10, generator=generator) + 3 * torch.nn.functional.one_hot(labels, 10)
    images = torch.randint(256, (2_000, 28, 28), generator=generator, dtype=torch.uint8)
    evaluation = Evaluation(0.0, 0.0, labels, logits.softmax(1))
    line, _, packed = weights_export.encode_result(images, evaluation, digits.classes).partition(b"\n")
    header, pixels = json.loads(line), np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, 28, 28)
    assert header["counts"] == evaluation.confusion.tolist()
    assert 400 < len(header["images"]) == len(pixels) <= 600
    confidence, chosen = evaluation.probabilities.amax(1), header["images"]
    for (index, true, predicted, sure), image in zip(chosen, pixels, strict=True):
        assert (true, predicted) == (int(labels[index]), int(evaluation.predictions[index]))
        assert sure == pytest.approx(float(confidence[index]), abs=1e-4)
        assert (image == images[index].numpy()).all()
    wrong = [sure for _, true, predicted, sure in chosen if true != predicted]
    right = [sure for _, true, predicted, sure in chosen if true == predicted]
    assert [sure for *_, sure in chosen] == [*sorted(wrong, reverse=True), *sorted(right)]
    most = max(Counter((true, predicted) for _, true, predicted, _ in chosen).values())
    for true in range(10):
        for predicted in range(10):
            cell = ((labels == true) & (evaluation.predictions == predicted)).nonzero().flatten()
            best = confidence[cell].argsort(descending=true != predicted)[:most]
            found = {index for index, *of, _ in chosen if of == [true, predicted]}
            assert found == set(cell[best].tolist())


def test_a_cell_shows_its_images_and_an_image_is_looked_at(address: str, finished: Run, visit: Open) -> None:
    page = visit(address)
    frame = open_pad(page)
    matrix = frame.locator(".matrix")
    matrix.wait_for(timeout=30_000)
    test = finished.read_metrics()["test"]
    expect(matrix.locator("td button")).to_have_text([str(n or "·") for row in test["confusion"] for n in row])
    shown, about = matrix.locator(".strip button"), matrix.locator(".about")
    mistakes = round((1 - test["accuracy"]) * 299)
    expect(about).to_have_text(re.compile(f"^Mistakes: {mistakes}, the most confident first."))
    expect(shown).to_have_count(mistakes)
    sure = [int(text.removesuffix(" %")) for text in shown.locator("small").all_inner_texts()]
    assert sure == sorted(sure, reverse=True)
    count = test["confusion"][3][3]
    cell = matrix.get_by_role("button", name=f"3, recognised: {count}")
    cell.focus()
    page.keyboard.press("Enter")
    expect(cell).to_have_attribute("aria-pressed", "true")
    expect(about).to_have_text(
        re.compile(f"^3, recognised: {'24 of ' if count > 24 else ''}{count}, the least confident")
    )
    expect(shown.locator("span")).to_have_text(["3"] * min(count, 24))
    shown.last.click()
    frame.locator(".pad li.best b", has_text="3").wait_for()
    expect(frame.locator(".pad .paper")).to_be_in_viewport(ratio=1)  # it is scrolled to, which takes its time
    matrix.get_by_role("button", name="All mistakes").click()
    expect(shown).to_have_count(mistakes)
    expect(cell).to_have_attribute("aria-pressed", "false")


def test_runs_without_weights_have_an_empty_answer(address: str) -> None:
    import urllib.request

    for run in ("nothing", "..", "%00"):
        for what in ("weights", "samples", "result"):
            with urllib.request.urlopen(f"{address}data/plugin/live/{what}?run={run}", timeout=30) as answer:
                assert (answer.status, answer.read()) == (204, b"")


@pytest.mark.parametrize("digit", ["0", "3", "4", "7"])
def test_the_browser_prepares_as_predict_does(digit: str, address: str, visit: Open) -> None:
    image = np.asarray(paint(stroke(STROKES[digit], 130, 18), 224, False))
    ink = np.where(image > 128, 255, 0).astype(np.uint8)
    page = visit(address)
    seen = page.evaluate(
        """async ([address, ink]) => {
          const {prepare} = await import(address);
          return Array.from(prepare(Uint8Array.from(ink), 224)); }""",
        [address + NETWORK, ink.flatten().tolist()],
    )
    expected = preprocess.prepare(ink)
    assert expected is not None
    assert np.abs(np.array(seen).reshape(28, 28) - expected.astype(int)).mean() < 8
    nothing = "async (address) => (await import(address)).prepare(new Uint8Array(100), 10)"
    assert page.evaluate(nothing, address + NETWORK) is None


def open_pad(page: Page) -> FrameLocator:
    frame = page.frame_locator("iframe")
    frame.locator(".pad").wait_for(state="visible")
    frame.locator(".pad .paper").scroll_into_view_if_needed()
    return frame


def draw(page: Page, frame: FrameLocator, digit: str) -> None:
    frame.locator(".pad .paper").scroll_into_view_if_needed()
    box = frame.locator(".pad .paper").bounding_box()
    assert box is not None
    points = [(box["x"] + 112 + 60 * x, box["y"] + 112 + 80 * y) for x, y in STROKES[digit]]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points:
        page.mouse.move(x, y)
    page.mouse.up()


def test_a_digit_drawn_early_is_watched_as_the_training_goes_on(zygote: Zygote, tmp_path: Path, visit: Open) -> None:
    """Drawn before the first epoch has ended, its curve has one more point after each epoch, without a click."""
    command = ["train", "--config", "digits", "--epochs", "3", "--logdir", str(tmp_path), "--seed", "1"]
    process = zygote.start(*command, hold=Place("mnist_tb.train.train_step", 5))
    process.until(HELD)
    board, address = start_board("--logdir", str(tmp_path), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 1)
        page = visit(address)
        frame = page.frame_locator("iframe")
        frame.locator(".pad").wait_for(state="visible", timeout=30_000)
        expect(frame.locator(".time output")).to_contain_text("untrained, step 0")
        draw(page, frame, "3")
        frame.locator(".pad li.best").wait_for()
        expect(frame.locator(".pad .plot")).to_be_hidden()  # a single point is no curve
        process.proceed()
        process.communicate()
        frame.locator(".time output", has_text="the best weights").wait_for(timeout=30_000)
        course = frame.locator(".pad .plot")
        course.wait_for(state="visible")
        page.frames[1].wait_for_function(
            "() => document.querySelector('.pad .plot').chart.lines[0].steps.length === 4", timeout=30_000
        )
        lines = course.evaluate("({chart: {lines}}) => lines.map(({name, steps, values}) => [name, steps, values])")
        assert [name for name, _, _ in lines] == [str(k) for k in range(10)]
        assert all(steps == [0, 1, 2, 3] for _, steps, _ in lines)
        for epoch in range(4):
            assert sum(values[epoch] for _, _, values in lines) == pytest.approx(1, abs=1e-5)
        assert all(0.05 < values[0] < 0.2 for _, _, values in lines), "an untrained network does not know"
    finally:
        board.terminate()
        board.communicate(timeout=60)


def test_the_time_machine_goes_back(address: str, visit: Open) -> None:
    page = visit(address)
    frame = open_pad(page)
    samples = frame.locator(".pad .strip button")
    expect(samples).to_have_count(18)
    shares = frame.locator(".pad li span")
    samples.nth(2).click()
    frame.locator(".pad li.best").wait_for()
    assert samples.nth(2).locator("span").inner_text().split("→")[0] in "0123456789"
    now = shares.all_inner_texts()
    slider = frame.get_by_role("slider", name="epoch", exact=True)
    expect(frame.locator(".time output")).to_have_text("the best weights")
    slider.focus()
    page.keyboard.press("Home")
    frame.locator(".time output", has_text="untrained, step 0").wait_for()
    assert max(float(text.removesuffix(" %")) for text in shares.all_inner_texts()) < 20
    frame.locator(".pad .strip .wrong").nth(8).wait_for(), "it guesses"
    page.keyboard.press("ArrowRight")
    frame.locator(".time output", has_text="after epoch 1, step 20").wait_for()
    frame.get_by_role("button", name="play the epochs").click()
    frame.locator(".time output", has_text="the best weights").wait_for(timeout=30_000)
    frame.get_by_role("button", name="play the epochs").wait_for()
    expect(shares).to_have_text(now)
    titles = frame.locator(".panel small").all_inner_texts()
    assert titles[:4] == [
        "first layer: 16 filters",
        "first layer: 16 maps",
        "second layer: 32 maps",
        "third layer: 64 maps",
    ]
    assert titles[4].startswith("for (blue) and against (red)")
    frame.locator(".panel.conv2 canvas").hover(position={"x": 12, "y": 12})
    expect(frame.locator(".lens")).to_have_text(re.compile("^map 1: "))
    expect(frame.locator(".lens canvas")).to_have_count(2)
    page.mouse.move(0, 0)
    frame.locator(".lens").wait_for(state="hidden")
    frame.locator(".pad li", has_text="7").first.click()
    expect(frame.locator(".panel.evidence small")).to_have_text(titles[4].rsplit(" ", 1)[0] + " 7")


def test_a_digit_drawn_with_the_mouse(address: str, visit: Open) -> None:
    page = visit(address)
    frame = open_pad(page)
    rows = frame.locator(".pad li")
    expect(rows).to_have_count(10)
    frame.locator(".pad li.best").wait_for(), "the first test image, until something is drawn"
    frame.get_by_role("button", name="Clear").click()
    expect(frame.locator(".pad li.best")).to_have_count(0)
    draw(page, frame, "0")
    box = frame.locator(".pad .paper").bounding_box()
    assert box is not None
    frame.locator(".pad li.best").wait_for()
    assert frame.locator(".pad li.best b").inner_text() in "0123456789"
    shares = [float(text.removesuffix(" %")) for text in frame.locator(".pad li span").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.6)
    page.mouse.move(box["x"] + 10, box["y"] + 10)  # without a button nothing is drawn
    assert [float(text.removesuffix(" %")) for text in frame.locator(".pad li span").all_inner_texts()] == shares
    frame.get_by_role("button", name="Clear").click()
    expect(frame.locator(".pad li.best")).to_have_count(0)
    expect(frame.locator(".pad li span")).to_have_text([""] * 10)


class Wider(CNN):
    """As docs/architecture.md patches it, and more."""

    def __init__(self, *channels: int) -> None:
        super().__init__(channels)
        self.conv1 = nn.Conv2d(1, channels[0], 7, padding=3)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 5, padding=2)
        self.conv3 = nn.Conv2d(channels[1], channels[2], 1)


class Residual(CNN):
    """The same layers, and a sum that no layer tells of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.features(x)[-1]
        return self.linear(last + last)  # type: ignore[no-any-return]


class Strange(CNN):
    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        setattr(self, name, layer)


PROBABILITIES = """async ([address, network, images]) => {
  const {parse, probabilities} = await import(address);
  const parsed = parse(Uint8Array.from(network).buffer);
  return parsed.unknown || images.map(pixels => probabilities(parsed, pixels));
}"""


def test_convolutions_of_other_sizes_are_torchs(address: str, digits: Dataset, visit: Open) -> None:
    model = Wider(8, 12, 16).eval()
    content = weights_export.encode(model, digits.classes, digits.mean, digits.std)
    images = digits.test.images[:8]
    found = visit(address).evaluate(PROBABILITIES, [address + NETWORK, list(content), images.flatten(1).tolist()])
    with torch.inference_mode():
        expected = model(digits.inputs(images)).softmax(1)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Strange("conv2", nn.Conv2d(16, 32, 5, padding=1)), "Conv2d conv2, 32×16×5×5"),
        (Strange("conv2", nn.Conv2d(16, 32, 3, padding=1, groups=2)), "Conv2d conv2, 32×8×3×3"),
        (Strange("conv2", nn.Conv2d(16, 32, 3, padding=2, dilation=2)), "Conv2d conv2, 32×16×3×3"),
        (Strange("conv2", nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect")), "Conv2d conv2, 32×16×3×3"),
        (Strange("conv2", nn.Conv2d(16, 32, 3, padding=1, bias=False)), "Conv2d conv2, 32×16×3×3"),
        (Strange("relu2", nn.BatchNorm2d(32)), "BatchNorm2d relu2, 32"),
        (Strange("pool2", nn.AvgPool2d(2)), "AvgPool2d pool2"),
        (Strange("pool2", nn.MaxPool2d(2, ceil_mode=True)), "MaxPool2d pool2"),
        (Strange("relu1", nn.GELU()), "GELU relu1"),
        (Residual(), "add add"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_it_does_not_know_it_does_not_compute(
    model: CNN, sentence: str, address: str, digits: Dataset, visit: Open
) -> None:
    content = weights_export.encode(model, digits.classes, digits.mean, digits.std)
    assert visit(address).evaluate(PROBABILITIES, [address + NETWORK, list(content), []]) == sentence


def test_the_time_machine_says_what_it_does_not_know(
    finished: Run, tmp_path: Path, digits: Dataset, visit: Open
) -> None:
    """Of a run whose network has a layer of another kind nothing is drawn but this sentence."""
    run = Path(shutil.copytree(finished.path, tmp_path / finished.name))
    content = weights_export.encode(Strange("relu1", nn.GELU()), digits.classes, digits.mean, digits.std, half=True)
    with EventWriter(run) as writer:
        for epoch, step in enumerate((0, 20, 40, 60)):
            writer.live_data(step, f"live/epoch/{epoch}", content)
        writer.live_data(60, "live/weights", content)
    with served(tmp_path, 1) as where:
        page = visit(where)
        pad = page.frame_locator("iframe").locator(".pad")
        sentence = "The time machine does not compute this network: it does not know GELU relu1."
        expect(pad.locator("figcaption")).to_have_text(sentence, timeout=30_000)
        expect(pad.locator("canvas, button, input").filter(visible=True)).to_have_count(0)


def test_weights_of_version_1_0_0_did_not_say_what_network_it_is(address: str, digits: Dataset, visit: Open) -> None:
    def older(model: CNN) -> list[int]:
        line, _, values = weights_export.encode(model, digits.classes, digits.mean, digits.std).partition(b"\n")
        header = json.loads(line)
        del header["modules"]
        return list(json.dumps(header).encode() + b"\n" + values)

    page = visit(address)
    images = digits.test.images[:4]
    model = CNN().eval()
    found = page.evaluate(PROBABILITIES, [address + NETWORK, older(model), images.flatten(1).tolist()])
    with torch.inference_mode():
        expected = model(digits.inputs(images)).softmax(1)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)
    assert page.evaluate(PROBABILITIES, [address + NETWORK, older(Wider(8, 8, 8)), []]) == "Conv2d conv1, 8×1×7×7"
