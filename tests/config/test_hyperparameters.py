"""A run's settings, and short names for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.paths import REPOSITORY
from mnist_tb.config.hyperparameters import differences, format_value, hyperparameters, varying
from mnist_tb.config.load import check_run_name, dump_config, flat_config, load_config, replace_config
from mnist_tb.config.schema import Config
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
