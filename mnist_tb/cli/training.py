"""The commands that train or use a trained network: train, resume, evaluate, predict; and configs."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from mnist_tb.cli.board import board_hint, live_page
from mnist_tb.cli.options import (
    data_root_option,
    device_option,
    json_option,
    logdir_option,
    no_browser_option,
    notify_option,
    port_option,
    say,
)
from mnist_tb.config.numbers import loss_text, percent
from mnist_tb.engine.distributed import is_main_process
from mnist_tb.errors import InputError, command_line

_LISTEN_SECONDS = 0.1
"""How often to check whether the page has ended; waiting for it could miss Ctrl-C, see `board.launcher`."""


@click.command("train")
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
@click.option("--init-from", metavar="RUN", help="Begin with the best weights of another run.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A word to find it by. Repeatable.")
@click.option("--note", default="", help="What you want to remember of it.")
@notify_option
@logdir_option
@data_root_option
@click.option("--board", is_flag=True, help="Show the training in TensorBoard, live, until Ctrl-C.")
@port_option
@no_browser_option
def train_command(
    config: str,
    overrides: tuple[str, ...],
    logdir: Path,
    data_root: str | None,
    board: bool,
    port: int,
    no_browser: bool,
    init_from: str | None,
    tags: tuple[str, ...],
    note: str,
    notify: tuple[str, ...],
    **named: Any,
) -> None:
    """Train, evaluate, and print where the run is."""
    from mnist_tb.config.load import load_config, with_data_root
    from mnist_tb.environment.notify import Notifier
    from mnist_tb.runs.folder import find_run
    from mnist_tb.runs.notes import make_notes

    keys = {"epochs": "train.epochs", "batch_size": "train.batch_size", "lr": "train.lr"}
    options = [
        (f"--{name.replace('_', '-')}", keys.get(name, name), value)
        for name, value in named.items()
        if value is not None
    ]
    loaded = load_config(config, overrides, [*options, *with_data_root(data_root)], rename=True)
    notes, notifier = make_notes(tags, note), Notifier(notify)
    origin = None if init_from is None else find_run(logdir, init_from, trained=True)
    with live_page(logdir, port, not no_browser) if board and is_main_process() else nullcontext() as page:
        from mnist_tb.launch import launch  # imports torch, while the page starts
        from mnist_tb.tracking.console import Terminal

        run = launch(loaded, logdir, Terminal(), init_from=origin, notes=notes, notifier=notifier)
        if not is_main_process():
            return
        hint = board_hint(logdir)
        say(f"\nThe run: {run.path}\nSee it:  {hint if page is None else page.address}")
        if page is not None:
            with suppress(KeyboardInterrupt):
                if page.process.poll() is None:
                    say("Press Ctrl-C to stop the page.")
                while page.process.poll() is None:
                    time.sleep(_LISTEN_SECONDS)
                say(f"The page has ended by itself; start it again with: {hint}")


@click.command("resume")
@click.argument("run")
@click.option("--epochs", type=int, help="The epochs that the run is to have in all; more than before extend it.")
@click.option(
    "--schedule-from-here",
    type=click.Choice(["constant"]),
    help="The learning rate of added epochs, where the run's schedule is laid out over those it has.",
)
@click.option("--lr", type=float, help="Its value; by default the run's train.lr.")
@click.option("--device", help="auto, cpu, cuda or cuda:N; by default the run's own.")
@notify_option
@logdir_option
@data_root_option
def resume_command(
    run: str,
    epochs: int | None,
    schedule_from_here: str | None,
    lr: float | None,
    device: str | None,
    notify: tuple[str, ...],
    logdir: Path,
    data_root: str | None,
) -> None:
    """Resume RUN where it stopped: a number, a name, a folder, or `last`."""
    from mnist_tb.environment.notify import Notifier
    from mnist_tb.runs.folder import find_run

    found = find_run(logdir, run, trained=True)
    from mnist_tb.launch import resume  # imports torch
    from mnist_tb.tracking.console import Terminal
    from mnist_tb.training.resume import ResumeOptions, read_to_resume

    options = ResumeOptions(epochs, device, data_root, constant=schedule_from_here is not None, lr=lr)
    resumed = resume(found, Terminal(), options, notifier=Notifier(notify))
    if not is_main_process():
        return
    if resumed:
        say(f"\nThe run: {found.path}\nSee it:  {board_hint(found.path.parent)}")
    else:
        longer = command_line("resume", found.path, "--epochs", 2 * read_to_resume(found, options)[0].train.epochs)
        say(f"{found.path}: this run is complete; to make it longer: {longer}")


@click.command("evaluate")
@click.argument("run")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@json_option
@device_option
@logdir_option
@data_root_option
def evaluate_command(run: str, split: str, as_json: bool, device: str, logdir: Path, data_root: str | None) -> None:
    """Evaluate the best weights of RUN: a number, a name, a folder, or `last`."""
    from mnist_tb.runs.folder import find_run

    found = find_run(logdir, run, trained=True)
    from mnist_tb.tracking.console import Terminal
    from mnist_tb.training.results import add_evaluation, evaluate_run, evaluation_numbers  # imports torch

    with found.in_use():
        dataset, evaluation = evaluate_run(found, split, device, data_root)
        if as_json:
            numbers = evaluation_numbers(evaluation, dataset.classes)
            say(json.dumps({"run": found.name, "dataset": dataset.name, "split": split, **numbers}))
        else:
            terminal = Terminal()
            title = f"{found.name}: {split} images of {dataset.name}, best weights"
            terminal.evaluated(title, evaluation, dataset.classes)
            terminal.say(f"{split}: loss {loss_text(evaluation.loss)}, accuracy {percent(evaluation.accuracy)}%")
        add_evaluation(found, split, dataset, evaluation)


@click.command("predict")
@click.argument("run")
@click.argument("image", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--show", type=click.Path(path_type=Path), metavar="FILE", help="Save what the network saw as a picture.")
@json_option
@device_option
@logdir_option
@data_root_option
def predict_command(
    run: str,
    image: tuple[Path, ...],
    show: Path | None,
    as_json: bool,
    device: str,
    logdir: Path,
    data_root: str | None,
) -> None:
    """Say which digit each IMAGE shows, by the best weights of RUN: photographed, scanned or drawn, dark or light."""
    from mnist_tb.data import preprocess
    from mnist_tb.runs.folder import find_run

    found = find_run(logdir, run, trained=True)
    for path in image:
        preprocess.read(path)  # what is wrong with one is said at once
    from mnist_tb.training.inference import TOP, predict_pictures  # imports torch

    predictions = predict_pictures(found, image, device, data_root)
    if as_json:
        say(json.dumps([{"image": str(one.path), "classes": one.classes} for one in predictions]))
    else:
        say(f"By the best weights of {found.name}:", err=True)
        for one in predictions:
            most_probable = list(one.classes.items())[:TOP]
            say(f"{one.path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in most_probable))
    if show is not None:
        from mnist_tb.tracking import figures

        captions = [(one.best, one.classes[one.best]) for one in predictions]
        _save_picture(figures.captioned([one.pixels for one in predictions], captions), show)


def _save_picture(picture: Any, path: Path) -> None:
    from PIL import Image

    try:
        Image.fromarray(picture).save(path)
    except ValueError:
        raise InputError(f"--show {path}: give it the ending of a picture format, such as .png") from None
    except OSError as error:
        raise InputError(f"--show {path}: cannot be written: {error.strerror}") from None


@click.command("configs")
@click.argument("name", required=False)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to a file, not to the terminal.")
@json_option
def configs_command(name: str | None, output: Path | None, as_json: bool) -> None:
    """List the configurations that come with mnist-tb, or write NAME out, to edit it and train with the copy."""
    from mnist_tb.config import presets

    if as_json and output is not None:
        raise InputError("--json: prints, and --output writes the YAML; give one of them")
    if name is None:
        if as_json:
            say(json.dumps([{"name": known, "summary": presets.summary(known)} for known in presets.names()]))
            return
        for known in presets.names():
            say(f"{known:16} {presets.summary(known)}")
        return
    if name not in presets.names():
        raise presets.unknown(name)
    text = presets.find(name).read_text(encoding="utf-8")
    if as_json:
        from mnist_tb.config import strict_yaml

        say(json.dumps(strict_yaml.read(presets.find(name)).values))
        return
    if output is None:
        say(text, nl=False)
        return
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror}") from None
    say(f"{output}: written; train with it by: {command_line('train', '--config', output)}")
