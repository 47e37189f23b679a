"""A child that ends with its parent, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys

from helpers.processes import wait_until_gone
from mnist_tb.engine.process import end_child, reap_child, start_child


def test_a_child_ends_with_its_parent_however_that_ends() -> None:
    child = "from mnist_tb.engine.process import *; when_parent_ends(terminate_self); import time; time.sleep(600)"
    parent = (
        "import sys, time; from mnist_tb.engine.process import start_child\n"
        f"print(start_child([sys.executable, '-c', {child!r}]).pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait(30)
    wait_until_gone([pid])


def test_a_child_is_given_one_sign_to_end() -> None:
    """A second one, by the end of its input, would come late on a busy machine, and end it before it has saved."""
    process = start_child([sys.executable, "-c", "import time; time.sleep(600)"])
    assert process.stdin is not None
    end_child(process)
    assert not process.stdin.closed
    reap_child(process)
    assert process.stdin.closed
    assert process.returncode == -signal.SIGTERM
