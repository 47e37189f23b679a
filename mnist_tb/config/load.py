"""A configuration is loaded, checked and dumped: YAML file + overrides → Config → YAML text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mnist_tb.config import presets, strict_yaml
from mnist_tb.config.hyperparameters import SEED, flatten, hyperparameters, sanitize_name, short_name
from mnist_tb.config.redaction import hide_text
from mnist_tb.config.schema import NAME_RULE, Config, is_group
from mnist_tb.config.strict_yaml import Document, KeyPath
from mnist_tb.errors import InputError, command_line, did_you_mean


def load_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    options: Iterable[tuple[str, str, Any]] = (),
    rename: bool = False,
    preset: Iterable[tuple[str, str, Any]] = (),
) -> Config:
    """Read a configuration file and what it extends, then apply overrides.

    path: a file, or the name of one that comes with the program, as in `presets.find`.
    overrides: texts `a.b=value` from `--set`, the value in YAML; later ones win.
    options: name, dotted key and value, such as `("--lr", "train.lr", 0.01)`; they take precedence over `--set`.
    preset: as options, but the overrides take precedence over them.
    rename: name the run for what overrides and options change, unless they set its name.
    Raises InputError, which names the file and line, or the option, the key, and what would be right.
    """
    path = presets.find(path)
    document = _read_with_extends(path, ())
    values = document.values
    if {"base", "space"} <= values.keys():
        raise InputError(f"{path}: is a sweep, not a configuration; run it by: {command_line('sweep', path)}")
    places = dict(document.places)
    before, named = flatten(values), set()
    for place, key, value in preset:
        _put(values, key, value, place, places)
    for text in overrides:
        key, separator, value = text.partition("=")
        source = f"--set {hide_text(text)}"
        if not separator or not key.strip():
            raise InputError(f"{source}: write it as key=value, such as --set train.lr=0.01")
        _put(values, key.strip(), strict_yaml.read_value(value, source), source, places)
        named.add(key.strip())
    for option, key, value in options:
        _put(values, key, value, option, places)
        named.add(key)
    values.setdefault("name", sanitize_name(path.stem) or "run")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise InputError(explain_errors(error, places, str(path), _suggest)) from None
    return _named_for_changes(config, before) if rename and "name" not in named else config


def _named_for_changes(config: Config, before: Mapping[str, Any]) -> Config:
    """A copy whose name says what was changed: `lr3e-3` in place of `default`, `digits-lr3e-3` in place of `digits`."""
    settings = {**hyperparameters(flat_config(config)), SEED: config.seed}
    defaults = _flat_defaults()
    changes = short_name({key: value for key, value in settings.items() if value != before.get(key, defaults[key])})
    if not changes:
        return config
    name = changes if config.name == "default" else f"{config.name}-{changes}"
    return config.model_copy(update={"name": sanitize_name(name)})


def dump_config(config: Config) -> str:
    """The whole configuration as YAML, from which `load_config` makes an equal one."""
    return strict_yaml.dump(config.model_dump(mode="json"))


def flat_config(config: Config) -> dict[str, Any]:
    """Dotted key → value, in the order of the file: `{"train.lr": 0.001, …}`."""
    return flatten(config.model_dump(mode="json"))


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings of an earlier version, with the keys added since then: what they say by default was done before."""
    return {**_flat_defaults(), **settings}


@functools.cache
def _flat_defaults() -> Mapping[str, Any]:
    return flat_config(Config())


def check_run_name(name: str) -> None:
    """Raise InputError where a run cannot have this name."""
    try:
        Config(name=name)
    except ValidationError:
        raise InputError(f"{name!r}: a name {NAME_RULE}") from None


def with_data_root(folder: str | None) -> list[tuple[str, str, Any]]:
    """The options of `load_config` that take the data from a folder and download nothing; none for None."""
    if folder is None:
        return []
    return [("--data-root", "data.root", folder), ("--data-root", "data.download", False)]


def replace_config(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with other values for some dotted keys, such as those that `auto` stands for."""
    nested = config.model_dump()
    for key, value in values.items():
        _put(nested, key, value, key, {})
    return Config.model_validate(nested)


def settings_over_total(config: Config) -> list[str]:
    """The settings that are laid out over all updates of a training, so that its length cannot change afterwards."""
    if config.schedule.epochs is not None:  # they are laid out over these
        return []
    in_use = {
        "schedule.name": config.schedule.name != "constant",
        "augment.until": config.augment.enabled and config.augment.until < 1,
        "averaging.start": config.averaging.name != "none" and config.averaging.start > 0,
    }
    return [key for key, is_used in in_use.items() if is_used]


def _read_with_extends(path: Path, seen: tuple[Path, ...]) -> Document:
    if path.resolve() in seen:
        raise InputError(f"{path}: extends leads in a circle: {' → '.join(p.name for p in (*seen, path))}")
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
    """Set a dotted key, and note `source` as the place it comes from, for itself and for groups that are new."""
    parts = tuple(key.split("."))
    group: Any = values
    for length in range(1, len(parts)):
        group = group.setdefault(parts[length - 1], {})
        if not isinstance(group, dict):
            place = places.get(parts[:length])
            raise InputError(
                f"{source}: {'.'.join(parts[:length])} is not a group of keys{f' (see {place})' if place else ''}"
            )
        places.setdefault(parts[:length], source)
    group[parts[-1]] = value
    places[parts] = source


def _suggest(key: str) -> str:
    groups = [name for name, field in Config.model_fields.items() if is_group(field.annotation)]
    return did_you_mean(key.replace("learning_rate", "lr"), [*_flat_defaults(), *groups])


_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be text of UTF-8",
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
    ("name",): NAME_RULE,
    ("device",): "must be auto, cpu, cuda or cuda:N",
    ("data", "mirror"): "must be a web address ending in a slash, without user, password or query",
}


def explain_errors(
    error: ValidationError,
    places: Mapping[KeyPath, str],
    default_place: str,
    suggest: Callable[[str], str],
    within: KeyPath = (),
) -> str:
    """One sentence per problem, in terms of the file rather than of the validator.

    within: the group that was validated. suggest: what to say of a key that does not exist.
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
        text = "nothing (null)" if value is None else hide_text(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
