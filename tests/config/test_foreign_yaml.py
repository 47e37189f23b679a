"""The settings that Lightning's own logger keeps, read without running any of them."""

from __future__ import annotations

import collections
import functools
import time
from argparse import Namespace
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.core import saving
from tensorboard.plugins.hparams import summary_v2

from helpers.odd import BOMB
from mnist_tb.analysis.loading import LoadedRun, load_runs
from mnist_tb.config import foreign_yaml
from mnist_tb.config.hyperparameters import plain_settings
from mnist_tb.errors import InputError
from mnist_tb.events.writer import EventWriter


class Kind(Enum):
    SMALL = "small"


@dataclass
class Net:
    width: int = 8
    kind: Kind = Kind.SMALL


Point = collections.namedtuple("Point", "x y")
SHARED = [1, 2]
SETTINGS: dict[str, Any] = {
    "lr": 0.1,
    "betas": (0.9, 0.99),
    "path": PurePosixPath("/data/a"),
    "relative": PurePosixPath("a/b"),
    "activation": torch.nn.ReLU,
    "function": torch.nn.functional.relu,
    "namespace": Namespace(a=1, b=(1, 2)),
    "net": Net(),
    "inner": {"kind": Kind.SMALL},
    "small": np.float32(0.1),
    "large": np.float64(0.1),
    "count": np.int64(3),
    "yes": np.bool_(True),
    "half": np.float16(0.1),
    "array": np.array([0.1, 0.2], np.float32),
    "one": SHARED,
    "two": SHARED,
    "device": torch.device("cuda:0"),
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(int, a=2),
    "set": {1, 2},
    "bytes": b"a\xff",
    "complex": 1j,
    "point": Point(1, 2),
    "inf": float("inf"),
    "nan": float("nan"),
    "none": None,
    "text": "no",
    "several": [(1, 2), [3]],
    "groups": [{"a": 1}, {"b": (2, 3)}],
    3: 4,
    None: 5,
    (1, 2): 6,
}
"""What is read of these as it is where a Tracker is given them."""
LOST = {"partial": functools.partial(print, 1), "tensor": torch.tensor(0.5), "module": torch.nn.Linear(1, 1)}
"""What is read of these is a word."""


def kept(folder: Path, settings: dict[Any, Any]) -> LoadedRun:
    """The run in a folder with Lightning's file and an event file."""
    folder.mkdir()
    saving.save_hparams_to_yaml(folder / "hparams.yaml", dict(settings), use_omegaconf=False)
    with EventWriter(folder) as writer:
        writer.scalars(1, {"val_acc": 0.5})
    found = load_runs(folder.parent)
    assert list(found.problems) == []
    return found[0]


def test_it_is_read_as_it_was_given(tmp_path: Path) -> None:
    run = kept(tmp_path / "version_0", {**SETTINGS, **LOST})
    lost = {"partial": "partial", "tensor": "rebuild_tensor_v2", "module": "Linear"}
    assert run.settings == {**plain_settings(SETTINGS, strict=False), **lost}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/object/new:os.system ['touch {0}']",
        "!!python/object/apply:subprocess.Popen [[touch, '{0}']]",
        '!!python/object/apply:builtins.exec [\'open("{0}", "w")\']',
        "!!python/module:this",
        "!!python/name:this.c ''",
        "!!python/object/apply:pathlib.PosixPath [[1]]",
        "!!python/object/apply:numpy.core.multiarray.scalar [f8]",
        "!!python/object/apply:numpy._core.multiarray.scalar ['<f8', !!binary 'AA==']",
        "!!python/object/apply:collections.OrderedDict [1]",
        "!!python/object:nobody.Knows {{_a: 1}}",
        "!!python/object/apply:torch.device {{args: 3}}",
        "!!python/complex x",
        "!!binary '*'",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!nobodys x",
        "!nobodys [x]",
        "!!omap [1]",
        "&a [*a]",
        "&a {{b: *a}}",
        "!!set {{[1]: null}}",
        "{{? {{a: 1}} : 2}}",
        "!!timestamp '2024-01-01'",
        "{{<<: 3}}",
    ],
)
def test_nothing_is_run_and_one_odd_value_costs_itself_alone(text: str, tmp_path: Path) -> None:
    odd = f"before: 1\nodd: {text.format(tmp_path / 'made')}\nafter: {{lr: 0.1}}\n"
    found = foreign_yaml.read_value(odd, "hparams.yaml")
    assert (found["before"], found["after"], list(found)) == (1, {"lr": 0.1}, ["before", "odd", "after"])
    plain = plain_settings(found, strict=False)
    assert all(isinstance(value, (int, float, str, list)) for value in plain.values())
    assert list(tmp_path.iterdir()) == []


