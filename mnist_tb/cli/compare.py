"""The command compare. It imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_tb.cli.options import json_option, logdir_option, metric_option, say
from mnist_tb.cli.runs import console, read, report_problems
from mnist_tb.errors import InputError

if TYPE_CHECKING:
    from mnist_tb.analysis.compare import Section
    from mnist_tb.events.curves import Told
    from mnist_tb.runs.query import Problem


@click.command("compare")
@click.argument("run", nargs=-1)
@click.option("--group", is_flag=True, help="Runs that differ only in the seed become one line: mean ± deviation.")
@click.option("--unfinished", is_flag=True, help="Count unfinished runs too; else they are shown, and not compared.")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only runs with this, e.g. lr=0.001.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the N newest of them.")
@click.option("--sort", default="val_accuracy", show_default=True, help="What decides the order.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    help="The output format; a table, if nothing is drawn.",
)
@json_option
@metric_option
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write one HTML file to mail instead.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Draw a PDF, SVG or PNG instead.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="What --figure draws; else accuracy/val. Repeatable.")
@logdir_option
def compare_command(
    run: tuple[str, ...],
    group: bool,
    unfinished: bool,
    conditions: tuple[str, ...],
    last: int | None,
    sort: str,
    form: str | None,
    as_json: bool,
    told: tuple[str, ...],
    report: Path | None,
    figure: Path | None,
    tags: tuple[str, ...],
    logdir: Path,
) -> None:
    """Compare all runs, or each RUN: which is better, and is the difference significant?"""
    from mnist_tb.analysis import compare, tables
    from mnist_tb.runs.values import read_told

    if sort not in compare.SORTS:
        raise InputError(f"--sort {sort}: sort by one of {', '.join(compare.SORTS)}")
    if tags and figure is None:
        raise InputError("--tag: says what a figure draws, and needs --figure FILE")
    if as_json and form not in (None, "json"):
        raise InputError(f"--json, --format {form}: give one of them")
    form = "json" if as_json else form or ("table" if report is figure is None else None)
    metrics = read_told(told)
    found = read(logdir, run, metrics)
    runs = compare.select(found.runs, conditions, last)
    if not runs:
        raise InputError(f"{logdir}: no run to compare" + (" that meets all --where" if conditions else ""))
    sections = compare.compare(runs, sort, group, unfinished)
    problems = _draw(sections, logdir, metrics, report, figure, tags, is_aside=form is not None)
    if form == "table":
        tables.print_sections(sections, console())
    elif form is not None:
        forms = {"csv": tables.as_csv, "json": tables.as_json, "markdown": tables.as_markdown}
        sys.stdout.write(forms[form](sections))
    report_problems(list(dict.fromkeys([*found.problems, *problems])))


def _draw(
    sections: Sequence[Section],
    logdir: Path,
    metrics: Told,
    report: Path | None,
    figure: Path | None,
    tags: Sequence[str],
    is_aside: bool,
) -> list[Problem]:
    """Write a report, a figure, or both, if they are asked for. Returns what could not be read.

    is_aside: whether the standard output is for something else, and the standard error says what was written.
    """
    problems = []
    if report is not None:
        from mnist_tb.analysis.report import write_report

        problems += write_report(report, sections, logdir, metrics)
        say(f"The report: {report}", err=is_aside)
    if figure is not None:
        from mnist_tb.analysis.plot import write_figure

        drawn = write_figure(figure, sections, tags, metrics)
        problems += drawn.problems
        say(f"The figure: {figure}\nIts caption: {drawn.path}\n\n{drawn.caption}", err=is_aside)
    return problems
