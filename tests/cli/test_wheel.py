"""What people install: the sdist and the wheel hold all that the program needs, from whatever folder it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from helpers.board import read_address
from helpers.paths import REPOSITORY
from helpers.ports import free_port

pytestmark = pytest.mark.slow

CONFIGS = sorted(path.relative_to(REPOSITORY / "configs") for path in (REPOSITORY / "configs").rglob("*.yaml"))


def quietly(*command: str | Path, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder, copy = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("copy")
    for name in ("mnist_tb", "configs"):  # building leaves files in the folder that it builds
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    quietly(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy, cwd=folder)
    return folder


def test_an_index_would_take_them_and_show_the_readme(built: Path) -> None:
    quietly(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and nothing else of its own; torch and the rest are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    quietly(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    quietly(*pip, "install", "--quiet", "--no-deps", "--no-index", *built.glob("*.whl"), cwd=home)
    packages = quietly(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    Path(packages, "outer.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def test_the_archives_hold_what_is_needed(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for config in CONFIGS:
            assert archive.read(f"mnist_tb/configs/{config}") == (REPOSITORY / "configs" / config).read_bytes()
    files = [path for path in (REPOSITORY / "mnist_tb").rglob("*") if path.is_file()]
    package = [path for path in files if "__pycache__" not in path.parts and path.suffix != ".ts"]
    assert {str(path.relative_to(REPOSITORY)) for path in package} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "configs/"))]
    assert not [name for name in names if name.endswith(".ts")], "types are for those who change the page"
    with tarfile.open(source) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "setup.cfg", *(f"configs/{config}" for config in CONFIGS)} <= inside


def test_it_works_from_an_empty_folder(environment: Path, tmp_path: Path, small_mnist: Path) -> None:
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    where = quietly(environment / "python", "-c", "import mnist_tb; print(mnist_tb.__file__)", cwd=empty).strip()
    assert Path(where).is_relative_to(environment.parent)

    def command(*arguments: str | Path) -> str:
        return quietly(environment / "mnist-tb", *arguments, cwd=empty)

    listed = [line.split()[0] for line in command("configs").splitlines()]
    assert sorted(listed) == sorted(config.with_suffix("").as_posix() for config in CONFIGS)
    out = command("train", "--data-root", small_mnist, "--epochs", "1")
    assert "The run: runs/0001-ep1\n" in out
    assert "make " not in out.rpartition("See it:")[2], "there is no Makefile here"
    command("configs", "one_cycle", "--output", "mine.yaml")
    assert "The run: runs/0002-mine-ep1\n" in command(
        "train", "--config", "mine.yaml", "--data-root", small_mnist, "--epochs", "1"
    )
    assert "0002-mine-ep1" in command("compare")
    assert command("predict", "1", "runs/0001-ep1/results.png").startswith("runs/0001-ep1/results.png: ")
    board = subprocess.Popen(
        [environment / "mnist-tb", "board", "--no-browser", "--port", str(free_port())],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=empty,
    )  # fmt: skip
    address = read_address(board)
    with urllib.request.urlopen(f"{address}data/plugins_listing", timeout=30) as answer:
        assert answer.read().startswith(b'{"live":')
    board.terminate()
    board.communicate(timeout=30)
