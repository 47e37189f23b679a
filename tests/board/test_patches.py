"""What we change of TensorBoard's inside is still there to be changed: a version that lacks it fails here."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from tensorboard import assets
from tensorboard.backend.event_processing import io_wrapper
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import backend_context, hparams_plugin
from torch.utils.tensorboard import SummaryWriter

from helpers.paths import REPOSITORY
from mnist_tb.board import LiveLoader, patches

STATIC = REPOSITORY / "mnist_tb" / "board" / "static"
NAMED = (
    "autoReload",
    "autoReloadPeriodInMs",
    "scalarSmoothing",
    "ignoreOutliers",
    "card-view",
    "dark-mode",
    "runFilter",
)


def test_the_page_loads_our_scripts_before_its_own() -> None:
    with patches.assets() as patched, zipfile.ZipFile(patched) as page:
        scripts = re.findall(r'<script src="([^"?]+)', page.read("index.html").decode())
    assert scripts == [f"data/plugin/live/static/{name}.js" for name in ("settings", "reload")] + ["index.js"]


def test_the_page_still_has_what_our_scripts_set() -> None:
    provider = assets.get_default_assets_zip_provider()
    assert provider is not None
    with provider() as given, zipfile.ZipFile(given) as page:
        theirs = page.read("index.js").decode(errors="replace")
    ours = "".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in ("settings", "reload", "live"))
    keys = [key for key in re.findall(r"'([a-z_-]*_[a-zA-Z_-]+|tb-[a-z-]+)'", ours) if not key.startswith("mnist_tb")]
    assert len(keys) > 3
    assert [name for name in (*keys, *NAMED) if name not in ours or name not in theirs] == []


def test_our_plugins_take_the_place_of_theirs() -> None:
    found = patches.plugins()
    assert found.index(LiveLoader) == 1
    assert patches.HParamsOfResults in found
    assert hparams_plugin.HParamsPlugin not in found
    assert callable(backend_context.Context.scalars_metadata)


@pytest.mark.skipif(sys.platform == "win32", reason="a named pipe")
@pytest.mark.timeout(60)
def test_the_python_loader_reads_files_alone_and_no_link_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IsSummaryEventsFile", "GetLogdirSubdirectories"):
        monkeypatch.setattr(io_wrapper, name, getattr(io_wrapper, name))
    with SummaryWriter(str(tmp_path / "run")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    (tmp_path / "run" / "back").symlink_to(tmp_path)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "events.out.tfevents.1")
    patches.restrict_python_loader()
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    runs.Reload()
    assert list(runs.Runs()) == ["run"]
