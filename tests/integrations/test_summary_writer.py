"""Our SummaryWriter against torch's own: the same calls, the files read back by TensorBoard, the same events."""

from __future__ import annotations

import json
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils import tensorboard

from helpers.events import read_events, scalars
from helpers.processes import in_forks
from mnist_tb import SummaryWriter
from mnist_tb.cli.main import main
from mnist_tb.events.tags import ENVIRONMENT_TEXT
from mnist_tb.integrations.summary_writer import RunWriter
from mnist_tb.runs.folder import Run, list_run_folders
from mnist_tb.runs.query import list_runs

torch.manual_seed(0)
IMAGE, IMAGES = torch.rand(3, 12, 10), torch.rand(5, 3, 8, 8)
GREY = (torch.rand(12, 10) * 255).to(torch.uint8)
SIGNED = torch.randn(1000)
MESH = torch.tensor([[[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]])
LAYOUT = {"mine": {"both": ["Multiline", ["a", "b"]], "band": ["Margin", ["a", "b", "c"]]}}


def figure() -> Any:
    made, axes = pyplot.subplots(figsize=(2, 1))
    axes.plot([1, 2, 3])
    return made


def pr_counts() -> list[Any]:
    return [np.arange(5), np.arange(5)[::-1], np.arange(5), np.arange(5)[::-1], np.ones(5) / 2, np.ones(5) / 3]


CALLS: dict[str, Callable[[Any], Any]] = {
    "scalar": lambda w: w.add_scalar("a", 0.25, 3),
    "scalar, whole": lambda w: w.add_scalar("a", 7, 3),
    "scalar, no step": lambda w: w.add_scalar("a", 0.1),
    "scalar, tensor": lambda w: w.add_scalar("a", torch.tensor([0.125], requires_grad=True), torch.tensor(4)),
    "scalar, integer tensor": lambda w: w.add_scalar("a", torch.tensor(9), np.int64(4)),
    "scalar, numpy": lambda w: w.add_scalar("a", np.float64(1 / 3), 5, walltime=123.5),
    "scalar, array": lambda w: w.add_scalar("a", np.ones((1, 1)), 5),
    "scalar, not finite": lambda w: [w.add_scalar("a", float(text), 1) for text in ("nan", "inf", "-inf", "1e300")],
    "scalar, odd tags": lambda w: [w.add_scalar(tag, 1.0, 1) for tag in ("a b/c:d", "☃" * 50, "x" * 300, "")],
    "scalar, large and negative steps": lambda w: [w.add_scalar("a", 1.0, step) for step in (0, 127, 128, 2**40, -5)],
    "scalar, new style": lambda w: w.add_scalar("a", 0.5, 1, new_style=True),
    "scalar, double": lambda w: w.add_scalar("a", 1 / 3, 1, new_style=True, double_precision=True),
    "tensor": lambda w: w.add_tensor("t", torch.arange(6.0).view(2, 3), 2),
    "histogram": lambda w: w.add_histogram("h", SIGNED, 1),
    "histogram, bfloat16": lambda w: w.add_histogram("h", SIGNED.bfloat16(), 1),
    "histogram, auto": lambda w: w.add_histogram("h", SIGNED.numpy(), 1, bins="auto"),
    "histogram, few bins": lambda w: w.add_histogram("h", np.array([1, 2, 2, 3]), 1, bins="fd", max_bins=2),
    "histogram, own bins": lambda w: w.add_histogram("h", torch.arange(10), 1, bins=[0.0, 2, 5, 9]),
    "histogram, parameter": lambda w: w.add_histogram("h", torch.nn.Parameter(SIGNED), walltime=5.0),
    "histogram, raw": lambda w: w.add_histogram_raw("h", 0, 3, 4, 6, 14, [1.0, 2.0, 3.0], [1, 2, 1], 3),
    "image": lambda w: w.add_image("i", IMAGE, 2),
    "image, HWC uint8": lambda w: w.add_image("i", IMAGES[0].permute(1, 2, 0).byte(), 2, dataformats="HWC"),
    "image, HW": lambda w: w.add_image("i", GREY, 2, dataformats="HW"),
    "image, numpy": lambda w: w.add_image("i", IMAGE.numpy(), 2, walltime=77.0),
    "images": lambda w: w.add_images("i", IMAGES, 2),
    "images, one channel": lambda w: w.add_images("i", IMAGES[:, :1], 2),
    "image with boxes": lambda w: w.add_image_with_boxes("i", IMAGE, torch.tensor([[1.0, 1, 6, 6]]), 1, labels=["x"]),
    "figure": lambda w: w.add_figure("f", figure(), 1),
    "figures": lambda w: w.add_figure("f", [figure(), figure()], 1),
    "audio": lambda w: w.add_audio("s", torch.sin(torch.arange(800.0) / 9), 1, sample_rate=8000),
    "text": lambda w: w.add_text("t", "**hello** ☃", 4),
    "graph": lambda w: w.add_graph(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.zeros(1, 3)),
    "embedding": lambda w: w.add_embedding(torch.arange(12.0).view(4, 3), list("abcd"), IMAGES[:4], 3, tag="e/f"),
    "PR curve": lambda w: w.add_pr_curve("p", np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.6]), 1),
    "PR curve, raw": lambda w: w.add_pr_curve_raw("p", *pr_counts(), 1, num_thresholds=5),
    "custom scalars": lambda w: w.add_custom_scalars(LAYOUT),
    "custom scalars, multiline": lambda w: w.add_custom_scalars_multilinechart(["a", "b"], "c", "t"),
    "custom scalars, margin": lambda w: w.add_custom_scalars_marginchart(["a", "b", "c"], "c", "t"),
    "mesh": lambda w: w.add_mesh("m", MESH, (MESH * 100).abs().int(), torch.tensor([[[0, 2, 3]]])),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def events(folder: Path) -> list[tuple[int, float | None, str]]:
    """Step, wall time where it was given, and content of all that torch's class would write too, in order."""
    found = []
    for path in sorted(folder.glob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            kept = [v for v in event.summary.value if not _is_ours(v)]
            kind = event.WhichOneof("what")
            if kind == "file_version" or (kind == "summary" and not kept):
                continue
            wall_time = event.wall_time if event.wall_time < 1e9 else None
            content = "".join(map(str, kept)) if kind == "summary" else kind + str(getattr(event, kind))
            found.append((event.step, wall_time, content))
    return found


def _is_ours(value: Any) -> bool:
    return value.tag in (ENVIRONMENT_TEXT, f"{ENVIRONMENT_TEXT}/text_summary") or value.tag.startswith(
        ("live/", "system/")
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch's add_graph uses what torch calls deprecated
@pytest.mark.parametrize("name", CALLS)
def test_the_same_events_as_torchs(name: str, tmp_path: Path) -> None:
    written = {}
    for kind, made in (("torch", tensorboard.SummaryWriter), ("ours", SummaryWriter)):
        with made(str(tmp_path / kind)) as writer:
            CALLS[name](writer)
        written[kind] = events(tmp_path / kind)
    assert written["ours"] == written["torch"]
    files = {
        kind: {str(path.relative_to(tmp_path / kind)): path.read_bytes() for path in (tmp_path / kind).rglob("*.*sv")}
        for kind in written
    }
    assert files["ours"] == files["torch"]
    assert written["torch"] or files["torch"]


def test_every_method_is_tried() -> None:
    """But video, which needs moviepy, ONNX, which needs onnx, and those that mean something else here; see below."""
    methods = {name.removeprefix("add_") for name in dir(tensorboard.SummaryWriter) if name.startswith("add_")}
    assert len(methods) >= 20
    source = Path(__file__).read_text()
    assert {name for name in methods if f".add_{name}(" not in source} == {"video", "onnx_graph"}
    for name in ("video", "onnx_graph"):
        assert f"add_{name}" not in vars(SummaryWriter), "it is torch's own"


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.add_scalar("a", torch.zeros(2), 1),
        lambda w: w.add_scalar("a", "text", 1),
        lambda w: w.add_scalar("a", None, 1),
        lambda w: w.add_histogram("h", torch.zeros(0), 1),
        lambda w: w.add_image("i", torch.zeros(3, 3), 1),
        lambda w: w.add_images("i", torch.zeros(3, 3, 3), 1),
        lambda w: w.add_hparams({"a": object()}, {}),
        lambda w: w.add_hparams([], {}),
        lambda w: w.add_embedding(torch.zeros(3), ["a"]),
    ],
)
def test_what_torchs_refuses_is_refused(call: Callable[[Any], None], tmp_path: Path) -> None:
    """By the call itself, and what follows is written."""
    for made in (tensorboard.SummaryWriter, SummaryWriter):
        with made(str(tmp_path / made.__module__)) as writer:
            with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind torch has chosen
                call(writer)
            writer.add_scalar("after", 1.0, 1)
        assert any('"after"' in content for _, _, content in events(tmp_path / made.__module__))


