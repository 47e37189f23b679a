"""What the Live tab's server answers, asked in this process: over odd numbers, long curves, and time that passes."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from helpers.board import TRAINING, write_status
from helpers.odd_numbers import ODD, write_odd
from mnist_tb.events.tags import LIVE_STATUS


class Page:
    """The plugin over a log folder, read by TensorBoard's Python loader."""

    def __init__(self, logdir: Path) -> None:
        with warnings.catch_warnings(action="ignore"):  # of what TensorBoard bundles
            from mnist_tb.board.plugin import LivePlugin
        self.loaded = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
        self.loaded.AddRunsFromDirectory(str(logdir))
        self.source = MultiplexerDataProvider(self.loaded, str(logdir))
        context: Any = SimpleNamespace(data_provider=self.source, logdir=str(logdir))
        self._pages = LivePlugin(context).get_plugin_apps()

    def get(self, path: str, **query: object) -> Any:
        """The answer, which is JSON as browsers read it."""
        self.loaded.Reload()
        answer = Client(self._pages[path]).get(path, query_string=query)
        assert answer.status_code == 200
        return json.loads(answer.get_data(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def numbers(content: Any) -> list[float]:
    if isinstance(content, Mapping):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [content] if isinstance(content, int | float) else []


def test_no_number_is_infinite_and_no_number_a_word(tmp_path: Path) -> None:
    write_odd(tmp_path)
    page = Page(tmp_path)
    answers = {"runs": page.get("/runs")}
    names = answers["runs"]["names"]
    assert len(names) == 2 * len(ODD) + 3
    for name in names:
        answers[f"curves of {name}"] = page.get("/curves", run=name)
        answers[f"epochs of {name}"] = page.get("/epochs", run=name)
    answers["means"] = page.get("/means", run=names)
    for what, answer in answers.items():
        found = numbers(answer)
        assert all(abs(number) <= 1.8e308 for number in found), what
        assert not {"Infinity", "-Infinity", "NaN"} & {*json.dumps(answer).replace('"', " ").split()}, what
    runs = {run["run"]: run for run in answers["runs"]["runs"]}
    assert runs["other inf"]["loss"] is runs["other nan"]["loss"] is None
    assert runs["words"]["state"] == "unknown", "a status with a word for a number is none"
    assert runs["huge"]["step"] is None
    curve = answers["curves of other inf"]["curves"]["loss"]["train"]
    assert [value for _, value, _ in curve] == [0.5, None], "a gap"


def test_an_answer_that_was_read_earlier_is_not_stored_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pages ask. What the first one reads is long under way when the run ends, and the second one reads that."""
    page = Page(tmp_path)
    write_status(tmp_path / "a", TRAINING)
    page.loaded.AddRunsFromDirectory(str(tmp_path)).Reload()
    held, ended = threading.Event(), threading.Event()
    read = page.source.read_tensors

    def slowly(**asked: Any) -> Any:
        found = read(**asked)
        if asked["run_tag_filter"].tags == {LIVE_STATUS} and not held.is_set():
            held.set()
            ended.wait(1)
        return found

    monkeypatch.setattr(page.source, "read_tensors", slowly)
    answers: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: answers.append(page.get("/runs")))
    first.start()
    held.wait(30)
    write_status(tmp_path / "a", replace(TRAINING, state="completed"))
    answers.append(page.get("/runs"))
    ended.set()
    first.join()
    answers.sort(key=lambda answer: answer["number"])
    told = [run["state"] for answer in answers for run in answer["runs"]]
    assert told[-1] == "completed"
    assert "completed" not in told[:-1]


def test_runs_that_are_left_out_of_the_means_are_named(tmp_path: Path) -> None:
    names = [f"run {number}" for number in range(203)]
    answer = Page(tmp_path).get("/means", run=names)
    assert answer["left_out"] == names[200:]
    assert sum(len(group["runs"]) for group in answer["groups"]) == 200


def test_a_part_of_a_curve_is_asked_for(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "long")) as writer:
        for step in range(5_000):
            writer.add_scalar("loss/train", 9.0 if step == 1_234 else 1 / (1 + step % 7), step)
    page = Page(tmp_path)

    def steps(**asked: int) -> list[int]:
        return [step for step, _, _ in page.get("/curves", run="long", **asked)["curves"]["loss"]["train"]]

    assert len(steps()) <= 400
    assert 1_234 in steps()
    assert steps(**{"from": 1_200, "to": 1_399}) == list(range(1_200, 1_400))
    assert steps(**{"from": 4_990}) == list(range(4_990, 5_000))
    assert steps(**{"from": 6_000}) == []
