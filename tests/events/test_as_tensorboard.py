"""What is read of a folder of event files is what TensorBoard's Python loader reads: runs, tags, steps, values.

Folders are made at random, by all writers that people use, with restarts, links and odd names. What differs on purpose
is in docs/comparing.md.
"""

from __future__ import annotations

import logging
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import tensorboardX
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing import event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from mnist_tb import SummaryWriter, Tracker, load_runs
from mnist_tb.events import reader, records

Points = dict[str, dict[str, list[tuple[int, bytes]]]]
"""Run → tag → steps and values, as bytes, so that NaN equals itself."""
START = event_pb2.Event(session_log={"status": event_pb2.SessionLog.START})


@dataclass(frozen=True)
class File:
    """What one writer writes into a folder. points: tag, step, value. restart: the step at which it begins anew."""

    writer: str
    points: list[tuple[str, int, float]]
    restart: int | None
    folder: str


# ---- Writers


def with_torch(folder: Path, file: File) -> None:
    with TorchWriter(str(folder), purge_step=file.restart) as writer:
        for tag, step, value in file.points:
            writer.add_scalar(tag, value, step)


def with_tensorboard_x(folder: Path, file: File) -> None:
    with tensorboardX.SummaryWriter(str(folder), purge_step=file.restart) as writer:
        for tag, step, value in file.points:
            writer.add_scalar(tag, value, step)


def with_ours(folder: Path, file: File) -> None:
    with SummaryWriter(folder, purge_step=file.restart, code=False, system_seconds=0) as writer:
        for tag, step, value in file.points:
            writer.add_scalar(tag, value, step)


def with_tracker(folder: Path, file: File) -> None:
    with Tracker(folder, "mine", {"lr": 0.1}, code=False, system_seconds=0) as tracker:
        for tag, step, value in file.points:
            tracker.scalars(step, {tag: value})


def with_tensorflow(folder: Path, file: File) -> None:
    """As TensorFlow 2 and Keras: tensors of rank 0, training and validation in folders of their own."""
    for number, split in enumerate(("train", "validation")):
        write(folder / split, file, "brain.Event:2", [tensor(*point) for point in file.points[number::2]])


def raw(version: str | None) -> Callable[[Path, File], None]:
    """Simple values, in a file of this version, or of none."""

    def with_raw(folder: Path, file: File) -> None:
        values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, _, value in file.points]
        events = [
            event_pb2.Event(step=step, wall_time=9.0, summary={"value": [value]})
            for value, (_, step, _) in zip(values, file.points, strict=True)
        ]
        write(folder, file, version, events)

    return with_raw


def tensor(tag: str, step: int, value: float) -> event_pb2.Event:
    content = tensor_pb2.TensorProto(dtype=1, tensor_content=struct.pack("<f", value))
    metadata = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    written = summary_pb2.Summary.Value(tag=tag, tensor=content, metadata=metadata)
    return event_pb2.Event(step=step, wall_time=9.0, summary={"value": [written]})


def write(folder: Path, file: File, version: str | None, events: Iterable[event_pb2.Event]) -> None:
    """A file of events, a version and a restart before them, which sorts after the others."""
    folder.mkdir(parents=True, exist_ok=True)
    first = [] if version is None else [event_pb2.Event(wall_time=9.0, file_version=version)]
    if file.restart is not None:
        start = event_pb2.Event(step=file.restart, wall_time=9.0)
        start.MergeFrom(START)
        first.append(start)
    content = b"".join(records.record(event.SerializeToString()) for event in [*first, *events])
    (folder / records.new_name(records.sizes(folder), ".raw")).write_bytes(content)


WRITERS = {
    "torch": with_torch,
    "tensorboardX": with_tensorboard_x,
    "ours": with_ours,
    "tracker": with_tracker,
    "tensorflow": with_tensorflow,
    "raw": raw("brain.Event:2"),
    "version 1": raw("brain.Event:1"),
    "no version": raw(None),
}


# ---- Folders

