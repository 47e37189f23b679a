"""What several test files need: real MNIST where it is, small files in its real format, and one small finished run."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Playwright, sync_playwright
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_tb import data
from mnist_tb.cli import main
from mnist_tb.data import Dataset
from mnist_tb.runs import Run, listing
from mnist_tb.schema import Config, Data

REPOSITORY = Path(__file__).parent.parent
_GIVEN_ROOT = os.environ.pop("MNIST_TB_DATA_ROOT", None)  # tests say themselves where their data are


def missing(message: str) -> NoReturn:
    """What a test needs is not here: CI fails, and a person skips."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


LONG = ("test_sweep", "test_browser", "test_resume", "test_team", "test_faults", "test_postgres", "test_download")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run beside each other in several processes; one that is marked `alone`, for it measures time, does not.

    Whoever waits to be alone stands in the door, so that the others do not go on coming.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    kind = fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH
    with open(folder / "door", "w") as door, open(folder / "room", "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, kind)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder of the real MNIST: MNIST_TB_DATA_ROOT, or ../shared/mnist. Without it, CI fails and a person skips."""
    root = Path(_GIVEN_ROOT) if _GIVEN_ROOT else REPOSITORY.parent / "shared" / "mnist"
    if not (root / "MNIST" / "raw").is_dir():
        missing(f"real MNIST is not at {root}; set MNIST_TB_DATA_ROOT to the folder that holds MNIST/raw")
    return root


@pytest.fixture(scope="session")
def compiler() -> str:
    """A C++ compiler for the kernels. Without one, CI fails and a person skips: torch then does all by itself."""
    found = shutil.which(os.environ.get("CXX") or "c++")
    if found is None:
        missing("no C++ compiler (Debian: apt-get install g++)")
    return found


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return data.load(Data(name="digits", fallback=None))


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file as the format's page describes it: zero, zero, type, dimensions, sizes, elements, big-endian."""
    code = {1: 0x08, 4: 0x0C}[array.dtype.itemsize]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    content = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def small_mnist(tmp_path: Path, digits: Dataset) -> Path:
    """A data root with 130 training and 37 test images under MNIST's names: the last batch of most sizes is uneven."""
    raw = tmp_path / "small" / "MNIST" / "raw"
    for split, prefix, count in ((digits.train, "train", 130), (digits.test, "t10k", 37)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", split.images[:count].numpy())
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", split.labels[:count].numpy().astype(np.uint8))
    return tmp_path / "small"


def read_events(run: Run) -> EventAccumulator:
    """All that a run's event files hold, nothing sampled away."""
    events = EventAccumulator(
        str(run.path),
        size_guidance=dict.fromkeys(("scalars", "images", "histograms", "compressedHistograms", "tensors", "audio"), 0),
    )
    return events.Reload()


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = read_events(run)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


Train = Callable[..., Run]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train on the built-in digits through the command line, in this process; returns the run."""

    def run_training(*arguments: str, code: int = 0, logdir: Path = tmp_path / "runs") -> Run:
        config = str(REPOSITORY / "configs" / "digits.yaml")
        assert main(arguments=["train", "--config", config, "--logdir", str(logdir), *arguments]) == code
        return listing(logdir)[-1]

    return run_training


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three epochs on the built-in digits, with everything tracked. Do not change it."""
    logdir = tmp_path_factory.mktemp("finished")
    config = str(REPOSITORY / "configs" / "digits.yaml")
    assert main(arguments=["train", "--config", config, "--logdir", str(logdir), "--epochs", "3"]) == 0
    return listing(logdir)[-1]


@pytest.fixture
def small_config() -> Config:
    return Config.model_validate(
        {"device": "cpu", "precision": "fp32", "data": {"name": "digits"}, "train": {"epochs": 2}}
    )


# ---- The browser

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
HARMLESS = ("Multiple instances of Three.js", "Please use app-layout instead")  # TensorBoard's own
Open = Callable[[str], Page]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's path. Without one, CI fails and a person skips."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium (Debian: apt-get install chromium), nor its path in CHROMIUM")
    return path


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture
def context(playwright: Playwright, chromium: str, tmp_path: Path) -> Iterator[BrowserContext]:
    """A browser that has never been here."""
    made = playwright.chromium.launch_persistent_context(
        str(tmp_path / "profile"), executable_path=chromium, args=FLAGS, viewport={"width": 1440, "height": 1000}
    )
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext) -> Iterator[Open]:
    """Opens addresses in tabs of their own; afterwards, that no console had anything to complain of."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in HARMLESS):
            complaints.append(message.text)

    def open_page(address: str) -> Page:
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    assert complaints == []
