"""One line of ours in somebody else's training: nothing of his is harmed, and nothing that he logs is lost."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import tensorboard

from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.processes import in_forks
from mnist_tb import SummaryWriter, Tracker, load_runs
from mnist_tb.cli.main import main
from mnist_tb.environment import console
from mnist_tb.environment.console import read_console
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.events import reader, records, tags
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs

# ---- His files


FILES = {
    "config.yaml": b"model: resnet50\n",
    "metrics.json": b'{"iteration": 19, "loss": 1.0}\n{"iteration": 39, "loss": 0.9}\n',
    "environment.json": b"[]",
    "console.log": b"mine\n",
    "code.patch": b"mine\n",
    "notes.json": b'{"tags": "mine"}',
    "results.json": b"1",
    "predictions.npy": b"mine",
    "checkpoints/last.pt": b"mine",
    "events.out.tfevents.1.mine": b"",
}


@pytest.mark.parametrize(
    "metrics",
    [
        FILES["metrics.json"],
        b"[1]",
        b'{"accuracy": 0.9}',
        b"",
        b'{"status": "running", "config": {"lr": 1}}',
        b'{"id": "exp-7", "val": 0.9, "step": 5}',
        b'{"id": "../../evil", "kind": "tracked"}',
        b'{"config": "train.epochs"}',
    ],
)
def test_the_users_files_stay_as_they_are(metrics: bytes, tmp_path: Path) -> None:
    """Whatever they are called, and whatever is done; a second time, too."""
    files = {**FILES, "metrics.json": metrics}
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    for number in range(2):
        with SummaryWriter(tmp_path / "out", tags=["good"], note="of ours") as writer:
            print("something")
            writer.add_scalar("val_acc", 0.5 + number / 10, number)
            writer.add_hparams({"lr": 0.1}, {})
    found = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {
        str(path.relative_to(tmp_path / "out")): content for path, content in found.items()
    }.items() >= files.items()
    ours = {path.relative_to(tmp_path / "out") for path in found} - {Path(name) for name in files}
    assert all(path.parts[0] == ".mnist_tb" or "tfevents" in path.name for path in ours)
    (row,) = list_runs(tmp_path).runs
    assert (row.status, row.val_accuracy, row.settings, row.notes.tags) == ("completed", 0.6, {"lr": 0.1}, ("good",))
    assert read_console(tmp_path / "out") is not None


def test_a_run_of_mnist_tb_train_is_refused(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("--epochs", "1", "--name", "1e-3")  # which YAML 1.2 reads as a number
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is a run of mnist-tb train; a training of yours needs a folder of its own"):
        SummaryWriter(run.path)
    with pytest.raises(InputError, match="is a run of mnist-tb train; resume it with: "):
        Tracker.resume(run.path, {"step": 1, "events": {"a": 1}})
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert main(arguments=["evaluate", "1", "--logdir", str(run.path.parent)]) == 0
    assert main(arguments=["resume", "1", "--logdir", str(run.path.parent), "--epochs", "2"]) == 0


def test_our_place_is_not_taken_from_somebody(tmp_path: Path) -> None:
    (tmp_path / "out" / ".mnist_tb").mkdir(parents=True)
    (tmp_path / "out" / ".mnist_tb" / "mine").write_text("mine")
    with pytest.raises(InputError, match="this folder is kept for the files of a run, but has others in it"):
        SummaryWriter(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / ".mnist_tb").iterdir()] == ["mine"]
    assert sys.stdout.__class__.__name__ != "_Tee"


def test_a_folder_of_1_0_0_is_read_and_written_on(tmp_path: Path) -> None:
    """It kept its files among the user's, and its results in metrics.json."""
    folder = tmp_path / "old"
    with tensorboard.SummaryWriter(str(folder)) as writer:
        writer.add_scalar("val_acc", 0.75, 1)
    known = {"status": "completed", "kind": "tracked", "started": 1.0, "dataset": None, "config": {"lr": 1},
             "versions": {}, "step": 1, "val": {"accuracy": 0.75}}  # fmt: skip
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text("lr: 1\n")
    (folder / "metrics.json").write_text(json.dumps(known))
    (row,) = list_runs(tmp_path).runs
    assert (row.native, row.status, row.val_accuracy, row.settings) == (True, "completed", 0.75, {"lr": 1})
    resumed = Tracker.resume(folder, {"step": 1, "seconds": 2.0, "results": {}, "events": records.sizes(folder)})
    resumed.scalars(2, {"val_acc": 0.5})
    resumed.close()
    assert scalars(Run(folder))["val_acc"] == [(1, 0.75), (2, 0.5)]
    before = (folder / "metrics.json").read_bytes()
    SummaryWriter(folder).close()
    assert json.loads(before)["id"], "it is proved ours from now on"


