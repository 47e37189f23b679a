"""The report that is mailed: one file, from disk, in a real browser, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page

from helpers.events import read_events
from helpers.fixtures import Open, Train
from helpers.paths import REPOSITORY
from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, list_run_folders

HOSTILE = "</script><script>document.title='broken'</script><!--<img src=x onerror=alert(1)>"


def write_report(logdir: Path, *arguments: str, code: int = 0) -> Path:
    path = logdir.parent / "report.html"
    assert main(arguments=["compare", *arguments, "--logdir", str(logdir), "--report", str(path)]) == code
    return path


@pytest.fixture
def report(finished: Run, train: Train) -> Path:
    """Of three runs: a copy of one, another learning rate, and one of another program with hostile names."""
    other = train("--epochs", "2", "--lr", "0.01")
    logdir = other.path.parent
    shutil.copytree(finished.path, logdir / "0005-first")
    with Tracker(logdir, "foreign", {"what": HOSTILE, "lr": 3.0}, dataset=HOSTILE) as tracker:
        tracker.scalars(1, {"loss/val": 0.5, HOSTILE: 1.0})
        tracker.scalars(2, {"loss/val": float("nan"), HOSTILE: 2.0})
    return write_report(logdir)


def boxes(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".chip").all_inner_texts()]


def test_all_is_in_it(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    assert page.title() == "Runs compared"
    assert boxes(page) == ["0005-first", "0001-digits-ep2-lr0.01", "0006-foreign"] or boxes(page) == [
        "0001-digits-ep2-lr0.01", "0005-first", "0006-foreign"
    ]  # fmt: skip
    tables = page.locator("#tables table")
    assert tables.count() == 2
    assert re.search(r"val %.*test %.*Δ vs best.*verdict.*lr", tables.first.inner_text().replace("\n", " "))
    assert "McNemar" in page.locator("#tables").inner_text()
    charts = page.locator("#charts h3").all_inner_texts()
    assert charts[:2] == ["accuracy", "loss"]
    assert {"lr", "grad_norm", "throughput/images_per_second", HOSTILE} <= set(charts)
    pictures = page.locator("#pictures img")
    assert pictures.count() == 2 * 8
    assert pictures.evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 200)")
    captions = page.locator("#pictures figcaption").all_inner_texts()[:4]
    assert captions == ["confusion/test", "results/test", "mistakes/test", "uncertain/test"]
    settings = page.locator("#settings tbody tr td:first-child").all_inner_texts()
    assert "train.lr" in settings
    assert "model.channels" not in settings
    page.locator("#all").check()
    assert "model.channels" in page.locator("#settings tbody tr td:first-child").all_inner_texts()


def drawn(page: Page, chart: int) -> list[str]:
    """The names of the lines in a chart."""
    names: list[str] = page.locator(".plot").nth(chart).evaluate("one => one.chart.lines.map(line => line.name)")
    return names


def scale(page: Page, chart: int) -> tuple[float, float]:
    """The least and the largest value that a chart's height spans."""
    low, high = page.locator(".plot").nth(chart).evaluate("({chart: {plot: {scales: {y}}}}) => [y.min, y.max]")
    return low, high


