"""The page as a person sees it: real Chromium, on a real TensorBoard, over trainings that are running."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import axe_playwright_python.base
import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Locator, Page, Request, expect

from helpers.board import HOSTILE, TRAINING, read_address, served, start_board, wait_for_runs, write_status
from helpers.events import scalars
from helpers.fixtures import Open, Train
from helpers.ports import free_port
from helpers.zygote import Place, Zygote
from mnist_tb.config.hyperparameters import hyperparameters
from mnist_tb.config.load import flat_config, replace_config
from mnist_tb.config.schema import Config
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.notes import Notes, write_notes
from mnist_tb.tracking.charts import group_name

pytestmark = pytest.mark.slow

SETTINGS = "_tb_global_settings"


@pytest.fixture(scope="module")
def training(zygote: Zygote, mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real training on real MNIST that does not end by itself, and its page. It leaves the cores to others."""
    logdir = tmp_path_factory.mktemp("training")
    config = ["--config", "default", "--logdir", str(logdir), "--epochs", "5000", "--data-root", str(mnist_root)]
    process = zygote.start("train", "--board", "--no-browser", *config, slow=Place("mnist_tb.train.train_step"))
    address = read_address(process)
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    try:
        wait_for_runs(address.rstrip("/"), 1)
        yield address, logdir
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        reader.join()
        process.close()


def live(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def changes(read: Callable[[], str], seconds: float = 30) -> bool:
    """Whether what is read changes within so many seconds."""
    before, end = read(), time.monotonic() + seconds
    while time.monotonic() < end:
        if read() != before:
            return True
        time.sleep(0.2)
    return False


def tooltip(page: Page, tag: str) -> str:
    """What a chart of Time Series says when the mouse rests near its right end; nothing is clicked.

    Not at the newest point itself: there the line of the selected step stands, to be dragged, and says nothing.
    """
    chart = page.locator("scalar-card", has=page.locator(f'[title="{tag}"]')).first.locator("line-chart").first
    end = time.monotonic() + 60
    for attempt in itertools.count():  # a chart that is drawn anew forgets where the mouse is until it moves
        if time.monotonic() > end:
            break
        box = chart.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] - 75 - attempt % 3, box["y"] + box["height"] / 2)
        page.wait_for_timeout(min(60 + 10 * attempt, 400))
        text: str = page.evaluate("[...document.querySelectorAll('table.tooltip')].map(t => t.innerText).join()")
        if text.strip():
            return text
    raise AssertionError(f"the chart of {tag} has no tooltip")


# ---- Over a training that goes on


def test_live_is_the_first_tab_and_moves_by_itself(training: tuple[str, Path], visit: Open) -> None:
    page = visit(training[0])
    card = live(page).locator(".run")
    card.first.wait_for(timeout=30_000)
    expect(card).to_have_count(1)
    expect(card.locator(".state")).to_contain_text("running")
    facts = card.locator(".facts")
    assert changes(lambda: facts.inner_text())
    assert changes(lambda: card.locator(".row .figure").first.inner_text())
    for word in ("epoch", "batch", "learning rate", "images/s", "elapsed", "remaining", "mnist", "cpu"):
        expect(facts).to_contain_text(word)
    for chart in ("loss", "accuracy"):
        plot = card.get_by_role("img", name=re.compile(f"{chart} of .* by step"))
        assert {"training", "validation"} >= {*plot.evaluate("({chart: {lines}}) => lines.map(line => line.name)")}
    loss = card.get_by_role("img", name=re.compile("loss of .* by step"))
    last_step = "({chart: {plot: {data: [steps]}}}) => String(steps.at(-1))"
    assert changes(lambda: str(loss.evaluate(last_step))), "it grows by itself"
    picture = card.locator(".picture img")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500


