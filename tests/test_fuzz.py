"""Any bytes for a load, an option or a data file: an answer or one sentence, never a traceback."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.idx import write_idx
from mnist_tb.config.load import dump_config, flat_config, load_config
from mnist_tb.config.schema import Config
from mnist_tb.data.datasets import read_idx
from mnist_tb.errors import InputError

KEYS = [*flat_config(Config()), "train", "data", "extends", "nothing", "train.nothing", ""]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.dates(),
    st.sampled_from(["1e-3", "1e999", ".inf", "1:30", "010", "0x1F", "no", "~", "cuda:0", "adam", "../..", "a\nb"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(KEYS), SCALARS), inner, max_size=4)
    ),
    max_leaves=12,
)
often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answers(path: Path, overrides: tuple[str, ...] = ()) -> bool:
    """Whether file and overrides make a configuration that comes back from its own text, or one clear error."""
    made, message = None, ""
    try:
        made = load_config(path, overrides)
    except InputError as error:
        message = str(error).strip()
    if made is None:
        return message != ""
    path.write_text(dump_config(made), encoding="utf-8")
    return load_config(path) == made


@often
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode(errors="replace")))
)
def test_any_bytes_for_a_configuration(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert answers(path)


@often
@given(values=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_any_values_for_a_configuration(values: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    assert answers(path)


@often
@given(key=st.one_of(st.sampled_from(KEYS), st.text(max_size=20)), value=st.text(max_size=40))
def test_any_override(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n")
    assert answers(path, (f"{key}={value}",))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a file is written that is to be read as images."""
    return tmp_path / "train-images-idx3-ubyte"


@often
@given(content=st.binary(max_size=400), compressed=st.booleans())
def test_any_bytes_for_an_idx_file(content: bytes, compressed: bool, place: Path) -> None:
    path = place.with_suffix(".gz") if compressed else place
    path.write_bytes(content)
    with pytest.raises(InputError):  # that bytes at random are images in order does not happen
        read_idx(path, np.dtype(np.uint8), 3)


@often
@given(
    shape=st.tuples(*[st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1))] * 3),
    body=st.binary(max_size=130),
    type_code=st.sampled_from([0x08, 0x09, 0x0C, 0x0D, 0]),
)
def test_any_header_of_an_idx_file(shape: tuple[int, int, int], body: bytes, type_code: int, place: Path) -> None:
    place.write_bytes(bytes([0, 0, type_code, 3]) + struct.pack(">3i", *shape) + body)
    right = type_code == 0x08 and min(shape) >= 0 and shape[0] * shape[1] * shape[2] == len(body)
    if right:
        assert read_idx(place, np.dtype(np.uint8), 3).tobytes() == body
    else:
        with pytest.raises(InputError):
            read_idx(place, np.dtype(np.uint8), 3)


@often
@given(cut=st.integers(0, 200), flip=st.integers(0, 10_000), compressed=st.booleans())
def test_a_damaged_idx_file(cut: int, flip: int, compressed: bool, place: Path) -> None:
    path = place.with_suffix(".gz") if compressed else place
    write_idx(path, np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28))
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 1
    path.write_bytes(content[: len(content) - cut])
    try:
        images = read_idx(path, np.dtype(np.uint8), 3)
    except InputError:
        return
    assert images.shape == (2, 28, 28), "a pixel may differ, no more"
