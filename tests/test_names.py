"""A name is data: from the tag, the folder and the setting that a user names to wherever it appears.

The table, the file, the pattern, the page, the figure, the address: each is read back by who reads it in earnest.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import re
import shlex
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from argparse import Namespace
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from playwright.sync_api import expect
from rich.text import Text
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.custom_scalar import layout_pb2

from helpers.board import served
from helpers.fixtures import Open
from helpers.paths import REPOSITORY
from mnist_tb.analysis import compare, tables
from mnist_tb.analysis.loading import load_runs
from mnist_tb.cli.board import board_hint
from mnist_tb.cli.main import main
from mnist_tb.config.names import in_markdown, printable
from mnist_tb.environment.summary import reproduction
from mnist_tb.environment.texts import code, config_text, escape, table
from mnist_tb.events import summaries
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import create_run
from mnist_tb.runs.query import list_runs
from mnist_tb.tracking.charts import LAYOUT
from mnist_tb.watch.live import LiveRuns
from mnist_tb.watch.words import columns, detail, line

with warnings.catch_warnings(action="ignore"):  # of what TensorBoard imports
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.plugin_util import markdown_to_safe_html
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

ODD = [
    "[bold]x",
    "[/]",
    "a+b",
    "a$b$c",
    "q'\"q",
    "new\nline",
    "car\rret",
    "pi|pe",
    "ba`ck`",
    "``",
    "<script>alert(1)<",
    "%s%d",
    "\u202eltr",
    "\N{GRINNING FACE}",
    "\N{HEBREW LETTER ALEF}b",
    "-dash",
    "20240501-x",
    "\x1b[31mred",
    "{x}",
    "_under",
    "=1+1",
    "*star*",
    "tab\tx",
    "a&amp;b",
    "bell\x07",
    "a.b",
    "^a$",
    "(a",
    "a\\",
    "\\Z",
    "a:b",
    "#a",
    "~~a~~",
    "\u2028",
    "\x9b2J",
    " a ",
    "a,b",
    "null",
    "NaN",
    "1e3",
    "</script>",
    "<!--",
    "${x}",
    "@DATA@",
    "ä",
]
PIECES = st.lists(st.sampled_from([*ODD, *"|`*_[](){}<>&$^+?.\\\"' \n\r\tab1"]), max_size=4).map("".join)
TAGS = (PIECES | st.text(st.characters(exclude_categories=("Cs",)), max_size=10)).filter(bool)
"""Of tags, which protocol buffers keep as UTF-8."""
BYTES = st.sampled_from(["caf\udce9", "\udcff\udcfe"])
FOLDERS = (PIECES | st.text(st.characters(exclude_categories=("Cs",)), max_size=10) | BYTES).map(
    lambda name: name.replace("/", "-").replace("\0", "").lstrip(".")
)
"""Of folders, which may be any bytes but these, and are hidden where they begin with a dot."""
FOLDERS = FOLDERS.filter(lambda name: 0 < len(os.fsencode(name)) <= 200)
some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def made(folder: Path, tag: str = "accuracy/val") -> None:
    folder.mkdir(parents=True)
    with EventWriter(folder) as writer:
        writer.scalars(1, {tag: 0.5})


@contextlib.contextmanager
def two_runs(name: str) -> Iterator[Path]:
    """A log folder with a run of this name, and another one."""
    with TemporaryDirectory() as folder:
        for each, rate in ((name, 0.1), ("other", 0.2)):
            made(Path(folder) / "runs" / each)
            (Path(folder) / "runs" / each / "hparams.yaml").write_text(f"lr: {rate}\n", encoding="utf-8")
        yield Path(folder) / "runs"


def printed(*arguments: object, encoding: str = "utf-8", expected: int = 0) -> str:
    """What a command writes to a pipe."""
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        assert main(arguments=[str(each) for each in arguments]) == expected
    (error if expected else out).flush()
    content: bytes = (error if expected else out).buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode(encoding)


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.elements: set[str] = set()
        self._is_cell = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.add(tag)
        if tag == "td":
            self.cells.append("")
        self._is_cell |= tag == "td"

    def handle_endtag(self, tag: str) -> None:
        self._is_cell &= tag != "td"

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.cells[-1] += data


def cells(html: str) -> list[str]:
    """The cells of a table in HTML, which has nothing else in it."""
    parser = _Cells()
    parser.feed(html)
    assert parser.elements <= {"table", "thead", "tbody", "tr", "th", "td", "code", "p", "strong"}
    return [cell.strip() for cell in parser.cells]


# ---- The folder of a run


@some
@given(FOLDERS.filter(lambda name: name != "other"))
@example("\x1b[31mred")
@example("new\nline")
@example("caf\udce9")
@example("car\rret")
def test_a_runs_name_is_the_same_in_every_listing(name: str) -> None:
    with two_runs(name) as logdir:
        where = ("--logdir", logdir)
        lines = [line for line in printed("runs", "list", *where).split("\n") if line]
        assert len(lines) == 4, "a line a run, whatever its name"
        assert all(line == printable(line) for line in lines)
        assert any(line.startswith(f"{printable(name)} ") for line in lines)
        for encoding in ("utf-8", "ascii", "latin-1"):
            listed = json.loads(printed("runs", "list", "--json", *where, encoding=encoding))
            assert {run["run"] for run in listed} == {name, "other"}
            (section,) = json.loads(printed("compare", "--format", "json", *where, encoding=encoding))
            assert {line["run"] for line in section["lines"]} == {name, "other"}
        rows = list(csv.DictReader(io.StringIO(printed("compare", "--format", "csv", *where), newline="")))
        assert {row["run"] for row in rows} == {name.encode(errors="backslashreplace").decode(), "other"}
        markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        found = cells(markdown.render(printed("compare", "--format", "markdown", *where)))
        assert {printable(name).strip(), "other"} < {*found}
        assert printable(name) in printed("compare", *where)


@some
@given(FOLDERS.filter(lambda name: name != "other"))
def test_a_runs_name_in_the_watch(name: str) -> None:
    with two_runs(name) as logdir:
        runs = LiveRuns(logdir).update()
        assert {run.summary.name for run in runs} == {name, "other"}
        texts: list[Text] = [detail(run) for run in runs]
        texts += [text for column in columns(200, runs).values() for text in column]
        for text in [*map(line, runs), *(text.plain for text in texts)]:
            assert text == printable(text)


@some
@given(FOLDERS.filter(lambda name: name != "other"))
@example("caf\udce9")
@example("</script><!--")
def test_a_runs_name_in_the_report(name: str) -> None:
    with two_runs(name) as logdir:
        path = logdir.parent / "report.html"
        printed("compare", "--logdir", logdir, "--report", path)
        page = path.read_text(encoding="utf-8")
        found = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
        assert found is not None
        assert "<!--" not in found[1]
        assert {run["name"] for run in json.loads(found[1])["runs"]} == {name, "other"}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FOLDERS.filter(lambda name: name != "other"), TAGS)
@example("bell\x07", "\x01<a&b>$x$")
@example("_caf\udce9", "%s")
def test_a_runs_name_and_a_tag_in_a_figure(name: str, tag: str) -> None:
    with TemporaryDirectory() as folder:
        logdir, path = Path(folder) / "runs", Path(folder) / "a.svg"
        made(logdir / name, tag)
        made(logdir / "other", tag)
        printed("compare", "--logdir", logdir, "--figure", path, f"--tag={tag}")
        texts = ["".join(each.itertext()) for each in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
        parts = [part.strip() for part in printable(name, "\n").split("\n")]
        assert all(part in "\n".join(texts) for part in parts)
        assert printable(tag).strip() in "\n".join(texts)
        caption = path.with_name("a.caption.txt").read_text(encoding="utf-8")
        assert printable(tag).casefold() in caption.casefold(), "it begins a sentence"


@pytest.mark.parametrize("name", ["a: b: c", "*a", "@a", "`a`", '"a', "[a", "{a", " a", "null", "1"])
def test_a_run_is_found_by_what_it_is_called(name: str, tmp_path: Path) -> None:
    made(tmp_path / name)
    made(tmp_path / "other")
    found = list_runs(tmp_path).runs
    assert [run.name for run in compare.where(found, [f"name={name}"])] == [name]


def test_what_is_said_commands_no_terminal(tmp_path: Path) -> None:
    made(tmp_path / "\x1b[31m\u202ered\r")
    (tmp_path / "\x1b[31m\u202ered\r" / "hparams.yaml").write_text("[", encoding="utf-8")
    error = printed("runs", "show", "\x1b]0;x\x07", "--logdir", tmp_path, expected=2)
    assert error == printable(error, "\n")
    assert re.search(r"\\x1b", error)
    error = printed("compare", "--where", "\x07\u202e\x9b=1", "--logdir", tmp_path, expected=2)
    assert error == printable(error, "\n")
    error = printed("\x07\u202e", expected=2)
    assert error == printable(error, "\n")


def test_a_note_and_an_error_have_their_lines(tmp_path: Path) -> None:
    known = {"config": {}, "kind": "tracked", "status": "failed", "error": "first\nsecond \x1b[31m", "id": "0" * 12}
    create_run(tmp_path, "a", "", known)
    with EventWriter(tmp_path / "0001-a") as writer:
        writer.scalars(1, {"loss": 1.0})
    shown = printed("runs", "show", "1", "--logdir", tmp_path)
    assert "error     first\n          second \\x1b[31m\n" in shown


def test_a_file_that_git_did_not_know_is_no_command(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "", {"config": {}})
    made_with = {"code": {"commit": "c" * 40, "repository": "/a b", "untracked": ["x\nrm -rf /", "y"]}}
    (run.path / "environment.json").write_text(json.dumps(made_with), encoding="utf-8")
    commands = "\n".join(reproduction(run)).splitlines()
    assert all(line.startswith("#") for line in commands if "rm -rf" in line)


@pytest.mark.parametrize("folder", ["a b", "$(x)", "a'b", "*"])
def test_the_command_that_shows_a_folder_can_be_typed(folder: str) -> None:
    hint = board_hint(Path(folder))
    assert shlex.split(hint)[-1] == folder
    assert "make" not in hint


# ---- The tag of a curve


@some
@given(TAGS)
@example("a")
@example("lr-Adam/pg1[2]")
@example("a+b")
def test_a_chart_has_the_tag_that_it_names_and_no_other(tag: str) -> None:
    others = [f"{tag}x", f"x{tag}", f"{tag}\n", tag.swapcase(), re.sub(r"\W", "_", tag), f"{tag}/", "other"]
    with TemporaryDirectory() as folder:
        with EventWriter(Path(folder)) as writer:
            writer.scalars(1, dict.fromkeys({tag, *others}, 0.5))
        assert _matched(Path(folder), summaries.layout({"c": {"t": [tag]}})) == {tag}


def test_our_own_charts(tmp_path: Path) -> None:
    tags = {"accuracy_per_class/a.b", "accuracy_per_class/x\ny", "loss/train"}
    with EventWriter(tmp_path) as writer:
        writer.scalars(1, dict.fromkeys([*tags, "accuracy-per_class/a", "loss/train2", "xlr", "lr2"], 0.5))
    assert _matched(tmp_path, summaries.layout(LAYOUT)) == tags


def _matched(folder: Path, layout: Any) -> set[str]:
    """The tags that TensorBoard draws on the charts of a layout."""
    proto = layout_pb2.Layout.FromString(layout.tensor.string_val[0])
    patterns = [tag for category in proto.category for chart in category.chart for tag in chart.multiline.tag]
    multiplexer = EventMultiplexer().AddRun(str(folder), "run")
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = base_plugin.TBContext(
        multiplexer=multiplexer, data_provider=provider, flags=Namespace(), plugin_name_to_instance={}
    )
    context.plugin_name_to_instance["scalars"] = ScalarsPlugin(context)
    plugin = CustomScalarsPlugin(context)
    joined = "|".join(f"({pattern})" for pattern in patterns)  # as the page does
    answer = plugin.scalars_impl(RequestContext(), "run", joined, "")
    assert answer["regex_valid"]
    return {*answer["tag_to_events"]}


@some
@given(TAGS)
@example("car\rret")
def test_a_tag_in_python(tag: str) -> None:
    with TemporaryDirectory() as folder:
        made(Path(folder) / "a", tag)
        (run,) = load_runs(folder)
        assert list(run.curves) == [tag]


# ---- A setting, and any text in Markdown


@settings(max_examples=100, deadline=None)
@given(TAGS | FOLDERS, TAGS | FOLDERS)
@example("a|b", "c`d")
@example("&lt;", "~~~")
def test_a_text_is_a_cell_of_markdown(one: str, other: str) -> None:
    expected = [printable(each).strip() for each in (one, other)]
    for cell in (in_markdown, escape, code):
        written = table(("a", "b"), [(cell(one), cell(other))])
        assert cells(markdown_to_safe_html(written)) == expected
    written = table(("a", "b"), [(in_markdown(one), in_markdown(other))])
    assert cells(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(written)) == expected


@some
@given(st.dictionaries(TAGS | FOLDERS, TAGS | FOLDERS, min_size=1, max_size=3))
def test_the_settings_in_the_text_tab(known: dict[str, str]) -> None:
    found = cells(markdown_to_safe_html(config_text(known)))
    assert found == [text.strip() for key, value in known.items() for text in (printable(key), json.dumps(value))]


def test_a_cell_has_room_for_what_is_printed(tmp_path: Path) -> None:
    """The width of a table is that of what is shown, not of what is meant."""
    made(tmp_path / ("\x1b" * 20))
    made(tmp_path / "other")
    sections = compare.compare(list_runs(tmp_path).runs)
    columns = tables.header(sections[0])
    rows = [tables.cells(sections[0], line, columns) for line in sections[0].lines]
    assert tables._width(list(columns.values()), rows) > 80


# ---- In TensorBoard's page


@pytest.mark.slow
def test_the_link_to_time_series_shows_these_runs_and_no_other(tmp_path: Path, visit: Open) -> None:
    names = ["a+b [1]$x^(y)", "q'\"q|p<b>%41&c=d#e", "ba`ck\\\N{GRINNING FACE}\u202e"]
    others = [*names, "aab [1]$x^(y)", "a+b 1$x^(y)", "q'\"q", "p<b>%41&c=d#e", "back"]
    for name in others:
        made(tmp_path / name, "accuracy/val")
    with served(tmp_path, len(others)) as address:
        for name in names:
            page = visit(f"{address}#live")
            page.reload()
            live = page.frame_locator("iframe")
            card = live.locator(".run").filter(has=live.get_by_text(name, exact=True))
            card.locator(".row input").check(timeout=30_000)
            link = live.locator("a.button")
            expect(link).to_have_text("Compare 1 in Time Series")
            link.click()
            rows = page.locator("runs-data-table tb-data-table-content-row, runs-selector tr")
            rows.first.wait_for(timeout=30_000)
            page.wait_for_timeout(1_500)
            seen = page.locator("runs-selector").inner_text()
            assert name.rstrip("\u202e ") in seen
            assert {*seen.splitlines()} & ({*others} - {name}) == set()


# ---- Text has an encoding


def _calls_without(path: Path) -> Iterator[str]:
    """Where a file opens a text in the locale's encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        modes = [*node.args[:2], *([given["mode"]] if "mode" in given else [])]
        is_binary = any(_is_binary(each) for mode in modes for each in ast.walk(mode))
        opens = name in ("read_text", "write_text", "fdopen") or (
            name == "open" and owner not in ("os", "webbrowser", "Image", "opener")
        )
        is_text = opens and not is_binary
        is_text |= isinstance(is_asked := given.get("text"), ast.Constant) and is_asked.value is True
        if is_text and "encoding" not in given:
            yield f"{path}:{node.lineno}"


def _is_binary(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and re.fullmatch(r"[rwxa+]*b[rwxa+]*", str(node.value)) is not None


def test_every_text_has_an_encoding() -> None:
    files = [*(REPOSITORY / "mnist_tb").rglob("*.py"), *(REPOSITORY / "tests" / "helpers").glob("*.py"), Path(__file__)]
    assert [place for path in files for place in _calls_without(path)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="a name of any bytes")
def test_a_folder_that_is_no_text_in_a_terminal_of_ascii(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with EventWriter(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))) as writer:
        writer.scalars(1, {"loss/val": 0.5})
    for encoding in ("ascii", "latin-1", "utf-8"):
        assert "caf\\udce9" in printed("runs", "list", "--logdir", tmp_path, encoding=encoding)