@pytest.mark.filterwarnings("ignore")  # of NumPy, about NaN
@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.add_histogram("h", torch.full((5,), torch.nan), 1),
        lambda w: w.add_histogram("h", torch.tensor([1.0, torch.nan, torch.inf]), 1),
        lambda w: w.add_histogram("h", torch.ones(5), 1, bins="nonsense"),
        lambda w: w.add_histogram("h", torch.tensor([1e30, -1e30]), 1),
        lambda w: w.add_histogram("h", torch.ones(5, dtype=torch.bool), 1),
        lambda w: w.add_histogram("h", torch.ones(5, dtype=torch.complex64), 1),
        lambda w: w.add_image("i", torch.ones(2, 4, 4) / 2, 1),
        lambda w: w.add_image("i", torch.ones(4, 4, 4) / 2, 1),
        lambda w: w.add_image("i", torch.full((3, 4, 4), torch.nan), 1),
        lambda w: w.add_image("i", torch.zeros(3, 0, 4), 1),
        lambda w: w.add_image("i", torch.ones(3, 4, 4, dtype=torch.bool), 1),
        lambda w: w.add_images("i", torch.ones(3, 5, 4, 4), 1),
        lambda w: w.add_images("i", torch.ones(0, 3, 4, 4), 1),
        lambda w: w.add_scalar("a", True, 1),
        lambda w: w.add_scalar("a", torch.tensor(1 + 2j), 1),
        lambda w: w.add_scalar("a", 10**400, 1),
    ],
)
def test_odd_values_end_as_with_torchs(call: Callable[[Any], None], tmp_path: Path) -> None:
    """Refused by the call or written; never an error later, on the writing thread."""
    found = []
    for made in (tensorboard.SummaryWriter, SummaryWriter):
        with made(str(tmp_path / made.__module__)) as writer:
            try:
                call(writer)
                refused = False
            except Exception:
                refused = True
            writer.add_scalar("after", 1.0, 1)
        found.append((refused, events(tmp_path / made.__module__)))
    assert found[0] == found[1]


