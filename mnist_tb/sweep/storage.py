"""Where a sweep's trials are kept: Optuna's journal in a file, or PostgreSQL; each with the locks that go with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from mnist_tb.errors import InputError, TrainingError
from mnist_tb.sweep.locks import FileLocks, JournalLock, Locks, PostgresLocks, first_line

JOURNAL = "journal.log"


def open_storage(sweep: str, folder: Path, storage: str | None) -> tuple[Locks, BaseStorage]:
    """storage: `postgresql://…`, the file of a journal, or None for the one in the sweep's folder.

    Raises InputError where it cannot be had.
    """
    if storage == "":
        raise InputError("--storage: give postgresql://… or the file of a journal")
    if storage is None or "://" not in storage:
        return _journal(folder / JOURNAL if storage is None else Path(storage))
    if storage.startswith("postgresql://"):
        return _postgres(storage, sweep)
    raise InputError(f"--storage {storage}: give postgresql://… or the file of a journal")


def close_storage(storage: BaseStorage) -> None:
    """Let go of its connections, where it has any."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """What goes wrong with the storage, within, as TrainingError."""
    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        raise TrainingError(f"the sweep's storage failed: {first_line(error)}") from None


def _postgres(url: str, name: str) -> tuple[Locks, BaseStorage]:
    locks = PostgresLocks(url, name)
    try:
        with locks.whole():  # two that make its tables at once would trip over each other
            kept = url.replace("postgresql://", "postgresql+psycopg://", 1)
            alive = {"keepalives_idle": 30, "keepalives_interval": 20, "keepalives_count": 3}
            # A connection that was cut while a training was long is made anew.
            return locks, RDBStorage(kept, engine_kwargs={"pool_pre_ping": True, "connect_args": alive})
    except BaseException:
        locks.close()
        raise


def _journal(path: Path) -> tuple[Locks, BaseStorage]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            locks = FileLocks(path.with_name(f".{path.name}.locks.d"))
    except OSError as error:
        raise InputError(f"{path}: the sweep's journal cannot be written: {error.strerror}") from None
    try:
        lock = JournalLock(path, locks)
        lock.acquire()
        lock.release()
        return locks, JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:
        locks.close()
        raise InputError(f"{path}: is no journal of a sweep: {error}") from None