# ---- States


def states(logdir: Path) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """A closed run of ten steps, its state at the fifth, and at the end; beside it, a file of another writer."""
    tracker = Tracker(logdir, "mine")
    for step in range(1, 11):
        tracker.scalars(step, {"a": float(step)})
        if step == 5:
            middle = tracker.state_dict()
    with tensorboard.SummaryWriter(str(tracker.run.path)) as other:
        other.add_scalar("b", 1.0, 9)
    tracker.close()
    return tracker.run, json.loads(json.dumps(middle)), tracker.state_dict()


def test_a_state_belongs_to_its_run(tmp_path: Path) -> None:
    run, middle, end = states(tmp_path)
    assert end["step"] == 10
    other, of_another, _ = states(tmp_path)
    empty: list[Any] = [
        {},
        {"step": 3},
        {**middle, "events": {}},
        None,
        {**middle, "step": None},
        {**middle, "events": [1]},
    ]
    for state in empty:
        with pytest.raises(
            InputError, match="from this state, which is empty or damaged; save what `state_dict` returns"
        ):
            Tracker.resume(run.path, state)
    with pytest.raises(InputError, match="from this state, which is of another run"):
        Tracker.resume(run.path, of_another)
    with pytest.raises(InputError, match="what was logged up to there is gone"):
        Tracker.resume(run.path, {**of_another, "run": middle["run"]})
    for each in (run, other):
        assert len(scalars(each)["a"]) == 10, "nothing is removed"
    Tracker.resume(run.path, end).close()
    assert len(scalars(run)["a"]) == 10
    with Tracker.resume(run.path, middle) as resumed:
        resumed.scalars(6, {"a": 60.0})
    assert scalars(run)["a"] == [*((step, float(step)) for step in range(1, 6)), (6, 60.0)]
    (others,) = (path for path in run.path.glob("*tfevents*") if run.read_metrics()["id"] not in path.name)
    (tmp_path / "alone").mkdir()
    shutil.copy(others, tmp_path / "alone")
    assert [point.value for point in reader.read(tmp_path / "alone").curves["b"]] == [1.0], "what another writer wrote"
    with pytest.raises(InputError, match="the run has been resumed from an earlier state"):
        Tracker.resume(run.path, end)


def test_other_processes_of_torchrun_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    resumed = Tracker.resume(tmp_path / "not here", {})
    resumed.scalars(1, {"a": 1.0})
    resumed.close()
    assert resumed.state_dict() == {}


def test_what_was_asked_for_is_kept(tmp_path: Path) -> None:
    charts = {"mine": {"a": ["a"]}}
    first = Tracker(tmp_path, "x", steps=7, dataset="d", charts=charts, code=False, system_seconds=0)
    state = first.state_dict()
    first.close()
    asked = {"steps": 7, "dataset": "d", "charts": charts, "code": False, "system_seconds": 0}
    assert first.run.read_metrics()["asked"] == asked
    for steps in (0, 9):
        with Tracker.resume(first.run.path, state, steps=steps) as resumed:
            assert resumed._recording is not None
            found = resumed._recording.files.asked
        assert {**vars(found), "charts": dict(found.charts or {})} == {**asked, "steps": steps or 7}
    kept = json.loads((first.run.path / "environment.json").read_text())
    assert kept["code"] == {}
    assert all(each["code"] == {} for each in kept.get("resumed", []))
    with SummaryWriter(tmp_path / "w", code=False, system_seconds=0, dataset="d"):
        pass
    assert Run(tmp_path / "w").read_metrics()["asked"] == {**asked, "steps": 0, "charts": None}
    assert json.loads((Run(tmp_path / "w").home / "environment.json").read_text())["code"] == {}


