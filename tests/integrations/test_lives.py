"""The life of whatever tracks a training, from its making to each of its ends: one table, for all that have a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.events import scalars
from helpers.processes import in_forks
from mnist_tb.runs.folder import Run
from mnist_tb.runs.query import select_runs

PROGRAM = """
    import gc, pickle, shutil, signal, threading, time
    from pathlib import Path
    from mnist_tb.errors import TrainingError
    from mnist_tb.runs.folder import Run

    kind, _, how = how.partition(" ")
    home = f"{folder}/{kind} {how}"
    os.mkdir(home)
    os.chdir(home)

    def made():
        return Tracker(home, "x") if kind == "Tracker" else SummaryWriter(f"{home}/0001-x")

    def log(step, writer):
        if kind == "Tracker":
            writer.scalars(step, {"a": step})
        else:
            writer.add_scalar("a", step, step)

    def events(writer):
        return writer._writer if kind == "Tracker" else writer.file_writer._events

    def said(call, *arguments):
        try:
            call(*arguments)
        except TrainingError as error:
            print(error, file=open("said", "a"))

    if how == "chdir":
        writer = Tracker(".", "x") if kind == "Tracker" else SummaryWriter("0001-x")
        os.chdir("/")
    else:
        writer = made()
    log(1, writer)
    log(2, writer)

    if how == "built":
        writer.close()
    elif how == "with":
        with writer:
            log(3, writer)
    elif how == "closed-twice":
        writer.close()
        writer.close()
    elif how == "used-after-the-end":
        writer.close()
        said(log, 3, writer)
        writer.close()
    elif how == "chdir":
        log(3, writer)
        writer.close()
    elif how == "collected":
        del writer
        gc.collect()
        while len(threading.enumerate()) > 1:
            time.sleep(0.01)
        os._exit(0)
    elif how == "with-error":
        with writer:
            raise ValueError("the dog")
    elif how == "error":
        raise ValueError("the cat")
    elif how == "error-caught":
        try:
            raise ValueError("the cat")
        except ValueError:
            pass
    elif how == "another-cell":
        try:
            raise ValueError("the cat")
        except ValueError as error:
            sys.last_value = error
        sys.ps1 = "> "
    elif how == "interrupted":
        raise KeyboardInterrupt
    elif how == "exit-0":
        sys.exit(0)
    elif how == "exit-3":
        sys.exit(3)
    elif how == "exit-143":
        sys.exit(143)
    elif how == "exit-text":
        sys.exit("the loss diverged")
    elif how == "exit-caught":
        try:
            sys.exit(3)
        except SystemExit:
            log(3, writer)
    elif how == "exit-of-another-run":
        writer.close()
        shutil.rmtree("0001-x")
        try:
            sys.exit(3)
        except SystemExit:
            writer = made()
            log(1, writer)
            log(2, writer)
    elif how == "in-a-process":
        import multiprocessing
        writer.close()
        shutil.rmtree("0001-x")
        def work():
            global writer  # which multiprocessing does not collect at its end
            writer = made()
            log(1, writer)
            log(2, writer)
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
    elif how == "with-exit-0":
        with writer:
            sys.exit()
    elif how == "with-exit-text":
        with writer:
            sys.exit("the loss diverged")
    elif how == "killed":
        events(writer).flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "orphan":
        events(writer).flush()
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            end = time.monotonic() + 30
            while Run(Path(home, "0001-x")).is_in_use() and time.monotonic() < end:
                time.sleep(0.01)  # a git that its parent was just starting
            print(Run(Path(home, "0001-x")).is_in_use(), file=open("in-use", "w"))
            os._exit(0)
        os.kill(parent, signal.SIGKILL)
    elif how == "forked":
        child = os.fork()
        if child == 0:
            for step in range(100_000):  # more than fits into the queue
                log(step, writer)
            writer.close()
            log(7, writer)
            writer.close()
            sys.exit()
        os.waitpid(child, 0)
    elif how == "forked-while-another-thread-logs":
        ended = threading.Event()
        def work():
            while not ended.is_set():
                log(2, writer)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                for step in range(100):
                    log(step, writer)
                writer.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ended.set()
        thread.join()
    elif how == "pickled":
        for copy in (pickle.loads(pickle.dumps(writer)),):
            log(7, copy)
            copy.flush() if kind == "SummaryWriter" else copy.histograms(7, {})
            copy.close()
        writer.close()
    elif how == "removed":
        shutil.rmtree(Path("0001-x").rename("gone"))  # at once: another thread still writes to it
        log(3, writer)
        said(writer.close)
        writer.close()
    elif how == "full":
        real, events(writer)._file = events(writer)._file, open("/dev/full", "wb", buffering=0)
        log(3, writer)
        said(events(writer).flush)
        said(log, 4, writer)
        said(writer.close)
        writer.close()
    elif how == "reopened":
        writer.close()
        if kind == "Tracker":
            writer = Tracker.resume(writer.run.path, writer.state_dict())
        else:
            writer = made()
        log(3, writer)
    else:
        assert how == "never-closed"
    if how in ("built", "with", "closed-twice", "used-after-the-end", "chdir", "pickled", "removed", "full"):
        os._exit(0)  # the end of a program that has torch takes half a second
