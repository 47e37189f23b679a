"""The configuration, read, checked and written: YAML file + overrides → Config → YAML text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import presets, strict_yaml
from mnist_tb.config.hyperparameters import SEED
from mnist_tb.config.schema import LONGEST_NAME, Config, is_group
from mnist_tb.config.strict_yaml import Document, KeyPath
from mnist_tb.errors import InputError


def load(
    path: str | Path,
    overrides: Iterable[str] = (),
    options: Iterable[tuple[str, str, Any]] = (),
    rename: bool = False,
    preset: Iterable[tuple[str, str, Any]] = (),
) -> Config:
    """Read a configuration file and what it extends, then apply overrides.

    path: a file, or the name of one that comes with the program, as in `presets.find`.
    overrides: texts `a.b=value` from `--set`, the value in YAML; later ones win.
    options: name, dotted key and value, such as `("--lr", "train.lr", 0.01)`; they win over `--set`.
    preset: as options, but the overrides win over them.
    rename: have the name say what these changed, unless it is among it.
    Raises InputError naming the file and line, or the option, the key, and what would be right.
    """
    path = presets.find(path)
    document = _read_with_extends(path, ())
    values = document.values
    places = dict(document.places)
    before, named = settings.flatten(values), set()
    for place, key, value in preset:
        _put(values, key, value, place, places)
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise InputError(f"--set {text}: write it as key=value, such as --set train.lr=0.01")
        source = f"--set {text}"
        _put(values, key.strip(), strict_yaml.read_value(value, source), source, places)
        named.add(key.strip())
    for option, key, value in options:
        _put(values, key, value, option, places)
        named.add(key)
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:LONGEST_NAME])
    try:
        made = Config.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, places, str(path), _suggest)) from None
    return _renamed(made, before) if rename and "name" not in named else made


def _renamed(made: Config, before: Mapping[str, Any]) -> Config:
    """The same under a name that carries what was changed: `lr3e-3`, for short, where it was the default name."""
    told = {**settings.deciding(flat(made)), SEED: made.seed}
    usual = flat(Config())
    changed = {key: value for key, value in told.items() if value != before.get(key, usual[key])}
    words = re.sub(r"[^A-Za-z0-9._-]", "-", settings.words(changed))
    if not words:
        return made
    whole = words if made.name == "default" else f"{made.name}-{words}"
    return made.model_copy(update={"name": whole[:LONGEST_NAME].rstrip("-.")})


def dump(config: Config) -> str:
    """The whole configuration as YAML; `load` on it gives an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat(config: Config) -> dict[str, Any]:
    """Dotted key → value, in the order of the file: `{"train.lr": 0.001, …}`."""
    return settings.flatten(config.model_dump(mode="json"))


def is_run_name(name: str) -> bool:
    """Whether a run may be called so."""
    try:
        return Config(name=name).name == name
    except ValidationError:
        return False


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with some dotted keys set, such as to what `auto` became."""
    nested = config.model_dump()
    for key, value in values.items():
        _put(nested, key, value, key, {})
    return Config.model_validate(nested)


def _read_with_extends(path: Path, seen: tuple[Path, ...]) -> Document:
    if path.resolve() in seen:
        raise InputError(f"{path}: extends goes round in a circle: {' → '.join(p.name for p in (*seen, path))}")
    document = strict_yaml.read(path)
    parent = document.values.pop("extends", None)
    if parent is None:
        return document
    place = document.places[("extends",)]
    if not isinstance(parent, str):
        raise InputError(f"{place}: extends must be the name of one file, not {parent!r}")
    try:
        parent_path = presets.find(parent, beside=path)
    except InputError as error:
        raise InputError(f"{place}: extends: {error}") from None
    if not parent_path.is_file():
        raise InputError(f"{place}: extends: {parent_path} does not exist")
    base = _read_with_extends(parent_path, (*seen, path.resolve()))
    return Document(_merge(base.values, document.values), {**base.places, **document.places})


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _put(values: dict[str, Any], key: str, value: Any, source: str, places: dict[KeyPath, str]) -> None:
    """Set a dotted key, and note that it, and any group made for it, comes from `source`."""
    parts = tuple(key.split("."))
    group: Any = values
    for length in range(1, len(parts)):
        group = group.setdefault(parts[length - 1], {})
        if not isinstance(group, dict):
            place = places.get(parts[:length])
            raise InputError(
                f"{source}: {'.'.join(parts[:length])} is no group of keys{f' (see {place})' if place else ''}"
            )
        places.setdefault(parts[:length], source)
    group[parts[-1]] = value
    places[parts] = source


def _suggest(key: str) -> str:
    keys = list(flat(Config()))
    known = [*keys, *(name for name, field in Config.model_fields.items() if is_group(field.annotation))]
    leaf = key.rpartition(".")[2]
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
    near = same_leaf or difflib.get_close_matches(key, known, 1, 0.6)
    if not near:
        leaves = {k.rpartition(".")[2]: k for k in known}
        near = [leaves[k] for k in difflib.get_close_matches(leaf, list(leaves), 1, 0.6)]
    return f"; did you mean {near[0]}?" if near else f"; the keys are {', '.join(keys)}"


_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "dict_type": "must be a group of keys",
    "model_type": "must be a group of keys",
    "too_short": "must have {min_length} entries",
    "too_long": "must have {max_length} entries",
    "missing": "must have 3 entries",
    "string_too_short": "must not be empty",
}
_PATTERNS = {
    ("name",): "must be 1 to 40 letters, digits, dots, dashes or underscores, beginning with a letter or digit",
    ("device",): "must be auto, cpu, cuda or cuda:N",
    ("data", "mirror"): "must be a web address ending in a slash",
}


def explain(
    error: ValidationError,
    places: Mapping[KeyPath, str],
    default_place: str,
    suggest: Callable[[str], str],
    within: KeyPath = (),
) -> str:
    """One sentence per problem, in the words of the file rather than of the validator.

    within: the group that was validated.
    suggest: what to add about a key that there is not.
    """
    sentences = []
    for problem in error.errors():
        path = (*within, *(str(part) for part in problem["loc"]))
        place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), default_place)
        key = ".".join(path)
        if problem["type"] == "missing":
            if not path[-1].isdigit():
                sentences.append(f"{place}: {key} is missing")
                continue
            key = ".".join(path[:-1])  # a list that is too short
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{place}: unknown key {key}{suggest(key)}")
            continue
        if problem["type"] == "string_pattern_mismatch":
            rule = _PATTERNS[path]
        elif problem["type"] == "value_error":
            rule = str(problem["ctx"]["error"])
        else:
            rule = _LIMITS.get(problem["type"], problem["msg"]).format(**problem.get("ctx", {}))
        sentences.append(f"{place}: {key} {rule}, not {_short(problem['input'])}")
    return "\n".join(dict.fromkeys(sentences))


def _short(value: Any) -> str:
    try:
        text = "nothing (null)" if value is None else repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
