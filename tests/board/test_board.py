"""The Live tab's server side, asked over HTTP with both loaders, and `mnist-tb board` as a process."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard import errors
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from helpers import odd
from helpers.board import (
    HOSTILE,
    TRAINING,
    Board,
    children,
    get,
    read_address,
    start_board,
    wait_for_runs,
    write_status,
)
from helpers.events import read_events
from helpers.fixtures import Train
from helpers.paths import REPOSITORY
from helpers.ports import free_port
from helpers.processes import wait_until_gone
from helpers.zygote import HELD, Forked, Place, Zygote
from mnist_tb import Tracker
from mnist_tb.board import snapshot
from mnist_tb.board.snapshot import Snapshot
from mnist_tb.cli.main import main
from mnist_tb.events import status, tags
from mnist_tb.events.status import Status
from mnist_tb.runs.folder import Run
from mnist_tb.tracking import live
from mnist_tb.tracking.live import Live

# ---- The status


def test_a_status_comes_back_as_it_was() -> None:
    assert status.status_from_json(TRAINING.to_json()) == TRAINING
    assert status.status_from_json(Status().to_json().encode()) == Status()


def test_numbers_that_are_not_finite_are_unknown() -> None:
    known = status.status_from_json(replace(TRAINING, loss=float("nan"), lr=float("inf")).to_json())
    assert known == replace(TRAINING, loss=None, lr=None)


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert status.status_from_json('{"state": "failed", "error": "disk full", "mood": "good"}') == Status(
        state="failed", error="disk full"
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", "null", "[]", "{", '{"state": "exploded"}', '{"state": "running", "epoch": "two"}', "[" * 99_999,
     '{"state": "running", "epoch": 1.5}', '{"state": "running", "loss": true}', '{"state": ["running"]}',
     '{"state": "running", "dataset": null}', '{"state": "running", "loss": NaN}'],
)  # fmt: skip
def test_what_is_no_status_is_none(text: str | bytes) -> None:
    assert status.status_from_json(text) is None


class Notes:
    """A tracker that remembers what it is told for the Live tab."""

    enabled = True

    def __init__(self) -> None:
        self.written: list[tuple[int, Status]] = []
        self.every: list[Callable[[], None]] = []

    def live_data(self, step: int, tag: str, content: bytes) -> None:
        known = status.status_from_json(content)
        assert known is not None
        self.written.append((step, known))


def test_at_most_one_status_a_second_but_what_matters_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(live.time, "perf_counter", lambda: clock)
    notes = Notes()
    teller = Live(notes, Status(steps=100))  # type: ignore[arg-type]
    teller.update(0, now=True)
    for step in range(1, 33):
        clock += 0.125
        teller.update(step, phase="training", loss=1 / step)
    assert [step for step, _ in notes.written] == [0, 8, 16, 24, 32]
    teller.update(32, now=True, val_loss=0.25)
    assert notes.written[-1][1].val_loss == 0.25
    assert notes.written[-1][1].seconds == 4
    assert notes.written[-1][1].remaining == 68 / 8, "eight updates a second, and 68 are left"
    teller.end("failed", "no more disk")
    last = notes.written[-1]
    assert (last[0], last[1].state, last[1].error, last[1].loss) == (32, "failed", "no more disk", 1 / 32)


# ---- What a page has not seen yet


def entry(name: str, state: str = "completed", started: float = 1.0, **more: object) -> dict[str, Any]:
    return {"run": name, "state": state, "started": started, **more}


def answer_of(kept: Snapshot, runs: list[dict[str, Any]], since: int) -> dict[str, Any]:
    kept.take(runs)
    return kept.answer(since)


def test_only_what_changed_is_sent_again() -> None:
    kept = Snapshot()
    first = answer_of(kept, [entry("a"), entry("b")], 0)
    assert [run["run"] for run in first["runs"]] == ["a", "b"]
    again = answer_of(kept, [entry("a"), entry("b")], first["number"])
    assert (again["number"], again["runs"], again["names"]) == (first["number"], [], ["a", "b"])
    changed = answer_of(kept, [entry("a"), entry("b", step=5)], first["number"])
    assert [run["run"] for run in changed["runs"]] == ["b"]
    late = answer_of(kept, [entry("a"), entry("b", step=5)], 0)
    assert [run["run"] for run in late["runs"]] == ["a", "b"], "another page has seen nothing yet"
    gone = answer_of(kept, [entry("b", step=5)], changed["number"])
    assert (gone["names"], gone["runs"]) == (["b"], [])
    back = answer_of(kept, [entry("a"), entry("b", step=5)], gone["number"])
    assert [run["run"] for run in back["runs"]] == ["a"]
    assert answer_of(Snapshot(), [], 0)["server"] != first["server"]


def test_running_runs_first_then_the_newest() -> None:
    runs = [entry("old", started=1), entry("new", started=9), entry("busy", "running", 5), entry("unknown", started=0)]
    assert [run["run"] for run in snapshot.order(runs)] == ["busy", "new", "old", "unknown"]


class Watched:
    """A snapshot, and a clock that goes as it is told. The runs' machines have other clocks."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._kept = Snapshot(clock=lambda: self._now)

    def at(self, seconds: float, *runs: dict[str, Any]) -> dict[str, str]:
        """The states that are shown so many seconds after the beginning."""
        self._now = 1_000.0 + seconds
        answer = answer_of(self._kept, [*runs], 0)
        return {run["run"]: run["state"] for run in answer["runs"]}


