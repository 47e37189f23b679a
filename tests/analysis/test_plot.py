"""A comparison as a figure: what is drawn is what the runs hold, and the caption says what it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from mnist_tb import Tracker
from mnist_tb.cli.main import main
from mnist_tb.errors import install_line


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Two configurations with two seeds each; one seed was trained twice, another one ended early."""
    for lr, seed, steps in ((0.1, 1, 60), (0.1, 2, 60), (0.1, 2, 60), (0.2, 1, 60), (0.2, 2, 30)):
        with Tracker(tmp_path / "runs", "run", {"lr": lr, "seed": seed}, dataset="toys") as tracker:
            for step in range(0, steps, 10):
                tracker.scalars(step, {"accuracy/val": lr * seed + step / 1000, "loss/train": 1 / (1 + step)})
    return tmp_path / "runs"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *arguments: object, **named: object) -> None:
        figures.append(self)
        save(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def draw(logdir: Path, *arguments: str, code: int = 0) -> None:
    assert main(arguments=["compare", "--logdir", str(logdir), *arguments]) == code


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")])
def test_kinds_of_files(ending: str, start: bytes, logdir: Path, tmp_path: Path) -> None:
    one, again = tmp_path / f"one.{ending}", tmp_path / f"again.{ending}"
    for path in (one, again):
        draw(logdir, "--group", "--figure", str(path))
    assert one.read_bytes().startswith(start)
    assert one.read_bytes() == again.read_bytes(), "the same runs make the same file"


def test_means_and_bands(logdir: Path, tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.v1.pdf"
    draw(logdir, "--group", "--figure", str(path))
    (axes,) = drawn[0].axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert lines.keys() == {"lr=0.1 (n = 2)", "lr=0.2 (n = 2)"}
    assert list(lines["lr=0.1 (n = 2)"].get_xdata()) == [0, 10, 20, 30, 40, 50]
    assert list(lines["lr=0.1 (n = 2)"].get_ydata()) == pytest.approx([0.15 + step / 1000 for step in range(0, 60, 10)])
    assert list(lines["lr=0.2 (n = 2)"].get_xdata()) == [0, 10, 20]
    band = {collection.get_paths()[0].vertices[:, 1].max() for collection in axes.collections}
    assert max(band) == pytest.approx(0.32 + 0.2 / 2**0.5), "one deviation of 0.2 and 0.4 above their mean at step 20"
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines.values()}
    assert all(len(set(each)) == 2 for each in zip(*styles, strict=True)), "told apart without colour"
    assert axes.get_ylabel() == "validation accuracy"

    caption = (tmp_path / "figures.v1.caption.txt").read_text()
    assert caption in capsys.readouterr().out
    assert caption.startswith(
        "Validation accuracy by step, on toys. A line is the mean over the seeds of a configuration,"
    )
    assert "the band one standard deviation over the seeds to either side. " in caption
    assert "lr=0.2: 2 seeds, as far as the shortest seed goes: step 20 of 50; " in caption
    assert "lr=0.1: 2 seeds in 3 runs, repeats of a seed averaged. " in caption
    assert "Nothing is smoothed." in caption


def test_runs_without_groups_and_several_tags(logdir: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    draw(logdir, "--figure", str(tmp_path / "a.svg"), "--tag", "loss/train", "--tag", "accuracy/val", "--last", "2")
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["training loss", "validation accuracy"]
    assert all({line.get_label() for line in axes.lines} == {"0004-run", "0005-run"} for axes in drawn[0].axes)
    assert not any(axes.collections for axes in drawn[0].axes), "a single run has no band"
    caption = (tmp_path / "a.caption.txt").read_text()
    assert "Training loss and validation accuracy by step" in caption
    assert "A line is a run." in caption
    assert ">0004-run<" in (tmp_path / "a.svg").read_text(), "text stays text"


def test_long_curves_are_averaged_and_that_is_said(tmp_path: Path, drawn: list[Figure]) -> None:
    with Tracker(tmp_path / "runs", "long") as tracker:
        for step in range(1, 1001):
            tracker.scalars(step, {"loss/train": step})
    draw(tmp_path / "runs", "--figure", str(tmp_path / "a.pdf"), "--tag", "loss/train")
    (line,) = drawn[0].axes[0].lines
    assert list(line.get_xdata()) == list(range(10, 1001, 10))
    assert list(line.get_ydata()) == [step - 4.5 for step in range(10, 1001, 10)]
    assert "Smoothed: training loss: means of 10 consecutive points." in (tmp_path / "a.caption.txt").read_text()


def test_all_lines_of_a_panel_are_averaged_alike(tmp_path: Path, drawn: list[Figure]) -> None:
    for count in (1000, 200):
        with Tracker(tmp_path / "runs", f"of{count}") as tracker:
            for step in range(1, count + 1):
                tracker.scalars(step, {"loss/train": step})
    draw(tmp_path / "runs", "--figure", str(tmp_path / "a.pdf"), "--tag", "loss/train")
    lengths = {str(line.get_label()): len(line.get_xdata()) for line in drawn[0].axes[0].lines}  # type: ignore[arg-type]
    assert lengths == {"0001-of1000": 100, "0002-of200": 20}


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), 1.7e308, -1.7e308])
def test_numbers_of_every_size_are_drawn_or_left_out(odd: float, tmp_path: Path, drawn: list[Figure]) -> None:
    for name in ("a", "b"):
        with SummaryWriter(str(tmp_path / "runs" / name)) as writer:
            for step in range(250):
                value = (odd, -odd, 0.5)[step % 3 if 100 < step < 120 else 2]
                writer.add_scalar("Top_ACC", value, step, new_style=True, double_precision=True)
    draw(tmp_path / "runs", "--group", "--figure", str(tmp_path / "a.pdf"), "--tag", "Top_ACC")
    low, high = drawn[0].axes[0].get_ylim()
    assert -1e305 < low < 0.5 < high < 1e305
    assert (tmp_path / "a.caption.txt").read_text().startswith("Top_ACC by step"), "a tag keeps its letters"


