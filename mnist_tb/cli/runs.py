"""The commands about runs that are there: compare, runs, export. Thin, as `cli`; none of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_tb.errors import InputError, TrainingError

_WIDE = 200
"""Characters in a line where no terminal says how many there is room for."""

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_tb.runs.query import Overview, Problem

logdir_option = click.option(
    "--logdir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The folder of all runs."
)


@click.command("compare")
@click.argument("run", nargs=-1)
@click.option("--group", is_flag=True, help="Runs that differ in the seed alone become one line: mean ± deviation.")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only runs with this, e.g. lr=0.001.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the N newest of them.")
@click.option("--sort", default="val_accuracy", show_default=True, help="What decides which is the first.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    default="table",
    show_default=True,
    help="How it is printed.",
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write one HTML file to mail instead.")
@logdir_option
def compare_command(
    run: tuple[str, ...],
    group: bool,
    conditions: tuple[str, ...],
    last: int | None,
    sort: str,
    form: str,
    report: Path | None,
    logdir: Path,
) -> None:
    """Compare runs, all or each RUN named: which is better, and is the difference real?"""
    from mnist_tb.analysis import compare, tables

    if sort not in compare.SORTS:
        raise InputError(f"--sort {sort}: sort by one of {', '.join(compare.SORTS)}")
    found = _read(logdir, run)
    rows = compare.where(found.rows, conditions)
    if last is not None:
        rows = sorted(rows, key=lambda row: row.started or 0.0)[-last:]
    if not rows:
        raise InputError(f"{logdir}: no run to compare" + (" that all of --where hold for" if conditions else ""))
    sections = compare.compare(rows, sort, group)
    if report is not None:
        from mnist_tb.analysis import report as reports

        problems = reports.write(report, sections, logdir)
        click.echo(f"The report: {report}")
        _complain([*found.problems, *problems])
    elif form == "table":
        tables.show(sections, console())
        _complain(found.problems)
    else:
        forms = {"csv": tables.as_csv, "json": tables.as_json, "markdown": tables.as_markdown}
        click.echo(forms[form](sections), nl=False)
        _complain(found.problems)


@click.group("runs")
def runs_group() -> None:
    """What is there: list, show, diff, rename, remove."""


@runs_group.command("list")
@logdir_option
def list_command(logdir: Path) -> None:
    """One line a run, the newest last."""
    from mnist_tb.analysis import tables

    found = _read(logdir, ())
    titles = ("run", "status", "data", "epoch", "val %", "test %", "started")
    rows = [
        (
            row.name,
            row.status,
            row.dataset or "–",
            f"{row.epoch or 0}/{row.epochs}" if row.epochs else "–",
            _percent(row.val_accuracy),
            _percent(row.test_accuracy),
            "–" if row.started is None else f"{datetime.fromtimestamp(row.started):%Y-%m-%d %H:%M}",
        )
        for row in found.rows
    ]
    if rows:
        tables.grid("", titles, rows, console())
    else:
        click.echo(f"{logdir}: no runs yet")
    _complain(found.problems)


@runs_group.command("show")
@click.argument("run")
@logdir_option
def show_command(run: str, logdir: Path) -> None:
    """All about RUN: what it was, how it went, what it left."""
    from mnist_tb.analysis import tables

    found = _read(logdir, (run,))
    for title, rows in tables.whole(found.rows[0]) if found.rows else ():
        tables.grid(title, ("", ""), rows, console())
    _complain(found.problems)


@runs_group.command("diff")
@click.argument("one")
@click.argument("other")
@logdir_option
def diff_command(one: str, other: str, logdir: Path) -> None:
    """The settings in which two runs differ, side by side."""
    from mnist_tb.analysis import tables
    from mnist_tb.config import hyperparameters as settings

    found = _read(logdir, (one, other))
    if len(found.rows) == 2:
        first, second = found.rows
        keys = settings.varying([first.settings, second.settings])
        rows = [
            (key, *(settings.shown(row.settings[key]) if key in row.settings else "" for row in found.rows))
            for key in keys
        ]
        if rows:
            tables.grid("", ("setting", first.name, second.name), rows, console())
        else:
            click.echo(f"{first.name} and {second.name} have the same settings.")
    _complain(found.problems)


@runs_group.command("rename")
@click.argument("run")
@click.argument("name")
@logdir_option
def rename_command(run: str, name: str, logdir: Path) -> None:
    """Give RUN another NAME; it keeps its number."""
    from mnist_tb.runs import manage as housekeeping

    renamed = housekeeping.rename(logdir, housekeeping.inside(logdir, run), name)
    click.echo(f"It is now {renamed.path}")


@runs_group.command("remove")
@click.argument("run", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@logdir_option
def remove_command(run: tuple[str, ...], yes: bool, logdir: Path) -> None:
    """Delete each RUN, after asking. One that a process is working on is refused."""
    from mnist_tb.runs import manage as housekeeping

    named = {found.path: found for found in (housekeeping.inside(logdir, which) for which in run)}
    for found in named.values():
        if found.is_in_use():
            raise InputError(f"{found.path}: this run is in use by another process; wait until it has ended")
    click.echo("\n".join(str(path) for path in named))
    if not yes and not click.confirm(f"Delete {'these' if len(named) > 1 else 'this'} for good?"):
        raise TrainingError("nothing was deleted")
    for found in named.values():
        housekeeping.remove(logdir, found)
    click.echo("Deleted.")


@click.command("export")
@click.argument("run", nargs=-1)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="Which.")
@click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Only such tags, e.g. 'loss/*'. Repeatable.")
@logdir_option
def export_command(run: tuple[str, ...], form: str, tags: tuple[str, ...], logdir: Path) -> None:
    """Print every scalar of each RUN, or of all: run, tag, step, wall time, value."""
    from mnist_tb.runs import manage as housekeeping

    found = _read(logdir, run)
    written = housekeeping.export(found.rows, form, tags, sys.stdout)
    _complain([*dict.fromkeys([*found.problems, *written])])


def _read(logdir: Path, which: Sequence[str]) -> Overview:
    from mnist_tb.runs import query as overview

    return overview.chosen(logdir, which) if which else overview.survey(logdir)


def _complain(problems: Sequence[Problem]) -> None:
    """Name what could not be read; that the rest is there does not make it a success."""
    for problem in problems:
        click.echo(f"mnist-tb: {problem.text}", err=True)
    if any(problem.lost for problem in problems):
        raise TrainingError(f"not everything could be read: {len(problems)} problem{'s' if len(problems) > 1 else ''}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)
