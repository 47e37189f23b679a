"""The command `mnist-tb`: its groups, its errors and its exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
import time

import click

from mnist_tb import __version__
from mnist_tb.cli.board import board_command
from mnist_tb.cli.compare import compare_command
from mnist_tb.cli.options import say
from mnist_tb.cli.runs import export_command, runs_group
from mnist_tb.cli.sweep import sweep_command
from mnist_tb.cli.training import (
    configs_command,
    evaluate_command,
    predict_command,
    resume_command,
    train_command,
)
from mnist_tb.cli.watch import watch_command
from mnist_tb.config.redaction import hide_addresses
from mnist_tb.engine.distributed import is_main_process
from mnist_tb.engine.process import bound_spinning
from mnist_tb.errors import InputError, TrainingError
from mnist_tb.training.signals import Interruption

_MAIN_SPEAKS_FIRST = 1
"""Seconds: torchrun ends all processes as soon as one has ended, and the main process is to say why."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mnist-tb")
def cli() -> None:
    """Train a small CNN on MNIST and watch it learn in TensorBoard."""


for _command in (
    train_command,
    resume_command,
    evaluate_command,
    predict_command,
    configs_command,
    board_command,
    watch_command,
    compare_command,
    runs_group,
    export_command,
    sweep_command,
):
    cli.add_command(_command)


def main(command: click.Command = cli, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 and 143 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    bound_spinning()
    interruption = Interruption()
    try:
        with interruption:
            command.main(arguments, prog_name="mnist-tb", standalone_mode=False)
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        say(hide_addresses(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except InputError as error:
        return _fail(error, 2)
    except TrainingError as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except (KeyboardInterrupt, click.Abort):  # click's name for it
        return _fail("interrupted", 130) if interruption.number == signal.SIGINT else _fail("terminated", 143)
    return 0


def _fail(message: object, code: int) -> int:
    """Print an error and return the exit code; of several processes, those speak that have something new to say."""
    if is_main_process():
        say(f"mnist-tb: {message}", err=True)
    else:
        if not getattr(message, "said_by_main", False):
            say(f"mnist-tb, process {os.environ['RANK']}: {message}", err=True)
        time.sleep(_MAIN_SPEAKS_FIRST)
    return code
