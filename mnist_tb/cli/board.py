"""The command board, and the page beside a training."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from mnist_tb.cli.options import logdir_option, no_browser_option, notify_option, port_option, say
from mnist_tb.engine.process import end_child, reap_child, start_child, when_parent_ends
from mnist_tb.errors import InputError, command_line


@click.command("board")
@logdir_option
@port_option
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="The interface to serve on; one that other machines can reach asks for a token.",
)
@click.option("--token", help="The token, if you want to choose it; asked for on this machine too, then.")
@click.option("--path-prefix", default="", metavar="/PATH", help="Before all paths, for a proxy that passes it on.")
@notify_option
@no_browser_option
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the standard input is closed.")
def board_command(
    logdir: Path,
    port: int,
    host: str,
    token: str | None,
    path_prefix: str,
    notify: tuple[str, ...],
    no_browser: bool,
    with_parent: bool,
) -> None:
    """Show all runs in TensorBoard, live: the page follows the trainings by itself."""
    from mnist_tb.board import launcher
    from mnist_tb.environment.notify import Notifier

    ended = threading.Event()
    if with_parent:
        when_parent_ends(ended.set)
    notifier = None if with_parent else Notifier(notify)  # that one tells of its run itself
    tell = notifier.tell if notifier is not None and notifier.enabled else None
    with suppress(KeyboardInterrupt):
        place = launcher.Place(host, port, token, path_prefix)
        launcher.serve(logdir, place, say, not no_browser, ended, tell)


@dataclass(frozen=True)
class Page:
    """TensorBoard in a process of its own, and the address of its page."""

    process: subprocess.Popen[bytes]
    address: str


@contextmanager
def live_page(logdir: Path, port: int, browser: bool) -> Iterator[Page]:
    """TensorBoard over the log folder, in a process of its own, until the end of the block.

    Raises InputError where it does not start.
    """
    page = start_page(logdir, port, browser)
    say(f"TensorBoard: {page.address}")
    try:
        yield page
    finally:
        end_child(page.process)
        reap_child(page.process)


def board_hint(logdir: Path) -> str:
    """The command that shows a log folder, as it can be typed here."""
    command = command_line("board", "--logdir", logdir)
    is_plain = shlex.quote(str(logdir)) == str(logdir)  # else make and the shell would each take it for something else
    return f"make board LOGDIR={logdir}  or  {command}" if is_plain and Path("Makefile").exists() else command


def start_page(logdir: Path, port: int, browser: bool) -> Page:
    """Start TensorBoard over a log folder, in a process that ends with this one.

    Raises InputError where it does not start.
    """
    command = [sys.executable, "-m", "mnist_tb", "board", "--logdir", str(logdir), "--port", str(port), "--with-parent"]
    process = start_child(
        command if browser else [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace")
        if text.startswith("TensorBoard: "):
            return Page(process, text.removeprefix("TensorBoard: ").strip())
    raise InputError(f"TensorBoard did not start (exit code {process.wait()}): try by itself: {command_line('board')}")
