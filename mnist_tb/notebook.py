"""The page inside a notebook: `from mnist_tb.notebook import board; board("runs")`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from mnist_tb.cli.board import Page, start_page
from mnist_tb.cli.options import PORT

_pages: dict[Path, Page] = {}


def board(logdir: str | Path = "runs", height: int = 800) -> None:
    """Show the runs of a log folder below the cell, live. A second call for the same folder shows the page again.

    logdir: need not exist yet. height: of the frame, in pixels. TensorBoard runs in a process of its own, until the
    kernel ends. Outside of a notebook this prints the address. For a notebook on another machine, behind a proxy, set
    TENSORBOARD_PROXY_URL as for TensorBoard's own `%tensorboard`, for example to
    `https://hub.example.org/user/me/proxy/%PORT%/`. Raises InputError where TensorBoard does not start.
    """
    from tensorboard import notebook  # takes a second to import

    folder = Path(logdir).resolve()
    page = _pages.get(folder)
    if page is None or page.process.poll() is not None:
        page = _pages[folder] = start_page(folder, PORT, browser=False)
    notebook.display(port=urlsplit(page.address).port, height=height)
