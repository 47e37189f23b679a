"""TensorBoard's Python loader, kept away from what would stop it: it reads every log folder where there is no fast one.

A pipe called events.out.tfevents would keep it waiting, two links to their own folder would lead it in circles for
years, and a file that cannot be read, or a name that is not UTF-8, would end its thread, so that no run is shown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from tensorboard.backend.event_processing import io_wrapper

_is_named_so = io_wrapper.IsSummaryEventsFile


def restrict() -> None:
    """From now on it reads files alone, where they can be read, in folders whose names are text, and no link twice."""
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