def test_the_charts_of_a_training(training: tuple[str, Path], visit: Open) -> None:
    """Exact values under the pointer, zoom by dragging, three axes; while new points come."""
    page = visit(training[0])
    loss = live(page).locator(".run").first.locator(".curves .plot").first
    loss.locator("canvas").wait_for(timeout=30_000)
    points = "plot => plot.chart.lines.find(({name}) => name === 'training')?.steps.length ?? 0"
    end = time.monotonic() + 60
    while loss.evaluate(points) < 12 and time.monotonic() < end:
        page.wait_for_timeout(200)
    loss.hover(position={"x": 300, "y": 100})
    tip = loss.locator(".tip")
    tip.locator("div", has_text="training").wait_for()
    words = tip.inner_text().replace("\n", " ").split()
    step, value = int(words[words.index("step") + 1].replace(",", "")), float(words[words.index("training") + 1])
    (run,) = list_run_folders(training[1])
    assert value == pytest.approx(dict(scalars(run)["loss/train"])[step], rel=5e-4)

    zoomed = "plot => plot.chart.zoomed()"
    box = loss.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 100, steps=4)
    page.mouse.up()
    assert loss.evaluate(zoomed)
    assert changes(lambda: str(loss.evaluate(points)))
    assert loss.evaluate(zoomed), "new points do not take it back"
    page.mouse.dblclick(box["x"] + 200, box["y"] + 100)
    assert not loss.evaluate(zoomed)
    for axis, word in (("epoch", "epoch"), ("time", "after"), ("step", "step")):
        live(page).get_by_label("horizontal axis").first.select_option(axis)
        loss.hover(position={"x": 305, "y": 100})
        loss.hover(position={"x": 300, "y": 100})
        tip.locator("b", has_text=word).first.wait_for()


def test_the_numbers_of_a_row_and_its_facts_agree(training: tuple[str, Path], visit: Open) -> None:
    page = visit(training[0])
    live(page).locator(".facts dd").nth(8).wait_for(timeout=30_000)
    read = """() => {
      const card = document.querySelector('.run');
      const text = selector => [...card.querySelectorAll(selector)].map(e => e.textContent);
      const facts = Object.fromEntries(text('.facts dt').map((name, i) => [name, text('.facts dd')[i]]));
      return [...text('.figure span'), facts.training, facts.validation];
    }"""
    seen = set()
    for _ in range(60):
        loss, accuracy, validation, _, training_fact, validation_fact = page.frames[1].evaluate(read)
        assert training_fact == f"{accuracy}, loss {loss}"
        if validation_fact is None:
            assert validation == "–", "before the first epoch neither has it"
        else:
            assert validation_fact.startswith(f"{validation}, loss ")
        seen.add(loss)
        page.wait_for_timeout(100)
    assert len(seen) > 2, "it moves"


def test_time_series_moves_by_itself(training: tuple[str, Path], visit: Open) -> None:
    page = visit(f"{training[0]}#timeseries")
    page.locator('scalar-card [title="accuracy/train"]').first.wait_for(timeout=30_000)
    assert changes(lambda: tooltip(page, "accuracy/train"))


def test_time_series_opens_on_what_matters(training: tuple[str, Path], visit: Open) -> None:
    """Loss and accuracy are pinned on a first visit, and what the user pins or unpins stays."""
    page = visit(f"{training[0]}#timeseries")
    pinned = page.locator("metrics-pinned-view scalar-card")
    pinned.nth(3).wait_for(timeout=30_000)
    titles = [str(one.get_attribute("title")) for one in pinned.locator("tb-truncated-path").all()]
    assert sorted(titles) == ["accuracy/train", "accuracy/val", "loss/train", "loss/val"]
    page.evaluate("localStorage.setItem('tb-saved-scalar-pins', '[\"lr\"]')")
    page.goto("about:blank")  # the pins stand in the address too
    page.goto(f"{training[0]}#timeseries")
    pinned.first.wait_for(timeout=30_000)
    page.wait_for_timeout(1_000)  # for ours to come after all
    expect(pinned.locator("tb-truncated-path")).to_have_count(1)
    expect(pinned.locator("tb-truncated-path")).to_have_attribute("title", "lr")
    page.evaluate("localStorage.setItem('tb-saved-scalar-pins', '[]')")
    page.evaluate("localStorage.removeItem('mnist_tb_settings')")
    page.goto("about:blank")
    page.goto(f"{training[0]}#timeseries")
    page.locator("scalar-card").first.wait_for(timeout=30_000)
    assert page.evaluate("localStorage.getItem('tb-saved-scalar-pins')") == "[]", "somebody who unpinned all meant it"