@pytest.mark.parametrize("ahead", [-3_600.0, -31.0, 0.0, 31.0, 1e6])
def test_silent_is_told_by_one_clock(ahead: float) -> None:
    """A training is on a machine whose clock is wrong. It writes every ten seconds, and is killed."""
    watched = Watched()
    began = time.time() + ahead
    for seconds in range(0, 100, 2):
        states = watched.at(seconds, entry("a", "running", written=began + seconds // 10 * 10))
        assert states == ({"a": "running"} if seconds >= 4 else {}), seconds
    assert watched.at(119, entry("a", "running", written=began + 90)) == {"a": "running"}
    assert watched.at(121, entry("a", "running", written=began + 90)) == {"a": "silent"}
    assert watched.at(140, entry("a", "running", written=began + 139)) == {"a": "running"}, "resumed"


def test_a_run_that_was_killed_long_before_is_silent_after_half_a_minute() -> None:
    watched = Watched()
    killed = entry("a", "running", written=5.0)
    assert watched.at(0, killed) == {}
    assert watched.at(29, killed) == {"a": "running"}
    assert watched.at(31, killed) == {"a": "silent"}


def test_a_run_whose_file_is_half_read_does_not_run() -> None:
    """TensorBoard reads it bit by bit: its old statuses say that it runs. One that runs is seen at its next status."""
    watched = Watched()
    shown = [watched.at(second, entry("a", "running", written=60.0 * second)) for second in range(5)]
    assert shown == [{}] * 5
    assert watched.at(5, entry("a", "completed", written=301.0)) == {"a": "completed"}
    assert watched.at(6, entry("b", "running", written=10.0)) == {}
    assert watched.at(6.5, entry("b", "running", written=10.0)) == {}
    assert watched.at(7, entry("b", "running", written=11.0)) == {"b": "running"}


def test_a_page_is_told_for_how_long_nothing_was_heard() -> None:
    now = [0.0]
    kept = Snapshot(clock=lambda: now[0])
    for second, written in ((0, 1.0), (1, 2.0), (9, 2.0)):
        now[0] = second
        kept.take([entry("a", "running", written=written), entry("b", written=5.0)])
    told = {run["run"]: run.get("quiet") for run in kept.answer(0)["runs"]}
    assert told == {"a": 8.0, "b": None}


# ---- Over HTTP


def code_of(request: str | urllib.request.Request) -> int:
    """The code of an answer that is an error."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    caught.value.close()
    return caught.value.code


@pytest.fixture(scope="module")
def logdir(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind."""
    folder = tmp_path_factory.mktemp("every kind")
    shutil.copytree(finished.path, folder / "0001-digits")
    write_status(folder / "0002-failed", replace(TRAINING, state="failed", error="the disk is full"))
    write_status(folder / "0003-stopped", replace(TRAINING, state="interrupted"))
    write_status(folder / "0004-killed", TRAINING, time.time() - 3_600)
    write_status(folder / "0005-running", TRAINING)
    write_status(folder / HOSTILE, replace(TRAINING, state="completed", dataset=HOSTILE, error=HOSTILE))
    with SummaryWriter(str(folder / "elsewhere")) as writer:
        for step in range(30):
            writer.add_scalar("Loss/training", 1 / (step + 1), step)
            writer.add_scalar("val_acc", step / 30, step)
    with SummaryWriter(str(folder / "nothing-known")) as writer:
        writer.add_scalar("temperature", 20.0, 7)
    cut = folder / "0006-cut"
    write_status(cut, replace(TRAINING, state="completed"))
    events = next(cut.iterdir())
    events.write_bytes(events.read_bytes()[:-9])
    (folder / "0007-rubbish").mkdir()
    (folder / "0007-rubbish" / "events.out.tfevents.1.x").write_bytes(random.Random(0).randbytes(2_000))
    return folder


@pytest.fixture(scope="module", params=["fast loader", "Python loader"])
def address(request: pytest.FixtureRequest, logdir: Path) -> Iterator[str]:
    """A plain TensorBoard, which finds the Live tab by itself."""
    port = free_port()
    fast = "true" if request.param == "fast loader" else "false"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--load_fast", fast, "--reload_interval", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_runs(f"http://localhost:{port}", 9)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_every_kind_of_run_is_told_alike_by_both_loaders(address: str, finished: Run) -> None:
    answer = get(f"{address}/data/plugin/live/runs")
    runs = {run["run"]: run for run in answer["runs"]}
    states = {name: run["state"] for name, run in runs.items()}
    for name in ("0004-killed", "0005-running"):
        assert states.pop(name) in ("running", "silent"), "silent half a minute after the page began"
    assert states == {
        "0001-digits": "completed", "0002-failed": "failed", "0003-stopped": "interrupted",
        HOSTILE: "completed", "elsewhere": "unknown", "nothing-known": "unknown", "0006-cut": "unknown",
    }  # fmt: skip
    done, metrics = runs["0001-digits"], finished.read_metrics()
    assert done["test_accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert done["test_loss"] == pytest.approx(metrics["test"]["loss"])
    assert (done["dataset"], done["epoch"], done["epochs"], done["step"]) == ("digits", 3, 3, 60)
    assert runs["0002-failed"]["error"] == "the disk is full"
    assert (runs["0004-killed"]["loss"], runs["0004-killed"]["batch"]) == (0.5, 1)
    assert runs["elsewhere"]["loss"] == pytest.approx(1 / 30)
    assert runs["elsewhere"]["val_accuracy"] == pytest.approx(29 / 30)
    assert runs["elsewhere"]["step"] == 29
    assert (runs["nothing-known"]["step"], "loss" in runs["nothing-known"]) == (7, False)
    assert runs["0006-cut"]["loss"] == 0.5, "what stands before the cut is shown"
    assert get(f"{address}/data/plugin/live/runs?since={answer['number']}")["runs"] == []
    assert len(get(f"{address}/data/plugin/live/runs?since=rubbish")["runs"]) == len(runs)


def test_curves_are_the_written_ones(address: str, finished: Run) -> None:
    curves = get(f"{address}/data/plugin/live/curves?run=0001-digits")["curves"]
    for kind in ("loss", "accuracy"):
        for line in ("train", "val"):
            events = read_events(finished)
            written = [
                [e.step, pytest.approx(e.value), pytest.approx(e.wall_time, abs=0.01)]
                for e in events.Scalars(f"{kind}/{line}")
            ]
            assert curves[kind][line] == written
    foreign = get(f"{address}/data/plugin/live/curves?run=elsewhere")["curves"]
    assert len(foreign["loss"]["train"]) == len(foreign["accuracy"]["val"]) == 30
    assert get(f"{address}/data/plugin/live/curves?run=../../etc")["curves"] == {"loss": {}, "accuracy": {}}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations; of one, three runs with two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    for lr, seed in ((0.1, 1), (0.1, 2), (0.1, 2), (0.2, 1)):
        with Tracker(folder, "run", {"lr": lr, "seed": seed}) as tracker:
            for step in (0, 10, 20):
                tracker.scalars(step, {"loss/val": lr + seed + step / 10, "accuracy/val": 0.5})
    return folder


@pytest.mark.parametrize("fast", ["true", "false"])
def test_seeds_are_one_curve(fast: str, seeds: Path) -> None:
    board = Board(seeds, "--load_fast", fast)
    try:
        wait_for_runs(board.url, 4)
        runs = [path.name for path in sorted(seeds.iterdir())]
        query = "&".join(f"run={name}" for name in [*runs, runs[0], "nowhere"])
        answer = get(f"{board.url}/data/plugin/live/means?{query}")
        assert answer["about"].endswith("the band one standard deviation over the seeds to either side.")
        groups = {tuple(group["runs"]): group for group in answer["groups"]}
        assert groups.keys() == {tuple(runs[:3]), (runs[3],), ("nowhere",)}
        many, single = groups[tuple(runs[:3])], groups[(runs[3],)]
        assert (many["seeds"], many["settings"]) == (2, {"lr": "0.1"})
        deviation = pytest.approx(0.5**0.5, abs=1e-6)
        assert many["curves"]["loss"]["val"] == [
            [step, pytest.approx(1.6 + step / 10), deviation] for step in (0, 10, 20)
        ]
        assert single["curves"]["loss"]["val"] == [[step, pytest.approx(1.2 + step / 10), None] for step in (0, 10, 20)]
        assert groups[("nowhere",)]["curves"] == {}
        assert get(f"{board.url}/data/plugin/live/means")["groups"] == []
    finally:
        board.process.terminate()
        board.process.wait(30)


def test_the_picture_is_the_final_result(address: str, finished: Run) -> None:
    picture = get(f"{address}/data/plugin/live/picture?run=0001-digits")
    assert picture == read_events(finished).Images("results/test")[-1].encoded_image_string


@pytest.mark.parametrize("run", ["elsewhere", "nowhere", "", "../0001-digits"])
def test_no_picture_is_no_error_of_the_server(run: str, address: str) -> None:
    assert get(f"{address}/data/plugin/live/picture?run={run}") == b""


def test_a_picture_in_a_damaged_part_of_a_file_is_no_error_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast loader lists it, and says that the argument is invalid when it is asked for."""

    class Source:
        def read_blob_sequences(self, **asked: object) -> Any:
            value = SimpleNamespace(blob_key="x")
            return {"a": {"results/test": [SimpleNamespace(values=[value, value, value])]}}

        def read_blob(self, **asked: object) -> bytes:
            raise errors.InvalidArgumentError("broken")

    with warnings.catch_warnings(action="ignore"):  # of what TensorBoard bundles
        from mnist_tb.board.plugin import LivePlugin
    plugin = LivePlugin(SimpleNamespace(data_provider=Source(), logdir=None))  # type: ignore[arg-type]
    answer = Client(plugin.get_plugin_apps()["/picture"]).get("/picture?run=a")
    assert (answer.status_code, answer.data) == (204, b"")


def test_an_accuracy_in_percent_is_a_fraction_of_one(tmp_path: Path) -> None:
    """Of another program, and of a Tracker; what exceeds 100 is no accuracy."""
    for name, values in {"percent": (0.5, 76.1), "none": (76.1, 250.0)}.items():
        with SummaryWriter(str(tmp_path / name)) as writer:
            for step, value in enumerate(values):
                writer.add_scalar("val_acc", value, step)
    with Tracker(tmp_path, "mine", {}, code=False) as tracker:
        tracker.scalars(1, {"accuracy/val": 76.1})
    loaded = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    context = SimpleNamespace(data_provider=MultiplexerDataProvider(loaded, str(tmp_path)), logdir=str(tmp_path))
    with warnings.catch_warnings(action="ignore"):
        from mnist_tb.board.plugin import LivePlugin
    pages = LivePlugin(context).get_plugin_apps()  # type: ignore[arg-type]
    runs = {run["run"]: run for run in Client(pages["/runs"]).get("/runs").get_json()["runs"]}
    assert runs["percent"]["val_accuracy"] == pytest.approx(0.761)
    assert runs["0001-mine"]["val_accuracy"] == pytest.approx(0.761)
    assert "val_accuracy" not in runs["none"]
    for run, expected in {"percent": [0.005, 0.761], "0001-mine": [0.761], "none": []}.items():
        curves = Client(pages["/curves"]).get("/curves", query_string={"run": run}).get_json()["curves"]
        assert [value for _, value, _ in curves["accuracy"].get("val", [])] == pytest.approx(expected)
        (group,) = Client(pages["/means"]).get("/means", query_string={"run": run}).get_json()["groups"]
        means = group["curves"].get("accuracy", {}).get("val", [])
        assert [value for _, value, _ in means] == pytest.approx(expected)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["runs", "curves", "means", "picture", "static/live.js"])
def test_nothing_but_get(method: str, path: str, address: str) -> None:
    assert code_of(urllib.request.Request(f"{address}/data/plugin/live/{path}", method=method)) == 405


def test_its_answers_make_tensorboard_warn_of_nothing(finished: Run) -> None:
    """The header without which TensorBoard prints a warning, on what it has, has not, and refuses."""
    process, address = start_board("--logdir", str(finished.path.parent), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 1)
        for path in ("runs", f"result?run={finished.name}", "result?run=x", "picture?run=x", "static/live.js"):
            for method in ("GET", "HEAD", "POST"):
                request = urllib.request.Request(f"{address}data/plugin/live/{path}", method=method)
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert "WARNING" not in said


@pytest.mark.parametrize("path", ["static/../plugin.py", "static/..%2fplugin.py", "static/", "static//etc/passwd"])
def test_no_other_file_is_served(path: str, address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:  # a client that tidies no paths
        connection.sendall(f"GET /data/plugin/live/{path} HTTP/1.0\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert b" 404 " in answer.splitlines()[0]


def test_the_page_is_as_strict_as_tensorboards_own(address: str) -> None:
    def policy(path: str) -> list[str]:
        with urllib.request.urlopen(f"{address}/{path}", timeout=30) as answer:
            return sorted(answer.headers["Content-Security-Policy"].split(";"))

    ours, theirs = policy("data/plugin_entry.html?name=live"), policy("")
    assert [rule for rule in ours if "script" not in rule] == [rule for rule in theirs if "script" not in rule]
    assert "'unsafe-inline'" not in next(rule for rule in ours if rule.startswith("script-src"))


# ---- Over whatever lies in a log folder

PYTHON_LOADER = "import sys; sys.modules['tensorboard_data_server'] = None; from mnist_tb.cli.main import main; main()"


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["fast loader", "Python loader"])
def test_odd_folders_hide_no_run_and_stop_no_answer(loader: str, finished: Run, tmp_path: Path, seed: int) -> None:
    for name in ("0001-healthy", "0900-healthy"):
        shutil.copytree(finished.path, tmp_path / name)
    for number, make in enumerate(odd.ODD.values()):
        make(tmp_path / f"odd-{number}")
    odd.write(tmp_path, odd.some(finished, seed, 40))
    (tmp_path / "circle").mkdir()
    for name in ("one", "other"):  # two links to their own folder are 2^40 ways through it
        (tmp_path / "circle" / name).symlink_to(".")
    command = ["-m", "mnist_tb"] if loader == "fast loader" else ["-c", PYTHON_LOADER]
    arguments = ("--logdir", str(tmp_path), "--port", str(free_port()))
    process, address = start_board(*arguments, command=command, stderr=subprocess.DEVNULL)  # it warns every second
    try:
        wait_for_runs(address.rstrip("/"), 2)
        live = f"{address}data/plugin/live"
        end = time.monotonic() + 60
        while not {"0001-healthy", "0900-healthy"} <= {*get(f"{live}/runs")["names"]}:
            assert time.monotonic() < end, "a run is hidden by what lies beside it"
            time.sleep(0.3)
        states = {run["run"]: run["state"] for run in get(f"{live}/runs")["runs"]}
        assert states["0001-healthy"] == states["0900-healthy"] == "completed"
        for run in states:
            get(f"{live}/curves?run={urllib.parse.quote(run)}")
            get(f"{live}/picture?run={urllib.parse.quote(run)}")
        query = "&".join(f"run={urllib.parse.quote(run)}" for run in states)
        groups = get(f"{live}/means?{query}")["groups"]
        healthy = next(group for group in groups if "0001-healthy" in group["runs"])
        assert healthy["curves"]["loss"]["val"]
        assert "loss/val" in get(f"{address}data/plugin/scalars/tags")["0900-healthy"]
    finally:
        process.terminate()
        process.communicate(timeout=60)


# ---- Imports


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_board_imports_no_torch() -> None:
    code = "import sys, mnist_tb.board.plugin, mnist_tb.board.launcher; print('torch' in sys.modules)"
    assert python(code) == "False"


def test_a_tab_that_cannot_be_imported_leaves_tensorboard_alone() -> None:
    shown = python(
        "import sys; sys.modules['mnist_tb.board.plugin'] = None\n"
        "from tensorboard import default\n"
        "loaders = [p for p in default.get_plugins() if 'mnist_tb' in getattr(p, '__module__', '')]\n"
        "print(len(loaders), loaders[0]().load(None))"
    )
    assert shown == "1 None"


# ---- The command


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_nothing_stays_behind(number: signal.Signals, logdir: Path) -> None:
    process, address = start_board("--logdir", str(logdir), "--port", str(free_port()))
    wait_for_runs(address.rstrip("/"), 9)
    started = children(process.pid)
    assert started, "the fast loader is a process of its own"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all("0007-rubbish" in line for line in error.splitlines()), "the loader names the file it cannot read"
    wait_until_gone(started)


def test_ctrl_c_that_reaches_another_thread_ends_it_too(tmp_path: Path) -> None:
    """The kernel may give a signal to any thread that takes it, and that alone wakes none of the others."""
    process, _ = start_board("--logdir", str(tmp_path), "--port", str(free_port()))
    others = [task for task in Path(f"/proc/{process.pid}/task").iterdir() if task.name != str(process.pid)]
    blocked = {task.name: re.search(r"SigBlk:\s*(\w+)", (task / "status").read_text()) for task in others}
    taking = [int(name) for name, mask in blocked.items() if mask and not int(mask[1], 16) & 1 << signal.SIGINT - 1]
    os.kill(taking[-1], signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_live_tab_is_the_first_and_the_newest_points_are_kept(logdir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with SummaryWriter(str(folder / "long")) as writer:
        for step in range(6_000):
            writer.add_scalar("loss/train", step, step)
    process, address = start_board("--logdir", str(folder), "--port", str(free_port()))
    try:
        wait_for_runs(address.rstrip("/"), 1)
        assert next(iter(get(f"{address}data/plugins_listing"))) == "live"
        points = get(f"{address}data/plugin/scalars/scalars?run=long&tag=loss/train")
        assert len(points) == 5_000, "Time Series gets no more"
        live = get(f"{address}data/plugin/live/curves?run=long&from=1001&to=1300")["curves"]["loss"]["train"]
        assert [step for step, _, _ in live] == list(range(1_001, 1_301)), "but none is dropped"
        index = get(address).decode()
        assert index.index("live/static/settings.js") < index.index("index.js")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_taken_port_is_said_and_the_next_one_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_tb", "board", "--no-browser", "--logdir", str(tmp_path), "--port", str(port),
             "--host", "127.0.0.1"],
            stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        assert process.stdout is not None
        first = process.stdout.readline()
        address = read_address(process)
        process.terminate()
        process.communicate(timeout=60)
    assert first == f"Port {port} is taken, so the page is at another one.\n"
    assert int(address.rstrip("/").rpartition(":")[2]) > port


QUICKER = """
import sys
from mnist_tb.board import launcher
from mnist_tb.cli.main import main
real, taken, asked = launcher._free_port, int(sys.argv.pop(1)), []
launcher._free_port = lambda host, port: asked.append(port) or (taken if len(asked) == 1 else real(host, port))
main()
"""


def test_a_port_that_is_taken_while_it_starts_is_no_end(tmp_path: Path) -> None:
    """Two trainings with a page, begun at once: each looks for a free port, and one is quicker."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("--logdir", str(tmp_path), "--port", port, "--host", "127.0.0.1")
        process, address = start_board(*arguments, command=("-c", QUICKER, port))
        process.terminate()
        process.communicate(timeout=60)
    assert int(address.rstrip("/").rpartition(":")[2]) > int(port)


def test_only_this_machine_can_reach_it(tmp_path: Path) -> None:
    process, address = start_board("--logdir", str(tmp_path), "--port", str(free_port()))
    try:
        port = f"{int(address.rstrip('/').rpartition(':')[2]):04X}"
        listening = [
            line.split()[1]
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{port}")
        ]
        assert listening
        assert {where.partition(":")[0] for where in listening} <= {"0100007F", "00000000000000000000000001000000"}
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: is not a name or address of this machine"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: is not an address of this machine"),
        (["--port", "65536"], "65536"),
        (["--port", "x"], "'x' is not a valid int"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments=["board", "--no-browser", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def train_with_page(zygote: Zygote, logdir: Path, hold: Place | None = None) -> Forked:
    config = ["--config", "digits", "--logdir", str(logdir), "--epochs", "2"]
    return zygote.start("train", "--board", "--no-browser", *config, hold=hold)


def test_train_with_its_page(zygote: Zygote, tmp_path: Path) -> None:
    """The page is there before the training, stays after it, and goes with Ctrl-C."""
    process = train_with_page(zygote, tmp_path)
    address = read_address(process)
    started = children(process.pid)
    process.until("Press Ctrl-C to stop the page.")
    wait_for_runs(address.rstrip("/"), 1)
    assert get(f"{address}data/plugin/live/runs")["runs"][0]["state"] == "completed"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    wait_until_gone(started)


def test_the_page_goes_with_a_training_that_is_killed(zygote: Zygote, tmp_path: Path) -> None:
    process = train_with_page(zygote, tmp_path, hold=Place("mnist_tb.train.end_of_epoch", 2))
    process.until(HELD)
    started = children(process.pid)
    assert started
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(started)


def test_a_failed_training_says_so_in_the_tab(train: Train) -> None:
    run = train("--lr", "1e30", "--set", "precision=fp32", code=1)
    event = read_events(run).Tensors(tags.LIVE_STATUS)[-1]
    known = status.status_from_json(event.tensor_proto.string_val[0])
    assert known is not None
    assert known.state == "failed"
    assert "the training loss is NaN or infinite" in known.error
