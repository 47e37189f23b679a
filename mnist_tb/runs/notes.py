"""What people say of a run: its tags and a note, in its notes.json. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mnist_tb.errors import InputError
from mnist_tb.events.tags import LIVE_NOTES, NOTES_TEXT
from mnist_tb.runs.files import read_json, write_atomically
from mnist_tb.runs.folder import Run
from mnist_tb.runs.locks import locked

if TYPE_CHECKING:
    from mnist_tb.events.writer import EventWriter

_TAG = re.compile(r"\w[\w.-]{0,63}")
_LONGEST_NOTE = 10_000


@dataclass(frozen=True)
class Notes:
    """tags: in the order in which they were given, each once. note: text, of several lines perhaps;
    the Text tab reads it as Markdown.
    """

    tags: tuple[str, ...] = ()
    note: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def read_notes(run: Run) -> Notes:
    """A run's notes; none where it has no notes.json. Raises InputError where that is broken."""
    path = run.home / "notes.json"
    known = read_json(path) or {}
    tags, note = known.get("tags", []), known.get("note", "")
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and isinstance(note, str)):
        raise InputError(f"{path}: cannot be read: it holds no tags and no note")
    return Notes(tuple(dict.fromkeys(tags)), note)


def make_notes(tags: Iterable[str], note: str) -> Notes:
    """Raises InputError where a tag or the note cannot be one."""
    tags = tuple(dict.fromkeys(tags))
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise InputError(f"{tag!r}: a tag is up to 64 letters, digits, '_', '-' and '.', the first no '-' or '.'")
    return Notes(tags, _printable(note))


def write_notes(writer: EventWriter, step: int, notes: Notes) -> None:
    """A run's tags and its note, Markdown, for the Live tab and the Text tab."""
    writer.live_data(step, LIVE_NOTES, notes.to_json().encode(errors="backslashreplace"))
    lines = [" ".join(f"`{tag}`" for tag in notes.tags), *notes.note.splitlines()]
    writer.texts(step, {NOTES_TEXT: "\n\n".join(line for line in lines if line) or "no notes"})


def edit_notes(run: Run, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None) -> Notes:
    """Add and remove tags, and replace the note unless it is None; also while another process does the same.

    Returns the notes as they are then. Raises InputError where a tag or the note cannot be one, and OSError.
    """
    given, gone = make_notes(add, note or ""), set(remove)
    with locked(run.home):
        known = read_notes(run)
        tags = tuple(tag for tag in dict.fromkeys([*known.tags, *given.tags]) if tag not in gone)
        notes = Notes(tags, known.note if note is None else given.note)
        if notes != known:
            write_atomically(run.home / "notes.json", notes.to_json().encode() + b"\n")
    return notes


def _printable(note: str) -> str:
    """Without what would be a command to a terminal. Raises InputError where it is too long."""
    text = "".join(c for c in note.strip() if c.isprintable() or c in "\n\t")
    if len(text) > _LONGEST_NOTE:
        raise InputError(f"a note has up to {_LONGEST_NOTE:,} characters, and this one {len(text):,}")
    return text
