"""Commands as people type them: those of a page, and the shell that they begin with."""

from __future__ import annotations

import os
import re


def commands_of(text: str) -> list[str]:
    """The lines of the console blocks of a Markdown text, without their comments."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


def empty_shell() -> dict[str, str]:
    """The variables of a new shell: not those of the `make test` that may have started this."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
