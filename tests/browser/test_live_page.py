"""The Live page where something is odd, slow, gone or long: real Chromium, on a real TensorBoard."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, Route, expect

from helpers.board import TRAINING, served, start_board, wait_for_runs, write_status
from helpers.fixtures import Open
from helpers.odd_numbers import ODD, write_odd
from helpers.ports import free_port
from mnist_tb.events.tags import LIVE_STATUS
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run

pytestmark = pytest.mark.slow

PYTHON_LOADER = "import sys; sys.modules['tensorboard_data_server'] = None; from mnist_tb.cli.main import main; main()"
LOADERS = {"fast loader": ("-m", "mnist_tb"), "Python loader": ("-c", PYTHON_LOADER)}


def live(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def card_of(page: Page, name: str):  # type: ignore[no-untyped-def]
    return live(page).locator(".run").filter(has=page.locator(f'input[aria-label="select {name}"]'))


def unfold(page: Page, name: str) -> None:
    button = card_of(page, name).locator("button.name")
    button.wait_for(timeout=30_000)
    if button.get_attribute("aria-expanded") == "false":
        button.click()


@pytest.fixture(scope="module")
def done(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page over one finished run."""
    logdir = tmp_path_factory.mktemp("done")
    shutil.copytree(finished.path, logdir / "0001-digits")
    with served(logdir, 1) as address:
        yield address


# ---- Odd numbers


@pytest.mark.parametrize("loader", LOADERS)
def test_runs_beside_odd_ones_stay_and_move(loader: str, tmp_path: Path, visit: Open) -> None:
    """Each number of theirs is infinite, NaN, huge or a word; all are unfolded, and laid one above another."""
    write_odd(tmp_path)
    arguments = ("--logdir", str(tmp_path), "--port", str(free_port()))
    process, address = start_board(*arguments, command=LOADERS[loader], stderr=subprocess.DEVNULL)
    try:
        wait_for_runs(address.rstrip("/"), 2 * len(ODD) + 3)
        page = visit(address)
        cards = live(page).locator(".run")
        expect(cards).to_have_count(2 * len(ODD) + 3, timeout=30_000)
        for number in range(cards.count()):
            card = cards.nth(number)
            card.locator(".row input").check()
            if card.locator("button.name").get_attribute("aria-expanded") == "false":
                card.locator("button.name").click()
            card.locator(".curves canvas").first.wait_for()
        with EventWriter(tmp_path / "healthy") as writer:
            for step in range(30, 33):
                status = replace(TRAINING, state="completed", step=step, loss=step / 100)
                writer.live_data(step, LIVE_STATUS, status.to_json().encode())
                expect(card_of(page, "healthy").locator(".facts")).to_contain_text(f"{step} of 60", timeout=30_000)
                expect(card_of(page, "healthy").locator(".figure").first).to_contain_text(f"{step / 100:.4f}")
        expect(cards).to_have_count(2 * len(ODD) + 3)
        assert live(page).locator(".trouble, .failure").all_inner_texts() == [""] * (2 * len(ODD) + 4)
        assert "NaN" not in page.frames[1].locator("main").inner_text()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_what_cannot_be_shown_costs_its_own_card_alone(tmp_path: Path, context: BrowserContext) -> None:
    """As where the server is of another version. The error stands on the card, and nothing is asked twice a second."""
    for name in ("a", "b", "c"):
        write_status(tmp_path / name, replace(TRAINING, state="completed"))
    with served(tmp_path, 3) as address:
        page = context.new_page()
        asked: list[float] = []

        def spoil(route: Route) -> None:
            answer = route.fetch()
            content = answer.json()
            for run in content["runs"]:
                run["loss"] = "Infinity" if run["run"] == "b" else run["loss"]
            route.fulfill(response=answer, body=json.dumps(content))

        def refuse(route: Route) -> None:
            asked.append(time.monotonic())
            route.fulfill(status=500, body="")

        page.route("**/plugin/live/runs*", spoil)
        page.route("**/plugin/live/curves?run=c*", refuse)
        page.goto(address)
        expect(card_of(page, "b").locator(".failure")).to_have_text(
            re.compile("^Its row cannot be shown: "), timeout=30_000
        )
        said = "Its curves cannot be shown: TensorBoard answers with error 500; trying again."
        expect(card_of(page, "c").locator(".failure")).to_have_text(said)
        expect(card_of(page, "a").locator(".failure")).to_have_text("")
        card_of(page, "a").locator(".spark path").first.wait_for(state="attached")
        expect(live(page).locator(".trouble")).to_have_text("")
        with EventWriter(tmp_path / "a") as writer:
            writer.live_data(59, LIVE_STATUS, replace(TRAINING, step=59, state="completed").to_json().encode())
        expect(card_of(page, "a").locator(".progress")).to_contain_text("98 %", timeout=30_000)
        page.wait_for_timeout(8_000)
        assert 3 <= len(asked) <= 6, "after 1, 2, 4 and 8 s"
        page.unroute("**/plugin/live/curves?run=c*")
        expect(card_of(page, "c").locator(".failure")).to_have_text("", timeout=40_000)
        page.unroute_all(behavior="wait")


