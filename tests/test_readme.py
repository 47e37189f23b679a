"""The README's commands as a newcomer types them, in their order, each as it stands there, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from helpers.board import free_port
from helpers.paths import REPOSITORY
from helpers.shell import commands_of, empty_shell

pytestmark = pytest.mark.slow

README = (REPOSITORY / "README.md").read_text()
COMMANDS = commands_of(README)
TAKE_DATA = ("live", "train", "resume", "sweep")
SAID = {
    "make train": "The run: runs/0002-default\n",
    'make train CONFIG=best ARGS="--seed 1"': "The run: runs/0003-best-s1\n",
    "make resume": "0003-best-s1: this run is complete; to make it longer: ",
    'make compare ARGS="--group"': "One seed does not tell what another would do",
    "make report": "The report: report.html",
    'make sweep ARGS="--workers 2"': "The best configuration: runs/lr/best.yaml",
    'make predict ARGS="seven.jpg"': "seven.jpg: ",
    "make help": "make torture",
}
"""What each says in the end; `make live` is apart, as it ends by Ctrl-C."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository as links, so that what the commands write is somewhere else; and a digit of one's own."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name not in (".git", "runs", "data", "build", "report.html"):
            (folder / path.name).symlink_to(path)
    picture = Image.new("L", (280, 280), 255)
    ImageDraw.Draw(picture).line([(60, 60), (210, 60), (120, 230)], fill=0, width=24, joint="curve")
    picture.save(folder / "seven.jpg")
    return folder


@pytest.mark.timeout(600)
def test_every_command_in_its_order(checkout: Path, small_mnist: Path) -> None:
    """The data are small and already there: that alone is added."""
    assert ["make live", *SAID] == COMMANDS
    for command in COMMANDS:
        words = shlex.split(command)
        words += [f"DATA={small_mnist}"] if words[1] in TAKE_DATA else []
        if words[1] == "live":
            train_until_ctrl_c([*words, f"PORT={free_port()}"], checkout)
            continue
        done = subprocess.run(words, cwd=checkout, env=empty_shell(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SAID[command] in done.stdout, done.stdout + done.stderr
        assert "Warning" not in done.stderr
    assert (checkout / "report.html").stat().st_size > 100_000


def train_until_ctrl_c(words: list[str], folder: Path) -> None:
    process = subprocess.Popen(
        words, cwd=folder, env=empty_shell(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Press Ctrl-C"):
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) in (0, 2, -signal.SIGINT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        process.stdout.close()
    said = "".join(lines)
    assert "TensorBoard: http://localhost:" in said
    assert "The run: runs/0001-default\n" in said


def test_the_example_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert "...  # your training" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("...  # your training", "0.5, 0.9"), {})
    (run,) = (tmp_path / "runs").iterdir()
    assert '"status": "completed"' in (run / "metrics.json").read_text()
