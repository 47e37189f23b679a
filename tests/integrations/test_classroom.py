"""The notebook for a class: executed from start to end as students do, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  where it builds its cache for more than 5 s, it says so: here, not in a cell
import nbformat
import pytest
from nbformat import NotebookNode

from helpers.board import wait_for_runs
from helpers.notebooks import execute
from helpers.paths import REPOSITORY
from mnist_tb import load_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def notebook() -> NotebookNode:
    return nbformat.read(REPOSITORY / "examples" / "classroom.ipynb", as_version=nbformat.NO_CONVERT)


def test_it_is_committed_as_nobody_has_run_it(notebook: NotebookNode) -> None:
    """Without outputs, without what an editor adds; and a text says of each cell what one will see."""
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    before = None
    for cell in notebook.cells:
        assert re.fullmatch("[a-z-]+", cell.id), "an id that was chosen, so that differences can be read"
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
            assert before == "markdown", cell.id
        before = cell.cell_type


def test_a_class_runs_it(notebook: NotebookNode, tmp_path: Path) -> None:
    shown: dict[str, str] = {}

    def look(number: int, text: str) -> None:
        shown[notebook.cells[number].id] = text
        if notebook.cells[number].id == "plot":
            (port,) = re.findall(r"const port = (\d+);", shown["board"])
            wait_for_runs(f"http://localhost:{port}", 11)

    execute(notebook, tmp_path, look)
    outputs = [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output.name for _, output in outputs if output.output_type == "stream"} == {"stdout"}
    for cell, text in shown.items():
        assert not re.search("warning|traceback", text, re.I), cell
        assert not re.search("[\x1b\r]", text), f"{cell}: colours or a progress bar"
    assert [cell for cell, output in outputs if "image/png" in output.get("data", {})] == ["draw", "predict", "plot"]
    assert "\nmy_digit.png: 7 " in shown["predict"]

    runs = load_runs(tmp_path / "class_runs")
    assert [run.status for run in runs] == ["completed"] * 11
    assert "\nThe run: class_runs/0001-digits\n" in shown["train"]
    compared = load_runs(tmp_path / "class_runs" / "rates")
    assert {(run.settings["train.lr"], run.settings["seed"]) for run in compared} == {
        (rate, seed) for rate in (3e-4, 3e-3) for seed in range(5)
    }
    header, _, *rows = [
        [value.strip() for value in line.strip("|").split("|")]
        for line in shown["result"].splitlines()
        if line.startswith("|")
    ]
    lines = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(line["n"], line["lr"], line["verdict"]) for line in lines] == [
        ("5", "3e-3", "best"), ("5", "3e-4", "significant")
    ]  # fmt: skip
