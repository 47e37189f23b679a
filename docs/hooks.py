"""What `make docs` makes from the program itself: the start page, the configuration, the commands, the figures."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mnist_tb.cli.main import cli
from mnist_tb.config.schema import Config

ROOT = Path(__file__).parent.parent
_ELSEWHERE = {
    "benchmarks/RESULTS.md": "figures.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changes.md",
}
"""Pages of the site that are files elsewhere in the repository."""
_SIGNS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {
        "index.md": _linked((ROOT / "README.md").read_text()),
        "contributing.md": _linked((ROOT / "CONTRIBUTING.md").read_text()),
        "security.md": (ROOT / "SECURITY.md").read_text(),
        "changes.md": _linked((ROOT / "CHANGELOG.md").read_text()),
        "figures.md": (ROOT / "benchmarks" / "RESULTS.md").read_text().replace("# Results", "# All figures", 1),
        "configuration.md": _filled("configuration.md", {"KEYS": "\n".join(_keys(Config))}),
        "commands.md": _filled("commands.md", {"COMMANDS": "\n".join(_commands(cli, "mnist-tb"))}),
    }
    for name, text in made.items():
        if found := files.get_file_from_path(name):
            files.remove(found)
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Links to the figures lead to their page; those that work in the repository alone are refused."""
    markdown = markdown.replace("](../benchmarks/RESULTS.md", "](figures.md")
    if outside := re.findall(r"\]\((\.\./[^)]*)\)", markdown):
        raise PluginError(f"{page.file.src_path}: links to {', '.join(outside)}, which the site does not have")
    return markdown


def _linked(text: str) -> str:
    """A file of the repository's root, with the site's links; one to a file that the site does not have is its name."""
    text = re.sub(r"\[([^\]]*)\]\(CITATION\.cff\)", r"`\1`", text)
    for file, page in _ELSEWHERE.items():
        text = text.replace(f"]({file}", f"]({page}")
    return text.replace("](docs/", "](")


def _filled(name: str, values: dict[str, str]) -> str:
    text = (ROOT / "docs" / name).read_text()
    for key, value in values.items():
        place = f"<!-- {key} -->"
        if place not in text:
            raise PluginError(f"docs/{name}: there is no {place}")
        text = text.replace(place, value)
    return text


# ---- The configuration, from its schema and the comments of default.yaml


def _keys(model: type[BaseModel]) -> Iterator[str]:
    meanings = _meanings((ROOT / "configs" / "default.yaml").read_text())
    groups: dict[str, list[tuple[str, FieldInfo]]] = {"": []}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            groups[name] = [(f"{name}.{key}", inner) for key, inner in field.annotation.model_fields.items()]
        else:
            groups[""].append((name, field))
    for group, fields in groups.items():
        yield f"\n## {group or 'The run'}\n"
        about = model.model_fields[group].annotation.__doc__ if group else None
        if about:
            yield re.split(r"(?<=[.])\s", about.strip())[0] + "\n"
        yield "| key | values | default | meaning |\n| --- | --- | --- | --- |"
        for key, field in fields:
            if key not in meanings:
                raise PluginError(f"configs/default.yaml: {key} has no comment")
            default = field.get_default(call_default_factory=True)
            yield f"| `{key}` | {_values(field)} | `{_yaml(default)}` | {_cell(meanings[key])} |"


def _meanings(text: str) -> dict[str, str]:
    """The comment behind each key of a YAML file of two levels."""
    found, group = {}, ""
    for line in text.splitlines():
        if match := re.fullmatch(r"(?:# )?(  )?(\w+):(.*?)(?:\s# (.*))?", line):
            inner, key, value, comment = match.groups()
            if not inner and not value.strip():
                group = key
            full = f"{group}.{key}" if inner else key
            if comment:
                found[full] = comment
    return found


def _values(field: FieldInfo) -> str:
    said = [_type(field.annotation)]
    for bound in field.metadata:
        said += _bound(bound)
    return " ".join(dict.fromkeys(said))


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in arguments)
    if origin is tuple:
        return f"a list of {len(arguments)}: {_type(arguments[0])}"
    if hasattr(annotation, "__metadata__"):
        bounds = [text for bound in annotation.__metadata__ for text in _bound(bound)]
        return " ".join([_type(annotation.__origin__), *bounds])
    names = {int: "a whole number", float: "a number", bool: "`true`, `false`", str: "a text", type(None): "`null`"}
    return names[annotation]


def _bound(bound: Any) -> list[str]:
    """A bound of a field in words; of one that pydantic bundles, each."""
    if isinstance(bound, FieldInfo):
        return [text for inner in bound.metadata for text in _bound(inner)]
    for kind, attribute, sign in _SIGNS:
        if isinstance(bound, kind):
            value = getattr(bound, attribute)
            return [f"{sign} {'2^63' if value == 2**63 else f'{value:,}'}"]
    return []


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, (bool, type(None))):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- The commands, from Click


def _commands(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from _commands(found, f"{name} {inner}")
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n## {name.removeprefix('mnist-tb ')}\n\n```console\n{name} {usage}\n```\n"
    yield re.sub(r"\s+", " ", command.help or "").strip() + "\n"
    rows = [parameter.get_help_record(context) for parameter in command.params]
    said = [(option, text) for option, text in filter(None, rows) if option != "--help"]
    if said:
        yield "| option | |\n| --- | --- |"
        for option, text in said:
            yield f"| `{option.replace(chr(124), chr(47))}` | {_cell(' '.join(text.split()))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
