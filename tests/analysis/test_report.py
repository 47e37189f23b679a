"""The report that is mailed: one file, from disk, in a real browser, without a network."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page

from helpers.events import read_events
from helpers.fixtures import Open, Train
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


def test_runs_are_switched_on_and_off(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    loss = page.locator(".chart").nth(1).locator("path")
    before = loss.count()
    assert before == 2 * 3 + 1  # train, val, test of two runs, and val of the foreign one
    page.get_by_label("0005-first").uncheck()
    assert loss.count() < before
    assert not page.locator("#pictures .card", has_text="0005-first").is_visible()
    assert not page.locator("#tables tr", has_text="0005-first").is_visible()
    assert page.locator("#tables tr", has_text="0001-digits").is_visible()
    page.get_by_role("button", name="none").click()
    assert loss.count() == 0
    assert "nothing is shown" in page.locator(".chart").nth(1).locator("svg").inner_html()
    page.get_by_role("button", name="all").click()
    assert loss.count() == before


def test_values_under_the_pointer_and_a_logarithm(report: Path, visit: Open) -> None:
    page = visit(report.as_uri())
    chart = page.locator(".chart").nth(1)
    chart.locator("svg").hover()
    assert re.match(r"step [\d,]+ ", chart.locator(".tip").inner_text())
    before = chart.locator("path").first.get_attribute("d")
    accuracy = page.locator(".chart").first
    plain = accuracy.locator("path").first.get_attribute("d")
    accuracy.get_by_label("log").check()
    assert accuracy.locator("path").first.get_attribute("d") != plain
    assert before


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
            writer.scalars(step, {"Loss/val": 1 / (step + 1)})
    path = write_report(tmp_path / "runs")
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1])  # type: ignore[index]
    curve = data["runs"][0]["curves"]["Loss/val"]
    assert 300 < len(curve) <= 400
    assert curve[-1] == [999, pytest.approx(0.001)]
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


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