"""

TWO, THREE = [1.0, 2.0], [1.0, 2.0, 3.0]
LIVES: dict[str, tuple[Any, ...]] = {  # how: status, error, points, what was said
    "built": ("completed", None, TWO),
    "with": ("completed", None, THREE),
    "closed-twice": ("completed", None, TWO),
    "used-after-the-end": ("completed", None, TWO, "is closed: nothing more can be logged to it"),
    "never-closed": ("completed", None, TWO),
    "collected": ("completed", None, TWO),
    "chdir": ("completed", None, THREE),
    "with-error": ("failed", "the dog", TWO),
    "error": ("failed", "the cat", TWO),
    "error-caught": ("completed", None, TWO),
    "another-cell": ("completed", None, TWO),
    "interrupted": ("interrupted", "KeyboardInterrupt", TWO),
    "exit-0": ("completed", None, TWO),
    "exit-3": ("failed", "exit code 3", TWO),
    "exit-143": ("interrupted", "interrupted", TWO),
    "exit-text": ("failed", "the loss diverged", TWO),
    "exit-caught": ("completed", None, THREE),
    "exit-of-another-run": ("completed", None, TWO),
    "in-a-process": ("completed", None, TWO),
    "with-exit-0": ("completed", None, TWO),
    "with-exit-text": ("failed", "the loss diverged", TWO),
    "killed": ("killed", None, TWO),
    "orphan": ("killed", None, TWO),
    "forked": ("completed", None, TWO),
    "forked-while-another-thread-logs": ("completed", None, TWO),
    "pickled": ("completed", None, TWO),
    "full": ("failed", "No space left on device", [], "No space left on device"),
    "reopened": ("completed", None, THREE),
}
REMOVED = "how the run ended cannot be written: No such file or directory"


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all lives."""
    folder = tmp_path_factory.mktemp("lives")
    done = in_forks(
        PROGRAM, folder, [f"{kind} {how}" for kind in ("Tracker", "SummaryWriter") for how in [*LIVES, "removed"]]
    )
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.mark.parametrize("kind", ["Tracker", "SummaryWriter"])
@pytest.mark.parametrize("how", LIVES)
def test_a_life(kind: str, how: str, lives: Path) -> None:
    status, error, points, *said = LIVES[how]
    home = lives / f"{kind} {how}"
    if (kind, how) == ("SummaryWriter", "used-after-the-end"):  # as torch's, which opens another file
        points, said = THREE, []
    context = (lives / "stderr").read_text()
    run = Run(home / "0001-x")
    (summary,) = select_runs(home, ["0001-x"]).runs
    known = run.read_metrics()
    assert summary.status == status, context
    found = known.get("error")
    assert found == error or (how == "full" and str(found).endswith(str(error)))
    read = [value for _, value in scalars(run).get("a", [])]
    assert sorted(set(read)) == points
    assert how == "forked-while-another-thread-logs" or len(read) == len(points)
    told = (home / "said").read_text() if (home / "said").exists() else ""
    assert all(sentence in told for sentence in said)
    assert bool(told) == bool(said)
    assert not run.is_in_use()
    assert how != "orphan" or (home / "in-use").read_text() == "False\n", "a child does not keep the lock"


@pytest.mark.parametrize("kind", ["Tracker", "SummaryWriter"])
def test_a_folder_that_is_removed_is_said(kind: str, lives: Path) -> None:
    """To torch's class it means nothing; so it is no error of this one."""
    home = lives / f"{kind} removed"
    if kind == "Tracker":
        assert REMOVED in (home / "said").read_text(encoding="utf-8")
    else:
        assert not (home / "said").exists()
    assert not (home / "0001-x").exists(), "nothing is made anew in its place"