def test_aliases_and_merges() -> None:
    text = "base: &b {lr: 1, wd: 2}\nmine:\n  <<: *b\n  lr: 3\nlist:\n  <<: [*b, {wd: 5, m: 6}]\ntwice: [*b, *b]\n"
    found = foreign_yaml.read_value(text, "hparams.yaml")
    assert (found["mine"], found["list"]) == ({"lr": 3, "wd": 2}, {"lr": 1, "wd": 2, "m": 6})
    assert found["twice"] == [found["base"], found["base"]]


def test_what_grows_without_bound_costs_itself_alone() -> None:
    begin = time.perf_counter()
    found = foreign_yaml.read_value(f"{BOMB}lr: 0.1\n? *a29\n: 1\n", "hparams.yaml")
    plain = plain_settings(found, strict=False)
    assert time.perf_counter() - begin < 5
    assert (plain["lr"], plain["a0"], plain["a1"], plain["a29"]) == (0.1, ["x"], str([["x"]] * 9), "…")
    assert max(len(str(value)) for value in plain.values()) < 20_000


def test_of_a_file_that_is_no_yaml_it_is_said(tmp_path: Path) -> None:
    for text in ("a: [1", "a: *nobody", "a: &x 1\nb: &x 2\n - 3", "[" * 5_000):
        with pytest.raises(InputError, match=r"^hparams.yaml: not valid YAML: "):
            foreign_yaml.read_value(text, "hparams.yaml")


TEXT = st.text(st.characters(exclude_categories=("Nd", "Cs")), max_size=5)
"""Of `1e-3`, which PyYAML takes for a text, this program makes the number that somebody meant."""
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, NESTED, max_size=4))
def test_whatever_pyyaml_writes_is_read(given: dict[str, Any]) -> None:
    found = foreign_yaml.read_value(yaml.dump(given, sort_keys=False), "hparams.yaml")
    assert plain_settings(found, strict=False) == plain_settings(given, strict=False)


def test_hparams_and_the_file_agree(tmp_path: Path) -> None:
    """Lightning writes both: what one has flat, with slashes and 32 bits, the other has nested."""
    run = kept(tmp_path / "version_0", {"opt": {"lr": 0.1, "betas": (0.9, 0.99)}, "width": 8, "wd": np.float32(3e-4)})
    with EventWriter(run.path) as writer:
        flat = {"opt/lr": float(np.float32(0.1)), "opt/betas": "(0.9, 0.99)", "width": 8, "wd": float(np.float32(3e-4))}
        writer.event(0, _event(flat))
    assert load_runs(tmp_path)[0].settings == run.settings
    (run.path / "hparams.yaml").unlink()
    alone = load_runs(tmp_path)[0].settings
    assert alone == {"opt.lr": 0.1, "opt.betas": "(0.9, 0.99)", "width": 8.0, "wd": 3e-4}


def _event(settings: dict[str, Any]) -> Any:
    from tensorboard.compat.proto import event_pb2

    return event_pb2.Event(summary=summary_v2.hparams_pb(settings))
