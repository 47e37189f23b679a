"""Which process works on which trial: locks that end with their process, however it ends, so they need no timeout."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from optuna.storages.journal import JournalFileOpenLock

from mnist_tb.config.redaction import hide_addresses
from mnist_tb.errors import InputError, TrainingError, install_line
from mnist_tb.runs.locks import locked

_STUDY, _FIRST_TRIAL, _PROBE = 0, 1, -1
"""Keys of PostgreSQL's locks: of the whole study, of its trial 0, and of a lock that is only taken to test the
connection."""
_ADDRESS = re.compile(r"postgresql://([^\s/?#@]*@)?[^\s@]*")


class Locks(Protocol):
    """The locks of one sweep, as one process sees them."""

    def study_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the whole study; waits while another process holds it."""

    def unclaimed(self, trials: Sequence[int]) -> Sequence[int]:
        """Those trials that may be unclaimed. A cheap check: `acquire` can still return False for any of them."""

    def acquire(self, trial: int) -> bool:
        """Take the lock of a trial; False if another process holds it."""

    def release(self, trial: int) -> None:
        """Release the lock of a trial."""

    def check(self) -> None:
        """Raise TrainingError if the locks of this process may have been lost."""

    def close(self) -> None:
        """Release all locks."""


class FileLocks:
    """Locks on files in a folder, kept by the operating system: on one machine, or in a folder shared over NFS."""

    def __init__(self, folder: Path) -> None:
        """folder: created if it does not exist. Raises OSError if that fails."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._acquired: dict[int, contextlib.ExitStack] = {}

    def study_lock(self) -> contextlib.AbstractContextManager[None]:
        """As in `Locks`."""
        return self._file_lock("sweep")

    def journal_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock for writing the journal; waits while another process holds it."""
        return self._file_lock("journal")

    def unclaimed(self, trials: Sequence[int]) -> Sequence[int]:
        """As in `Locks`: all of them, since `acquire` costs no more than a check."""
        return trials

    def acquire(self, trial: int) -> bool:
        """As in `Locks`."""
        if trial in self._acquired:
            return True
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(self._file_lock(f"trial-{trial:06d}", wait=False))
        except BlockingIOError:
            return False
        self._acquired[trial] = stack
        return True

    def release(self, trial: int) -> None:
        """As in `Locks`."""
        if trial in self._acquired:
            self._acquired.pop(trial).close()

    def check(self) -> None:
        """As in `Locks`: never raises, since the operating system keeps the locks as long as the process lives."""

    def close(self) -> None:
        """As in `Locks`."""
        for trial in [*self._acquired]:
            self.release(trial)

    @contextlib.contextmanager
    def _file_lock(self, name: str, wait: bool = True) -> Iterator[None]:
        path = self._folder / name
        path.touch()
        with locked(path, wait):
            yield


class JournalLock(JournalFileOpenLock):  # the base only gives it a type that Optuna accepts: all of it is overridden
    """The lock under which Optuna writes its journal. Unlike Optuna's own locks, it ends with its process.

    Acquiring it also cuts off the incomplete line that a process leaves if it is killed while writing: Optuna would
    append to that line, and could no longer read the journal.
    """

    def __init__(self, journal: Path, locks: FileLocks) -> None:
        super().__init__(str(journal), grace_period=None)
        self._journal = journal
        self._locks = locks
        self._acquired = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock; always True. Raises OSError if the journal cannot be repaired."""
        with contextlib.ExitStack() as stack:  # released where the repair fails or is interrupted
            stack.enter_context(self._locks.journal_lock())
            cut_torn_line(self._journal)
            self._acquired = stack.pop_all()
        return True

    def release(self) -> None:
        """Release the lock."""
        self._acquired.close()


def cut_torn_line(path: Path) -> None:
    """Truncate a file after its last newline. Raises OSError."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start, tail = end, b""
        while start > 0 and b"\n" not in tail:
            start = max(start - 4096, 0)
            file.seek(start)
            tail = file.read(4096)
        complete = start + tail.rfind(b"\n") + 1
        if complete < end:
            file.truncate(complete)


class PostgresLocks:
    """PostgreSQL's advisory locks on a dedicated connection: they end with the connection, and so with the process.

    If a machine stops responding, the server closes its connection after about 90 seconds.
    https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """

    def __init__(self, url: str, sweep: str) -> None:
        """url: `postgresql://…`. Raises InputError if the server cannot be reached or the driver is missing."""
        try:
            import psycopg
        except ImportError:
            raise InputError(f"--storage: PostgreSQL needs the package psycopg: {install_line('postgres')}") from None
        self._errors = psycopg.Error
        self._sweep = zlib.crc32(sweep.encode()) - 2**31
        try:
            if not _ADDRESS.fullmatch(url):
                raise psycopg.ProgrammingError
            self._connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
            for setting, value in (("idle", 30), ("interval", 20), ("count", 3)):
                self._connection.execute(f"SET tcp_keepalives_{setting} = {value}")
        except psycopg.ProgrammingError:  # the driver would repeat a part of the password
            raise InputError(
                "--storage: write postgresql://user:password@host/database, with %40 for @ in a password, %2F for /, …"
            ) from None
        except psycopg.Error as error:
            raise InputError(f"--storage: PostgreSQL cannot be reached: {first_line(error)}") from None

    @contextlib.contextmanager
    def study_lock(self) -> Iterator[None]:
        """As in `Locks`. Raises TrainingError if the connection is lost."""
        self._call("pg_advisory_lock", _STUDY)
        try:
            yield
        finally:
            self._unlock(_STUDY)

    def unclaimed(self, trials: Sequence[int]) -> Sequence[int]:
        """As in `Locks`, in one query for all trials. Raises TrainingError if the connection is lost."""
        query = (
            "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 2 AND classid::bigint = %s"
        )
        with self._connection_errors():
            claimed = {row[0] - _FIRST_TRIAL for row in self._connection.execute(query, (self._sweep % 2**32,))}
        return [trial for trial in trials if trial not in claimed]

    def acquire(self, trial: int) -> bool:
        """As in `Locks`. Raises TrainingError if the connection is lost."""
        return bool(self._call("pg_try_advisory_lock", _FIRST_TRIAL + trial))

    def release(self, trial: int) -> None:
        """As in `Locks`."""
        self._unlock(_FIRST_TRIAL + trial)

    def check(self) -> None:
        """As in `Locks`: the locks are lost if the connection is."""
        self._call("pg_try_advisory_lock_shared", _PROBE)

    def _unlock(self, key: int) -> None:
        with contextlib.suppress(TrainingError):  # a lost connection has released all its locks
            self._call("pg_advisory_unlock", key)

    def _call(self, function: str, key: int) -> Any:
        with self._connection_errors():
            row = self._connection.execute(f"SELECT {function}(%s, %s)", (self._sweep, key)).fetchone()
        return None if row is None else row[0]

    @contextlib.contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Raise the driver's errors as TrainingError."""
        try:
            yield
        except self._errors as error:
            raise TrainingError(f"the connection to PostgreSQL is lost: {first_line(error)}") from None

    def close(self) -> None:
        """As in `Locks`."""
        self._connection.close()


def first_line(error: Exception) -> str:
    """The first line of a database error's message; the others only explain it."""
    return hide_addresses(str(error).strip().partition("\n")[0])
