"""TensorBoard that moves by itself: our settings on every address of it, the Live tab first, the newest data kept."""

from __future__ import annotations

import functools
import io
import os
import socket
import subprocess
import sys
import threading
import webbrowser
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mnist_tb.errors import InputError
from mnist_tb.system import start_child, when_parent_ends

_SAMPLES = {"scalars": 5_000, "images": 100, "histograms": 200, "text": 100, "live": 2}
"""How much is kept a run and tag: every epoch's pictures, and more points than a curve should have."""
_RELOAD_SECONDS = 1  # whole: the fast loader cuts fractions off, and 0 is a busy loop
_PORTS = 100
_LISTEN_SECONDS = 0.5
"""Between two looks whether a signal has come: it may reach another thread, and that does not wake this one."""
_SETTINGS = '<script src="data/plugin/live/static/settings.js"></script>'


def serve(
    logdir: Path, host: str, port: int, say: Callable[[str], None], browser: bool, with_parent: bool = False
) -> None:
    """Serve the runs of a log folder until interrupted, or until the process that started this one has ended.

    say: receives a line each about where the page is. Raises InputError where no address can be had.
    """
    from tensorboard import program  # takes a second

    ended = threading.Event()
    if with_parent:
        when_parent_ends(ended.set)
    free = _free_port(host, port)
    board = program.TensorBoard(plugins=_plugins(), assets_zip_provider=_assets)
    board.configure(
        logdir=str(logdir),
        host=host,
        port=free,
        load_fast="true" if _has_fast_loader() else "false",
        reload_interval=_RELOAD_SECONDS,
        samples_per_plugin=_SAMPLES,
    )
    address = board.launch()
    if free != port:
        say(f"Port {port} is taken, so the page is at another one.")
    say(f"TensorBoard: {address}")
    say("Ctrl-C ends it.")
    if browser and has_display():
        webbrowser.open(address)
    while not ended.wait(_LISTEN_SECONDS):
        pass


@dataclass(frozen=True)
class Page:
    """TensorBoard as a process of its own, and where its page is."""

    process: subprocess.Popen[bytes]
    address: str


def start(logdir: Path, browser: bool) -> Page:
    """Start `mnist-tb board` as a process of its own, which ends with this one.

    Raises InputError where it does not come up.
    """
    command = [sys.executable, "-m", "mnist_tb", "board", "--logdir", str(logdir), "--with-parent"]
    process = start_child(
        command if browser else [*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace")
        if text.startswith("TensorBoard: "):
            return Page(process, text.removeprefix("TensorBoard: ").strip())
    raise InputError(f"TensorBoard did not start (exit code {process.wait()}): try `mnist-tb board` by itself")


def has_display() -> bool:
    """Whether a browser could be shown: always on macOS and Windows, elsewhere where there is a display server."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _free_port(host: str, port: int) -> int:
    """The port, or the next free one. Raises InputError where there is none, or the host is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        raise InputError(f"--host {host}: is no name or address of this machine") from None
    for candidate in range(port, min(port + _PORTS, 65_536)):
        with socket.socket(family, socket.SOCK_STREAM) as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                test.bind((host, candidate))
                return candidate
            except OverflowError:
                break
            except PermissionError:
                raise InputError(f"--port {port}: ports below 1024 are not for everybody; take a higher one") from None
            except OSError as error:
                if "assign" in str(error):
                    raise InputError(f"--host {host}: is no address of this machine") from None
    raise InputError(f"--port {port}: is taken, and so are the {_PORTS} after it")


def _has_fast_loader() -> bool:
    from tensorboard.data import server_ingester

    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        return False
    return True


def _plugins() -> list[object]:
    """TensorBoard's own plugins and those installed beside it, the Live tab before all that have one."""
    from tensorboard import default
    from tensorboard.plugins.hparams import hparams_plugin

    from mnist_tb.board import LiveLoader
    from mnist_tb.board.hparams import CompleteHParams

    others = [
        CompleteHParams if plugin is hparams_plugin.HParamsPlugin else plugin
        for plugin in default.get_plugins()
        if plugin is not LiveLoader
    ]
    return [others[0], LiveLoader, *others[1:]]  # the first one is TensorBoard's core


def _assets() -> IO[bytes]:
    """TensorBoard's page, as a zip file, with our settings loaded before it starts."""
    return io.BytesIO(_patched())


@functools.cache
def _patched() -> bytes:
    from tensorboard import assets

    made = io.BytesIO()
    provider = assets.get_default_assets_zip_provider()
    assert provider is not None, "tensorboard comes with its page"
    with provider() as given, zipfile.ZipFile(given) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "index.html":
                before, found, after = content.partition(b'<script src="index.js')
                content = before + _SETTINGS.encode() + found + after
            new.writestr(entry.filename, content)
    return made.getvalue()
