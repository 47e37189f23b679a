"""The commands about existing runs: compare, runs, export. None of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_tb.cli.options import logdir_option
from mnist_tb.errors import InputError, TrainingError

_WIDE = 200
"""Characters in a line where the output is not a terminal."""
_NOTHING: Told = {}

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_tb.analysis.compare import Section
    from mnist_tb.events.curves import Told
    from mnist_tb.runs.query import Problem, RunList


@click.command("compare")
@click.argument("run", nargs=-1)
@click.option("--group", is_flag=True, help="Runs that differ only in the seed become one line: mean ± deviation.")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only runs with this, e.g. lr=0.001.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the N newest of them.")
@click.option("--sort", default="val_accuracy", show_default=True, help="What decides which run is the best.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    default="table",
    show_default=True,
    help="The output format.",
)
@click.option(
    "--metric",
    "told",
    multiple=True,
    metavar="accuracy/val=TAG",
    help="Which curve of another program is which; else it is guessed. Repeatable.",
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write one HTML file to mail instead.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Draw a PDF, SVG or PNG instead.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="What --figure draws; else accuracy/val. Repeatable.")
@logdir_option
def compare_command(
    run: tuple[str, ...],
    group: bool,
    conditions: tuple[str, ...],
    last: int | None,
    sort: str,
    form: str,
    told: tuple[str, ...],
    report: Path | None,
    figure: Path | None,
    tags: tuple[str, ...],
    logdir: Path,
) -> None:
    """Compare all runs, or each RUN: which is better, and is the difference significant?"""
    from mnist_tb.analysis import compare, tables
    from mnist_tb.events.curves import read_told

    if sort not in compare.SORTS:
        raise InputError(f"--sort {sort}: sort by one of {', '.join(compare.SORTS)}")
    if tags and figure is None:
        raise InputError("--tag: says what a figure draws, and needs --figure FILE")
    metrics = read_told(told)
    found = _read(logdir, run, metrics)
    runs = compare.select(found.runs, conditions, last)
    if not runs:
        raise InputError(f"{logdir}: no run to compare" + (" that meets all --where" if conditions else ""))
    sections = compare.compare(runs, sort, group)
    if report is not None or figure is not None:
        problems = _draw(sections, logdir, metrics, report, figure, tags)
        _report_problems(list(dict.fromkeys([*found.problems, *problems])))
    elif form == "table":
        tables.print_sections(sections, console())
        _report_problems(found.problems)
    else:
        forms = {"csv": tables.as_csv, "json": tables.as_json, "markdown": tables.as_markdown}
        click.echo(forms[form](sections), nl=False)
        _report_problems(found.problems)


def _draw(
    sections: Sequence[Section],
    logdir: Path,
    metrics: Told,
    report: Path | None,
    figure: Path | None,
    tags: Sequence[str],
) -> list[Problem]:
    """Write a report, or a figure, or both. Returns what could not be read."""
    problems = []
    if report is not None:
        from mnist_tb.analysis.report import write_report

        problems += write_report(report, sections, logdir, metrics)
        click.echo(f"The report: {report}")
    if figure is not None:
        from mnist_tb.analysis.plot import write_figure

        drawn = write_figure(figure, sections, tags, metrics)
        problems += drawn.problems
        click.echo(f"The figure: {figure}\nIts caption: {drawn.path}\n\n{drawn.caption}")
    return problems


@click.group("runs")
def runs_group() -> None:
    """List, show, diff, tag, rename or remove runs."""


@runs_group.command("list")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only runs with this, e.g. tag=good.")
@logdir_option
def list_command(conditions: tuple[str, ...], logdir: Path) -> None:
    """One line a run, the newest last."""
    from mnist_tb.analysis import compare, tables

    found = _read(logdir, ())
    chosen = compare.where(found.runs, conditions)
    titles: tuple[str, ...] = ("run", "status", "data", "epoch", "val %", "test %", "started", "tags")
    titles = titles if any(row.notes.tags for row in chosen) else titles[:-1]
    rows = [
        (
            row.name,
            row.status,
            row.dataset or "–",
            f"{row.epoch or 0}/{row.epochs}" if row.epochs else "–",
            _percent(row.val_accuracy),
            _percent(row.test_accuracy),
            "–" if row.started is None else f"{datetime.fromtimestamp(row.started):%Y-%m-%d %H:%M}",
            " ".join(row.notes.tags),
        )[: len(titles)]
        for row in chosen
    ]
    if rows:
        tables.print_table("", titles, rows, console())
    else:
        click.echo(f"{logdir}: no runs " + ("that meet all --where" if found.runs else "yet"))
    _report_problems(found.problems)


@runs_group.command("show")
@click.argument("run")
@logdir_option
def show_command(run: str, logdir: Path) -> None:
    """All about RUN: its settings, its results and its files."""
    from mnist_tb.analysis import tables

    found = _read(logdir, (run,))
    for title, rows in tables.run_details(found.runs[0]) if found.runs else ():
        tables.print_table(title, ("", ""), rows, console())
    _report_problems(found.problems)


@runs_group.command("diff")
@click.argument("one")
@click.argument("other")
@logdir_option
def diff_command(one: str, other: str, logdir: Path) -> None:
    """The settings that differ between two runs, side by side."""
    from mnist_tb.analysis import tables
    from mnist_tb.config.hyperparameters import format_value, varying

    named = [_read(logdir, (which,)) for which in (one, other)]
    pair = [run for found in named for run in found.runs]
    if len(pair) == 2:
        first, second = pair
        keys = varying([first.settings, second.settings])
        rows = [
            (key, *(format_value(row.settings[key]) if key in row.settings else "" for row in pair)) for key in keys
        ]
        if rows:
            tables.print_table("", ("setting", first.name, second.name), rows, console())
        else:
            click.echo(f"{first.name} and {second.name} have the same settings.")
    _report_problems([problem for found in named for problem in found.problems])


# without -h, which stands in -that and would be taken for it
@runs_group.command("tag", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("run")
@click.argument("tag", nargs=-1, type=click.UNPROCESSED)
@logdir_option
def tag_command(run: str, tag: tuple[str, ...], logdir: Path) -> None:
    """Give RUN each TAG, and take each away that begins with a minus: runs tag 7 good -draft."""
    from mnist_tb.runs import manage

    added, removed = [one for one in tag if one[:1] != "-"], [one[1:] for one in tag if one[:1] == "-"]
    found = manage.run_in_logdir(logdir, run)
    notes = manage.annotate(found, added, removed)
    click.echo(f"{found.name}: {', '.join(notes.tags) or 'no tags'}")


@runs_group.command("note")
@click.argument("run")
@click.argument("text")
@logdir_option
def note_command(run: str, text: str, logdir: Path) -> None:
    """Replace the note of RUN by TEXT; an empty one removes it."""
    from mnist_tb.runs import manage

    found = manage.run_in_logdir(logdir, run)
    notes = manage.annotate(found, note=text)
    click.echo(f"{found.name}: {notes.note or 'no note'}")


@runs_group.command("rename")
@click.argument("run")
@click.argument("name")
@logdir_option
def rename_command(run: str, name: str, logdir: Path) -> None:
    """Give RUN another NAME; it keeps its number."""
    from mnist_tb.runs import manage

    renamed = manage.rename(logdir, manage.run_in_logdir(logdir, run), name)
    click.echo(f"It is now {renamed.path}")


@runs_group.command("remove")
@click.argument("run", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@logdir_option
def remove_command(run: tuple[str, ...], yes: bool, logdir: Path) -> None:
    """Delete each RUN, after asking; not one that a process is using."""
    from mnist_tb.runs import manage

    named = {found.path: found for found in (manage.run_in_logdir(logdir, which) for which in run)}
    for found in named.values():
        if found.is_in_use():
            raise InputError(f"{found.path}: this run is in use by another process; wait until it has ended")
    click.echo("\n".join(str(path) for path in named))
    if not yes and not click.confirm(f"Delete {'these' if len(named) > 1 else 'this'} for good?"):
        raise TrainingError("nothing was deleted")
    for found in named.values():
        manage.remove(logdir, found)
    click.echo("Deleted.")


@click.command("export")
@click.argument("run", nargs=-1)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="Which.")
@click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Only such tags, e.g. 'loss/*'. Repeatable.")
@logdir_option
def export_command(run: tuple[str, ...], form: str, tags: tuple[str, ...], logdir: Path) -> None:
    """Print every scalar of each RUN, or of all: run, tag, step, wall time, value."""
    from mnist_tb.runs import manage

    found = _read(logdir, run)
    written = manage.export(found.runs, form, tags, sys.stdout)
    _report_problems([*dict.fromkeys([*found.problems, *written])])


def _read(logdir: Path, which: Sequence[str], told: Told = _NOTHING) -> RunList:
    from mnist_tb.runs.query import list_runs, select_runs

    return select_runs(logdir, which, told) if which else list_runs(logdir, told)


def _report_problems(problems: Sequence[Problem]) -> None:
    """Print what could not be read, and fail if something is missing, though the rest was shown."""
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