def test_runs_are_switched_on_and_off(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    before = drawn(page, 1)
    assert len(before) == 2 * 3 + 1  # train, val, test of two runs, and val of the foreign one
    page.get_by_label("0005-first").uncheck()
    assert drawn(page, 1) == [name for name in before if not name.startswith("0005-first")]
    assert not page.locator("#pictures .card", has_text="0005-first").is_visible()
    assert not page.locator("#tables tr", has_text="0005-first").is_visible()
    assert page.locator("#tables tr", has_text="0001-digits").is_visible()
    page.get_by_role("button", name="none").click()
    assert page.locator(".chart").nth(1).get_by_text("Nothing is shown.").is_visible()
    assert not page.locator(".plot").nth(1).is_visible()
    page.get_by_role("button", name="all").click()
    assert drawn(page, 1) == before
    assert page.locator(".plot").nth(1).is_visible()


def test_the_pointer_lists_the_exact_values_of_all_lines(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    loss = page.locator(".plot").nth(1)
    loss.hover()
    rows = loss.locator(".tip div").all_inner_texts()
    assert len(rows) == len(drawn(page, 1))
    data = json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(), re.S)[1])  # type: ignore[index]
    known = {run["name"]: run["curves"] for run in data["runs"]}
    for row in rows:
        name, split, value, place = re.fullmatch(r"\s*(\S+) (\w+) (\S+?)(?:, at ([\d,]+))?", row).groups()  # type: ignore[union-attr]
        curve = known[name][f"loss/{split}"]
        step = int((place or loss.locator(".tip b").first.inner_text().removeprefix("step ")).replace(",", ""))
        assert float(value) == pytest.approx(curve["values"][curve["steps"].index(step)], rel=1e-3)


def test_a_chart_that_grows_shows_what_is_new(report: Path, visit: Open) -> None:
    """Its scale upwards was that of the points before the newest one, which was cut off."""
    plot = visit(report.as_uri()).locator(".plot").first
    grown = """async ({chart}) => {
        const line = (steps, values) => [{name: 'p', colour: '#000', steps, values}];
        chart.show(line([0, 1], [0.1, 0.9]), {fromStart: true, scale: 'linear'});
        await new Promise(requestAnimationFrame);
        chart.show(line([0, 1, 2], [0.1, 0.9, 5]));
        await new Promise(requestAnimationFrame);
        return [chart.plot.scales.x.max, chart.plot.scales.y.max];
    }"""
    steps, values = plot.evaluate(grown)
    assert steps == 2
    assert 5 < values < 6


