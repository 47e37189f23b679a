"""The README, the Makefile and the command line say the same."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import subprocess

import click
import pytest
import yaml

import mnist_tb
from helpers.paths import REPOSITORY
from helpers.shell import commands_of, empty_shell
from mnist_tb.cli.main import cli
from mnist_tb.config import presets
from mnist_tb.config.load import flat_config, load_config
from mnist_tb.config.schema import Config
from mnist_tb.events import tags
from mnist_tb.model import CNN
from mnist_tb.tracking import charts

README = (REPOSITORY / "README.md").read_text()
GENERATED = "commands.md"
PAGES = README + "".join(path.read_text() for path in (REPOSITORY / "docs").glob("*.md") if path.name != GENERATED)
COMMANDS = [command for command in commands_of(PAGES) if not command.startswith(("sbatch ", "kubectl "))] + [
    text for text in re.findall(r"`([^`\n]+)`", PAGES) if text.startswith(("make ", ".venv/bin/mnist-tb ", "mnist-tb "))
]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=empty_shell(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (
            "train SEED=3",
            2,
            "make train takes CONFIG LOGDIR DATA ARGS, and not SEED; options of the command are",
        ),
        ("train lr=0.1", 2, "make train takes CONFIG LOGDIR DATA ARGS, and not lr"),
        ("sweep CONFIG=fast", 2, "make sweep takes SWEEP LOGDIR DATA ARGS, and not CONFIG"),
        ("resume RUN=7 PORT=1 DATA=x", 2, "make resume takes RUN LOGDIR DATA ARGS, and not PORT"),
        ("predict RUN=7", 2, 'Which pictures? make predict RUN=7 ARGS="one.png two.jpg"'),
        ('train LOGDIR="my runs" DATA="my data"', 0, '--logdir "my runs" --data-root "my data"'),
        ('report REPORT="a b.html" LOGDIR=x', 0, 'compare --logdir "x" --report "a b.html"'),
        ("train CXX=clang++", 0, 'train --config "default" --logdir "runs" '),
    ],
)
def test_make_says_what_it_does_not_take(command: str, code: int, said: str) -> None:
    done = make("--dry-run", *shlex.split(command))
    assert done.returncode == code
    assert said in done.stderr + done.stdout


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_on_the_pages_exists(command: str) -> None:
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
        assert words[0] in (".venv/bin/mnist-tb", "mnist-tb")
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


def test_what_is_public_is_on_the_page_about_python_and_says_what_it_does() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text()
    names = re.findall(r"^::: (mnist_tb\.\S+)$", page, re.M)
    assert {f"mnist_tb.{name}" for name in mnist_tb.__all__} <= set(names)
    for name in names:
        parent, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(parent), last)
        assert found.__doc__, name
        members = vars(found) if inspect.isclass(found) else ()
        silent = [key for key in members if key[0] != "_" and not inspect.getdoc(getattr(found, key))]
        assert not silent, (name, silent)


def test_examples_for_many_machines_can_be_read() -> None:
    """By the shell and by YAML; and their commands exist."""
    slurm = REPOSITORY / "examples" / "sweep.slurm"
    subprocess.run(["bash", "-n", str(slurm)], check=True)
    options = re.search(r"mnist-tb sweep (.*)", slurm.read_text())
    assert options is not None
    check_options("sweep", shlex.split(options[1]))
    job = yaml.safe_load((REPOSITORY / "examples" / "sweep.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["mnist-tb", "sweep"]
    check_options("sweep", container["command"][2:])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_readme_names_what_there_is() -> None:
    assert len(README.splitlines()) <= 130
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
    done = make("--no-print-directory", "help")
    assert {line.split()[1] for line in done.stdout.splitlines()} == make_targets()


def test_ci_calls_the_same_commands_as_people() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    called = [line.partition("  #")[0] for line in re.findall(r"^make .*", script, re.M)]
    tests = re.findall(r"make\) --no-print-directory (test.*) \$\(ARGS\)", (REPOSITORY / "Makefile").read_text(), re.I)
    assert called == [*(f'make {command}"' for command in tests), "make lint", "make docs"]


def test_the_version_is_the_same_everywhere() -> None:
    version, root = mnist_tb.__version__, REPOSITORY
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == version
    released = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.M)
    assert released[0] in (version, "Unreleased")
    assert version in released
    assert f"Version {version}" in (root / "docs" / "stability.md").read_text()


def test_no_two_tags_are_the_same() -> None:
    written = [value for key, value in vars(tags).items() if key.isupper() and isinstance(value, str)]
    assert len(written) == len(set(written))
