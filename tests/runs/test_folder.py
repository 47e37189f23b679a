from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mnist_tb.errors import InputError, TrainingError
from mnist_tb.runs.folder import Run, create_run, find_run, list_run_folders
from mnist_tb.training import checkpoint


def make(logdir: Path, name: str) -> Run:
    return create_run(logdir, name, "seed: 0\n", {"status": "running"})


def test_numbers_count_on_from_the_highest(tmp_path: Path) -> None:
    assert make(tmp_path / "new" / "runs", "a").name == "0001-a"
    (tmp_path / "new" / "runs" / "0001-a").rename(tmp_path / "new" / "runs" / "0041-left")
    (tmp_path / "new" / "runs" / "other").mkdir()
    assert make(tmp_path / "new" / "runs", "a").name == "0042-a"
    (tmp_path / "new" / "runs" / "0042-a").rename(tmp_path / "new" / "runs" / "12345-far")
    assert make(tmp_path / "new" / "runs", "b").name == "12346-b"


def test_runs_started_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda i: make(tmp_path, f"run{i % 3}").name, range(48)))
    assert sorted(int(name[:4]) for name in names) == list(range(1, 49))


@pytest.mark.parametrize("which", ["2", "0002", "0002-b", "last"])
def test_find_by_number_name_or_last(which: str, tmp_path: Path) -> None:
    make(tmp_path, "a")
    made = make(tmp_path, "b")
    assert find_run(tmp_path, which) == made
    assert find_run(tmp_path, str(made.path)) == made


def test_last_may_be_the_last_that_this_program_can_train(tmp_path: Path) -> None:
    """`last` of resume, evaluate and predict is no run of a Tracker, unless there is no other."""
    tracked = create_run(tmp_path, "mine", "lr: 0.1\n", {"status": "completed", "kind": "tracker"})
    assert find_run(tmp_path, "last", trained=True) == tracked
    trained = make(tmp_path, "a")
    later = create_run(tmp_path, "mine", "lr: 0.1\n", {"status": "completed", "kind": "tracker"})
    assert find_run(tmp_path, "last") == later
    assert find_run(tmp_path, "last", trained=True) == trained
    later.metrics.write_text("{")
    assert find_run(tmp_path, "last", trained=True) == later, "broken: whoever asks for it is told so"


def test_find_in_a_folder_of_the_log_folder(tmp_path: Path) -> None:
    """A sweep's runs by the sweep's name; and a run whose folder another program has named."""
    there = make(tmp_path / "lr", "a")
    for which in ("lr/1", "lr/0001-a", "lr/last"):
        assert find_run(tmp_path, which) == there
    with pytest.raises(InputError, match="no run called '1'; it has no runs yet; those of a sweep are named as lr/1"):
        find_run(tmp_path, "1")
    named = tmp_path / "mine"
    named.mkdir()
    with pytest.raises(InputError, match="no run called 'mine'"):
        find_run(tmp_path, "mine")
    (named / "metrics.json").write_text('{"versions": {"mnist-tb": "1.0.0"}}')
    assert find_run(tmp_path, "mine") == Run(named)
    for which in ("lr/2", "nothing/1", "lr/../lr/1x", "\0", "a" * 300):
        with pytest.raises(InputError):
            find_run(tmp_path, which)


def test_of_many_runs_the_last_are_named(tmp_path: Path) -> None:
    for name in "abcdefg":
        make(tmp_path, name)
    with pytest.raises(InputError, match="the last 5 of 7 are 0003-c, 0004-d, 0005-e, 0006-f, 0007-g"):
        find_run(tmp_path, "77")


@pytest.mark.parametrize("which", ["3", "b", "../x", "/nowhere", "last", "²", "9" * 5000])
def test_find_says_what_there_is(which: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such run folder|it has no runs yet"):
        find_run(tmp_path / "runs", which)
    if which != "last":
        make(tmp_path / "runs", "a")
        with pytest.raises(InputError, match=r"no such run folder|there are 0001-a"):
            find_run(tmp_path / "runs", which)


def test_listing_is_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    for name in ("0010-b", "0009-c", "12345-a", "notes"):
        make(tmp_path, "a").path.rename(tmp_path / name)
    (tmp_path / "0011-file").write_text("")
    assert [run.name for run in list_run_folders(tmp_path)] == ["0009-c", "0010-b", "12345-a"]


def test_unwritable_log_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no run can be created here: Not a directory"):
        make(tmp_path / "file" / "runs", "a")


def test_metrics_are_replaced_whole_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_metrics({"status": "running"})
    run.update_metrics(status="completed", epoch=3)
    assert run.read_metrics() == {"status": "completed", "epoch": 3}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_processes_that_update_at_once_lose_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_metrics({"status": "running"})
    code = (
        "import sys; from pathlib import Path; from mnist_tb.runs.folder import Run\n"
        "for i in range(60): Run(Path(sys.argv[1])).update_metrics(**{sys.argv[2] + str(i): i})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(run.read_metrics()) == 121
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_run_in_use_is_refused_to_others_until_it_is_free(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    with run.in_use(), pytest.raises(InputError, match="in use by another process"), run.in_use():
        pass
    with run.in_use():
        pass


def test_a_run_comes_into_being_whole(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-run" / "checkpoints").mkdir(parents=True)  # left by one that was killed meanwhile
    (tmp_path / ".unfinished-run" / "rubbish").write_text("")
    run = make(tmp_path, "a")
    assert (run.config.read_text(), run.read_metrics()) == ("seed: 0\n", {"status": "running"})
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "config.yaml", "metrics.json"]
    assert os.listdir(tmp_path) == ["0001-a"]


def test_a_failed_write_leaves_the_old_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write_metrics({"status": "running"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space.*metrics\.json"):
        run.update_metrics(status="completed")
    assert run.read_metrics() == {"status": "running"}
    assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\udcff"])
def test_broken_metrics_are_explained(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"metrics\.json"):
        Run(tmp_path).read_metrics()


def test_missing_metrics_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        Run(tmp_path).read_metrics()


def test_checkpoints_come_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", {"epoch": 3, "nested": {"x": [1, 2.5, "t", None]}})
    assert checkpoint.load(tmp_path / "a.pt") == {"epoch": 3, "nested": {"x": [1, 2.5, "t", None]}}


def test_broken_checkpoints_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoint.load(path)
    checkpoint.save(path, {"epoch": 3})
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a checkpoint", json.dumps({}).encode()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a checkpoint of mnist_tb, or it is broken"):
            checkpoint.load(path)


def test_checkpoint_of_something_else_is_explained(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "a.pt")
    with pytest.raises(InputError, match="it holds a list"):
        checkpoint.load(tmp_path / "a.pt")


def test_metrics_that_went_away_are_said_by_their_path(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "", {"status": "running"})
    run.metrics.write_text("{")
    with pytest.raises(TrainingError, match=r"metrics\.json: cannot be read"):
        run.update_metrics(status="completed")
    run.metrics.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        run.update_metrics(status="completed")
    assert (caught.value.filename, caught.value.strerror) == (str(run.metrics), "No such file or directory")


def test_a_path_that_is_not_utf8_comes_back(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    run.write_metrics({"config": {"été": "a\udce9\u2028"}})
    assert run.read_metrics() == {"config": {"été": "a\udce9\u2028"}}
    assert "été" in run.metrics.read_text(encoding="utf-8")
