"""A run's settings, and short names for them."""

from __future__ import annotations

import dataclasses
import json
import os
from argparse import Namespace
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.paths import REPOSITORY
from mnist_tb.config import strict_yaml
from mnist_tb.config.hyperparameters import (
    differences,
    flatten,
    format_value,
    hyperparameters,
    nested,
    plain_settings,
    sanitize_name,
    short_name,
    varying,
)
from mnist_tb.config.load import check_run_name, dump_config, flat_config, load_config, replace_config
from mnist_tb.config.schema import LONGEST_NAME, Config
from mnist_tb.errors import InputError
from mnist_tb.tracking.charts import group_name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.003, "3e-3"), (0.001, "1e-3"), (0.01, "0.01"), (0.1, "0.1"), (5.0, "5"), (60.0, "60"), (1e-10, "1e-10"),
        (0.9995, "0.9995"), (0.0, "0"), (-2.5, "-2.5"), (1 / 3, "0.3333333333333333"), (1e5, "1e5"), (True, "true"),
        (None, "none"), ([16, 32, 64], "16-32-64"), ("adam", "adam"), (7, "7"),
    ],
)  # fmt: skip
def test_values_as_people_write_them(value: object, text: str) -> None:
    assert format_value(value) == text
    if isinstance(value, float):
        assert float(text) == value


NAMES = [
    ("default", [], "default"),
    ("default", ["train.lr=3e-3"], "lr3e-3"),
    ("default", ["seed=4", "train.lr=0.01"], "lr0.01-s4"),
    ("default", ["train.lr=0.001", "seed=0"], "default"),
    ("sgd", ["optimizer.momentum=0.95"], "sgd-m0.95"),
    ("default", ["optimizer.betas=[0.7, 0.9]"], "betas0.7-0.9"),
    ("digits", ["tracking.enabled=false", "data.root=/elsewhere"], "digits"),
    ("digits", ["model.channels=[8, 16, 32]", "train.epochs=2"], "digits-ch8-16-32-ep2"),
    ("digits", ["averaging.name=ema", "averaging.decay=0.99"], "digits-ema-decay0.99"),
    ("fast", ["name=mine", "train.lr=1"], "mine"),
]


@pytest.mark.parametrize(("recipe", "overrides", "name"), NAMES)
def test_a_runs_name_carries_what_was_changed(recipe: str, overrides: list[str], name: str) -> None:
    path = REPOSITORY / "configs" / f"{recipe}.yaml"
    made = load_config(path, overrides, rename=True)
    assert made.name == name
    assert load_config(path, overrides).name == (name if name == "mine" else recipe)