def test_scales_zoom_and_smoothing(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    chart, plot = page.locator(".chart").first, page.locator(".plot").first
    late = scale(page, 0)
    chart.get_by_label("from the start").check()
    whole = scale(page, 0)
    assert whole[0] < late[0], "an untrained network guesses"
    ticks = "one => one.chart.plot.axes[1]._values"
    chart.get_by_role("combobox").select_option("last percent")
    assert {"90 %", "50 %"} <= set(plot.evaluate(ticks))
    heights = plot.evaluate("({chart: {plot}}) => [.5, .9, .95].map(v => plot.valToPos(v, 'y'))")
    assert heights[0] - heights[1] > heights[1] - heights[2] > 0.1 * (heights[0] - heights[1])
    chart.get_by_role("combobox").select_option("logarithmic")
    heights = plot.evaluate("({chart: {plot}}) => [.2, .4, .8].map(v => plot.valToPos(v, 'y'))")
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])

    over = plot.locator(".u-over").bounding_box()
    assert over is not None
    x, y = over["x"], over["y"] + over["height"] / 2
    page.mouse.move(x + 0.2 * over["width"], y)
    page.mouse.down()
    page.mouse.move(x + 0.6 * over["width"], y, steps=5)
    page.mouse.up()
    steps = "({chart: {plot: {scales: {x}}}}) => [x.min, x.max]"
    all_steps = "({chart: {plot: {data}}}) => [data[0][0], data[0].at(-1)]"
    full = plot.evaluate(all_steps)
    zoomed = plot.evaluate(steps)
    assert full[0] < zoomed[0] < zoomed[1] < full[1]
    page.get_by_label("0005-first").uncheck()
    assert plot.evaluate(steps) == zoomed, "what is switched off does not move what one looks at"
    page.mouse.dblclick(x + 0.4 * over["width"], y)
    assert plot.evaluate(steps) == plot.evaluate(all_steps)

    jagged = """({chart: {lines}}) => {
      const values = lines.find((line) => line.name.endsWith('train')).values;
      return values.slice(1).reduce((sum, value, i) => sum + Math.abs(value - values[i]), 0); }"""
    before = plot.evaluate(jagged)
    assert "nothing is smoothed" in page.locator("#smoothed").inner_text()
    page.get_by_label("smoothing", exact=True).fill("0.9")
    assert plot.evaluate(jagged) < before
    assert "weight 0.9" in page.locator("#smoothed").inner_text()


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Two configurations of three seeds, one of them trained twice, and one seed shorter than the others."""
    for lr in (0.1, 0.2):
        for seed, shift in ((1, 0.0), (2, 0.02), (3, 0.04), (3, 0.04)):
            with Tracker(tmp_path / "runs", "run", {"lr": lr, "seed": seed}) as tracker:
                for step in range(0, 40 if (lr, seed) == (0.2, 2) else 100, 10):
                    tracker.scalars(step, {"accuracy/val": lr + shift + step / 200, "loss/train": 1 / (1 + step)})
                for step in (0, 10 + seed):  # of the machine, by the clock
                    tracker.scalars(step, {"system/cpu_percent": 50.0})
    return write_report(tmp_path / "runs", "--group")


def test_seeds_are_a_mean_with_a_band(grouped: Path, visit: Open) -> None:
    page = visit(grouped.as_uri())
    assert boxes(page) == ["lr=0.1\n3 seeds", "lr=0.2\n3 seeds"]
    assert drawn(page, 0) == ["lr=0.1 val", "lr=0.2 val"]
    lines = page.locator(".plot").first.evaluate("({chart: {lines}}) => lines")
    assert [line["steps"][-1] for line in lines] == [90, 30], "as far as all of its seeds go"
    at_20 = [line["steps"].index(20) for line in lines]
    for line, at, lr in zip(lines, at_20, (0.1, 0.2), strict=True):
        assert line["values"][at] == pytest.approx(lr + 0.12)
        assert (line["low"][at], line["high"][at]) == pytest.approx((lr + 0.1, lr + 0.14)), (
            "the deviation of .0 .02 .04"
        )
    about = page.get_by_text("one standard deviation over the seeds").inner_text()
    assert "ends with the shortest: lr=0.2." in about
    page.locator(".plot").first.hover()
    assert re.search(r"lr=0\.1 val [\d.]+ ± 0\.02", page.locator(".plot").first.locator(".tip").inner_text())
    page.get_by_label("each seed").check()
    assert len(drawn(page, 0)) == 2 + 8
    page.get_by_role("checkbox", name="lr=0.1").uncheck()
    assert len(drawn(page, 0)) == 1 + 4


def test_charts_are_of_the_library_that_is_said() -> None:
    """The vendored files are those of the package, by its checksums, and the report has them in it."""
    vendor = REPOSITORY / "mnist_tb" / "board" / "static" / "vendor"
    said = dict(re.findall(r"^\| (uPlot\S+) \| \S+ \| ([0-9a-f]{64}) \|$", (vendor / "README.md").read_text(), re.M))
    assert said.keys() == {path.name for path in vendor.iterdir()} - {"README.md"}
    for name, digest in said.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name


def test_it_asks_no_network(report: Path, visit: Open) -> None:
    text = report.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    page = visit("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_from_paper(scheme: str, report: Path, visit: Open) -> None:
    """All text has at least the contrast of 4.5 that WCAG asks for. https://www.w3.org/TR/WCAG21/#contrast-minimum"""
    page = visit("about:blank")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(report.as_uri())
    ratios = page.evaluate("""() => {
      const parse = (c) => c.match(/[\\d.]+/g).map(Number);
      const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = (c) => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
      const paper = (e) => {
        const c = parse(getComputedStyle(e).backgroundColor);
        return c.length < 4 || c[3] > 0 ? c : paper(e.parentElement); };
      const texts = [...document.querySelectorAll('h1, h2, h3, p, th, td, label, .faint, .axis')];
      return texts.filter((e) => e.textContent.trim()).map((e) => {
        const style = getComputedStyle(e);
        const ink = light(parse(e.tagName === 'text' ? style.fill : style.color));
        const [a, b] = [ink, light(paper(e))].sort((x, y) => y - x);
        return (a + .05) / (b + .05); });
    }""")
    assert len(ratios) > 100
    assert min(ratios) >= 4.5