def test_what_is_logged_may_change_afterwards(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "a") as writer:
        values, picture = torch.ones(4), torch.zeros(3, 4, 4)
        writer.add_histogram("h", values, 1)
        writer.add_image("i", picture, 1)
        values.fill_(9)
        picture.fill_(1)
    read = read_events(Run(tmp_path / "a"))
    assert read.Histograms("h")[0].histogram_value.max == 1
    import io

    from PIL import Image

    assert np.asarray(Image.open(io.BytesIO(read.Images("i")[0].encoded_image_string))).max() == 0


def test_one_run_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """add_scalars and add_hparams make no runs of their own; status, results and settings are those of a run."""
    for seed in (0, 1):
        with SummaryWriter(tmp_path / "runs" / f"mine-{seed}") as writer:
            for step in range(1, 6):
                writer.add_scalars("Loss", {"train": 1 / step, "val": 2 / step}, step)
                writer.add_scalar("val_acc", 0.5 + step / 10 + seed / 100, step)
            writer.add_scalars("Loss", {"other": torch.tensor(3.0)}, 6, walltime=7.0)
            writer.add_hparams(
                {"lr": torch.tensor([0.5]), "seed": seed, "on": True}, {"hparam/final": 0.75}, global_step=6
            )
            writer.add_hparams({"lr": 2.0}, {})
    run = Run(tmp_path / "runs" / "mine-0")
    assert sorted(path.name for path in run.path.iterdir() if path.is_dir()) == [".mnist_tb"]
    assert scalars(run)["Loss/val"] == [(step, pytest.approx(2 / step)) for step in range(1, 6)]
    assert scalars(run)["hparam/final"] == [(6, 0.75)]
    known = run.read_metrics()
    assert known["status"] == "completed"
    (row,) = list_runs(run.path.parent).runs[:1]
    assert (row.val_accuracy, row.val_loss) == (pytest.approx(1.0), pytest.approx(0.4))
    assert known["config"] == {"lr": 0.5, "seed": 0, "on": True}
    layout = read_events(run).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert b"^Loss/other$" in layout
    assert main(arguments=["compare", "--logdir", str(tmp_path / "runs"), "--group", "--format", "json"]) == 0
    (section,) = json.loads(capsys.readouterr().out)
    assert [line["n"] for line in section["lines"]] == [2], "two seeds of one configuration"


@pytest.mark.slow
def test_how_it_ends(tmp_path: Path) -> None:
    """Closed, by an error, by nothing at all, killed; in a program of its own."""
    program = """
        writer = SummaryWriter(f"{folder}/{how}")
        writer.add_scalar("a", 1.0, 1)
        if how == "error":
            raise RuntimeError("the cat")
        if how == "with":
            with writer:
                raise RuntimeError("the dog")
        if how == "killed":
            writer.flush()
            os.kill(os.getpid(), 9)
        if how == "fork":
            if os.fork() == 0:
                for i in range(10_000):  # more than fits into the queue
                    writer.add_scalar("a", 2.0, i)
                writer.close()
                sys.exit()
            os.wait()"""
    ends = {
        "nothing": ("completed", None), "error": ("failed", "the cat"), "with": ("failed", "the dog"),
        "fork": ("completed", None), "killed": ("running", None),
    }  # fmt: skip
    done = in_forks(program, tmp_path, ends)
    for how, (status, error) in ends.items():
        run = Run(tmp_path / how)
        known = run.read_metrics()
        assert (known["status"], known.get("error")) == (status, error), (how, done.stderr)
        assert scalars(run)["a"] == [(1, 1.0)]
    assert not run.is_in_use()


