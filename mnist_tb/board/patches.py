"""What we change of TensorBoard's inside, which may change with its next version: setup.cfg caps it for that reason.

static/settings.js and static/reload.js change its page. tests/board/test_patches.py fails if one has no effect.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from tensorboard import assets as tensorboard_assets
from tensorboard import default
from tensorboard.backend.event_processing import io_wrapper
from tensorboard.data import server_ingester
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, hparams_plugin

from mnist_tb.board import LiveLoader
from mnist_tb.events.tags import PER_CLASS, SYSTEM

_SCRIPTS = "".join(f'<script src="data/plugin/live/static/{name}.js"></script>' for name in ("settings", "reload"))
TagContents = dict[str, dict[str, bytes]]
"""Run → tag → content."""
_is_named_so = io_wrapper.IsSummaryEventsFile


def has_fast_loader() -> bool:
    """Whether TensorBoard's loader in Rust is installed."""
    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        return False
    return True


def plugins() -> list[object]:
    """TensorBoard's own plugins and those that are installed, with the Live tab as the first one."""
    known = [
        HParamsOfResults if plugin is hparams_plugin.HParamsPlugin else plugin
        for plugin in default.get_plugins()
        if plugin is not LiveLoader
    ]
    return [known[0], LiveLoader, _FewerPoints, *known[1:]]  # the first one is TensorBoard's core


class _FewerPoints(base_plugin.TBLoader):  # type: ignore[misc, unused-ignore]
    """No plugin. The tabs that come after it send 5,000 points of a curve at most, however many the loader keeps."""

    def load(self, context: base_plugin.TBContext) -> None:
        context.sampling_hints = {**context.sampling_hints, "scalars": 5_000}


def assets() -> IO[bytes]:
    """TensorBoard's page as a zip file, with settings.js and reload.js, which are loaded before it starts."""
    return io.BytesIO(_patched())


@functools.cache
def _patched() -> bytes:
    patched = io.BytesIO()
    provider = tensorboard_assets.get_default_assets_zip_provider()
    assert provider is not None, "tensorboard includes its page"
    with provider() as given, zipfile.ZipFile(given) as old, zipfile.ZipFile(patched, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "index.html":
                before, found, after = content.partition(b'<script src="index.js')
                content = before + _SCRIPTS.encode() + found + after
            new.writestr(entry.filename, content)
    return patched.getvalue()


class HParamsOfResults(hparams_plugin.HParamsPlugin):
    """The HParams tab without the curves of each class and of the machine, whose columns would hide the others."""

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        self._context = _Context(context)


class _Context(backend_context.Context):
    def scalars_metadata(self, *arguments: Any, **named: Any) -> TagContents:
        found = super().scalars_metadata(*arguments, **named)
        return {
            run: {tag: data for tag, data in tags.items() if not tag.startswith((PER_CLASS, SYSTEM))}
            for run, tags in found.items()
        }


def restrict_python_loader() -> None:
    """TensorBoard's Python loader reads only regular files that it can read, in folders whose names are text.

    It follows no link twice. Otherwise a pipe called events.out.tfevents keeps it waiting, links to their own folder
    lead it in circles for years, and a file that it cannot read, or a name that is not UTF-8, ends its thread.
    """
    io_wrapper.IsSummaryEventsFile = _is_events_file
    io_wrapper.GetLogdirSubdirectories = _folders_with_events


def _is_events_file(path: str) -> bool:
    if not _is_named_so(path):
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _folders_with_events(logdir: str) -> Iterator[str]:
    seen = set()
    for folder, below, files in os.walk(logdir, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if _is_text(name)]
        if any(_is_events_file(os.path.join(folder, name)) for name in files if _is_text(name)):
            yield folder


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
