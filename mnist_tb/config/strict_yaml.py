"""YAML, written for any reader, and read strictly: no duplicate keys, aliases or surprises; each key has its line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mnist_tb.config.redaction import hide_text
from mnist_tb.errors import InputError

KeyPath = tuple[str, ...]
_DEEPEST = 100


@dataclass(frozen=True)
class Document:
    """The mapping that a file contains.

    values: nested dicts, lists and scalars. places: the path of every key → where it is, as `file:line`.
    """

    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)


class Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2's core schema: `1e-3` is a number, `1:30` and `no` are strings.

    Aliases are refused: with them a small file can grow without bound while it is read. So is what is nested very
    deeply: to read it takes the square of the depth, and in the end all of Python's stack.
    https://yaml.org/spec/1.2.2/#103-core-schema
    """

    aliases = False
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if not self.aliases and self.check_event(yaml.events.AliasEvent):
            event = self.get_event()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=event.start_mark)
        if self._depth == _DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


Loader.yaml_implicit_resolvers = {}  # YAML 1.1's, dropped


class _Dumper(yaml.SafeDumper):
    """It quotes each string that YAML 1.1 or 1.2 would take for something else: `no` and `1e-3`."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'  # alone they keep every character: they escape it
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_str)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


for _kind_of_scalar, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    for _either in (Loader, _Dumper):
        _either.add_implicit_resolver(f"tag:yaml.org,2002:{_kind_of_scalar}", re.compile(f"^(?:{_pattern})$"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises InputError, naming file and line, where the file is missing, empty, not text, not YAML, not a mapping, or has
    a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; a configuration is YAML in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    values, lines = _parse(text, str(path), with_line=True)
    if values is None:
        raise InputError(f"{path}: the file is empty; to take everything from elsewhere write `extends: default`")
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: the top level is {_kind(values)}, but must be a mapping such as `train: {{epochs: 10}}`"
        )
    return Document(values, {key: f"{path}:{line}" for key, line in lines.items()})


def read_value(text: str, source: str) -> Any:
    """Parse the value of a `key=value`; `source` names the option in the message of the InputError."""
    return _parse(text, source, with_line=False)[0]


def dump(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, from which this reader and those of YAML 1.1 make equal ones; it can always be encoded."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


def _parse(text: str, source: str, with_line: bool) -> tuple[Any, dict[KeyPath, int]]:
    lines: dict[KeyPath, int] = {}
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _construct(loader, node, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if with_line and error.problem_mark else ""
        raise InputError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{source}: not valid YAML: {reason}") from None


def _construct(loader: Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    if isinstance(node, yaml.CollectionNode) and not node.tag.endswith((":seq", ":map")):
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not allowed", problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, str(i)), lines) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        mark = key_node.start_mark
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is not a string", problem_mark=mark)
        if key in mapping:
            first = lines[(*path, key)]
            raise yaml.MarkedYAMLError(
                problem=f"the key '{key}' is there twice, first in line {first}", problem_mark=mark
            )
        lines[(*path, key)] = mark.line + 1
        mapping[key] = _construct(loader, value_node, (*path, key), lines)
    return mapping


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"the single value {hide_text(repr(value))}"
