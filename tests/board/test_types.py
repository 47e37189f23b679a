"""The types that the page has of the server's answers, board/static/types.d.ts, are those of real answers."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from helpers.board import TRAINING, write_status
from helpers.paths import REPOSITORY
from mnist_tb import Tracker
from mnist_tb.events import status
from mnist_tb.runs.folder import Run

TEXT = (REPOSITORY / "mnist_tb" / "board" / "static" / "types.d.ts").read_text()
TYPES = {
    name: {key: (bool(optional), kind) for key, optional, kind in re.findall(r"^  (\w+)(\??): (.+);$", body, re.M)}
    for name, body in re.findall(r"^export interface (\w+)(?:<P>)? \{\n(.*?)^\}", TEXT, re.M | re.S)
}
"""Interface → key → whether it may be absent, and its type."""
PLAIN = {"string": str, "number": (int, float), "boolean": bool, "null": type(None)}
Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def ask(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks the plugin of a finished training, one that goes on, a run with a note, and one of another program."""
    logdir = tmp_path_factory.mktemp("types")
    shutil.copytree(finished.path, logdir / "own")
    write_status(logdir / "training", TRAINING)
    with Tracker(logdir, "noted", {"lr": 0.1}, tags=["a"], note="b", code=False) as tracker:
        tracker.scalars(1, {"loss/train": 0.5})
    with SummaryWriter(str(logdir / "other")) as writer:
        for tag in ("loss", "acc", "val_loss", "val_acc"):
            writer.add_scalar(tag, 0.5, 1)
    with warnings.catch_warnings(action="ignore"):  # of what TensorBoard bundles
        from mnist_tb.board.plugin import LivePlugin
    loaded = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
    loaded.AddRunsFromDirectory(str(logdir)).Reload()
    context: Any = SimpleNamespace(data_provider=MultiplexerDataProvider(loaded, str(logdir)), logdir=str(logdir))
    pages = LivePlugin(context).get_plugin_apps()

    def get(path: str, **query: object) -> bytes:
        answer = Client(pages[path]).get(path, query_string=query)
        assert answer.status_code == 200
        return answer.get_data()

    get("/runs")
    write_status(logdir / "training", TRAINING)  # it is heard of again, so it is alive
    loaded.Reload()
    return get


def check(name: str, found: Iterable[dict[str, Any]]) -> None:
    """Objects of an interface have no other keys, all that it needs, and between them all; plain values fit."""
    keys, seen = TYPES[name], set()
    for each in found:
        assert each.keys() <= keys.keys(), name
        assert {key for key, (optional, _) in keys.items() if not optional} <= each.keys(), name
        for key, value in each.items():
            kinds = keys[key][1].split(" | ")
            if set(kinds) <= PLAIN.keys():
                assert isinstance(value, tuple(PLAIN[kind] for kind in kinds)), (name, key, value)
        seen |= each.keys()
    assert seen == keys.keys(), name


def test_runs(ask: Ask) -> None:
    answer = json.loads(ask("/runs"))
    check("RunsAnswer", [answer])
    assert sorted(run["state"] for run in answer["runs"]) == ["completed", "completed", "running", "unknown"]
    check("Run", answer["runs"])


def test_the_states(ask: Ask) -> None:
    (said,) = re.findall(r"^export type State = (.+);$", TEXT, re.M)
    assert said == " | ".join(f"'{state}'" for state in (*status.STATES, status.SILENT, status.UNKNOWN))


def test_curves(ask: Ask) -> None:
    answers = [json.loads(ask("/curves", run=run)) for run in ("own", "other")]
    check("CurvesAnswer", answers)
    check("Curves", [answer["curves"] for answer in answers])
    splits = [split for answer in answers for split in answer["curves"].values()]
    assert {key for each in splits for key in each} <= TYPES["Splits"].keys()
    points = [point for split in splits for curve in split.values() for point in curve]
    assert {len(point) for point in points} == {elements("Point")}


def test_means(ask: Ask) -> None:
    answer = json.loads(ask("/means", run=["own", "other"]))
    check("MeansAnswer", [answer])
    check("Group", answer["groups"])
    check("Curves", [group["curves"] for group in answer["groups"]])
    splits = [split for group in answer["groups"] for split in group["curves"].values()]
    check("Splits", splits)
    points = [point for split in splits for curve in split.values() for point in curve]
    assert {len(point) for point in points} == {elements("MeanPoint")}


def elements(name: str) -> int:
    (said,) = re.findall(rf"^export type {name} = \[(.+)\];$", TEXT, re.M)
    return len(said.split(","))


def test_epochs(ask: Ask) -> None:
    answer = json.loads(ask("/epochs", run="own"))
    check("EpochsAnswer", [answer])
    assert answer["epochs"]


@pytest.mark.parametrize(
    ("path", "name"), [("/weights", "WeightsHeader"), ("/samples", "SamplesHeader"), ("/result", "ResultHeader")]
)
def test_what_stands_before_numbers_and_pixels(ask: Ask, path: str, name: str) -> None:
    check(name, [json.loads(ask(path, run="own").partition(b"\n")[0])])


def test_no_interface_is_left_out(request: pytest.FixtureRequest) -> None:
    tested = set(re.findall(r'check\("(\w+)"|, "(\w+Header)"\)', Path(__file__).read_text()))
    assert {name for pair in tested for name in pair if name} == TYPES.keys()
