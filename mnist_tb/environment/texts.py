"""What the Text and HParams tabs say of a run: Markdown, and the name of the group of runs that it repeats."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from mnist_tb.config.hyperparameters import Settings, differences, hyperparameters, short_name
from mnist_tb.config.load import flat_config
from mnist_tb.config.names import in_markdown, printable
from mnist_tb.config.schema import Config


def group_name(settings: Settings) -> str:
    """The same for all seeds of a configuration, whose runs are one row of the HParams tab: `lr3e-3 bf16 cpu`."""
    changes = differences(hyperparameters(settings), flat_config(Config()))
    machine = [str(changes.pop(key)) for key in ("precision", "device") if key in changes]
    return " ".join([short_name(changes) or "default", *machine])


def config_text(settings: Settings) -> str:
    """All settings, as a table."""
    return table(("setting", "value"), [(code(key), code(json.dumps(value))) for key, value in settings.items()])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of cells that are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(printable, row)) + " |" for row in lines)


def escape(text: str) -> str:
    """Text from elsewhere as plain text in Markdown."""
    return re.sub(r"([-()+.!])", r"\\\1", in_markdown(text))


def code(text: str) -> str:
    """Text from elsewhere as code in a cell of a table, whatever backticks are in it."""
    plain, space = printable(text), " " * ("`" in text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{space}{plain}{space}{fence}" if plain.strip() else ""