def test_a_runs_own_configuration_says_what_was_changed_since(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    made = load_config(REPOSITORY / "configs" / "default.yaml", ["train.lr=0.01"])
    path.write_text(dump_config(made))
    assert load_config(path, ["seed=1"], rename=True).name == "s1"
    text = path.read_text().replace("name: default", "name: lr0.01")
    path.write_text(text)
    assert load_config(path, ["seed=1"], rename=True).name == "lr0.01-s1"
    assert load_config(path, [], rename=True).name == "lr0.01"


def test_a_long_name_is_cut() -> None:
    overrides = ["train.lr=0.123456", "optimizer.weight_decay=0.123456", "schedule.warmup=0.123456", "seed=77"]
    made = load_config(REPOSITORY / "configs/one_cycle.yaml", overrides, rename=True)
    assert len(made.name) <= 40
    assert made.name.startswith("one_cycle-wd0.123456-wu0.123456-")


def test_seeds_are_one_group_and_all_else_is_not() -> None:
    def group(**changes: object) -> str:
        return group_name(flat_config(replace_config(Config(), changes)))

    assert group(seed=1) == group(seed=2) == "default"
    assert group(seed=1, name="other") == "default"
    assert group(**{"train.lr": 0.003, "device": "cpu", "precision": "bf16"}) == "lr3e-3 bf16 cpu"
    base = flat_config(Config())
    different = {"optimizer.name": "sgd", "schedule.name": "cosine", "data.name": "kmnist", "device": "cpu",
                 "precision": "fp32", "schedule.epochs": 7, "schedule.after": 0.5,
                 "averaging.name": "ema", "model.channels": [1, 2, 3], "optimizer.betas": [0.5, 0.9]}  # fmt: skip
    names = [group()]
    for key, value in hyperparameters(base).items():
        other = different.get(key) or (value / 2 or 0.1 if isinstance(value, float) else value + 1)
        names.append(group(**{key: other}))
    assert len(set(names)) == len(names)


def test_what_differs() -> None:
    assert varying([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": None}]) == ["b", "c"]
    assert differences({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3}) == {"b": 2, "c": None}


@pytest.mark.parametrize("name", ["", ".a", "a/b", "..", "a\nb", "ü", "x" * 41, "-a"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(InputError, match="a name must be 1 to 40 letters"):
        check_run_name(name)
    with pytest.raises(InputError):
        load_config(REPOSITORY / "configs/default.yaml", options=[("--name", "name", name)])


@given(st.text())
@example("1e-3")
@example("-a.")
@example("a" * LONGEST_NAME + "-")
def test_whatever_is_left_of_a_text_is_a_name(text: str) -> None:
    if name := sanitize_name(text):
        check_run_name(name)


KEYS = st.sampled_from(["a", "a1", "b", "optim.lr", "lr", *flatten(Config().model_dump())]) | st.text(max_size=3)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["true", "none", "1", "1e-3", "nan", "auto", "adam", "cuda:1", "-", "a=1", "1-b=2", '"'])
    | st.text(max_size=3)
)
SETTINGS = st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3), max_size=3)


def _typed(value: Any) -> Any:
    """For a comparison in which True is not 1; but 1 is 1.0."""
    if isinstance(value, dict):
        return [(key, _typed(each)) for key, each in value.items()]
    return [_typed(each) for each in value] if isinstance(value, list) else (isinstance(value, bool), value)


@given(SETTINGS, SETTINGS)
@example({"a": 1, "b": 2}, {"a": "1-b2"})
@example({"a": 1, "b": 2}, {"a": "1-b=2"})
@example({"a": [1]}, {"a": 1})
@example({"a": "true"}, {"a": True})
@example({"a": True}, {"a": 1})
@example({"a": "0.1"}, {"a": 0.1})
@example({"a1": 2}, {"a": 12})
@example({"ab": "c"}, {"a": "bc"})
@example({"optim.lr": 1}, {"sched.lr": 1})
@example({"a": None}, {"a": "none"})
@example({"device": "auto"}, {"precision": "auto"})
@example({"schedule.name": "adam"}, {"optimizer.name": "adam"})
@example({"train.lr": 1e-5, "seed": 2}, {"train.lr": "1e-5-s2"})
def test_different_settings_have_different_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (short_name(one) == short_name(other)) <= (_typed(one) == _typed(other))


class Kind(Enum):
    SMALL = "small"


@dataclasses.dataclass
class Net:
    width: int = 8
    more: Any = None


class Odd:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


PLAIN: list[tuple[Any, Any]] = [
    (np.float32(0.1), 0.1), (np.float16(0.1), 0.1), (np.float64(0.1), 0.1), (np.int64(3), 3), (np.bool_(True), True),
    (np.str_("a"), "a"), (np.array([1.5]), 1.5), (np.array([1, 2]), [1, 2]), (torch.tensor(0.1), 0.1),
    (torch.tensor([0.1], dtype=torch.bfloat16, requires_grad=True), 0.1), (torch.tensor([0.1, 0.2]), [0.1, 0.2]),
    (Kind.SMALL, "small"), (PurePosixPath("a/b"), "a/b"), ((1, np.float32(0.2)), [1, 0.2]), ({3, 10, 1}, [1, 3, 10]),
    (b"a\xff", "a\\xff"), (range(2), [0, 1]), (None, None), (True, True), ("", ""), ([], []),
]  # fmt: skip


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("strict", [True, False])
def test_whatever_program_spells_a_setting_it_is_the_same(value: Any, plain: Any, strict: bool) -> None:
    found = plain_settings({"x": {1: value}}, strict=strict)
    assert found == {"x.1": plain}
    assert type(found["x.1"]) is type(plain)


@pytest.mark.parametrize("settings", [{"a": {"width": 8, "more": None}}, Namespace(a=Net()), {"a": vars(Net())}])
def test_groups_are_mappings_dataclasses_and_namespaces(settings: Any) -> None:
    assert plain_settings(settings, strict=True) == {"a.width": 8, "a.more": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [(Odd(), "Odd"), ([Odd()], "list"), (float("nan"), "nan"), ([[1], 2], "[[1], 2]"), (1j, "1j"),
     (Net, "test_hyperparameters.Net"), (np.zeros((2, 2)), "[[0. 0.]\n [0. 0.]]"), (torch.float32, "torch.float32"),
     (np.float32("inf"), "inf")],
)  # fmt: skip
def test_an_odd_setting_is_refused_or_text(value: Any, text: str) -> None:
    assert plain_settings({"odd": value, "lr": 1}, strict=False) == {"odd": text, "lr": 1}
    with pytest.raises(InputError, match=r"^config: odd is .*; settings are "):
        plain_settings({"odd": value, "lr": 1}, strict=True)


class Model(pydantic.BaseModel):
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


class Attrs:
    """As a class that attrs has made looks from outside."""

    __attrs_attrs__ = (SimpleNamespace(name="lr"), SimpleNamespace(name="betas"))
    lr, betas = np.float32(0.1), [0.9, 0.99]


class Config1(Mapping[str, Any]):
    """As OmegaConf's: a mapping, but no dict, of which one value may not be had. (Its own were tried by hand.)"""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def __getitem__(self, key: str) -> Any:
        if self._known[key] == "???":
            raise LookupError(key)
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


LR = {"lr": 0.1, "betas": [0.9, 0.99]}
SPELLINGS: dict[str, Any] = {
    "nested": {"opt": LR},
    "flat": {"opt.lr": 0.1, "opt.betas": [0.9, 0.99]},
    "Lightning's flat": {"opt/lr": 0.1, "opt/betas": (0.9, 0.99)},
    "NumPy's": {"opt": {"lr": np.float32(0.1), "betas": np.array([0.9, 0.99], np.float16)}},
    "an array of no dimension": {"opt": {"lr": np.array(0.1), "betas": [np.float64(0.9), np.array(0.99, np.float32)]}},
    "torch's": {"opt": {"lr": torch.tensor(0.1), "betas": torch.tensor([0.9, 0.99], requires_grad=True)}},
    "a Namespace": Namespace(opt=Namespace(**LR)),
    "another namespace": SimpleNamespace(opt=SimpleNamespace(**LR)),
    "an ordered one": OrderedDict(opt=OrderedDict(LR)),
    "no dict": UserDict(opt=UserDict(LR)),
    "pydantic": {"opt": Model()},
    "attrs": {"opt": Attrs()},
    "OmegaConf": Config1({"opt": Config1(LR)}),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_same_settings_are_the_same_however_they_are_spelt(spelling: Any) -> None:
    expected, spelt = plain_settings(SPELLINGS["nested"], strict=True), plain_settings(spelling, strict=True)
    assert (spelt, json.dumps(spelt)) == (expected, json.dumps(expected))
    assert short_name(spelt) == short_name(expected)
    assert group_name(spelt) == group_name(expected)
    assert strict_yaml.dump(nested(spelt)) == "opt:\n  lr: 0.1\n  betas:\n  - 0.9\n  - 0.99\n"


def test_a_list_of_groups_is_numbered_as_by_lightning() -> None:
    settings = {"layers": [{"width": 8}, {"width": 16}], "mixed": [{"width": 8}, 1]}
    numbered = {"layers.0.width": 8, "layers.1.width": 16, "mixed": "[{'width': 8}, 1]"}
    assert plain_settings(settings, strict=False) == numbered


@given(st.dictionaries(st.text("ab.", max_size=5), st.integers(), max_size=6))
def test_groups_are_flattened_again(settings: dict[str, int]) -> None:
    assert flatten(nested(settings)) == settings


CYCLE: dict[str, Any] = {"a": 1}
CYCLE["again"] = CYCLE
ROUND: list[Any] = [1]
ROUND.append(ROUND)


class Unhashable(Mapping[str, Any]):
    """Whatever is asked, it fails."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError

    __iter__ = __len__ = __str__ = __repr__ = __getitem__  # type: ignore[assignment]


LONELY: list[tuple[Any, Any]] = [
    (Config1({"b": 2, "c": "???"}), {"b": 2, "c": "LookupError"}),
    (CYCLE, {"a": 1, "again": "{'a': 1, 'again': {...}}"}),
    (ROUND, "[1, [...]]"),
    (Unhashable(), "Unhashable"),
    (object(), "<object object>"),
    ([object()], "[<object object>]"),
    (test_a_long_name_is_cut, "test_hyperparameters.test_a_long_name_is_cut"),
    (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"),
    (lambda: 0, "test_hyperparameters.<lambda>"),
    (len, "builtins.len"),
    ("x".upper, "builtins.str.upper"),
    (partial(Odd.__str__, 1), "functools.partial(<function Odd.__str__>, 1)"),
    (torch.device("cuda:1"), "cuda:1"),
    (torch.bfloat16, "torch.bfloat16"),
    (np.dtype("f4"), "float32"),
    (10**5_000, "int"),
    (-np.inf, "-inf"),
    ([1.0, np.float32("nan")], "[1.0, nan]"),
    (range(10**9), "range(0, 1000000000)"),
    (torch.empty(2, device="meta"), None),
]


@pytest.mark.parametrize(("odd", "text"), LONELY, ids=lambda value: type(value).__name__)
def test_one_odd_value_costs_itself_alone(odd: Any, text: Any) -> None:
    found = plain_settings({"lr": 0.1, "odd": odd, "seed": 2}, strict=False)
    assert (found.pop("lr"), found.pop("seed")) == (0.1, 2)
    if text is not None:
        assert found == flatten({"odd": text})
    assert all(isinstance(value, (str, int)) for value in found.values())
    assert "0x" not in str(found)
    with pytest.raises(InputError, match=r"^config: odd[.a-z]* is .*; settings are "):
        plain_settings({"lr": 0.1, "odd": odd}, strict=True)


class Path1(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "data/caf\udce9"


def test_keys_and_values_are_text_that_can_be_written() -> None:
    odd = {3: 1, None: 2, (1, 2): 3, Kind.SMALL: 4, np.int64(5): 5, b"\xff": 6, "caf\udce9": 7, Net: 8, 0.5: Path1()}
    found = plain_settings({"a": odd}, strict=True)
    assert found == {
        "a.3": 1, "a.None": 2, "a.[1, 2]": 3, "a.small": 4, "a.5": 5, "a.\\xff": 6, "a.caf\\udce9": 7,
        "a.test_hyperparameters.Net": 8, "a.0.5": "data/caf\\udce9",
    }  # fmt: skip
    strict_yaml.dump(nested(found)).encode()
    json.dumps(found, ensure_ascii=False).encode()
