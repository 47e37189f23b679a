"""A sweep over a real PostgreSQL, started from Debian's package: several machines, workers killed, the server gone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import postgres
import psycopg
import pytest
from conftest import Here, missing
from test_sweep import TINY, accounted_for, command, workers, written
from zygote import Zygote

from mnist_tb.errors import TrainingError
from mnist_tb.runs.folder import listing
from mnist_tb.sweep import plan as plans
from mnist_tb.sweep.locks import PostgresLocks


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL. Without one, CI fails and a person skips."""
    programs = postgres.programs()
    if programs is None:
        missing("no PostgreSQL (Debian: apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    for above in (folder, *folder.parents):
        if above == Path("/tmp"):
            break
        above.chmod(above.stat().st_mode | 0o011)  # the server's user must get there
    server = postgres.Server(programs, folder / "server")
    try:
        yield server.url
    finally:
        server.stop()


def test_four_workers_on_postgresql_two_of_them_killed(zygote: Zygote, database: str, tmp_path: Path) -> None:
    """Two machines with two workers each; one worker of each is killed, and then one machine at once."""
    file = written(tmp_path, trials=8, set={**TINY["set"], "train": {"epochs": 4}}, sampler={"name": "tpe"})
    plan = plans.load(file)
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
    assert len(listing(logdir / "tiny")) == 8


def test_locks_are_the_connections(database: str) -> None:
    """And are of one sweep: another one in the same database has its own."""
    one, two, other = (PostgresLocks(database, name) for name in ("a", "a", "other"))
    with contextlib.closing(two), contextlib.closing(other):
        assert [one.hold(3), one.hold(5)] == [True, True]
        assert two.free(range(7)) == [0, 1, 2, 4, 6]
        assert other.free(range(7)) == list(range(7))
        assert [two.hold(3), two.hold(4), other.hold(3)] == [False, True, True]
        one.release(5)
        assert two.hold(5)
        one.close()
        end = time.monotonic() + 30
        while two.free([3, 6]) != [3, 6] and time.monotonic() < end:  # the server's process ends after ours has left
            time.sleep(0.01)
        assert two.hold(3)
        with two.whole():
            assert two.free([6]) == [6]
        with pytest.raises(TrainingError, match="the connection to PostgreSQL is lost"):
            one.check()
        two.check()


def test_postgresql_going_away_is_one_sentence(zygote: Zygote, here: Here, database: str, tmp_path: Path) -> None:
    """The trials that were under way wait for the same command, once it is there again."""
    file = written(tmp_path, trials=2, set={**TINY["set"], "train": {"epochs": 4}})
    logdir = tmp_path / "runs"
    process = zygote.start(*command(file, logdir, "--storage", database))
    process.until("Sweep ")
    end = time.monotonic() + 60
    while not listing(logdir / "tiny") and time.monotonic() < end:
        time.sleep(0.05)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "mnist-tb: the " in error
    assert "Traceback" not in error
    assert here(*command(file, logdir, "--storage", database))[0] == 0
    assert len(accounted_for(plans.load(file), logdir / "tiny", database)) == 2