def test_every_address_reloads_by_itself_from_the_first_visit(training: tuple[str, Path], visit: Open) -> None:
    """How often: see the next test."""
    asked = dict.fromkeys(("", "#timeseries", "#hparams"), 0)

    def note(place: str, request: Request) -> None:
        asked[place] += "/data/runs" in request.url

    pages = {place: visit(f"{training[0]}{place}") for place in asked}
    for place, page in pages.items():
        page.on("request", partial(note, place))
    end = time.monotonic() + 60
    while min(asked.values()) < 3 and time.monotonic() < end:
        page.wait_for_timeout(200)
    assert min(asked.values()) >= 3


def test_it_reloads_when_something_is_new(finished: Run, tmp_path: Path, visit: Open) -> None:
    """By the clock alone it would dim every chart for nothing, each two seconds. What is new is there soon."""
    run = shutil.copytree(finished.path, tmp_path / "0001-finished")
    with served(tmp_path, 1) as address:
        page = visit(f"{address}#timeseries")
        page.locator("scalar-card").first.wait_for(timeout=30_000)
        asked: list[Request] = []
        page.on("request", lambda request: asked.append(request) if request.url == f"{address}data/runs" else None)
        for _ in range(5):  # first it gets all that was there
            asked.clear()
            page.wait_for_timeout(6_000)
            if len(asked) <= 1:
                break
        assert len(asked) <= 1, "it reloads twice a minute at the least, for pictures that are no news"
        asked.clear()
        with EventWriter(run) as writer:
            writer.scalars(1, {"accuracy/new": 0.5})
        write_status(run, replace(TRAINING, state="completed", step=9_000))
        page.locator('scalar-card [title="accuracy/new"]').first.wait_for(timeout=20_000)
        assert asked


def test_settings_are_the_users(training: tuple[str, Path], context: BrowserContext, visit: Open) -> None:
    """Ours are applied once, beside those that are there already; what is changed afterwards stays so."""
    page = visit(training[0])
    first = json.loads(page.evaluate(f"localStorage.{SETTINGS}"))
    assert (first["autoReload"], first["scalarSmoothing"], first["ignoreOutliers"]) == (True, 0, False)
    page.evaluate(f"""localStorage.{SETTINGS} = JSON.stringify({{autoReload: false, scalarSmoothing: 0.9,
        ignoreOutliers: true, theme: 'dark'}})""")
    page.reload()
    page.wait_for_timeout(2_000)
    again = json.loads(page.evaluate(f"localStorage.{SETTINGS}"))
    assert (again["autoReload"], again["scalarSmoothing"], again["ignoreOutliers"]) == (False, 0.9, True)
    page.evaluate("localStorage.removeItem('mnist_tb_settings')")  # as if ours came to a browser with settings
    page.reload()
    third = json.loads(page.evaluate(f"localStorage.{SETTINGS}"))
    assert (third["autoReload"], third["scalarSmoothing"], third["theme"]) == (False, 0.9, "dark")
    assert third["autoReloadPeriodInMs"] == 2**32 + 2_000


@pytest.mark.parametrize("first", ["", "#custom_scalars"])
def test_no_curve_is_smoothed_unless_the_user_says_so(first: str, training: tuple[str, Path], visit: Open) -> None:
    page = visit(f"{training[0]}{first}")
    page.get_by_role("tab", name="Custom Scalars").click(timeout=30_000)
    smoothing = page.locator("tf-smoothing-input input").first
    smoothing.wait_for()
    assert smoothing.input_value() == "0"
    page.evaluate("location.hash = location.hash.replace('_smoothingWeight=0', '_smoothingWeight=0.3')")
    page.wait_for_timeout(500)
    assert smoothing.input_value() == "0.3"
    page.get_by_role("tab", name="Live").click()
    page.wait_for_timeout(500)
    assert "_smoothingWeight=0&" not in page.url


def test_it_follows_the_dark_mode(training: tuple[str, Path], visit: Open) -> None:
    page = visit(training[0])
    live(page).locator(".run").first.wait_for(timeout=30_000)
    colour = "getComputedStyle(document.body).backgroundColor"
    frame = page.frames[1]
    light = frame.evaluate(colour)
    page.evaluate("document.body.classList.add('dark-mode')")
    page.wait_for_timeout(300)
    dark = frame.evaluate(colour)
    assert sum(map(int, dark[4:-1].split(","))) < 200 < sum(map(int, light[4:-1].split(",")))


# ---- Many runs, odd runs, and other ways to use it