@pytest.mark.parametrize(
    ("named", "sentence"), [({"steps": "ten"}, "steps is 'ten'"), ({"system_seconds": -1}, "system_seconds is -1")]
)
def test_what_cannot_be_asked_for(named: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        Tracker(tmp_path, "x", **named)


# ---- What he logs


def test_values_are_those_of_the_call(tmp_path: Path) -> None:
    x, weights, picture = torch.zeros(()), torch.ones(3), np.zeros((2, 2), np.uint8)
    with Tracker(tmp_path, "x") as tracker:
        for step in range(1, 4):
            x += 1
            tracker.scalars(step, {"x": x})
        tracker.histograms(1, {"h": weights})
        tracker.images(1, {"p": picture})
        weights += 9
        picture += 9
    assert [value for _, value in scalars(tracker.run)["x"]] == [1, 2, 3]
    assert tensor_of(tracker.run, "h")[:, :2].max() <= 1


def tensor_of(run: Run, tag: str) -> Any:
    from tensorboard.util import tensor_util

    return tensor_util.make_ndarray(read_events(run).Tensors(tag)[0].tensor_proto)


WRONG: dict[str, Callable[[Tracker], Any]] = {
    "several numbers": lambda t: t.scalars(1, {"x": torch.ones(2)}),
    "several in an array": lambda t: t.scalars(1, {"x": np.ones(2)}),
    "a complex number": lambda t: t.scalars(1, {"x": torch.tensor(1j)}),
    "text": lambda t: t.scalars(1, {"x": "0.5"}),
    "nothing": lambda t: t.scalars(1, {"x": None}),
    "a tag that is none": lambda t: t.scalars(1, {5: 1.0}),  # type: ignore[dict-item]
    "a tag that is not Unicode": lambda t: t.scalars(1, {"\udcff": 1.0}),
    "half a step": lambda t: t.scalars(1.5, {"x": 1.0}),  # type: ignore[arg-type]
    "a step of 65 bits": lambda t: t.scalars(2**64, {"x": 1.0}),
    "a histogram at half a step": lambda t: t.histograms(1.0, {"h": torch.ones(3)}),  # type: ignore[arg-type]
    "a complex histogram": lambda t: t.histograms(1, {"h": torch.ones(3, dtype=torch.complex64)}),
    "a histogram of text": lambda t: t.histograms(1, {"h": "abc"}),  # type: ignore[dict-item]
    "a picture of floats": lambda t: t.images(1, {"p": np.zeros((2, 2))}),
    "an empty picture": lambda t: t.images(1, {"p": np.zeros((0, 2), np.uint8)}),
    "a picture at half a step": lambda t: t.images(1.0, {"p": np.zeros((2, 2), np.uint8)}),  # type: ignore[arg-type]
    "a text that is none": lambda t: t.texts(1, {"t": 5}),  # type: ignore[dict-item]
    "a text at half a step": lambda t: t.texts(1.0, {"t": "a"}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_the_callers_line_gets_the_error(name: str, tmp_path: Path) -> None:
    """And what was logged before it and after it is written."""
    with Tracker(tmp_path, "x", system_seconds=0) as tracker:
        tracker.scalars(1, {"good": 1.0})
        with pytest.raises((TypeError, ValueError, AttributeError, OverflowError)):
            WRONG[name](tracker)
        tracker.scalars(2, {"good": 2.0})
    assert scalars(tracker.run)["good"] == [(1, 1.0), (2, 2.0)]
    assert tracker.run.read_metrics()["status"] == "completed"


def test_the_queue_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventWriter, "LIMIT", 2**20)
    largest = 0
    with Tracker(tmp_path, "x", system_seconds=0) as tracker, SummaryWriter(tmp_path / "w", system_seconds=0) as writer:
        small, large = torch.ones(50_000), torch.ones(1_000_000)  # a fifth of the bound, and four times as much
        for step in range(40):
            tracker.histograms(step, {"small": small, "large": large})
            writer.add_histogram("small", small, step)
            writer.add_histogram("large", large, step)
            writer.add_image("p", torch.zeros(3, 200, 200), step)
            queues = tracker._writer, writer.file_writer._events
            largest = max([largest, *(each._queued - each._written for each in queues)])
    assert largest < 2**20 + 2**19
    found = read_events(tracker.run).Tensors("large")
    assert len(found) == 40


def test_a_validation_scalar_is_a_scalar(tmp_path: Path) -> None:
    """It cost ten times the bytes: a status, and a look at the notes, for each."""
    sizes = {}
    for tag in ("loss/train", "loss/val"):
        with Tracker(tmp_path, "x", system_seconds=0, code=False) as tracker:
            tracker._writer.flush()
            before = sum(records.sizes(tracker.run.path).values())
            for step in range(3_000):
                tracker.scalars(step, {tag: 0.5})
            tracker._writer.flush()
            sizes[tag] = sum(records.sizes(tracker.run.path).values()) - before
    assert sizes["loss/val"] < 1.2 * sizes["loss/train"] + 20_000, "a status a second, and the environment"


# ---- His results


def test_results_are_those_of_the_curves(tmp_path: Path) -> None:
    """In whatever order they were logged, and in whatever way: every list says the same."""
    with SummaryWriter(tmp_path / "0001-x") as writer:
        for step in (1, 2):
            writer.add_scalar("val/acc_top5", 0.98 + step / 1000, step)
            writer.add_scalar("val/acc", 0.75 + step / 1000, step, new_style=True)
            writer.add_scalar("losses/value_loss", 0.01 * step, step)
            writer.add_scalar("losses/entropy", 7.0, step)
    (row,) = list_runs(tmp_path).runs
    assert (row.val_accuracy, row.val_loss, row.test_loss) == (0.752, None, None)
    (loaded,) = load_runs(tmp_path)
    assert loaded.summary == row
    said = json.loads(read_events(Run(tmp_path / "0001-x")).Tensors(tags.LIVE_STATUS)[-1].tensor_proto.string_val[0])
    assert (said["val_accuracy"], said["val_loss"], said["loss"]) == (pytest.approx(0.752), None, None)
    assert list_runs(tmp_path).runs == [row], "as it was kept"


def test_a_run_repeated_in_its_folder_forgets_how_the_earlier_one_ended(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), SummaryWriter(tmp_path / "a") as writer:
        raise ValueError("boom")
    with SummaryWriter(tmp_path / "a") as writer:
        writer.add_scalar("loss/train", 1.0, 1)
    known = Run(tmp_path / "a").read_metrics()
    assert (known["status"], known.get("error")) == ("completed", None)


@pytest.mark.parametrize("made", [np.float32, np.float64, float, torch.tensor, lambda value: np.array([value])])
def test_settings_are_the_same_however_they_are_spelt(made: Any, tmp_path: Path) -> None:
    with Tracker(tmp_path / "runs", "a", {"lr": made(0.1), "n": np.int64(3)}) as tracker:
        pass
    with Tracker.adopt(tmp_path / "runs" / "b") as adopted:
        adopted.settings({"lr": made(0.1), "n": 3})
    rows = list_runs(tmp_path / "runs").runs
    assert [row.settings for row in rows] == [{"lr": 0.1, "n": 3}] * 2
    assert tracker.run.config.read_text() == "lr: 0.1\nn: 3\n"


def test_secrets_among_the_settings_are_not_kept(tmp_path: Path) -> None:
    settings = {
        "lr": 0.1,
        "hub_token": "geheim-1",
        "db": {"password": "geheim-2", "url": "postgres://me:geheim-3@host/"},
    }
    with Tracker(tmp_path / "runs", "a", settings):
        pass
    with SummaryWriter(tmp_path / "runs" / "b") as writer:
        writer.add_hparams({"api_key": "geheim-4", "lr": 0.1}, {})
    content = b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and ".patch" not in path.name
    )
    assert b"geheim" not in content


# ---- How it ends, and what is left


@pytest.mark.parametrize("name", ["bad name", "", "a" * 41])
def test_a_constructor_that_fails_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, stdout, exits = set(threading.enumerate()), sys.stdout, sys.exit
    with pytest.raises(InputError):
        Tracker(tmp_path / "runs", name)
    (tmp_path / "file").write_text("")
    for fails in (lambda: Tracker(tmp_path / "file", "x"), lambda: SummaryWriter(tmp_path / "file" / "x")):
        with pytest.raises(InputError, match="no run can be created here"):
            fails()

    def full(*arguments: object) -> None:
        raise TrainingError("the disk is full")

    monkeypatch.setattr(records, "new_name", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        Tracker(tmp_path / "runs", "x")
    assert (sys.stdout, sys.exit, console._listeners) == (stdout, exits, [])
    assert set(threading.enumerate()) <= threads
    (run,) = list_run_folders(tmp_path / "runs")
    assert (run.read_metrics()["status"], run.is_in_use()) == ("failed", False)


def test_of_several_the_newest_has_what_is_printed(tmp_path: Path) -> None:
    before = threading.active_count()
    writers = [SummaryWriter(tmp_path / f"fold{number}") for number in range(5)]
    print("HELLO")
    for writer in writers:
        assert writer.file_writer.tracker._recording._environment._thread is not None
        writer.file_writer.tracker._recording._environment._thread.join()
    assert threading.active_count() - before == 5, "a thread each"
    for writer in reversed(writers):
        writer.close()
    texts = [read_console(tmp_path / f"fold{number}") for number in range(5)]
    assert ["HELLO" in (text or "") for text in texts] == [False] * 4 + [True]


@pytest.mark.parametrize("kind", ["Tracker", "SummaryWriter", "train"])
def test_the_last_status_is_written_while_nobody_else_can_have_the_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train
) -> None:
    held: dict[str, bool] = {}
    original = Run.update_metrics

    def update(self: Run, **changes: Any) -> None:
        original(self, **changes)
        if "status" in changes:
            held[changes["status"]] = self.is_in_use()

    monkeypatch.setattr(Run, "update_metrics", update)
    if kind == "Tracker":
        Tracker(tmp_path, "x").close()
    elif kind == "SummaryWriter":
        SummaryWriter(tmp_path / "x").close()
    else:
        train("--epochs", "1")
    assert held == {"completed": True}


def test_a_copied_folder_keeps_its_results(tmp_path: Path) -> None:
    """What a listing has kept is of the event files as they are: others are read anew."""
    with Tracker(tmp_path / "a", "x") as tracker:
        tracker.scalars(1, {"accuracy/val": 0.5})
    assert list_runs(tmp_path / "a").runs[0].val_accuracy == 0.5
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with tensorboard.SummaryWriter(str(tmp_path / "c")) as writer:
        writer.add_scalar("accuracy/val", 0.75, 2)
    shutil.copy(*(tmp_path / "c").iterdir(), tmp_path / "b" / "0001-x" / "events.out.tfevents.9999999999.later")
    assert list_runs(tmp_path / "b").runs[0].val_accuracy == 0.75
    (tmp_path / "a" / "0001-x" / "results.json").write_text("{")
    assert list_runs(tmp_path / "a").runs[0].val_accuracy == 0.5


def test_an_interrupted_end_is_ended_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = sys.stdout
    for method in ("finish", "close"):
        tracker = Tracker(tmp_path, "x")
        tracker.scalars(1, {"a": 1.0})
        environment = tracker._recording._environment  # type: ignore[union-attr]

        def interrupted(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(environment, method, interrupted)
            with pytest.raises(KeyboardInterrupt):
                tracker.close()
        tracker.close()
        assert (tracker.run.read_metrics()["status"], tracker.run.is_in_use()) == ("completed", False)
        assert scalars(tracker.run)["a"] == [(1, 1.0)]
    assert sys.stdout is stdout


def test_whatever_fails_within_the_run_is_ended(tmp_path: Path) -> None:
    """A tensor of a device that has failed, for instance."""
    stdout = sys.stdout

    class Lost:
        """A tensor that cannot be read any more."""

        def detach(self) -> Lost:
            return self

        def __float__(self) -> float:
            raise RuntimeError("the device has failed")

    with pytest.raises(ValueError, match="the real error"), Tracker(tmp_path, "x") as tracker:
        tracker._points(1, [("loss/train", Lost())])
        tracker.scalars(1, {"a": 1.0})
        raise ValueError("the real error")
    assert (tracker.run.read_metrics()["error"], tracker.run.is_in_use()) == ("the real error", False)
    assert scalars(tracker.run)["a"] == [(1, 1.0)]
    assert sys.stdout is stdout


def test_a_handler_of_logs_that_fails_costs_nothing(tmp_path: Path) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("warnings are errors here")

    handler = Failing()
    logging.getLogger().addHandler(handler)
    try:
        with Tracker(tmp_path, "x") as tracker:
            tracker.images(1, {"p": lambda: 1 / 0})  # type: ignore[dict-item, return-value]
            tracker._writer.flush()
            tracker.scalars(1, {"a": 1.0})
            tracker.state_dict()
    finally:
        logging.getLogger().removeHandler(handler)
    assert scalars(tracker.run)["a"] == [(1, 1.0)]


def test_a_checkpoint_on_a_signal(tmp_path: Path) -> None:
    """It interrupts a call, and waits for the writing thread, which must not wait for that call.

    In a process of its own: here SIGALRM is what ends a test that hangs, and coverage has a lock that both would need.
    """
    done = in_forks(
        """
        import signal, time
        tracker, states, inside = Tracker(folder, "x", code=False, system_seconds=0), [], []
        def save(*arguments):
            if not inside:
                inside.append(True)
                states.append(tracker.state_dict())
                inside.clear()
        signal.signal(signal.SIGALRM, save)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.0071)
        step, end = 0, time.monotonic() + 2
        while time.monotonic() < end:
            step += 1
            tracker.scalars(step, {"loss/train": 1.0, "b": 2.0})
        signal.setitimer(signal.ITIMER_REAL, 0)
        tracker.close()
        print(step, len(states))
        """,
        tmp_path,
        ["once"],
    )
    assert not done.stderr
    steps, states = map(int, done.stdout.split())
    assert states > 5
    (run,) = list_run_folders(tmp_path)
    assert len(reader.read(run.path).curves["b"]) == steps


def test_a_drawing_function_that_waits_for_itself_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(tmp_path, "x") as tracker:
        tracker.images(1, {"p": lambda: tracker.state_dict()})  # type: ignore[dict-item, return-value]
        tracker._writer.flush()
    assert "what draws a picture cannot wait until it is written" in caplog.text
    assert tracker.run.read_metrics()["status"] == "completed"


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"charts": {"a": ["x"]}}, "charts: must be category → title → list of tags"),
        ({"charts": {"a": {"t": 5}}}, "charts: must be category → title → list of tags"),
        ({"config": {"x": 10**400}}, "settings are finite numbers"),
        ({"dataset": object()}, "dataset is <object"),
    ],
)
def test_what_is_wrong_is_said_before_there_is_a_run(named: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        Tracker(tmp_path / "runs", "x", **named)
    assert not (tmp_path / "runs").exists()


def test_what_people_give(tmp_path: Path) -> None:
    """Numbers of NumPy's, a Namespace among the settings, a path that is no text."""
    with Tracker(tmp_path, "x", {"opt": Namespace(lr=1), "p": "x\udcff"}, steps=np.int64(5)) as tracker:  # type: ignore[arg-type]
        pass
    assert tracker.run.read_metrics()["config"] == {"opt.lr": 1, "p": "x\\udcff"}
    with SummaryWriter(tmp_path / "w", purge_step=np.int64(5)) as writer:  # type: ignore[arg-type]
        writer.add_scalar("a", 1.0, 5)
    assert scalars(Run(tmp_path / "w"))["a"] == [(5, 1.0)]


def test_a_process_that_was_killed_in_its_first_moments(tmp_path: Path) -> None:
    (tmp_path / "out" / ".mnist_tb" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / ".mnist_tb" / ".metrics.json.123.456").write_text("{")
    SummaryWriter(tmp_path / "out").close()
    assert Run(tmp_path / "out").read_metrics()["status"] == "completed"


def test_charts_of_many_curves_are_written_now_and_then(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "w", system_seconds=0, code=False) as writer:
        for number in range(300):
            writer.add_scalars(f"layer {number}", {"train": 1.0, "val (top 1)": 2.0}, 0)
    assert sum(records.sizes(tmp_path / "w").values()) < 300_000
    layout = read_events(Run(tmp_path / "w")).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert rb"^layer\ 299/val\ \(top\ 1\)$" in layout


def test_the_live_tab_finds_the_loss_among_many_curves(tmp_path: Path) -> None:
    with Tracker(tmp_path, "x", system_seconds=0) as tracker:
        tracker.scalars(1, {f"grad_norm/layer{number}": 1.0 for number in range(300)})
        tracker.scalars(1, {"loss/train": 1.0, "accuracy/val": 0.5})
    assert tracker._recording is not None
    known = tracker._recording.live.status
    assert (known.loss, known.val_accuracy) == (1.0, 0.5)
