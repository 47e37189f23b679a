"""What several test files need: real MNIST where it is, small files in its real format, and one small finished run."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

from helpers.fixtures import Here, Open, Train, missing
from helpers.idx import write_idx
from helpers.paths import REPOSITORY

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # `device: auto` is the CPU, whose numbers are the same to the bit
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other; those about threads say how many

import hypothesis
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright

from helpers import killing, processes
from helpers.zygote import Zygote
from mnist_tb.cli.main import main
from mnist_tb.config.schema import Config, Data
from mnist_tb.data.datasets import Dataset, load_dataset
from mnist_tb.runs.folder import Run, list_run_folders

processes.Watch.install()
hypothesis.settings.register_profile("fixed", derandomize=True)
if os.environ.get("MNIST_TB_TEST_SEED"):
    hypothesis.settings.load_profile("fixed")

_GIVEN_ROOT = os.environ.pop("MNIST_TB_DATA_ROOT", None)  # tests say themselves where their data are


LONG = (
    "test_sweep",
    "test_browser",
    "test_resume",
    "test_team",
    "test_faults",
    "test_postgres",
    "test_download",
    "test_readme",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


# ---- Nothing is left behind


def pytest_configure(config: pytest.Config) -> None:
    """In the process that people start: a mark for all that the suite starts, and a folder for its temporary files."""
    if hasattr(config, "workerinput"):
        return
    os.environ[processes.SUITE] = uuid.uuid4().hex
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest's own folders stay where they were
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="mnist_tb_tests.")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing that was started for several tests may outlive the suite."""
    if hasattr(session.config, "workerinput"):
        return
    left = processes.end_all(processes.SUITE, os.environ[processes.SUITE], grace=20)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nThe suite left these processes, which are ended now:", *left, sep="\n  ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Beside the coverage of the program, that of the page, where a test has recorded it."""
    if terminalreporter.config.getoption("cov_source"):
        for report in terminalreporter.getreports("passed"):
            for name, table in report.user_properties:
                terminalreporter.section(name)
                terminalreporter.write_line(table)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test that it has failed."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_FAILED] = True
    return report


_FAILED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All that a test has started and mounted is gone when it ends; where it is not, that test fails, by name."""
    watch = processes.Watch(f"{os.getpid()} {request.node.nodeid}")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    watch.begin()
    yield
    for number, handler in handlers.items():  # an interrupted mnist-tb ignores them until its process ends
        signal.signal(number, handler)
    failed = request.node.stash.get(_FAILED, False)
    grace = 0 if failed else float(os.environ.get("MNIST_TB_TEST_GRACE", "10"))
    left = watch.end(grace)
    mounts = processes.mounts_below(tmp_path_factory.getbasetemp())
    for point in mounts:
        subprocess.run(["umount", "--lazy", point], check=True)
    if not failed:
        assert not left, "the test left these processes, which are ended now"
        assert not mounts, "the test left these mounts, which are gone now"


# ---- What tests need


@pytest.fixture(scope="session")
def seed() -> int:
    """For what is random: MNIST_TB_TEST_SEED, or another one each time, which is printed. CI has a fixed one."""
    chosen = int(os.environ.get("MNIST_TB_TEST_SEED") or random.randrange(2**31))
    print(f"MNIST_TB_TEST_SEED={chosen}")
    return chosen


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts the command mnist-tb in processes of its own, quickly."""
    started = Zygote()
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs mnist-tb, a sweep with its one worker too, in this process, where nothing depends on that.

    Returns the exit code, the output and the errors.
    """
    from mnist_tb.sweep import pool, worker

    def work(tasks: list[bytes], *others: object) -> None:
        for task in tasks:
            worker.run(pickle.loads(task))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(pool, "_watch", work)
            code = main(arguments=list(arguments))
        return code, *capsys.readouterr()

    return run


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
    return load_dataset(Data(name="digits", fallback=None))


@pytest.fixture
def small_mnist(tmp_path: Path, digits: Dataset) -> Path:
    """A data root with 130 training and 37 test images under MNIST's names: the last batch of most sizes is uneven."""
    raw = tmp_path / "small" / "MNIST" / "raw"
    for split, prefix, count in ((digits.train, "train", 130), (digits.test, "t10k", 37)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", split.images[:count].numpy())
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", split.labels[:count].numpy().astype(np.uint8))
    return tmp_path / "small"


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train on the built-in digits through the command line, in this process; returns the run."""

    def run_training(*arguments: str, code: int = 0, logdir: Path = tmp_path / "runs") -> Run:
        config = str(REPOSITORY / "configs" / "digits.yaml")
        assert main(arguments=["train", "--config", config, "--logdir", str(logdir), *arguments]) == code
        return list_run_folders(logdir)[-1]

    return run_training


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three epochs on the built-in digits, with everything tracked. Do not change it."""
    logdir = tmp_path_factory.mktemp("finished")
    config = str(REPOSITORY / "configs" / "digits.yaml")
    assert main(arguments=["train", "--config", config, "--logdir", str(logdir), "--epochs", "3"]) == 0
    return list_run_folders(logdir)[-1]


@pytest.fixture(scope="session")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing ever happened to, for those that are killed to be compared with. Do not change it."""
    return killing.complete(zygote, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def small_config() -> Config:
    return Config.model_validate(
        {"device": "cpu", "precision": "fp32", "data": {"name": "digits"}, "train": {"epochs": 2}}
    )


# ---- The browser

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
HARMLESS = ("Multiple instances of Three.js", "Please use app-layout instead")  # TensorBoard's own


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's path. Without one, CI fails and a person skips."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium (Debian: apt-get install chromium), nor its path in CHROMIUM")
    return path


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    yield made
    made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has never been here: it remembers nothing of other tests."""
    made = browser.new_context(viewport={"width": 1440, "height": 1000})
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