@pytest.fixture(scope="module")
def crowd(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page over 200 runs, one of them finished, one failed, one with a hostile name."""
    logdir = tmp_path_factory.mktemp("crowd")
    for i in range(197):
        write_status(logdir / f"{i + 4:04d}-many", replace(TRAINING, state="completed", step=60, test_accuracy=0.9))
    write_status(logdir / HOSTILE, replace(TRAINING, state="failed", error=HOSTILE, dataset=HOSTILE))
    write_status(logdir / "0002.b(r)+", replace(TRAINING, state="failed", error="the disk is full"))
    shutil.copytree(finished.path, logdir / "0001-digits")
    with served(logdir, 200) as address:
        yield address


def card_of(page: Page, name: str):  # type: ignore[no-untyped-def]
    return live(page).locator(".run").filter(has=page.locator(f'input[aria-label="select {name}"]'))


def test_two_hundred_runs_stay_quick(crowd: str, visit: Open) -> None:
    """Only what can be seen is drawn, and once nothing changes nothing more is fetched but the list of changes."""
    page = visit(crowd)
    cards = live(page).locator(".run")
    cards.nth(199).wait_for(state="attached", timeout=30_000)
    page.wait_for_timeout(3_000)
    drawn = live(page).locator(".spark path").count()
    assert 0 < drawn < 200, "a screen holds about twenty rows, of two lines each"
    sizes: list[tuple[str, int]] = []
    asked: list[bool] = []
    page.on("request", lambda r: asked.append(r.frame == page.main_frame) if "/plugin/live/" in r.url else None)
    page.on("response", lambda r: sizes.append((r.url, len(r.body()))) if "/plugin/live/" in r.url else None)
    begin = time.monotonic()
    page.wait_for_timeout(4_000)
    seconds = time.monotonic() - begin
    assert asked.count(False) <= 2 * seconds + 1, "the tab asks twice a second at most"
    assert asked.count(True) <= seconds + 1, "the page around it asks once"
    end = time.monotonic() + 60
    while len(sizes) < 3 and time.monotonic() < end:
        page.wait_for_timeout(200)
    assert len(sizes) >= 3
    assert all("/runs?since=" in url and size < 8_000 for url, size in sizes)
    cards.nth(199).scroll_into_view_if_needed()
    live(page).locator(".run").nth(199).locator(".spark path").first.wait_for(state="attached", timeout=30_000)


def names_shown(page: Page) -> Locator:
    return live(page).locator(".run:not([hidden]) button.name")


def test_many_runs_are_searched_filtered_and_sorted(crowd: str, visit: Open) -> None:
    page = visit(crowd)
    frame = live(page)
    frame.locator(".row").nth(199).wait_for(state="attached", timeout=30_000)
    frame.get_by_role("searchbox").fill("digits completed")
    expect(names_shown(page)).to_have_text(["0001-digits"])
    frame.get_by_text("1 of 200 shown").wait_for()
    frame.get_by_role("searchbox").fill("")
    frame.get_by_role("button", name="2 failed").click()
    expect(names_shown(page)).to_have_count(2)
    assert sorted(names_shown(page).all_inner_texts()) == ["0002.b(r)+", HOSTILE]
    expect(frame.get_by_role("button", name="2 failed")).to_have_attribute("aria-pressed", "true")
    frame.get_by_role("button", name="2 failed").click()
    frame.get_by_label("sort by").select_option("name")
    for number, name in enumerate(["0001-digits", "0002.b(r)+", "0004-many"]):
        expect(names_shown(page).nth(number)).to_have_text(name)
    frame.get_by_label("sort by").select_option("test")
    expect(names_shown(page).first).to_have_text("0001-digits")  # the others are at 90 %
    opened = frame.locator("button.name[aria-expanded=true]")
    expect(opened).to_have_count(1)
    frame.get_by_role("button", name="Collapse all").click()
    expect(opened).to_have_count(0)


def test_what_is_ticked_is_laid_over_another_and_stands_in_the_address(
    train: Train, tmp_path: Path, visit: Open, context: BrowserContext
) -> None:
    """Three seeds of one configuration and one run of another, on a real page."""
    small = ("--epochs", "2", "--set", "model.channels=[4, 8, 8]", "--set", "tracking.projector=false")
    for seed in ("1", "2", "3"):
        train(*small, "--seed", seed)
    train(*small, "--lr", "0.01")
    process, address = start_board("--logdir", str(tmp_path / "runs"), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 4)
        page = visit(address)
        frame = live(page)
        frame.locator(".row").nth(3).wait_for(timeout=30_000)
        expect(frame.locator(".overlay")).to_be_hidden()
        for number in range(4):
            frame.locator(".row input").nth(number).check()
        frame.locator(".overlay td").get_by_text("3", exact=True).wait_for(timeout=30_000)
        rows = frame.locator(".overlay tbody tr")
        expect(rows).to_have_count(2)
        expect(frame.locator(".overlay table")).to_contain_text("train.lr")
        expect(frame.locator(".overlay table")).not_to_contain_text("optimizer.name")  # which does not differ
        lines = frame.locator(".overlay .plot").nth(1).evaluate("({chart: {lines}}) => lines")
        by_name = {line["name"]: line for line in lines}
        assert by_name.keys() == {
            f"{group}, {split}" for group in ("lr1e-3 (n = 3)", "lr0.01") for split in ("training", "validation")
        }
        colours = {name.partition(",")[0]: line["colour"] for name, line in by_name.items()}
        assert colours == {"lr1e-3 (n = 3)": "#425066", "lr0.01": "#f9ab00"}, "Time Series' first and fourth"
        seeds = by_name["lr1e-3 (n = 3), validation"]
        assert seeds["steps"] == [0, 20, 40]
        assert all(
            low < mean < high for low, mean, high in zip(seeds["low"], seeds["values"], seeds["high"], strict=True)
        )
        expect(frame.locator(".overlay .about")).to_contain_text("one standard deviation over the seeds")

        frame.get_by_label("sort by").select_option("name")
        page.wait_for_url(lambda url: url.count("&run=") == 4)
        again = context.new_page()
        again.goto(page.url)
        live(again).locator(".overlay .plot canvas").first.wait_for(timeout=30_000)
        expect(live(again).locator(".row input:checked")).to_have_count(4)
        expect(live(again).get_by_label("sort by")).to_have_value("name")
        frame.locator(".row input").nth(0).uncheck()
        page.wait_for_url(lambda url: url.count("&run=") == 3)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_hostile_run_is_just_an_odd_name(crowd: str, visit: Open) -> None:
    page = visit(crowd)
    page.on("dialog", lambda dialog: pytest.fail(f"a script of the run ran: {dialog.message}"))
    name = live(page).get_by_role("button", name=HOSTILE, exact=True)
    name.click(timeout=30_000)
    card = live(page).locator(".run", has=name)
    card.locator(".facts").wait_for()
    expect(card.locator(".facts")).to_contain_text(f"failed: {HOSTILE}")
    expect(card.locator("img[src=x]")).to_have_count(0)
    page.wait_for_timeout(1_000)


def test_the_final_result_is_shown(crowd: str, visit: Open, finished: Run) -> None:
    page = visit(crowd)
    card = card_of(page, "0001-digits")
    card.locator("button.name").click(timeout=30_000)
    accuracy = finished.read_metrics()["test"]["accuracy"]
    facts = card.locator(".facts")
    facts.wait_for()
    facts.get_by_text(f"{100 * accuracy:.2f} % of 299 images").wait_for()
    card.locator(".picture img").wait_for()
    expect(card.locator(".picture figcaption")).to_contain_text("Final result")
    card.get_by_text("What it printed").click()
    expect(card.locator(".console pre")).to_contain_text(f"accuracy {100 * accuracy:.2f}%")
    expect(card.locator(".console pre")).not_to_contain_text("\x1b")


def test_chosen_runs_are_the_only_ones_in_time_series(crowd: str, visit: Open) -> None:
    page = visit(crowd)
    for name in ("0001-digits", "0002.b(r)+"):
        card_of(page, name).locator(".row input").check(timeout=30_000)
    link = live(page).get_by_role("link", name="Compare 2 in Time Series")
    assert "runFilter" in unquote(str(link.get_attribute("href")))
    link.click()
    rows = page.locator("runs-data-table tb-data-table-content-row, runs-selector tr")
    rows.first.wait_for(timeout=30_000)
    page.wait_for_timeout(1_500)
    text = page.locator("runs-selector").inner_text()
    assert "0001-digits" in text
    assert "0002.b(r)+" in text
    assert "many" not in text


def test_with_the_keyboard_alone(crowd: str, visit: Open) -> None:
    page = visit(crowd)
    first = live(page).locator(".run").first
    name = first.locator("button.name")
    name.wait_for(timeout=30_000)
    expect(name).to_have_attribute("aria-expanded", "true")  # the newest run is open at first
    first.locator(".row input").focus()
    page.keyboard.press("Space")
    expect(first.locator(".row input")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(name).to_have_attribute("aria-expanded", "false")
    expect(name).to_be_focused()


AXE = Path(axe_playwright_python.base.__file__).with_name("axe.min.js").read_text()


@pytest.fixture(scope="module")
def two(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page over a finished run and a failed one."""
    logdir = tmp_path_factory.mktemp("two")
    write_status(logdir / "0002-failed", replace(TRAINING, state="failed", error="the disk is full"))
    shutil.copytree(finished.path, logdir / "0001-digits")
    with EventWriter(logdir / "0001-digits") as writer:
        write_notes(writer, 0, Notes(("good", "<b>"), "the <i>first</i> one"))
    with served(logdir, 2) as address:
        yield address


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 400)])
def test_axe_finds_nothing(scheme: str, width: int, two: str, visit: Open) -> None:
    """axe-core, of Deque, over an unfolded run with its time machine and its result, and two that are compared."""
    page = visit("about:blank")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(two)
    frame = live(page)
    card = card_of(page, "0001-digits")
    card.locator("button.name").wait_for(timeout=30_000)
    if not card.locator(".detail").is_visible():
        card.locator("button.name").click()
    card.locator(".matrix").wait_for()
    card.locator(".panel.evidence").wait_for()
    card.get_by_text("What it printed").click()
    expect(card.locator(".console pre")).to_contain_text("Test set of digits")
    for name in ("0001-digits", "0002-failed"):
        card_of(page, name).locator(".row input").check()
    frame.locator(".overlay").wait_for()
    assert page.frames[1].evaluate("document.documentElement.classList.contains('dark')") == (scheme == "dark")
    page.frames[1].evaluate(f"{AXE}; 0")
    found = page.frames[1].evaluate("axe.run({resultTypes: ['violations']})")
    assert len(found["passes"]) > 20
    assert [(one["impact"], one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_runs_are_found_by_tag(two: str, visit: Open) -> None:
    """The filter stands in the address; what somebody wrote is text."""
    page = visit(two)
    frame = live(page)
    frame.locator(".row").nth(1).wait_for(timeout=30_000)
    chip = frame.get_by_role("button", name="# good")
    chip.click()
    expect(names_shown(page)).to_have_text(["0001-digits"])
    expect(page).to_have_url(re.compile("#live&tag=good$"))
    facts = card_of(page, "0001-digits").locator(".facts")
    if not facts.is_visible():
        card_of(page, "0001-digits").locator("button.name").click()
    facts.get_by_text("good, <b>").wait_for()
    facts.get_by_text("the <i>first</i> one").wait_for()
    chip.click()
    expect(names_shown(page)).to_have_count(2)
    frame.get_by_role("searchbox").fill("FIRST")
    expect(names_shown(page)).to_have_text(["0001-digits"])
    again = visit(page.url.split("#")[0] + "#live&tag=nobody")
    live(again).get_by_text("0 of 2 shown").wait_for(timeout=30_000)


def test_a_hidden_tab_asks_nothing(two: str, visit: Open) -> None:
    page = visit(two)
    live(page).locator(".run").first.wait_for(timeout=30_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/plugin/live/runs" in request.url else None)
    hide = "hidden => Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true})"
    for frame in page.frames:
        frame.evaluate(hide, True)
    page.wait_for_timeout(1_500)  # what is under way ends
    asked.clear()
    page.wait_for_timeout(2_500)
    assert asked == []
    for frame in page.frames:
        frame.evaluate(hide, False)
    ours = page.frames[1]  # TensorBoard's own page asks too
    page.wait_for_event("request", lambda one: "/plugin/live/runs" in one.url and one.frame == ours, timeout=30_000)


def test_a_connection_that_is_gone_without_a_word(two: str, context: BrowserContext) -> None:
    """As after a laptop's sleep: what was asked is never answered."""
    page = context.new_page()
    page.add_init_script("{const real = AbortSignal.timeout; AbortSignal.timeout = () => real.call(AbortSignal, 700)}")
    page.goto(two)
    live(page).locator(".run").first.wait_for(timeout=30_000)
    page.route("**/plugin/live/runs*", lambda route: None)
    live(page).get_by_text("TensorBoard does not answer; trying again.").wait_for(timeout=30_000)
    page.unroute("**/plugin/live/runs*")
    live(page).locator(".trouble", has_not_text="answer").wait_for(state="attached", timeout=30_000)


@pytest.mark.parametrize("width", [360, 700])
def test_on_a_narrow_window_nothing_hangs_over(width: int, crowd: str, visit: Open) -> None:
    page = visit(crowd)
    page.set_viewport_size({"width": width, "height": 800})
    card = card_of(page, "0001-digits")
    card.locator("button.name").click(timeout=30_000)
    card.locator(".picture img").wait_for()
    assert page.frames[1].evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_server_that_is_gone_is_said_and_its_return_seen(tmp_path: Path, context: BrowserContext) -> None:
    logdir, port = tmp_path / "runs", str(free_port())
    write_status(logdir / "0001-a", replace(TRAINING, state="completed"))
    process, address = start_board("--logdir", str(logdir), "--port", port)
    page = context.new_page()
    page.goto(address)
    live(page).locator(".run").first.wait_for(timeout=30_000)
    process.terminate()
    process.communicate(timeout=60)
    trouble = live(page).locator(".trouble")
    expect(trouble).to_have_text("TensorBoard does not answer; trying again.", timeout=30_000)
    write_status(logdir / "0002-b", replace(TRAINING, state="completed"))
    process, _ = start_board("--logdir", str(logdir), "--port", port)
    try:
        live(page).get_by_role("button", name="0002-b").wait_for(timeout=30_000)
        expect(trouble).to_have_text("")
    finally:
        process.terminate()
        process.communicate(timeout=60)


# ---- HParams


def session(logdir: Path, number: int, lr: float, seed: int) -> None:
    """A run as `train` writes it."""
    settings = flat_config(replace_config(Config(), {"train.lr": lr, "seed": seed, "schedule.warmup": 0.1}))
    with EventWriter(make_folder(logdir / f"{number:04d}-lr{lr}-s{seed}"), 0) as writer:
        writer.hparams(hyperparameters(settings), group_name(settings))
        for step in range(5):
            writer.scalars(step, {"accuracy/val": 0.9 + lr * step, "accuracy_per_class/0": 0.5, "system/cpu": 9})
        writer.status("completed")


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two learning rates with two seeds each, and their page."""
    logdir = tmp_path_factory.mktemp("sessions")
    for number, (lr, seed) in enumerate([(1e-3, 0), (1e-3, 1), (3e-3, 0), (3e-3, 1)], 1):
        session(logdir, number, lr, seed)
    process, address = start_board("--logdir", str(logdir), "--port", str(free_port()))
    wait_for_runs(address.rstrip("/"), 4)
    yield address
    process.terminate()
    process.communicate(timeout=60)


def test_a_row_a_configuration_with_every_setting(sessions: str, visit: Open) -> None:
    page = visit(f"{sessions}#hparams")
    cells = page.locator("vaadin-grid-cell-content")
    cells.get_by_text("wu0.1-lr3e-3").wait_for()
    rows = [text.strip() for text in cells.all_inner_texts()]
    assert {"wu0.1", "wu0.1-lr3e-3", "train.lr", "accuracy/val"} <= set(rows)
    assert "seed" not in rows
    assert not any("per_class" in text or "system" in text for text in rows), "their columns would hide the others"


def test_every_row_is_a_line_of_the_parallel_coordinates(sessions: str, visit: Open) -> None:
    page = visit(f"{sessions}#hparams")
    page.get_by_text("PARALLEL COORDINATES VIEW").first.click()
    lines = page.locator("tf-hparams-parallel-coords-plot g.foreground path")
    lines.first.wait_for(state="attached")
    page.wait_for_timeout(500)
    assert lines.count() == 2
    assert all(
        path and "NaN" not in path for path in lines.evaluate_all("all => all.map(one => one.getAttribute('d'))")
    )
    axes = page.locator("tf-hparams-parallel-coords-plot .axis-title, tf-hparams-parallel-coords-plot .axis text")
    assert {"train.lr", "accuracy/val"} <= set(axes.all_inner_texts() + axes.all_text_contents())
