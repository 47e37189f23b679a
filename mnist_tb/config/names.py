"""What a user or another program has named, printed: a name is data, and commands no terminal."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, halves of a pair, separators of lines and of paragraphs."""
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""What turns the direction of all that follows."""


def printable(text: str, keep: str = "") -> str:
    r"""A text as one line, in which such characters are escaped as in Python: `\n`, `\x1b`, `\udce9`.

    keep: characters that stay as they are.
    """
    return text if text.isascii() and text.isprintable() else "".join(c if c in keep else _shown(c) for c in text)


def encodable(text: str) -> str:
    r"""A text that UTF-8 has: what of a name is in no encoding is escaped, `caf\udce9`. JSON takes it for the same."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def in_markdown(text: str) -> str:
    """A text within a line or a cell of Markdown, as plain text: of GitHub's, and of TensorBoard's."""
    entities = re.sub(r"[<>&~$]", lambda found: f"&#{ord(found[0])};", printable(text))
    return re.sub(r"([\\`*_{}\[\]|]|(?<!&)#)", r"\\\1", entities)


def csv_line(values: Iterable[Any]) -> str:
    """A line of CSV, in which every kind of line end within a value is quoted; it ends with a newline."""
    line: str = csv.writer(_Echo()).writerow(values)  # it quotes the characters of its own line end, which are both
    return line.removesuffix("\r\n") + "\n"


class _Echo:
    def write(self, line: str) -> str:
        return line


def _shown(c: str) -> str:
    is_odd = unicodedata.category(c) in _CONTROL or unicodedata.bidirectional(c) in _TURNING
    return c.encode("unicode_escape").decode() if is_odd else c
