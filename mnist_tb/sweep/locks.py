"""Who works on which trial: locks that end with their process, however that ends, so that none needs a time limit."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from optuna.storages.journal._file import BaseJournalFileLock  # nothing public has its type

from mnist_tb.errors import InputError, TrainingError
from mnist_tb.system import locked

_WHOLE, _FIRST_TRIAL, _NOTHING = 0, 1, -1
"""The numbers of PostgreSQL's locks that stand for the whole sweep, for its first trial, and for nothing."""


class Locks(Protocol):
    """The locks of one sweep, for one process."""

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Wait until no other process has the sweep's trials to itself, and have them."""

    def free(self, trials: Sequence[int]) -> Sequence[int]:
        """Those trials that may be had, at a glance: one that another process has may still be among them."""

    def hold(self, trial: int) -> bool:
        """Take a trial; False where another process has it."""

    def release(self, trial: int) -> None:
        """Give a trial back."""

    def check(self) -> None:
        """Raise TrainingError where what is held may have been lost."""

    def close(self) -> None:
        """Give all back."""


class FileLocks:
    """Locks on the files of a folder, which the system keeps: on one machine, or on a folder shared over NFS."""

    def __init__(self, folder: Path) -> None:
        """folder: made where it is missing. Raises OSError where that cannot be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held: dict[int, contextlib.ExitStack] = {}

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """As in `Locks`."""
        return self._at("sweep")

    def journal(self) -> contextlib.AbstractContextManager[None]:
        """Wait until no other process writes the journal, and have it meanwhile."""
        return self._at("journal")

    def free(self, trials: Sequence[int]) -> Sequence[int]:
        """As in `Locks`: all of them, for to ask for one is no more than a look."""
        return trials

    def hold(self, trial: int) -> bool:
        """As in `Locks`."""
        if trial in self._held:
            return True
        held = contextlib.ExitStack()
        try:
            held.enter_context(self._at(f"trial-{trial:06d}", wait=False))
        except BlockingIOError:
            return False
        self._held[trial] = held
        return True

    def release(self, trial: int) -> None:
        """As in `Locks`."""
        if trial in self._held:
            self._held.pop(trial).close()

    def check(self) -> None:
        """As in `Locks`: the system keeps them as long as the process lives."""

    def close(self) -> None:
        """As in `Locks`."""
        for trial in [*self._held]:
            self.release(trial)

    @contextlib.contextmanager
    def _at(self, name: str, wait: bool = True) -> Iterator[None]:
        path = self._folder / name
        path.touch()
        with locked(path, wait):
            yield


class JournalLock(BaseJournalFileLock):
    """Optuna's lock for writing its journal, as one that ends with its process.

    Whoever takes it cuts off a line that another process was killed in while it wrote it: Optuna would write the next
    line behind it, and could not read the journal any more.
    """

    def __init__(self, journal: Path, locks: FileLocks) -> None:
        self._journal = journal
        self._locks = locks
        self._held = contextlib.ExitStack()

    def acquire(self) -> bool:
        """As Optuna asks for it."""
        self._held.enter_context(self._locks.journal())
        cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        """As Optuna asks for it."""
        self._held.close()


def cut_torn_line(path: Path) -> None:
    """Cut off what comes after a file's last line end. Raises OSError."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        place, tail = end, b""
        while place > 0 and b"\n" not in tail:
            place = max(place - 4096, 0)
            file.seek(place)
            tail = file.read(4096)
        kept = place + tail.rfind(b"\n") + 1
        if kept < end:
            file.truncate(kept)


class PostgresLocks:
    """PostgreSQL's advisory locks, on a connection of their own: they end with the connection, and so with the process.

    A machine that falls silent is missed after a minute and a half.
    https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """

    def __init__(self, url: str, sweep: str) -> None:
        """url: `postgresql://…`. Raises InputError where nothing answers there or the driver is missing."""
        try:
            import psycopg
        except ImportError:
            raise InputError(
                "--storage: PostgreSQL needs the package psycopg: pip install 'mnist-tb[postgres]'"
            ) from None
        self._errors = psycopg.Error
        self._sweep = zlib.crc32(sweep.encode()) - 2**31
        try:
            self._connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
            for setting, value in (("idle", 30), ("interval", 20), ("count", 3)):
                self._connection.execute(f"SET tcp_keepalives_{setting} = {value}")
        except psycopg.Error as error:
            raise InputError(f"--storage: PostgreSQL cannot be reached: {first_line(error)}") from None

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """As in `Locks`. Raises TrainingError where the connection is lost."""
        self._ask("pg_advisory_lock", _WHOLE)
        try:
            yield
        finally:
            self._give_back(_WHOLE)

    def free(self, trials: Sequence[int]) -> Sequence[int]:
        """As in `Locks`, in one question for all of them. Raises TrainingError where the connection is lost."""
        query = (
            "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 2 AND classid::bigint = %s"
        )
        with self._errors_told():
            held = {row[0] - _FIRST_TRIAL for row in self._connection.execute(query, (self._sweep % 2**32,))}
        return [trial for trial in trials if trial not in held]

    def hold(self, trial: int) -> bool:
        """As in `Locks`. Raises TrainingError where the connection is lost."""
        return bool(self._ask("pg_try_advisory_lock", _FIRST_TRIAL + trial))

    def release(self, trial: int) -> None:
        """As in `Locks`."""
        self._give_back(_FIRST_TRIAL + trial)

    def check(self) -> None:
        """As in `Locks`: they are the connection's."""
        self._ask("pg_try_advisory_lock_shared", _NOTHING)

    def _give_back(self, place: int) -> None:
        with contextlib.suppress(TrainingError):  # with the connection, all is given back
            self._ask("pg_advisory_unlock", place)

    def _ask(self, function: str, place: int) -> Any:
        with self._errors_told():
            row = self._connection.execute(f"SELECT {function}(%s, %s)", (self._sweep, place)).fetchone()
        return None if row is None else row[0]

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise TrainingError(f"the connection to PostgreSQL is lost: {first_line(error)}") from None

    def close(self) -> None:
        """As in `Locks`."""
        self._connection.close()


def first_line(error: Exception) -> str:
    """What an error of a database's says, without its explanations."""
    return str(error).strip().partition("\n")[0]
