"""Notebooks, executed by a real kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SHOWN = ("text/html", "text/markdown")


def of_cells(*sources: str) -> NotebookNode:
    """A notebook of code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def execute(notebook: NotebookNode, folder: Path, after: Callable[[int, str], None]) -> None:
    """Execute a notebook's code cells one after another, in a folder; their outputs are in the notebook then.

    after: gets the number of each code cell in the notebook and what it shows, while the kernel runs.
    Raises CellExecutionError where a cell raises something.
    """
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                client.execute_cell(cell, number)
                after(number, "".join(map(_shown, cell.outputs)))


def _shown(output: NotebookNode) -> str:
    return output.get("text", "") + "".join(output.get("data", {}).get(kind, "") for kind in SHOWN)