def test_a_report_of_what_others_wrote(tmp_path: Path, visit: Open) -> None:
    with EventWriter(_folder(tmp_path / "runs" / "others" / "one")) as writer:
        for step in range(1000):
            writer.scalars(step, {"Loss/val": 7.0 if step == 501 else 1 / (step + 1)})
    path = write_report(tmp_path / "runs")
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1])  # type: ignore[index]
    curve = data["runs"][0]["curves"]["Loss/val"]
    assert 100 < len(curve["steps"]) <= 400
    assert (curve["steps"][-1], curve["values"][-1]) == (999, pytest.approx(0.001))
    assert 7.0 in curve["values"], "a spike is drawn"
    page = visit(path.as_uri())
    assert boxes(page) == ["others/one"]
    assert "These runs have no pictures." in page.locator("#pictures").inner_text()


def test_damage_is_said_and_the_rest_reported(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = list_run_folders(report.parent / "runs")[0]
    (events,) = run.path.glob("*tfevents*")
    content = bytearray(events.read_bytes())
    content[len(content) // 2] ^= 1
    events.write_bytes(content)
    write_report(report.parent / "runs", code=1)
    assert "1 broken record; the rest was read" in capsys.readouterr().err


def test_pictures_are_the_runs_own(report: Path) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', report.read_text(), re.S)[1])  # type: ignore[index]
    run = next(run for run in data["runs"] if run["name"] == "0005-first")
    events = read_events(Run(report.parent / "runs" / "0005-first"))
    for tag, source in run["pictures"].items():
        picture = base64.b64decode(source.partition("base64,")[2])
        assert picture == events.Images(tag)[-1].encoded_image_string


@pytest.fixture
def namesakes(tmp_path: Path) -> Path:
    """Two runs whose folders have one name: constant curves, of 0.5 and 0.9."""
    for folder, accuracy in (("a", 0.5), ("b", 0.9)):
        with Tracker(tmp_path / "runs" / folder, "run", {"seed": accuracy}, dataset="letters") as tracker:
            for step in range(3):
                tracker.scalars(step, {"accuracy/val": accuracy, "accuracy/test": accuracy})
    return tmp_path / "runs"


NAMESAKES = ("a/0001-run", "b/0001-run")


def test_runs_that_share_a_name_are_two_runs(namesakes: Path, visit: Open) -> None:
    page = visit(write_report(namesakes, *NAMESAKES).as_uri())
    assert boxes(page) == ["b/0001-run", "a/0001-run"]
    lines = page.locator(".plot").first.evaluate(
        "({chart: {lines}}) => lines.map(({name, values}) => [name, values[0]])"
    )
    val = {name: value for name, value in lines if name.endswith("val")}
    assert val == {"b/0001-run val": 0.9, "a/0001-run val": 0.5}
    page.get_by_label("a/0001-run").uncheck()
    assert {name.partition(" ")[0] for name in drawn(page, 0)} == {"b/0001-run"}
    assert page.locator("#tables tr", has_text="b/0001-run").is_visible()
    assert not page.locator("#tables tr", has_text="a/0001-run").is_visible()


def test_the_mean_of_runs_that_share_a_name_is_of_both(namesakes: Path) -> None:
    path = write_report(namesakes, *NAMESAKES, "--group")
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1])  # type: ignore[index]
    (group,) = data["groups"]
    assert group["curves"]["accuracy/val"]["values"] == [0.7] * 3
    assert group["curves"]["accuracy/val"]["deviation"] == pytest.approx([0.08**0.5] * 3, rel=1e-6)
    assert {run["curves"]["accuracy/val"]["values"][0] for run in data["runs"]} == {0.5, 0.9}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
