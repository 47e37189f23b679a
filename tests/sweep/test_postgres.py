"""A sweep on a real PostgreSQL server, from Debian's package: several machines, killed workers, a lost connection."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from helpers import postgres
from helpers.fixtures import Here, missing
from helpers.sweeps import TINY, accounted_for, command, workers, write_file
from helpers.zygote import Zygote
from mnist_tb.errors import TrainingError
from mnist_tb.runs.folder import list_run_folders
from mnist_tb.sweep.locks import PostgresLocks
from mnist_tb.sweep.plan import load_plan

pytestmark = pytest.mark.slow


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server. Without one, the test fails in CI and is skipped elsewhere."""
    programs = postgres.programs()
    if programs is None:
        missing("no PostgreSQL (Debian: apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    for above in (folder, *folder.parents):
        if above == Path("/tmp"):
            break
        above.chmod(above.stat().st_mode | 0o011)  # the server's user must be able to reach it
    server = postgres.Server(programs, folder / "server")
    try:
        yield server.url
    finally:
        server.stop()


def test_four_workers_on_postgresql_two_of_them_killed(zygote: Zygote, database: str, tmp_path: Path) -> None:
    """Two machines with two workers each; one worker of each is killed."""
    file = write_file(tmp_path, trials=8, set={**TINY["set"], "train": {"epochs": 4}}, sampler={"name": "tpe"})
    plan = load_plan(file)
    logdir = tmp_path / "runs"
    machines = [zygote.start(*command(file, logdir, "--workers", "2", "--storage", database)) for _ in range(2)]
    killed = []
    for machine in machines:
        machine.until("Trial ")
        killed.append(workers(machine.pid)[0])
        os.kill(killed[-1], signal.SIGKILL)
    outs = [machine.communicate(timeout=240) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outs
    assert sum(out.count("was killed (SIGKILL); another one takes its place") for out, _ in outs) == 2
    results = accounted_for(plan, logdir / "tiny", database)
    assert [one.state for one in results] == ["complete"] * 8
    assert len(list_run_folders(logdir / "tiny")) == 8


def test_locks_end_with_the_connection(database: str) -> None:
    """And they belong to one sweep: another sweep in the same database has its own."""
    one, two, other = (PostgresLocks(database, name) for name in ("a", "a", "other"))
    with contextlib.closing(two), contextlib.closing(other):
        assert [one.acquire(3), one.acquire(5)] == [True, True]
        assert two.unclaimed(range(7)) == [0, 1, 2, 4, 6]
        assert other.unclaimed(range(7)) == list(range(7))
        assert [two.acquire(3), two.acquire(4), other.acquire(3)] == [False, True, True]
        one.release(5)
        assert two.acquire(5)
        one.close()
        end = time.monotonic() + 60
        while two.unclaimed([3, 6]) != [3, 6] and time.monotonic() < end:  # the server's process ends a little later
            time.sleep(0.01)
        assert two.acquire(3)
        with two.study_lock():
            assert two.unclaimed([6]) == [6]
        with pytest.raises(TrainingError, match="the connection to PostgreSQL is lost"):
            one.check()
        two.check()


def test_a_lost_connection_is_one_sentence(zygote: Zygote, here: Here, database: str, tmp_path: Path) -> None:
    """The same command then continues the interrupted trials."""
    file = write_file(tmp_path, trials=2, set={**TINY["set"], "train": {"epochs": 4}})
    logdir = tmp_path / "runs"
    process = zygote.start(*command(file, logdir, "--storage", database))
    process.until("Sweep ")
    end = time.monotonic() + 60
    while not list_run_folders(logdir / "tiny") and time.monotonic() < end:
        time.sleep(0.05)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "mnist-tb: the " in error
    assert "Traceback" not in error
    assert here(*command(file, logdir, "--storage", database))[0] == 0
    assert len(accounted_for(load_plan(file), logdir / "tiny", database)) == 2
