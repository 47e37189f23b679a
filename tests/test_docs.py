"""The README, the Makefile and the command line say the same."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from helpers.paths import REPOSITORY
from mnist_tb.cli.main import cli
from mnist_tb.config import presets
from mnist_tb.config.load import flat_config, load_config
from mnist_tb.config.schema import Config
from mnist_tb.events import tags
from mnist_tb.model import CNN
from mnist_tb.tracking import charts

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.splitlines()
] + [text for text in re.findall(r"`([^`\n]+)`", README) if text.startswith(("make ", ".venv/bin/mnist-tb "))]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_in_the_readme_exists(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert words[1] in make_targets()
        arguments = next((shlex.split(word[5:]) for word in words if word.startswith("ARGS=")), [])
        command = {"live": "train", "report": "compare"}.get(words[1], words[1])
        if arguments:
            check_options(command, arguments)
        for word in words[2:]:
            if word.startswith(("CONFIG=", "SWEEP=")) and not word.startswith("CONFIG=runs/"):
                assert presets.find(word.partition("=")[2]).is_file()
    elif words[0] == ".venv/bin/torchrun":
        module = words.index("-m")
        assert words[module + 1] == "mnist_tb"
        check_options(words[module + 2], words[module + 3 :])
    else:
        assert words[0] == ".venv/bin/mnist-tb"
        check_options(words[1], words[2:])


def check_options(command: str, arguments: list[str]) -> None:
    found = cli.commands[command]
    if isinstance(found, click.Group):
        found = found.commands[arguments[0]]
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    for i, word in enumerate(arguments):
        if word.startswith("--"):
            assert word in known
        if word == "--set":
            key, _, value = arguments[i + 1].partition("=")
            load_config(REPOSITORY / "configs" / "default.yaml", [f"{key}={value}"])


def test_every_option_of_train_is_in_its_help_and_every_key_in_the_default_file() -> None:
    default = (REPOSITORY / "configs" / "default.yaml").read_text()
    for key in flat_config(Config()):
        assert re.search(rf"^(# |  )?{key.rpartition('.')[2]}: +\S.*# \S", default, re.M), key
    for command in cli.commands.values():
        assert command.help


def test_readme_names_what_there_is() -> None:
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert path.startswith("https://") or (REPOSITORY / path).exists()
    for name in re.findall(r"mnist_tb/\w+\.py", README):
        assert (REPOSITORY / name).is_file()
    for name in re.findall(r"^\| `(\w+\.yaml)` \|", README, re.M):
        assert name == "config.yaml" or (REPOSITORY / "configs" / name).is_file()
    written = {value for key, value in vars(tags).items() if key.isupper() and isinstance(value, str)}
    shown = set(re.findall(r"`((?:loss|accuracy|predictions|results|mistakes|confusion|throughput)/\w+)`", README))
    assert shown <= written
    assert f"{sum(p.numel() for p in CNN().parameters()):,} parameters" in README
    assert f"the same {charts.SAMPLES} test images" in README


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in done.stdout.splitlines()} == make_targets()


def test_ci_calls_the_same_commands_as_people() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert re.findall(r"^make .*", script, re.M) == ["make test", "make lint"]


def test_no_two_tags_are_the_same() -> None:
    written = [value for key, value in vars(tags).items() if key.isupper() and isinstance(value, str)]
    assert len(written) == len(set(written))