# ---- Long curves


def spiky(step: int) -> float:
    return 50.0 if step == 7_345 else 2 + math.sin(step / 300) + random.Random(step).random()


@pytest.mark.timeout(900)
def test_no_point_of_a_long_curve_flickers(tmp_path: Path, visit: Open) -> None:
    """20,000 points, watched as they are written: 100 at a time, and each time until they are drawn.

    What is drawn of the buckets that are full stays: none of these points vanishes from one poll to the next, until the
    width of the buckets doubles; then what stays is a part of what there was. The bucket that is being filled, at most
    a hundredth of the curve, shows its minimum, its maximum and the newest point so far. A spike is always seen.
    """
    write_status(tmp_path / "long", TRAINING)
    with served(tmp_path, 1) as address, EventWriter(tmp_path / "long") as writer:
        page = visit(address)
        plot = card_of(page, "long").locator(".curves .plot").first
        plot.locator("canvas").wait_for(timeout=30_000)
        plot.evaluate("""plot => {
          plot.drawn = [];
          const show = plot.chart.show;
          plot.chart.show = function (lines, choices) {
            const line = lines.find(({name}) => name === 'validation');
            if (line && line.steps.at(-1) !== plot.drawn.at(-1)?.at(-1)) plot.drawn.push([...line.steps]);
            return show.call(this, lines, choices);
          };
        }""")
        for step in range(20_000):
            writer.scalars(step, {"loss/val": spiky(step)})
            if step % 100 == 99:
                status = replace(TRAINING, step=step, steps=20_000)
                writer.live_data(step, LIVE_STATUS, status.to_json().encode())
                writer.flush()
                page.frames[1].wait_for_function(
                    "step => document.querySelector('.run .plot').drawn.at(-1)?.at(-1) === step",
                    arg=step,
                    timeout=60_000,
                )
        drawn: list[list[int]] = plot.evaluate("plot => plot.drawn")
    assert len(drawn) >= 200
    shares, doublings = [], 0
    for before, after in pairwise(drawn):
        settled = {step for step in before if step < before[-1] * 0.98}
        vanished = settled - {*after}
        if len(vanished) > 0.1 * len(before):
            doublings += 1
            assert {step for step in after if step < before[-1] * 0.98} <= {*before}
        else:
            shares.append(len(vanished) / len(before))
        assert all(7_345 in steps for steps in (before, after) if steps[-1] >= 7_345)
        assert len(after) <= 400
    assert max(shares) == 0
    assert doublings <= 7, "400 points become 20,000"


