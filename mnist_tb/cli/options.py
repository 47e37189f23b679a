"""What several commands have: options, and how they print."""

from __future__ import annotations

from pathlib import Path

import click

from mnist_tb.config.names import printable


def say(text: str, nl: bool = True, err: bool = False) -> None:
    """Print a text, in which nothing commands the terminal."""
    click.echo(printable(text, "\n\t"), nl=nl, err=err)


logdir_option = click.option(
    "--logdir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The folder of all runs."
)
data_root_option = click.option(
    "--data-root",
    metavar="FOLDER",
    envvar="MNIST_TB_DATA_ROOT",
    show_envvar=True,
    help="A folder that has the dataset's files already; nothing is downloaded.",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
PORT = 6006
"""TensorBoard's own."""
port_option = click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=PORT,
    show_default=True,
    help="Of the page; or the next one that is free.",
)
no_browser_option = click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
notify_option = click.option(
    "--notify",
    multiple=True,
    metavar="URL",
    help="Tell this address how a run ends, by Apprise: mailto://…, json://…. Repeatable. Or MNIST_TB_NOTIFY.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
metric_option = click.option(
    "--metric",
    "told",
    multiple=True,
    metavar="accuracy/val=TAG",
    help="Which curve of another program is which; else it is guessed. Repeatable.",
)
