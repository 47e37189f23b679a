from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.paths import REPOSITORY
from mnist_tb.config import strict_yaml
from mnist_tb.config.hyperparameters import flatten, sanitize_name
from mnist_tb.config.load import dump_config, flat_config, load_config, replace_config
from mnist_tb.config.schema import Config
from mnist_tb.errors import InputError

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
DEFAULT = CONFIGS[0].parent / "default.yaml"


def load(*overrides: str, path: Path = DEFAULT) -> Config:
    return load_config(path, overrides)


def refusal(*overrides: str, path: Path = DEFAULT) -> str:
    with pytest.raises(InputError) as caught:
        load(*overrides, path=path)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_default_file_lists_every_key_with_its_default() -> None:
    stated = flatten(yaml.safe_load(DEFAULT.read_text()))
    expected = flat_config(Config())
    del expected["name"]  # left out: it is the file's name
    assert stated == expected
    assert load().name == "default"


def test_defaults_are_the_documented_ones() -> None:
    config = Config()
    assert (config.train.epochs, config.train.batch_size, config.train.lr) == (10, 64, 0.001)
    assert config.optimizer.name == "adam"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_comes_back_from_its_dump(path: Path, tmp_path: Path) -> None:
    config = load(path=path)
    assert config.name == path.stem
    assert load(path=written(tmp_path, dump_config(config))) == config


def test_there_are_recipes_beside_the_default() -> None:
    assert len(CONFIGS) >= 4


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().train.lr = 1.0  # type: ignore[misc]


WRONG = {
    "name": ["[a]", "../up", "''", "'a b'", "x" * 41],
    "seed": ["a", "-1", "1.5", "9223372036854775808", "true", "0x" + "f" * 5000, "2020-01-01"],
    "device": ["gpu", "3", "cuda:x", "cuda:01", "cuda:100"],
    "precision": ["fp16", "16"],
    "data.name": ["cifar10", "1"],
    "data.root": ["''", "3"],
    "data.download": ["1", "maybe"],
    "data.mirror": ["ftp://x/", "http://x", "http://[/", "7"],
    "data.download_seconds": ["0", "x", "0.5"],
    "data.fallback": ["mnist", "true"],
    "data.validation": ["0", "many"],
    "data.split_seed": ["-1", "x"],
    "model.channels": ["[16, 32]", "[1, 2, 3, 4]", "[0, 1, 1]", "16", "[a, b, c]"],
    "optimizer.name": ["lion", "2"],
    "optimizer.weight_decay": ["-0.1", "x", ".inf"],
    "optimizer.momentum": ["1", "-0.1", "x"],
    "optimizer.betas": ["[0.9]", "[0.9, 1]", "[-0.1, 0.9]", "0.9", "[a, b]", "null"],
    "schedule.name": ["step", "1"],
    "schedule.warmup": ["0", "1", "x"],
    "schedule.epochs": ["0", "2.5", "x"],
    "schedule.after": ["0", "-1", "x", ".inf"],
    "train.epochs": ["0", "2.5", "x", "'3'", "1:30", "3_0"],
    "train.batch_size": ["0", "-64", "x"],
    "train.lr": ["0", "-1", "x", ".nan", ".inf", "null"],
    "train.evaluate_every": ["-1", "x"],
    "tracking.enabled": ["1", "sometimes", "yes", "off"],
    "tracking.scalars_every": ["0", "x"],
    "tracking.histograms_every": ["-1", "x"],
    "tracking.images_every": ["-1", "x"],
    "augment.rotate": ["-1", "181", "x", ".nan"],
    "augment.shift": ["-1", "15", "x"],
    "augment.scale": ["-0.1", "1", "x"],
    "augment.shear": ["-1", "90", "x"],
    "augment.warp": ["-1", "15", "x"],
    "augment.until": ["0", "1.1", "x"],
    "averaging.name": ["mean", "1", "null"],
    "averaging.decay": ["0", "1", "x"],
    "averaging.start": ["-0.1", "1", "x"],
    "train.label_smoothing": ["-0.1", "1", "x"],
    "tracking.weights_every": ["-1", "x", "null"],
    "tracking.projector": ["1", "x", "null"],
    "tracking.code": ["1", "x", "null"],
    "tracking.system_seconds": ["-1", "x", "null", ".inf"],
    "tracking.checkpoint_seconds": ["0", "-1", "x", ".inf"],
}


