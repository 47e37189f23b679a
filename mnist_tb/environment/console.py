"""What a training prints, in its console.log, as a terminal shows it in the end: a progress bar is its last state."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mnist_tb.events.records import open_regular, own_folder

NAME = "console.log"
LIMIT = 2**20
"""Bytes of a console.log. Beyond, its first and its last quarter stay."""
_PENDING = 2**22
"""Characters that may wait to be written."""
_HEIGHT = 60
"""How many lines can still be printed over."""
_WIDTH = 4_000
_TOKEN = re.compile(
    r"\x1b\[(?P<numbers>[0-?]*)[ -/]*(?P<final>[@-~])"  # moves the cursor, erases, colours
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles, links
    r"|\x1b[^\[\]]"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])"
)
_UNFINISHED = re.compile(r"\x1b(\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?")
_LONGEST_SEQUENCE = 200
_listeners: list[ConsoleLog] = []
_changing = threading.Lock()


class ConsoleLog:
    """Keeps what goes through sys.stdout and sys.stderr, from its making until it is closed; of several, the newest.

    Python's own output only: what a library in C prints past Python is not in it. Printing costs one more append; the
    file is written by whoever calls `flush`. A disk that is full ends the log, and nothing else.
    """

    def __init__(self) -> None:
        self._pending: deque[str] = deque()
        self._size = 0
        self._pid = os.getpid()
        self._screen = Screen()
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._end = 0
        self._writing = threading.RLock()
        with _changing:
            _listeners.append(self)
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, _Tee):
                    setattr(sys, name, _Tee(stream))

    def attach(self, folder: Path) -> None:
        """Write to console.log in this folder from now on, after what may be there from an earlier process."""
        with self._writing:
            self._path = own_folder(folder) / NAME

    def add(self, text: object) -> None:
        """What has been printed, by whatever thread. A forked process keeps nothing."""
        if not isinstance(text, str):  # there are streams that take bytes
            return
        self._pending.append(text)
        self._size += len(text)
        if self._size > _PENDING:
            if os.getpid() == self._pid:
                self.flush()
            else:
                self._pending.clear()
                self._size = 0

    def flush(self) -> None:
        """Write what has been printed since the last time."""
        if not self._writing.acquire(timeout=0.5):  # a signal has interrupted who has it
            return
        try:
            parts = []
            while self._pending:
                parts.append(self._pending.popleft())
            self._size = 0
            lines = self._screen.feed("".join(parts))
            if parts and self._path is not None:
                try:
                    self._write(lines)
                except OSError:
                    self._path = None
        finally:
            self._writing.release()

    def close(self) -> None:
        """Write the rest; what is printed from now on is not kept."""
        with _changing:
            if self in _listeners:
                _listeners.remove(self)
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if not _listeners and isinstance(stream, _Tee):
                    setattr(sys, name, stream.stream)
        self.flush()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, lines: str) -> None:
        """The lines that cannot change any more, and after them those that can."""
        if self._file is None:
            assert self._path is not None
            self._file = open(self._path, "r+b" if self._path.is_file() else "x+b")
            self._end = self._file.seek(0, os.SEEK_END)
            if self._end:
                lines = f"\n──── resumed {time.strftime('%Y-%m-%d %H:%M:%S')} ────\n{lines}"
        self._file.seek(self._end)
        self._end += self._file.write(lines.encode(errors="replace"))
        if self._end > LIMIT:
            self._cut()
        self._file.write(self._screen.text().encode(errors="replace"))
        self._file.truncate()
        self._file.flush()

    def _cut(self) -> None:
        """Leave out the middle of what is written."""
        assert self._file is not None
        self._file.seek(0)
        first = self._file.read(LIMIT // 4).rpartition(b"\n")[0]
        self._file.seek(self._end - LIMIT // 4)
        last = self._file.read(LIMIT // 4).partition(b"\n")[2]
        left_out = "\n… some of what was printed is left out here …\n".encode()
        self._file.seek(0)
        self._end = self._file.write(first + left_out + last)


class _Tee:
    """A stream that also tells the listeners; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> Any:
        for listener in _listeners[-1:]:
            listener.add(text)
        return self.stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Screen:
    """The end of what was printed, where a cursor can still move; what has left it at the top cannot change."""

    def __init__(self) -> None:
        self._lines = [""]
        self._row = self._column = 0
        self._rest = ""

    def feed(self, text: str) -> str:
        """Print on it; returns the lines that have left it."""
        text, at, left = self._rest + text, 0, []
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                if len(text) - at < _LONGEST_SEQUENCE and _UNFINISHED.fullmatch(text, at):
                    break
                at += 1
                continue
            at = match.end()
            if match["text"]:
                self._print(match["text"])
            elif match["control"]:
                self._control(match["control"])
            elif match["final"]:
                self._move(match["final"], match["numbers"])
            if len(self._lines) > _HEIGHT:
                left.append(self._lines.pop(0))
                self._row = max(self._row - 1, 0)
        self._rest = text[at:]  # the beginning of an escape sequence, whose end is still to come
        return "".join(f"{line.rstrip()}\n" for line in left)

    def text(self) -> str:
        """What is on it."""
        return "\n".join(line.rstrip() for line in self._lines)

    def _print(self, text: str) -> None:
        line = self._lines[self._row][: self._column].ljust(self._column)
        line += text + self._lines[self._row][self._column + len(text) :]
        self._lines[self._row] = line[:_WIDTH]
        self._column = min(self._column + len(text), _WIDTH)

    def _control(self, code: str) -> None:
        if code == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")
        elif code == "\r":
            self._column = 0
        elif code == "\b":
            self._column = max(self._column - 1, 0)
        elif code == "\t":
            self._print(" " * (8 - self._column % 8))

    def _move(self, final: str, numbers: str) -> None:
        count = int(numbers) if numbers.isdecimal() and len(numbers) < 5 else 0
        line, column = self._lines[self._row], self._column
        if final == "A":
            self._row = max(self._row - (count or 1), 0)
        elif final == "B":
            self._row = min(self._row + (count or 1), len(self._lines) - 1)
        elif final == "C":
            self._column = min(column + (count or 1), _WIDTH)
        elif final == "D":
            self._column = max(column - (count or 1), 0)
        elif final == "G":
            self._column = min(max(count - 1, 0), _WIDTH)
        elif final == "K":
            self._lines[self._row] = {0: line[:column], 1: " " * column + line[column:]}.get(count, "")
        elif final == "J" and count == 0:
            self._lines[self._row] = line[:column]
            del self._lines[self._row + 1 :]


def read_console(folder: Path, most: int = LIMIT * 2) -> str | None:
    """What a run printed, at most its last `most` bytes, without control characters; None where nothing is kept."""
    try:
        with open_regular(own_folder(folder) / NAME) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - most, 0))
            text = file.read(most).decode(errors="replace")
    except OSError:
        return None
    if size > most:
        text = text.partition("\n")[2] or text
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)
