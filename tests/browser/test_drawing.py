"""A digit drawn in the Live tab, and the network that answers in the browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from playwright.sync_api import FrameLocator, Page

from helpers.board import start_board, wait_for_runs
from helpers.drawings import STROKES, paint, stroke
from helpers.fixtures import Open
from helpers.ports import free_port
from mnist_tb.data import preprocess
from mnist_tb.data.datasets import Dataset
from mnist_tb.model import CNN
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import weights_export
from mnist_tb.training import checkpoint

NETWORK = "data/plugin/live/static/network.js"


@pytest.fixture(scope="module")
def address(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a finished run."""
    logdir = tmp_path_factory.mktemp("drawn")
    shutil.copytree(finished.path, logdir / finished.name)
    process, where = start_board("--logdir", str(logdir), "--port", str(free_port()))
    wait_for_runs(where.rstrip("/"), 1)
    yield where
    process.terminate()
    process.communicate(timeout=60)


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


def test_what_is_exported(finished: Run, digits: Dataset) -> None:
    model = best(finished)
    content = weights_export.encode(model.state_dict(), digits.classes, digits.mean, digits.std)
    header, _, values = content.partition(b"\n")
    assert b'"conv1.weight": [16, 1, 3, 3]' in header
    assert len(values) == 4 * 54_666
    assert np.frombuffer(values, "<f4")[:9].tolist() == model.conv1.weight[0, 0].flatten().tolist()


def test_runs_without_weights_have_an_empty_answer(address: str) -> None:
    import urllib.request

    for run in ("nothing", "..", "%00"):
        with urllib.request.urlopen(f"{address}data/plugin/live/weights?run={run}", timeout=30) as answer:
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


def test_a_digit_drawn_with_the_mouse(address: str, visit: Open) -> None:
    page = visit(address)
    frame = open_pad(page)
    rows = frame.locator(".pad li")
    assert rows.count() == 10
    assert frame.locator(".pad li.best").count() == 0
    box = frame.locator(".pad .paper").bounding_box()
    assert box is not None
    points = [(box["x"] + 112 + 60 * x, box["y"] + 112 + 80 * y) for x, y in STROKES["0"]]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points:
        page.mouse.move(x, y)
    page.mouse.up()
    frame.locator(".pad li.best").wait_for()
    assert frame.locator(".pad li.best b").inner_text() in "0123456789"
    shares = [float(text.removesuffix(" %")) for text in frame.locator(".pad li span").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.6)
    page.mouse.move(box["x"] + 10, box["y"] + 10)  # without a button nothing is drawn
    assert [float(text.removesuffix(" %")) for text in frame.locator(".pad li span").all_inner_texts()] == shares
    frame.get_by_role("button", name="Clear").click()
    assert frame.locator(".pad li.best").count() == 0
    assert frame.locator(".pad li span").all_inner_texts() == [""] * 10