def test_every_field_has_wrong_values() -> None:
    assert set(WRONG) == set(flat_config(Config()))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_value_names_option_key_and_rule(key: str, value: str) -> None:
    message = refusal(f"{key}={value}")
    assert message.startswith(f"--set {key}={value}: {key}")
    assert " must " in message
    assert "pydantic" not in message


@pytest.mark.parametrize(("key", "value"), [(key, values[0]) for key, values in WRONG.items()])
def test_wrong_value_in_a_file_names_its_line(key: str, value: str, tmp_path: Path) -> None:
    group, _, leaf = key.rpartition(".")
    text = f"# one line\n{group}:\n  {leaf}: {value}\n" if group else f"# one line\n{leaf}: {value}\n"
    path = written(tmp_path, text)
    assert refusal(path=path).startswith(f"{path}:{3 if group else 2}: {key}")


@pytest.mark.parametrize(
    ("override", "right"),
    [("trian.lr=1", "train"), ("lr=1", "train.lr"), ("train.epoch=1", "train.epochs"), ("optimizer.lr=1", "train.lr"),
     ("data.vlidation=3", "data.validation"), ("learning_rate=1", "train.lr"), ("train.learning_rate=1", "train.lr")],
)  # fmt: skip
def test_misspelt_key_gets_the_nearest_one(override: str, right: str) -> None:
    assert f"did you mean {right}?" in refusal(override)


def test_unknown_key_without_a_near_one_lists_the_keys() -> None:
    assert "train.lr" in refusal("xyzzy=1")