def test_twice_in_a_folder_and_closed_and_opened_again(tmp_path: Path) -> None:
    first, second = SummaryWriter(tmp_path / "a"), SummaryWriter(tmp_path / "a")
    first.add_scalar("x", 1.0, 1)
    second.add_scalar("y", 2.0, 1)
    second.close()
    assert Run(tmp_path / "a").read_metrics()["status"] == "running", "the first one goes on"
    first.close()
    first.close()
    assert Run(tmp_path / "a").read_metrics()["status"] == "completed"
    first.add_scalar("x", 3.0, 2)
    first.close()
    read = scalars(Run(tmp_path / "a"))
    assert (read["x"], read["y"]) == ([(1, 1.0), (2, 3.0)], [(1, 2.0)])
    with SummaryWriter(tmp_path / "a", purge_step=2) as again:
        again.add_scalar("x", 4.0, 2)
    assert scalars(Run(tmp_path / "a"))["x"] == [(1, 1.0), (2, 4.0)]


def test_the_default_folder_and_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SummaryWriter(comment="_mine", filename_suffix=".x") as writer:
        writer.add_scalar("a", 1.0)
        assert writer.get_logdir().startswith("runs/")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_mine")


def test_of_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which meet new curves all the time, and change between any two instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(k: int) -> None:
        for i in range(200):
            writer.add_scalar(f"loss/{k}.{i % 40}", i, i)
            writer.add_scalars(f"together {i % 3}", {f"{k}.{i % 40}": i}, i)
            writer.add_histogram("h", np.ones(3), i)

    try:
        with SummaryWriter(tmp_path / "a") as writer:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    read = scalars(Run(tmp_path / "a"))
    for k in range(4):
        for tag in range(40):
            assert read[f"loss/{k}.{tag}"] == [(i, float(i)) for i in range(200) if i % 40 == tag]
    layout = read_events(Run(tmp_path / "a")).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert all(
        ("^" + re.escape(f"together {i % 3}/{k}.{i % 40}") + "$").encode() in layout
        for k in range(4)
        for i in range(200)
    )


def test_what_a_trainer_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers of any kind, nested ones together on a chart, texts; of what is none of these one warning."""
    writer = RunWriter.in_logdir(tmp_path, "x", code=False, system_seconds=0)
    for step in (1, 2):
        writer.log({"a": torch.ones(1), "deep": {"b": np.float32(0.5), "c": 1, "text": "x"}, "none": None}, step)
    writer.log({"a": 3}, 3, walltime=5.0)
    writer.end(ValueError("the cat"))
    (run,) = list_run_folders(tmp_path)
    assert (run.read_metrics()["status"], run.read_metrics()["error"]) == ("failed", "the cat")
    assert scalars(run) == {"a": [(1, 1), (2, 1), (3, 3)], "deep/b": [(1, 0.5), (2, 0.5)], "deep/c": [(1, 1), (2, 1)]}
    assert {"deep/text/text_summary", "custom_scalars__config__"} <= {*read_events(run).Tags()["tensors"]}
    assert read_events(run).Scalars("a")[-1].wall_time == 5.0
    assert caplog.text.count("none is not written") == 1


def test_the_writer_of_a_trainer_is_its_tracker_too(tmp_path: Path) -> None:
    """In version 1.0 it was nothing else. An idle one does nothing, by whatever of its names."""
    writer = RunWriter.in_logdir(tmp_path, "x", code=False, system_seconds=0)
    idle = RunWriter.idle(str(tmp_path / "no"))
    for one in (writer, idle, pickle.loads(pickle.dumps(writer))):
        one.settings({"lr": 0.1})
        one.scalars(1, {"a": 1.0})
        one.add_scalar("a", 2.0, 2)
        one.log({"a": 3.0}, 3)
        assert not hasattr(one, "scalar")
        one.close()
    (run,) = list_run_folders(tmp_path)
    assert (run.name, run.read_metrics()["config"], scalars(run)) == (
        "0001-x", {"lr": 0.1}, {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}
    )  # fmt: skip
    assert not (tmp_path / "no").exists()