NAMES = st.sampled_from(
    ["a", "20240501-120000", "2024-05-02", "0007-x", "[1]", "a b", "lr=1e-3+wd", "a\nb", "it's", '"', "été", "*?", "$x"]
)
TAGS = st.sampled_from(["loss", "val/accuracy", "a b", "été", "x[0]"])
VALUES = st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), 76.1])
STEPS = st.integers(0, 9) | st.sampled_from([-1, 2**40])
FOLDERS = st.lists(NAMES, max_size=3).map("/".join)


@st.composite
def folders(draw: st.DrawFn) -> tuple[list[File], list[tuple[str, str]]]:
    """Files, several of them in some folders; and links in folders of them to others, or one back to where it is."""
    paths = draw(st.lists(FOLDERS, min_size=1, max_size=4, unique=True))
    files = st.builds(
        File,
        st.sampled_from(list(WRITERS)),
        st.lists(st.tuples(TAGS, STEPS, VALUES), max_size=12),
        st.none() | STEPS,
        st.sampled_from(paths),
    )
    made = draw(st.lists(files, min_size=1, max_size=5))
    if draw(st.booleans()):
        return made, [(draw(st.sampled_from(paths)), "")]
    return made, draw(st.lists(st.tuples(st.just(""), st.sampled_from(["elsewhere", "elsewhere/a"])), max_size=2))


def build(top: Path, made: Sequence[File], links: Sequence[tuple[str, str]]) -> Path:
    """The log folder; beside it lies a folder to which links may lead."""
    logdir = top / "runs"
    for file in [*made, File("raw", [("loss", 1, 0.5)], None, "../elsewhere/a")]:
        WRITERS[file.writer](logdir / file.folder, file)
    for number, (folder, target) in enumerate(links):
        (logdir / folder).mkdir(parents=True, exist_ok=True)
        (logdir / folder / f"link{number}").symlink_to(top / target if target else logdir)
    return logdir


# ---- Readers


class AsCharts(EventAccumulator):  # type: ignore[misc]
    """TensorBoard's reader; a number in a tensor is a scalar, as its charts have it."""

    def _ProcessTensor(self, tag: str, wall_time: float, step: int, tensor: Any) -> None:
        number = reader._scalar(summary_pb2.Summary.Value(tag=tag, tensor=tensor))
        if number is None:
            super()._ProcessTensor(tag, wall_time, step, tensor)
        else:
            self._ProcessScalar(tag, wall_time, step, number)


def as_tensorboard(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> Points:
    """What TensorBoard reads, but nothing twice that a link shows again and again below itself."""
    monkeypatch.setattr(event_multiplexer.event_accumulator, "EventAccumulator", AsCharts)
    loaded = event_multiplexer.EventMultiplexer(size_guidance={"scalars": 0}, purge_orphaned_data=True)
    loaded.AddRunsFromDirectory(str(logdir)).Reload()
    return {
        run: {
            tag: kept
            for tag in tags["scalars"]
            if (kept := last_of_each([(event.step, event.value) for event in loaded.Scalars(run, tag)]))
        }
        for run, tags in loaded.Runs().items()
        if not is_again(logdir, run)
    }


def is_again(logdir: Path, run: str) -> bool:
    parents = [os.path.realpath(path) for path in (logdir / run, *(logdir / run).parents) if path != logdir.parent]
    within = parents[: len((logdir / run).relative_to(logdir).parts) + 1]
    return len(set(within)) < len(within)


def as_ours(logdir: Path) -> Points:
    found = load_runs(logdir)
    assert found.problems == ()
    return {
        run.name: {
            tag: last_of_each(list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)))
            for tag, curve in run.curves.items()
        }
        for run in found
    }


def last_of_each(points: list[tuple[int, float]]) -> list[tuple[int, bytes]]:
    return sorted((step, np.float32(value).tobytes()) for step, value in dict(points).items())


def check(examples: int, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(folders())
    def read(made: tuple[list[File], list[tuple[str, str]]]) -> None:
        with tempfile.TemporaryDirectory() as top:
            logdir = build(Path(top), *made)
            assert as_ours(logdir) == as_tensorboard(logdir, monkeypatch)

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    with np.errstate(all="ignore"):
        read()


def test_it_reads_what_tensorboard_reads(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    check(40, monkeypatch, seed)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_it_reads_what_tensorboard_reads_of_many_folders(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    check(500, monkeypatch, seed)
