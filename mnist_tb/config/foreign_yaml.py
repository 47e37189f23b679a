"""YAML of other programs, such as Lightning's hparams.yaml: Python's objects in it are read as plain values.

Nothing is imported or called, whatever a tag names. What cannot be understood costs its own value, which is its name
then. With aliases a small file can grow without bound while it is read: of a value that does, nothing is kept.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from mnist_tb.config.plain import shortest
from mnist_tb.config.strict_yaml import Loader
from mnist_tb.errors import InputError

_MOST, _MOST_OF_A_VALUE = 400_000, 2_000
"""Nodes that are read of a file, and of one of its values."""
_TAG = "tag:yaml.org,2002:"
_LEFT_OUT = "…"
_NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q"} | {
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip
"""NumPy's types → those of `struct`."""
_MOST_NUMBERS = 100


class _ForeignLoader(Loader):
    aliases = True


class _TooMuchError(Exception):
    """A value is larger than what is read of one."""


def read_value(text: str, source: str) -> Any:
    """The mapping, list or single value in a text; `source` names it in the message of the InputError.

    A tuple is a list, a path and an enum are what they are made of, a class is its name, a Namespace, a dataclass and
    the like a mapping, NumPy's numbers Python's.
    """
    try:
        node = _ForeignLoader(text).get_single_node()
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise InputError(f"{source}: not valid YAML: {str(error).partition(chr(10))[0]}") from None
    return None if node is None else _Reading().whole(node)


class _Reading:
    """Nodes of YAML in, values out."""

    def __init__(self) -> None:
        self._left = _MOST
        self._left_of_value = _MOST_OF_A_VALUE
        self._within: set[int] = set()

    def whole(self, node: yaml.Node) -> Any:
        """The value of a document; of a mapping, each value by itself."""
        if not isinstance(node, yaml.MappingNode):
            return self._guarded(node)
        return self._mapping(node, self._guarded)

    def _guarded(self, node: yaml.Node) -> Any:
        allowed = self._left_of_value = max(1, min(_MOST_OF_A_VALUE, self._left))  # a single value is always read
        try:
            return self._value(node)
        except _TooMuchError:
            return _LEFT_OUT
        finally:
            self._left -= allowed - self._left_of_value

    def _value(self, node: yaml.Node) -> Any:
        """What cannot be understood is the end of its tag, or its text."""
        if self._left_of_value <= 0:
            raise _TooMuchError
        self._left_of_value -= 1
        if id(node) in self._within:  # it is within itself
            return _LEFT_OUT
        self._within.add(id(node))
        try:
            return self._made(node, *node.tag.removeprefix(_TAG).partition(":")[::2])
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error, yaml.YAMLError):
            return node.value if isinstance(node, yaml.ScalarNode) else _last(node.tag)
        finally:
            self._within.discard(id(node))

    def _made(self, node: yaml.Node, kind: str, name: str) -> Any:
        """kind, name: of the tag, `python/object/apply` and `pathlib.PosixPath`."""
        if isinstance(node, yaml.ScalarNode):
            return name if kind in ("python/name", "python/module") else _scalar(node, kind)
        is_call = kind in ("python/object/apply", "python/object/new")
        if isinstance(node, yaml.SequenceNode):
            parts = [self._value(part) for part in node.value]
            if kind in ("omap", "pairs"):
                return {key: value for part in parts for key, value in part.items()}
            return _called(name, {"args": parts}) if is_call else parts
        if kind == "set":
            return {_as_key(self._value(key)) for key, _ in node.value}
        if not isinstance(node, yaml.MappingNode):
            raise TypeError
        found = self._mapping(node, self._value)
        if is_call:
            return _called(name, found)
        is_settings = kind != "python/object" or not any(str(key).startswith("_") for key in found)
        return found if is_settings else _last(name)

    def _mapping(self, node: yaml.MappingNode, read: Callable[[yaml.Node], Any]) -> dict[Any, Any]:
        """read: gives the value of a node. Of a key that is there twice, the last one counts, as for Python."""
        found: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            value = read(value_node)
            if key_node.value == "<<" and isinstance(value, (dict, list)):
                for each in reversed(value) if isinstance(value, list) else [value]:
                    merged |= each if isinstance(each, dict) else {}
            else:
                found[_as_key(read(key_node))] = value
        return {**merged, **found}


def _as_key(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else str(value)


def _scalar(node: yaml.ScalarNode, kind: str) -> Any:
    text = str(node.value)
    if kind in ("python/complex", "complex"):
        return str(complex(text))
    if kind in ("binary", "python/bytes"):
        return base64.b64decode(text)
    kind = kind.removeprefix("python/")
    kind = {"long": "int", "unicode": "str", "none": "null"}.get(kind, kind)
    if kind not in ("int", "float", "bool", "null"):
        return text if text or kind == "str" else _last(node.tag)
    return Loader("").construct_object(yaml.ScalarNode(_TAG + kind, text))


def _called(name: str, given: Mapping[Any, Any]) -> Any:
    """What an object is that is made by calling `name`. given: `args`, `dictitems`, `listitems`, `state`."""
    args, last = given.get("args", []), _last(name)
    if "dictitems" in given or "listitems" in given:
        return given.get("dictitems", given.get("listitems"))
    if last == "OrderedDict":
        return dict(map(tuple, args[0])) if args else {}
    if name == "numpy.dtype":
        return given["state"][1] + args[0] if "state" in given else args[0]
    if last == "scalar" and "multiarray" in name:
        return _numbers(*args)[0]
    if last == "_reconstruct" and "multiarray" in name:
        _, shape, dtype, _, content = given["state"]
        return _numbers(dtype, content) if len(shape) == 1 and shape[0] <= _MOST_NUMBERS else "ndarray"
    if name.startswith("pathlib."):
        return str((PureWindowsPath if "Windows" in last else PurePosixPath)(*args))
    if name == "torch.device":
        return ":".join(map(str, args))
    is_plain = all(isinstance(each, (bool, int, float, str)) for each in args)
    if not args or not is_plain or "state" in given:
        return last.strip("_")
    return args[0] if len(args) == 1 else args  # an enum's value; a named tuple


def _numbers(dtype: str, content: bytes) -> list[Any]:
    """The numbers in an array, of 32 bits and less with the fewest digits that make the same one."""
    order, code = dtype[0].replace("|", "="), _NUMBERS[dtype[1:]]
    form = f"{order}{code}"
    found = [each for (each,) in struct.iter_unpack(form, content)]
    return [_shortest(each, form) for each in found] if code in "ef" else found


def _shortest(value: float, form: str) -> float:
    return shortest(value, lambda each: struct.pack(form, each) == struct.pack(form, value))


def _last(name: str) -> str:
    return name.rpartition(".")[2].rpartition(":")[2]
