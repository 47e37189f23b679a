"""The command line, thin: parse, call one function, print one summary.

What is slow to import is imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_tb import __version__
from mnist_tb.cli.runs import compare_command, export_command, logdir_option, runs_group
from mnist_tb.cli.sweep import sweep_command
from mnist_tb.engine import process as memory
from mnist_tb.engine.distributed import is_first
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.system import end_child, reap_child
from mnist_tb.training.signals import Interruption

if TYPE_CHECKING:
    from mnist_tb.board.launcher import Page


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mnist-tb")
def cli() -> None:
    """Train a small CNN on MNIST and watch it learn in TensorBoard."""


for _command in (compare_command, runs_group, export_command, sweep_command):
    cli.add_command(_command)

_data_root = click.option(
    "--data-root",
    metavar="FOLDER",
    envvar="MNIST_TB_DATA_ROOT",
    show_envvar=True,
    help="A folder that holds the dataset's files already; nothing is downloaded.",
)

_FIRST_SPEAKS = 1
"""Seconds: torchrun ends the other processes as soon as one has ended, and the first is to say why."""

_LISTEN_SECONDS = 0.1

_no_browser = click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")


@cli.command("train")
@click.option(
    "--config",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="The configuration: one that comes with mnist-tb, see `mnist-tb configs`, or a YAML file.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override any key, e.g. --set train.lr=0.01. Repeatable.",
)
@click.option("--epochs", type=int, help="Short for --set train.epochs=…")
@click.option("--batch-size", type=int, help="Short for --set train.batch_size=…")
@click.option("--lr", type=float, help="Short for --set train.lr=…")
@click.option("--seed", type=int, help="Short for --set seed=…")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--name", help="The run's short name.")
@logdir_option
@_data_root
@click.option("--board", is_flag=True, help="Show the training in TensorBoard, live, until Ctrl-C.")
@_no_browser
def train_command(
    config: str,
    overrides: tuple[str, ...],
    logdir: Path,
    data_root: str | None,
    board: bool,
    no_browser: bool,
    **named: Any,
) -> None:
    """Train, evaluate, and print where the run is."""
    from mnist_tb.config import load as configuration

    keys = {"epochs": "train.epochs", "batch_size": "train.batch_size", "lr": "train.lr", "data_root": "data.root"}
    options = [
        (f"--{name.replace('_', '-')}", keys.get(name, name), value)
        for name, value in (*named.items(), ("data_root", data_root))
        if value is not None
    ]
    if data_root is not None:
        options.append(("--data-root", "data.download", False))
    chosen = configuration.load(config, overrides, options, rename=True)
    with _live_page(logdir, not no_browser) if board and is_first() else nullcontext() as page:
        from mnist_tb.launch import launch  # imports torch: the page comes up meanwhile
        from mnist_tb.tracking.console import Terminal

        run = launch(chosen, logdir, Terminal())
        if not is_first():
            return
        again = _board_again(logdir)
        click.echo(f"\nThe run: {run.path}\nSee it:  {again if page is None else page.address}")
        if page is not None:
            with suppress(KeyboardInterrupt):
                if page.process.poll() is None:
                    click.echo("Ctrl-C ends the page.")
                while page.process.poll() is None:  # not wait(): see board.launcher
                    time.sleep(_LISTEN_SECONDS)
                click.echo(f"The page has ended by itself; it is there again with: {again}")


def _board_again(logdir: Path) -> str:
    """The command that shows a log folder, as it can be typed here."""
    program = Path(sys.executable).with_name("mnist-tb")
    on_path = shutil.which("mnist-tb") == str(program)
    command = f"{'mnist-tb' if on_path else os.path.relpath(program)} board --logdir {logdir}"
    return f"make board LOGDIR={logdir}  or  {command}" if Path("Makefile").exists() else command


@cli.command("configs")
@click.argument("name", required=False)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, not to the terminal.")
def configs_command(name: str | None, output: Path | None) -> None:
    """List the configurations that come with mnist-tb, or write NAME out, to edit it and train by the copy."""
    from mnist_tb.config import presets

    if name is None:
        for known in presets.names():
            click.echo(f"{known:16} {presets.summary(known)}")
        return
    if name not in presets.names():
        raise InputError(f"{name}: there is no configuration of that name; there are {', '.join(presets.names())}")
    text = presets.find(name).read_text(encoding="utf-8")
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror}") from None
    click.echo(f"{output}: written; train by it with: mnist-tb train --config {output}")


@contextmanager
def _live_page(logdir: Path, browser: bool) -> Iterator[Page]:
    """TensorBoard over the log folder, as a process of its own, until the end of the block."""
    from mnist_tb.board import launcher

    page = launcher.start(logdir, browser)
    click.echo(f"TensorBoard: {page.address}")
    try:
        yield page
    finally:
        end_child(page.process)
        reap_child(page.process)


@cli.command("resume")
@click.argument("run")
@click.option("--epochs", type=int, help="How many epochs there are to be in all: more than before extends the run.")
@click.option("--device", help="auto, cpu, cuda or cuda:N; the run's own, left out.")
@logdir_option
@_data_root
def resume_command(run: str, epochs: int | None, device: str | None, logdir: Path, data_root: str | None) -> None:
    """Go on with RUN where it stopped: a number, a name, a folder, or `last`."""
    from mnist_tb.launch import resume
    from mnist_tb.runs import folder as runs
    from mnist_tb.tracking.console import Terminal

    found = runs.find(logdir, run)
    resumed = resume(found, Terminal(), epochs, device, data_root)
    if not is_first():
        return
    if resumed:
        click.echo(f"\nThe run: {found.path}")
    else:
        click.echo(f"{found.path}: this run is complete; --epochs with a larger number makes it longer.")


@cli.command("board")
@logdir_option
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=6006, show_default=True, help="Or the next one that is free."
)
@click.option("--host", default="localhost", show_default=True, help="The interface to serve on.")
@_no_browser
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the standard input does.")
def board_command(logdir: Path, port: int, host: str, no_browser: bool, with_parent: bool) -> None:
    """Show all runs in TensorBoard, live: the page follows the trainings by itself."""
    from mnist_tb.board import launcher

    with suppress(KeyboardInterrupt):
        launcher.serve(logdir, host, port, click.echo, not no_browser, with_parent)


@cli.command("evaluate")
@click.argument("run")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON and nothing else.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@logdir_option
@_data_root
def evaluate_command(run: str, split: str, as_json: bool, device: str, logdir: Path, data_root: str | None) -> None:
    """Evaluate the best weights of RUN: a number, a name, a folder, or `last`."""
    from mnist_tb.runs import folder as runs
    from mnist_tb.tracking import charts as reporting
    from mnist_tb.tracking.console import Terminal
    from mnist_tb.training.results import add_evaluation, evaluate_run

    found = runs.find(logdir, run)
    with found.in_use():
        dataset, evaluation = evaluate_run(found, split, device, data_root)
        if as_json:
            numbers = reporting.evaluation_numbers(evaluation, dataset.classes)
            click.echo(json.dumps({"run": found.name, "dataset": dataset.name, "split": split, **numbers}))
        else:
            terminal = Terminal()
            terminal.evaluated(
                f"{found.name}: {split} images of {dataset.name}, best weights", evaluation, dataset.classes
            )
            terminal.say(f"{split}: loss {evaluation.loss:.4f}, accuracy {evaluation.accuracy:.2%}")
        add_evaluation(found, split, dataset, evaluation)


@cli.command("predict")
@click.argument("run")
@click.argument("image", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--show", type=click.Path(path_type=Path), metavar="FILE", help="Save what the network saw as a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print all probabilities as JSON and nothing else.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@logdir_option
@_data_root
def predict_command(
    run: str,
    image: tuple[Path, ...],
    show: Path | None,
    as_json: bool,
    device: str,
    logdir: Path,
    data_root: str | None,
) -> None:
    """Say what digit each IMAGE shows, by the best weights of RUN: photographed, scanned or drawn, dark or light."""
    from mnist_tb.runs import folder as runs
    from mnist_tb.training import inference as predicting

    found = predicting.guess(runs.find(logdir, run), image, device, data_root)
    if as_json:
        click.echo(json.dumps([{"image": str(one.path), "classes": one.classes} for one in found]))
    else:
        for one in found:
            likeliest = list(one.classes.items())[: predicting.TOP]
            click.echo(f"{one.path}: " + ", ".join(f"{name} {share:.1%}" for name, share in likeliest))
    if show is not None:
        from mnist_tb.tracking import figures

        _save_picture(
            figures.captioned([one.seen for one in found], [(one.best, one.classes[one.best]) for one in found]), show
        )


def _save_picture(picture: Any, path: Path) -> None:
    from PIL import Image

    try:
        Image.fromarray(picture).save(path)
    except ValueError:
        raise InputError(f"--show {path}: give it the ending of a picture format, such as .png") from None
    except OSError as error:
        raise InputError(f"--show {path}: cannot be written: {error.strerror}") from None


def main(command: click.Command = cli, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 and 143 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign is no reason to fail
    memory.bound_spinning()
    interruption = Interruption()
    try:
        with interruption:
            command.main(arguments, prog_name="mnist-tb", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InputError as error:
        return _say_error(error, 2)
    except TrainingError as error:
        return _say_error(error, 1)
    except OSError as error:
        return _say_error(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except (KeyboardInterrupt, click.Abort):  # click's word for it
        return _say_error("interrupted", 130) if interruption.number == signal.SIGINT else _say_error("terminated", 143)
    return 0


def _say_error(message: object, code: int) -> int:
    if is_first():
        click.echo(f"mnist-tb: {message}", err=True)
    else:
        if not getattr(message, "told", False):
            click.echo(f"mnist-tb, process {os.environ['RANK']}: {message}", err=True)
        time.sleep(_FIRST_SPEAKS)
    return code