def test_zooming_in_shows_what_lies_between(tmp_path: Path, visit: Open) -> None:
    with EventWriter(make_run(tmp_path / "long")) as writer:
        for step in range(9_000):
            writer.scalars(step, {"loss/train": 2 + random.Random(step).random(), "accuracy/train": 0.5})
    with served(tmp_path, 1) as address:
        page = visit(address)
        unfold(page, "long")
        plot = card_of(page, "long").locator(".curves .plot").first
        plot.locator("canvas").wait_for(timeout=30_000)
        whole = plot.evaluate("({chart: {plot: {data: [steps]}}}) => steps.length")
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 150, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 160, box["y"] + 100, steps=4)
        page.mouse.up()
        page.frames[1].wait_for_function(
            """() => {
              const {data: [steps], scales: {x}} = document.querySelector('.run .plot').chart.plot;
              const inside = steps.filter(step => step >= x.min && step <= x.max);
              return inside.length > 20 && inside.every((step, i) => !i || step === inside[i - 1] + 1);
            }"""
        )
        assert plot.evaluate("plot => plot.chart.zoomed()")
        page.mouse.dblclick(box["x"] + 200, box["y"] + 100)
        page.frames[1].wait_for_function(
            f"() => document.querySelector('.run .plot').chart.plot.data[0].length === {whole}"
        )


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_exact_values_under_the_pointer(tmp_path: Path, visit: Open) -> None:
    with EventWriter(make_run(tmp_path / "good")) as writer:
        for step in range(10):
            writer.scalars(step, {"accuracy/val": 0.99996, "loss/val": 1_234.5678})
    with served(tmp_path, 1) as address:
        page = visit(address)
        unfold(page, "good")
        for number, text in ((0, "1234.5677"), (1, "0.99996")):
            plot = card_of(page, "good").locator(".curves .plot").nth(number)
            plot.locator("canvas").wait_for(timeout=30_000)
            plot.hover(position={"x": 200, "y": 100})
            expect(plot.locator(".tip div")).to_have_text(re.compile(rf"validation {text}$"))


# ---- Time, and what is gone


def test_the_time_since_the_last_news_goes_on_though_nothing_answers(tmp_path: Path, context: BrowserContext) -> None:
    write_status(tmp_path / "a", TRAINING)
    process, address = start_board("--logdir", str(tmp_path), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 1)
        page = context.new_page()
        page.goto(address)
        news = card_of(page, "a").locator(".facts .quiet")
        news.wait_for(timeout=30_000)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    expect(live(page).locator(".trouble")).to_have_text("TensorBoard does not answer; trying again.", timeout=30_000)
    before = int(news.inner_text().split()[0])
    page.wait_for_timeout(4_000)
    assert before + 3 <= int(news.inner_text().split()[0]) <= before + 6


def test_a_token_that_is_no_longer_valid_is_said(tmp_path: Path, context: BrowserContext) -> None:
    write_status(tmp_path / "a", replace(TRAINING, state="completed"))
    arguments = ("--logdir", str(tmp_path), "--port", str(free_port()), "--token")
    process, address = start_board(*arguments, "first")
    page = context.new_page()
    page.goto(address)
    live(page).locator(".run").first.wait_for(timeout=30_000)
    process.terminate()
    process.communicate(timeout=60)
    process, _ = start_board(*arguments, "second")
    try:
        expect(live(page).locator(".trouble")).to_have_text(
            "The token of this page is no longer valid: the page was started again. Open the new address, with its"
            " token, that mnist-tb board has printed.",
            timeout=30_000,
        )
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_time_machine_comes_though_its_weights_were_late(done: str, context: BrowserContext) -> None:
    page = context.new_page()
    refused: list[str] = []

    def refuse(route: Route) -> None:
        if len(refused) < 3:
            refused.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/plugin/live/weights*", refuse)
    page.goto(done)
    card = card_of(page, "0001-digits")
    expect(card.locator(".failure")).to_have_text(
        "Its time machine cannot be shown: TensorBoard does not answer; trying again.", timeout=30_000
    )
    card.locator(".matrix td button").first.wait_for()
    expect(card.locator(".time output")).to_have_text("the best weights", timeout=30_000)
    card.locator(".pad li.best").wait_for()
    expect(card.locator(".failure")).to_have_text("")
    assert len(refused) == 3