def test_a_curve_of_another_program_is_drawn_with_ours(logdir: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    with SummaryWriter(str(logdir / "theirs")) as writer:
        for step in (0, 10):
            writer.add_scalar("val_acc", 0.5, step)
            writer.add_scalar("top1", 0.75, step)
    draw(logdir, "theirs", "1", "--figure", str(tmp_path / "a.pdf"))
    draw(logdir, "theirs", "1", "--figure", str(tmp_path / "b.pdf"), "--metric", "accuracy/val=top1")
    draw(logdir, "theirs", "1", "--figure", str(tmp_path / "c.pdf"), "--tag", "top1")
    values = [{str(line.get_label()): line.get_ydata()[0] for line in figure.axes[0].lines} for figure in drawn]
    theirs = [next(value for name, value in each.items() if name.startswith("theirs")) for each in values]
    assert theirs == pytest.approx([0.5, 0.75, 0.75])
    assert [len(each) for each in values] == [2, 2, 1]
    assert re.search(r"Not drawn, for want of the curve top1: 0001-run", (tmp_path / "c.caption.txt").read_text())


def test_names_are_text_whatever_they_are(
    tmp_path: Path, drawn: list[Figure], recwarn: pytest.WarningsRecorder
) -> None:
    names = ("_hidden", "$x_{", "\u6570\u5b57", "a\nb")
    for name in names:
        with SummaryWriter(str(tmp_path / "runs" / name)) as writer:
            writer.add_scalar("accuracy/val", 0.5, 1)
    draw(tmp_path / "runs", "--figure", str(tmp_path / "a.pdf"))
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    assert {text.get_text().strip() for text in legend.get_texts()} == {*names}
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--figure", "a.gif"), "--figure a.gif: give it one of the endings .pdf, .svg, .png"),
        (("--figure", "/nowhere/a.pdf"), "--figure /nowhere/a.pdf: cannot be written: No such file or directory"),
        (
            ("--figure", "a.pdf", "--tag", "acuracy"),
            "--tag acuracy: no run has this curve; there are accuracy/val, loss/train",
        ),
        (("--tag", "loss/val"), "--tag: says what a figure draws, and needs --figure FILE"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    logdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(logdir, *arguments, code=2)
    assert capsys.readouterr().err == f"mnist-tb: {sentence}\n"
    assert not list(tmp_path.glob("*.*"))


def test_too_many_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(15):
        with Tracker(tmp_path / "runs", "one") as tracker:
            tracker.scalars(1, {"accuracy/val": 0.5})
    draw(tmp_path / "runs", "--figure", str(tmp_path / "a.pdf"), code=2)
    assert "15 lines cannot be told apart, 14 can; choose some with --where or --last" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(
    logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw(logdir, "--figure", str(tmp_path / "a.pdf"), code=2)
    assert capsys.readouterr().err == f"mnist-tb: --figure needs matplotlib: {install_line('figure')}\n"
