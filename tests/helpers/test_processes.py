"""The suite's own promise: what a test leaves is ended, and that test fails, by name, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import REPOSITORY

GUILTY = """
import subprocess, sys
import pytest

FOREVER = "import os, time; os.setsid(); print('there', flush=True); time.sleep(600)"


def start():
    process = subprocess.Popen([sys.executable, "-c", FOREVER, {mark!r}], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"there\\n"
    return process


def test_leaves_a_process():
    start()


def test_leaves_the_child_of_a_child():
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {{FOREVER!r}}, {mark!r}])"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_fails_and_leaves_a_process():
    start()
    pytest.fail("for a reason of its own")


def test_cleans_up():
    process = start()
    process.kill()


def test_starts_nothing():
    pass
"""


@pytest.mark.slow
def test_a_test_that_leaves_something_fails_by_name(tmp_path: Path) -> None:
    mark = f"left-by-{os.getpid()}-{tmp_path.name}"
    guilty = tmp_path / "test_guilty.py"
    guilty.write_text(GUILTY.format(mark=mark), encoding="utf-8")
    options = ["-c", str(REPOSITORY / "setup.cfg"), "-p", "conftest", "-rA", "--basetemp", str(tmp_path / "inner")]
    command = [sys.executable, "-m", "pytest", *options, str(guilty)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests"), "MNIST_TB_TEST_GRACE": "1"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=REPOSITORY, env=environment)
    outcomes = {}
    for line in done.stdout.splitlines():
        if line.startswith(("PASSED ", "FAILED ", "ERROR ")):
            word, _, rest = line.partition(" ")
            outcomes.setdefault(rest.partition("::")[2].partition(" ")[0], []).append(word)
    assert outcomes == {
        "test_leaves_a_process": ["PASSED", "ERROR"],
        "test_leaves_the_child_of_a_child": ["PASSED", "ERROR"],
        "test_fails_and_leaves_a_process": ["FAILED"],
        "test_cleans_up": ["PASSED"],
        "test_starts_nothing": ["PASSED"],
    }, done.stdout + done.stderr
    assert "the test left these processes, which are ended now" in done.stdout
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [words for words in commands if mark.encode() in words]