def test_charts_follow_tensorboards_own_dark_switch(done: str, visit: Open) -> None:
    page = visit(done)
    plot = card_of(page, "0001-digits").locator(".curves .plot").first
    plot.locator("canvas").wait_for(timeout=30_000)
    has = """(plot, colour) => {
      const drawn = plot.querySelector('canvas'), {width, height} = drawn;
      const copy = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
      copy.drawImage(drawn, 0, 0);
      const {data} = copy.getImageData(0, 0, width, height);
      for (let i = 0; i < data.length; i += 4) if (String(data.slice(i, i + 4)) === `${colour},255`) return true;
      return false;
    }"""
    light, dark = "21,101,192", "130,184,255"  # --val
    page.wait_for_timeout(1_000)
    assert (plot.evaluate(has, light), plot.evaluate(has, dark)) == (True, False)
    page.evaluate("document.body.classList.add('dark-mode')")
    page.wait_for_timeout(1_000)
    assert (plot.evaluate(has, light), plot.evaluate(has, dark)) == (False, True)


# ---- What a person does


@pytest.mark.parametrize("word", ["__proto__", "constructor", "toString"])
def test_an_address_with_odd_words_shows_all_runs(word: str, done: str, visit: Open) -> None:
    page = visit(f"{done}#live&sort={word}&state={word}")
    card_of(page, "0001-digits").wait_for(timeout=30_000)
    expect(live(page).get_by_label("sort by")).to_have_value("newest")


def test_a_class_is_chosen_with_the_keyboard_and_one_sentence_is_spoken(done: str, visit: Open) -> None:
    page = visit(done)
    pad = card_of(page, "0001-digits").locator(".pad")
    pad.locator("li.best").wait_for(timeout=30_000)
    spoken = pad.locator("[aria-live]:not([aria-live=off]), [role=status]")
    expect(spoken).to_have_count(1)
    expect(spoken).to_have_text("")  # nobody has done anything yet
    pad.locator(".strip button").nth(3).click()
    expect(spoken).to_have_text(re.compile(r"^\d\s*\d+\.\d %$"))
    pad.evaluate("""pad => {
      pad.said = [];
      const heard = pad.querySelector('.heard');
      new MutationObserver(() => pad.said.push(heard.textContent)).observe(heard, {childList: true});
    }""")
    paper = pad.locator(".paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    for number in range(20):
        page.mouse.move(box["x"] + 60 + 5 * number, box["y"] + 40 + 6 * number)
        page.wait_for_timeout(40)
    assert pad.evaluate("pad => pad.said") == [], "while it is drawn"
    page.mouse.up()
    page.wait_for_timeout(500)
    assert len(pad.evaluate("pad => pad.said")) == 1
    row = pad.locator("li button").nth(7)
    row.focus()
    page.keyboard.press("Enter")
    expect(pad.locator(".panel.evidence small")).to_have_text(re.compile("7$"))
    expect(row).to_be_focused()


def test_ticking_more_than_are_averaged_is_said(tmp_path: Path, visit: Open) -> None:
    for number in range(203):
        write_status(tmp_path / f"{number:03d}", replace(TRAINING, state="completed"))
    with served(tmp_path, 203) as address:
        query = "".join(f"&run={number:03d}" for number in range(203))
        page = visit(f"{address}#live{query}")
        said = "of 203 ticked runs, the first 200 are laid over one another"
        expect(live(page).locator(".top .count")).to_have_text(said, timeout=60_000)
