"""TensorBoard that follows trainings by itself: our settings at every address, the Live tab first."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tb.board.endings import Tell, tell_endings
from mnist_tb.errors import InputError

if TYPE_CHECKING:
    from mnist_tb.board.access import Access

_SAMPLES = {"scalars": 2**17, "images": 100, "histograms": 200, "text": 100, "live": 2}
"""How many values of a tag are kept for each run. Beyond it TensorBoard drops some at random: curves would flicker."""
_RELOAD_SECONDS = 1  # a whole number: the fast loader cuts fractions off, and 0 is a busy loop
_PORTS = 100
_LISTEN_SECONDS = 0.5
"""How often to check for a signal: one that reaches another thread does not wake the thread that waits."""
_EVERYWHERE = re.compile(r"//(0\.0\.0\.0|\[::\]):")
"""An address to listen at, to which no browser goes."""


@dataclass(frozen=True)
class Place:
    """Where the page is served. token: that is asked for; None makes one where other machines can reach the page.

    path_prefix: before all paths, for a proxy, such as `/board`; empty for none.
    """

    host: str
    port: int
    token: str | None
    path_prefix: str


def serve(
    logdir: Path,
    place: Place,
    say: Callable[[str], None],
    browser: bool,
    ended: threading.Event,
    tell: Tell | None = None,
) -> None:
    """Serve the runs of a log folder until interrupted, or until `ended` is set.

    say: receives a line each about where the page is. tell: hears how runs end, see `board.endings`.
    Raises InputError where no address is available.
    """
    from mnist_tb.board import access

    allowed = access.access_for(place.host, place.token)
    address, port = _launch(logdir, place, allowed)
    if tell is not None:
        asked = (_EVERYWHERE.sub("//localhost:", address), allowed.token, tell, ended)
        threading.Thread(target=tell_endings, args=asked, name="endings", daemon=True).start()
    address = access.with_token(_EVERYWHERE.sub(f"//{socket.gethostname()}:", address), allowed)
    if port != place.port:
        say(f"Port {place.port} is taken, so the page is at another one.")
    if not logdir.exists():
        say(f"{logdir}: is not there yet; its runs appear as they begin.")
    say(f"TensorBoard: {address}")
    if allowed.token is not None:
        say("Whoever has this address, with its token, sees the runs; nobody else does.")
    if hint := access.ssh_hint(place.host, port):
        say(f"On your own machine, to see it there: {hint}")
    say("Press Ctrl-C to stop.")
    if browser and has_display():
        webbrowser.open(address)
    while not ended.wait(_LISTEN_SECONDS):
        pass


def _launch(logdir: Path, place: Place, allowed: Access) -> tuple[str, int]:
    """Start TensorBoard; the page's address, and the port that it has got."""
    from tensorboard import program  # takes a second to import

    from mnist_tb.board import patches
    from mnist_tb.board.access import Guard

    fast = patches.has_fast_loader()
    if not fast:
        patches.restrict_python_loader()
    os.environ["no_grpc_proxy"] = "localhost"  # noqa: SIM112 - TensorBoard's loader is there, whatever proxy there is
    port = _free_port(place.host, place.port)
    board = program.TensorBoard(
        plugins=patches.plugins(),
        assets_zip_provider=patches.assets,
        server_class=lambda app, flags: program.WerkzeugServer(Guard(app, allowed, flags.port), flags),
    )
    board.configure(
        logdir=str(logdir),
        host=place.host,
        port=port,
        path_prefix=place.path_prefix,
        load_fast="true" if fast else "false",
        reload_interval=_RELOAD_SECONDS,
        samples_per_plugin=_SAMPLES,
    )
    while True:
        try:
            return board.launch(), port
        except program.TensorBoardPortInUseError:  # another one was quicker, since we looked
            board.flags.port = port = _free_port(place.host, port + 1)


def has_display() -> bool:
    """Whether a browser can be shown: always on macOS and Windows, elsewhere if there is a display server."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _free_port(host: str, port: int) -> int:
    """The port, or the next free one. Raises InputError where there is none, or the host is not this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        raise InputError(f"--host {host}: is not a name or address of this machine") from None
    for candidate in range(port, min(port + _PORTS, 65_536)):
        with socket.socket(family, socket.SOCK_STREAM) as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                test.bind((host, candidate))
                return candidate
            except OverflowError:
                break
            except PermissionError:
                raise InputError(f"--port {port}: ports below 1024 need special rights; take a higher one") from None
            except OSError as error:
                if "assign" in str(error):
                    raise InputError(f"--host {host}: is not an address of this machine") from None
    raise InputError(f"--port {port}: is taken, and so are the {_PORTS} after it")
