"""Where a sweep's trials are stored: in Optuna's journal file or in PostgreSQL, each with its own kind of locks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from mnist_tb.config.redaction import hide_address, hide_text
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.sweep.locks import FileLocks, JournalLock, Locks, PostgresLocks, first_line

JOURNAL = "journal.log"


def open_storage(sweep: str, folder: Path, storage: str | None) -> tuple[Locks, BaseStorage]:
    """Open the storage of a sweep, creating it if it does not exist.

    folder: of the sweep. storage: `postgresql://…`, the path of a journal file, or None for the journal in the folder.
    Raises InputError if it cannot be opened.
    """
    if storage == "":
        raise InputError("--storage: give postgresql://… or the path of a journal file")
    if storage is None or "://" not in storage:
        return _open_journal(folder / JOURNAL if storage is None else Path(storage))
    scheme, _, place = storage.partition("://")
    if scheme in ("postgresql", "postgres"):
        return _open_postgres(f"postgresql://{place}", sweep)
    raise InputError(f"--storage {hide_address(storage)}: give postgresql://… or the path of a journal file")


def close_storage(storage: BaseStorage) -> None:
    """Close its connections, if it has any."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raise the errors of a storage as TrainingError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OptunaError, *_database_errors())):
            raise
        raise TrainingError(f"the sweep's storage failed: {first_line(error)}") from None


def _database_errors() -> tuple[type[Exception], ...]:
    """SQLAlchemy's, once Optuna has imported it: that takes half a second, and a journal needs none of it."""
    database = sys.modules.get("sqlalchemy.exc")
    return () if database is None else (database.SQLAlchemyError,)


def _open_postgres(url: str, sweep: str) -> tuple[Locks, BaseStorage]:
    locks = PostgresLocks(url, sweep)
    try:
        with locks.study_lock():  # two processes that create the tables at the same time would fail
            driver_url = url.replace("postgresql://", "postgresql+psycopg://", 1)
            keepalive = {"keepalives_idle": 30, "keepalives_interval": 20, "keepalives_count": 3}
            # Pre-ping replaces a connection that was closed during a long training.
            return locks, RDBStorage(driver_url, engine_kwargs={"pool_pre_ping": True, "connect_args": keepalive})
    except BaseException:
        locks.close()
        raise


def _open_journal(path: Path) -> tuple[Locks, BaseStorage]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            locks = FileLocks(path.with_name(f".{path.name}.locks.d"))
    except OSError as error:
        raise InputError(f"{hide_text(str(path))}: the sweep's journal cannot be written: {error.strerror}") from None
    try:
        lock = JournalLock(path, locks)
        lock.acquire()  # repairs the journal before it is read
        lock.release()
        return locks, JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:
        locks.close()
        raise InputError(f"{hide_text(str(path))}: is not the journal of a sweep: {error}") from None
