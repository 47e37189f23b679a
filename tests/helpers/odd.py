"""Folders that are no runs, or broken ones: what may lie in a log folder, each by hand, and random rubbish."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mnist_tb.runs.folder import Run

Odd = Callable[[Path], None]


def metrics(text: str) -> Odd:
    """A run whose metrics.json has this text."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "metrics.json").write_text(text, encoding="utf-8")

    return make


def hparams(text: str) -> Odd:
    """A run of another program, with this hparams.yaml."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / "events.out.tfevents.1.x").write_bytes(b"")
        (path / "hparams.yaml").write_text(text, encoding="utf-8")

    return make


def pipe(name: str) -> Odd:
    def make(path: Path) -> None:
        path.mkdir()
        os.mkfifo(path / name)

    return make


def predictions_pipe(path: Path) -> None:
    """Of the same data as the healthy run, so that the two are tested against each other."""
    known = {"config": {}, "dataset": "digits", "images": {"test": 299}, "test": {"accuracy": 0.5}}
    metrics(json.dumps(known))(path)
    os.mkfifo(path / "predictions.npy")


def bind_socket(path: bytes) -> None:
    """A socket lies there. Its path may not be long, so it is bound by way of its folder's file descriptor."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(b"/proc/self/fd/%d/%s" % (folder, os.path.basename(path)))
    finally:
        os.close(folder)


def listening(path: Path) -> None:
    path.mkdir()
    bind_socket(os.fsencode(path / "metrics.json"))


def dangling(path: Path) -> None:
    path.mkdir()
    (path / "events.out.tfevents.1.x").symlink_to("nowhere")


def binary_name(path: Path) -> None:
    os.mkdir(os.fsencode(path) + b"\xff\xfe")
    with open(os.fsencode(path) + b"\xff\xfe/events.out.tfevents.1.x", "wb"):
        pass


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
ODD: dict[str, Odd] = {
    "recursive YAML": hparams("a: &a\n  b: *a\n"),
    "exponential YAML": hparams(BOMB),
    "deep YAML": hparams("[" * 5_000),
    "deep JSON": metrics('{"config": ' + "[" * 200_000 + "]" * 200_000 + "}"),
    "far away in time": metrics('{"config": {}, "started": 1e300}'),
    "infinite settings": metrics('{"config": {"lr": Infinity, "decay": NaN}, "test": {"accuracy": NaN}}'),
    "settings that are none": metrics('{"config": {"a": {"b": [[1], {"c": 2}]}, "d": [null]}}'),
    "a number of a thousand digits": metrics('{"config": {"n": ' + "9" * 1_000 + '}, "epoch": ' + "9" * 1_000 + "}"),
    "a pipe for metrics": pipe("metrics.json"),
    "a pipe for events": pipe("events.out.tfevents.1.x"),
    "a pipe for predictions": predictions_pipe,
    "a socket": listening,
    "a dangling link": dangling,
    "a name of any bytes": binary_name,
}


# ---- Random ones

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 10**400, -1, 1e300, 2**63])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_GROUP = (
    st.dictionaries(st.sampled_from(["accuracy", "loss", "test", "train", "seed", "train.epochs", "lr"]), VALUES)
    | VALUES
)
_KEYS = ("status", "started", "kind", "epoch", "step", "dataset", "images", "val", "test", "error", "train_seconds")
METRICS = VALUES | st.fixed_dictionaries({"config": _GROUP}, optional=dict.fromkeys(_KEYS, _GROUP))
JSON = METRICS.map(lambda value: json.dumps(value).encode())
YAML = VALUES.map(lambda value: yaml.dump(value).encode()) | st.sampled_from(
    [BOMB.encode(), b"a: &a\n  b: *a\n", b"? [a]\n: b", b"!!python/object:os.system x", b"\xff\xfe", b"- " * 2_000]
)
LINKS = st.sampled_from(["nowhere", ".", "..", "metrics.json", "/dev/zero", "/dev/full", "/proc/self/mem", "/etc"])
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & {*name} and name not in (b".", b".."))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's content, some bytes changed and its end cut off."""
    changed = bytearray(content)
    for at, value in draw(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6)):
        changed[int(at * len(changed))] = value
    return bytes(changed[: draw(st.sampled_from([len(content), len(content) // 2, 300, 11]))])


def files(healthy: Run) -> st.SearchStrategy[dict[str, Any]]:
    """What a folder holds: name → bytes, or the kind of thing that lies there instead."""
    no_file = st.sampled_from(["pipe", "folder", "socket", "unreadable"]) | LINKS.map(lambda to: ("link", to))
    (events,) = healthy.path.glob("*tfevents*")

    def one_of(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[Any]:
        return content | no_file | st.binary(max_size=40)

    content = {
        "metrics.json": one_of(JSON | damaged(healthy.metrics.read_bytes())),
        "hparams.yaml": one_of(YAML),
        "config.yaml": one_of(YAML | damaged(healthy.config.read_bytes())),
        "predictions.npy": one_of(damaged(healthy.predictions.read_bytes())),
        events.name: one_of(damaged(events.read_bytes())),
    }
    return st.fixed_dictionaries({}, optional=content)


def folders(healthy: Run) -> st.SearchStrategy[dict[bytes, dict[str, Any]]]:
    """Ten folders, some of them named as runs are."""
    numbered = st.integers(2, 9_999).map(lambda number: b"%04d-odd" % number)
    return st.dictionaries(NAMES | numbered, files(healthy), min_size=10, max_size=10)


def some(healthy: Run, seed: int, count: int) -> dict[bytes, dict[str, Any]]:
    """At least so many such folders, the same for the same seed."""
    found: dict[bytes, dict[str, Any]] = {}

    @hypothesis.seed(seed)
    @settings(database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
    @given(folders(healthy))
    def draw(made: dict[bytes, dict[str, Any]]) -> None:
        if len(found) < count:
            found.update(made)

    draw()
    return found


def write(logdir: Path, made: dict[bytes, dict[str, Any]]) -> None:
    """Write such folders."""
    for name, content in made.items():
        folder = os.path.join(os.fsencode(logdir), name)
        os.makedirs(folder, exist_ok=True)
        for file, what in content.items():
            _write_one(os.path.join(folder, os.fsencode(file)), what)


def _write_one(path: bytes, what: Any) -> None:
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        os.mkdir(path)
    elif what == "socket":
        bind_socket(path)
    elif isinstance(what, tuple):
        os.symlink(what[1], path)
    else:
        with open(path, "wb") as file:
            file.write(b"x" if what == "unreadable" else what)
        os.chmod(path, 0 if what == "unreadable" else 0o644)