def test_several_problems_are_all_said() -> None:
    assert len(refusal("train.lr=0", "train.epochs=0").splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "a list"),
        ("just words", "'just words'"),
        ("seed: 1\nseed: 2\n", ":2: not valid YAML: the key 'seed' is there twice, first in line 1"),
        ("train: {lr: 1, lr: 2}\n", "the key 'lr' is there twice"),
        ("train: [\n", "not valid YAML"),
        ("1: 2\n", "the key 1 is not a string"),
        ("a: &x [1]\nb: *x\n", ":2: not valid YAML: aliases"),
        ("a:\n " + "[" * 5_000, ":2: not valid YAML: nested more than 100 deep"),
        ("a:\n " + "[" * 101 + "]" * 101, ":2: not valid YAML: nested more than 100 deep"),
        ("seed: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("train: 3\n", "must be a group of keys"),
        ("train: null\n", "must be a group of keys"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("seed: \x00\n", "not valid YAML"),
        ("seed: !!bool abc\n", "not valid YAML"),
        ("seed: !!timestamp abc\n", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_broken_file_is_explained(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    message = refusal(path=path)
    assert message.startswith(str(path))
    assert said in message


def test_missing_binary_and_unreadable_files_are_explained(tmp_path: Path) -> None:
    assert "no such file" in refusal(path=tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "not a text file" in refusal(path=tmp_path / "binary.yaml")
    assert "cannot be read" in refusal(path=tmp_path)


@pytest.mark.parametrize("override", ["train.lr", "=3", "train.lr=[", "train.lr.x=1"])
def test_malformed_override_is_explained(override: str) -> None:
    assert override.split("=")[0] in refusal(override)


def test_numbers_without_a_dot_are_numbers() -> None:
    assert load("train.lr=1e-3").train.lr == 0.001
    assert load("train.lr=5E2").train.lr == 500.0
    assert load("train.lr=1").train.lr == 1.0


def test_leading_zeros_and_other_bases_are_those_of_yaml_1_2() -> None:
    assert load("train.epochs=010").train.epochs == 10
    assert load("seed=0x10").seed == 16
    assert load("seed=0o17").seed == 15


def test_a_single_value_in_the_place_of_a_group_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 1\ntrain: 5\n")
    assert refusal("train.lr=0.1", path=path) == f"--set train.lr=0.1: train is not a group of keys (see {path}:2)"


def test_a_file_name_that_is_no_run_name_is_made_one(tmp_path: Path) -> None:
    assert load(path=written(tmp_path, "seed: 1\n", "my configuration.yaml")).name == "my-configuration"
    names = {"été": "ete", "_lr": "lr", "日本": "run", "-.-": "run", "1e-3": "1e-3"}
    assert {stem: load(path=written(tmp_path, "seed: 1\n", f"{stem}.yaml")).name for stem in names} == names


TEXTS = (
    st.text()
    | st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp", "Zs", "Po"]))
    | st.from_regex(
        r"[-+]?[0-9_.:]+(e[-+]?[0-9]+)?|0[xob][0-9a-f]+|(yes|no|on|off|y|n|true|null|=|<<|~|[.]inf|2020-01-01)",
        fullmatch=True,
    )
)
FLOATS = st.floats(allow_nan=False)
VALUES = st.recursive(
    TEXTS | FLOATS | st.integers() | st.booleans() | st.none(),
    lambda each: st.lists(each) | st.dictionaries(TEXTS, each),
)


@given(st.dictionaries(TEXTS, VALUES, max_size=3))
@example({"name": "1e-3", "5e4": "0o17", "a": "1:30", "b": " x ", "c": "a\x85b\u2028c\td\udc80", "d": "x " * 100})
def test_what_is_written_is_read_back_the_same_by_any_reader(values: dict[str, Any]) -> None:
    text = strict_yaml.dump(values).encode().decode()
    for back in (strict_yaml.read_value(text, "it"), yaml.safe_load(text)):
        assert repr(back) == repr(values), "types too"


@given(st.text(min_size=1) | st.from_regex(r"[0-9.e_-]+", fullmatch=True))
def test_every_string_of_a_configuration_comes_back(text: str) -> None:
    try:
        config = replace_config(Config(), {"data.root": text, "name": sanitize_name(text) or "run"})
    except ValidationError:  # it is no text of UTF-8
        assert re.search(r"[\ud800-\udfff]", text)
        return
    assert Config.model_validate(strict_yaml.read_value(dump_config(config), "it")) == config


def test_later_overrides_and_named_options_win() -> None:
    assert load("seed=1", "seed=2").seed == 2
    assert load_config(DEFAULT, ["train.lr=1"], [("--lr", "train.lr", 2.0)]).train.lr == 2.0


def test_named_option_is_named_in_the_message() -> None:
    with pytest.raises(InputError, match=r"^--batch-size: train\.batch_size must be at least 1, not 0$"):
        load_config(DEFAULT, [], [("--batch-size", "train.batch_size", 0)])


def test_extends_states_only_the_differences(tmp_path: Path) -> None:
    written(tmp_path, "train: {lr: 0.5, epochs: 7}\nname: base\n", "base.yaml")
    config = load(path=written(tmp_path, "extends: base.yaml\ntrain: {lr: 0.25}\n"))
    assert (config.train.lr, config.train.epochs, config.name) == (0.25, 7, "base")


def test_a_name_is_one_that_comes_with_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whatever folder, and whatever lies there; a path is one of the user's, beside the file that names it."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "train: {lr: 0.5}\n", "fast.yaml")
    assert (load(path="fast").train.epochs, load(path="fast.yaml").train.lr) == (2, 0.5)
    other = tmp_path / "other"
    other.mkdir()
    assert load(path=written(other, "extends: fast\n")).train.epochs == 2
    assert load(path=written(other, "extends: ../fast.yaml\n")).train.lr == 0.5
    written(tmp_path, "train: {lr: 0.25}\n", "mine")
    assert load(path="mine").train.lr == 0.25, "a file without an ending is a file, where no configuration has its name"


def test_extends_errors_name_the_file_that_is_wrong(tmp_path: Path) -> None:
    base = written(tmp_path, "train:\n  lr: -1\n", "base.yaml")
    assert refusal(path=written(tmp_path, "extends: base.yaml\n")).startswith(f"{base}:2: train.lr")
    assert "does not exist" in refusal(path=written(tmp_path, "extends: gone.yaml\n"))
    assert "base.yaml:1: extends: gone: there is no configuration of that name" in refusal(
        path=written(tmp_path, "extends: gone\n", "base.yaml")
    )
    assert "must be the name of one file" in refusal(path=written(tmp_path, "extends: [a, b]\n"))
    written(tmp_path, "extends: two.yaml\n", "one.yaml")
    assert "circle" in refusal(path=written(tmp_path, "extends: one.yaml\n", "two.yaml"))


def test_builtin_data_need_no_fallback() -> None:
    assert load("data.name=digits").data.fallback is None


def test_changed_leaves_the_original_alone() -> None:
    config = load()
    assert replace_config(config, {"train.lr": 0.5, "device": "cpu"}).train.lr == 0.5
    assert config.train.lr == 0.001
