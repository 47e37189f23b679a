"""What was set, told in few words."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import load as configuration
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
    assert settings.shown(value) == text
    if isinstance(value, float):
        assert float(text) == value


NAMES = [
    ("default", [], "default"),
    ("default", ["train.lr=3e-3"], "lr3e-3"),
    ("default", ["seed=4", "train.lr=0.01"], "lr0.01-s4"),
    ("default", ["train.lr=0.001", "seed=0"], "default"),
    ("sgd", ["optimizer.momentum=0.95"], "sgd-m0.95"),
    ("digits", ["tracking.enabled=false", "data.root=/elsewhere"], "digits"),
    ("digits", ["model.channels=[8, 16, 32]", "train.epochs=2"], "digits-ch8-16-32-ep2"),
    ("digits", ["averaging.name=ema", "averaging.decay=0.99"], "digits-ema-decay0.99"),
    ("fast", ["name=mine", "train.lr=1"], "mine"),
]


@pytest.mark.parametrize(("recipe", "overrides", "name"), NAMES)
def test_a_runs_name_carries_what_was_changed(recipe: str, overrides: list[str], name: str) -> None:
    path = REPOSITORY / "configs" / f"{recipe}.yaml"
    made = configuration.load(path, overrides, rename=True)
    assert made.name == name
    assert configuration.load(path, overrides).name == (name if name == "mine" else recipe)


def test_a_runs_own_configuration_says_what_was_changed_since(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    made = configuration.load(REPOSITORY / "configs" / "default.yaml", ["train.lr=0.01"])
    path.write_text(configuration.dump(made))
    assert configuration.load(path, ["seed=1"], rename=True).name == "s1"
    text = path.read_text().replace("name: default", "name: lr0.01")
    path.write_text(text)
    assert configuration.load(path, ["seed=1"], rename=True).name == "lr0.01-s1"
    assert configuration.load(path, [], rename=True).name == "lr0.01"


def test_a_long_name_is_cut() -> None:
    overrides = ["train.lr=0.123456", "optimizer.weight_decay=0.123456", "schedule.warmup=0.123456", "seed=77"]
    made = configuration.load(REPOSITORY / "configs/one_cycle.yaml", overrides, rename=True)
    assert len(made.name) <= 40
    assert made.name.startswith("one_cycle-wd0.123456-wu0.123456-")


def test_seeds_are_one_group_and_all_else_is_not() -> None:
    def group(**changes: object) -> str:
        return group_name(configuration.flat(configuration.changed(Config(), changes)))

    assert group(seed=1) == group(seed=2) == "default"
    assert group(seed=1, name="other") == "default"
    assert group(**{"train.lr": 0.003, "device": "cpu", "precision": "bf16"}) == "lr3e-3 bf16 cpu"
    base = configuration.flat(Config())
    different = {"optimizer.name": "sgd", "schedule.name": "cosine", "data.name": "kmnist", "device": "cpu",
                 "precision": "fp32", "averaging.name": "ema", "model.channels": [1, 2, 3]}  # fmt: skip
    names = [group()]
    for key, value in settings.deciding(base).items():
        other = different.get(key) or (value / 2 or 0.1 if isinstance(value, float) else value + 1)
        names.append(group(**{key: other}))
    assert len(set(names)) == len(names)


def test_what_differs() -> None:
    assert settings.varying([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": None}]) == ["b", "c"]
    assert settings.differences({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3}) == {"b": 2, "c": None}


@pytest.mark.parametrize("name", ["", ".a", "a/b", "..", "a\nb", "ü", "x" * 41, "-a"])
def test_impossible_names(name: str) -> None:
    assert not configuration.is_run_name(name)
    with pytest.raises(InputError):
        configuration.load(REPOSITORY / "configs/default.yaml", options=[("--name", "name", name)])
