"""The commands about existing runs: runs, export. None of them imports torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_tb.cli.options import json_option, logdir_option, say
from mnist_tb.config.names import printable
from mnist_tb.config.numbers import percent
from mnist_tb.errors import InputError, TrainingError

_WIDE = 200
"""Characters in a line where the output is not a terminal."""

if TYPE_CHECKING:
    from rich.console import Console

    from mnist_tb.events.curves import Told
    from mnist_tb.runs.query import Problem, RunList, RunSummary


@click.group("runs")
def runs_group() -> None:
    """List, show, diff, reproduce, tag, rename or remove runs."""


@runs_group.command("list")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only runs with this, e.g. tag=good.")
@json_option
@logdir_option
def list_command(conditions: tuple[str, ...], as_json: bool, logdir: Path) -> None:
    """One line a run, the newest last."""
    from mnist_tb.analysis import compare, tables

    found = read(logdir, ())
    chosen = compare.where(found.runs, conditions)
    if as_json:
        _print_runs(found, chosen)
        return
    titles: tuple[str, ...] = ("run", "status", "data", "epoch", "val %", "test %", "started", "tags")
    titles = titles if any(row.notes.tags for row in chosen) else titles[:-1]
    rows = [
        (
            row.name,
            row.status,
            row.dataset or "–",
            f"{row.epoch or 0}/{row.epochs}" if row.epochs else "–",
            *("–" if each is None else percent(each) for each in (row.val_accuracy, row.test_accuracy)),
            "–" if row.started is None else f"{datetime.fromtimestamp(row.started):%Y-%m-%d %H:%M}",
            " ".join(row.notes.tags),
        )[: len(titles)]
        for row in chosen
    ]
    if rows:
        tables.print_table("", titles, rows, console())
    else:
        say(f"{logdir}: " + ("no run meets all --where" if found.runs else "no runs yet"))
    report_problems(found.problems)


@runs_group.command("show")
@click.argument("run")
@click.option("--log", is_flag=True, help="Print what it printed, and nothing else.")
@json_option
@logdir_option
def show_command(run: str, log: bool, as_json: bool, logdir: Path) -> None:
    """All about RUN: its settings, its results, its files, and what it was made with."""
    from mnist_tb.analysis import tables
    from mnist_tb.analysis.details import run_details
    from mnist_tb.environment.console import NAME, read_console
    from mnist_tb.environment.snapshot import read_environment
    from mnist_tb.environment.summary import facts
    from mnist_tb.runs.folder import Run

    found = read(logdir, (run,))
    if as_json:
        _print_runs(found, found.runs)
        return
    if log:
        for summary in found.runs:
            text = read_console(summary.path)
            say(f"{summary.path}: has no {NAME}" if text is None else text, nl=text is None or text[-1:] != "\n")
        report_problems(found.problems)
        return
    for title, rows in run_details(found.runs[0]) if found.runs else ():
        tables.print_table(title, ("", ""), rows, console())
    for summary in found.runs:
        if rows := facts(read_environment(Run(summary.path))):
            tables.print_table("made with", ("", ""), rows, console())
    report_problems(found.problems)


@runs_group.command("diff")
@click.argument("one")
@click.argument("other")
@json_option
@logdir_option
def diff_command(one: str, other: str, as_json: bool, logdir: Path) -> None:
    """What differs between two runs, side by side: settings, code and packages."""
    from mnist_tb.analysis import tables
    from mnist_tb.config.hyperparameters import format_value, varying
    from mnist_tb.environment.summary import flat_environment

    named = [read(logdir, (which,)) for which in (one, other)]
    pair = [run for found in named for run in found.runs]
    kinds: dict[str, list[Mapping[str, Any]]] = {
        "setting": [run.settings for run in pair],
        "made with": [flat_environment(run.path) for run in pair],
    }
    differing = {kind: {key: [each.get(key) for each in both] for key in varying(both)} for kind, both in kinds.items()}
    names = [run.name for run in pair]
    if as_json:
        _print_json({"runs": names, "settings": differing["setting"], "made_with": differing["made with"]})
    elif len(pair) == 2:
        for kind, both in kinds.items():
            cells = [
                (key, *(format_value(each[key]) if key in each else "" for each in both)) for key in differing[kind]
            ]
            if cells:
                tables.print_table("", (kind, *names), cells, console())
        if not any(differing.values()):
            say(f"{names[0]} and {names[1]} have the same settings, code and packages.")
    report_problems([problem for found in named for problem in found.problems])


@runs_group.command("reproduce")
@click.argument("run")
@json_option
@logdir_option
def reproduce_command(run: str, as_json: bool, logdir: Path) -> None:
    """Print the commands that repeat RUN: its code, its packages, its configuration."""
    from mnist_tb.environment.summary import reproduction
    from mnist_tb.runs.folder import find_run

    found = find_run(logdir, run)
    lines = reproduction(found)
    if as_json:
        _print_json({"run": found.name, "commands": lines})
    else:
        say("\n".join(lines))


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
    say(f"{found.name}: {', '.join(notes.tags) or 'no tags'}")


@runs_group.command("note")
@click.argument("run")
@click.argument("text")
@logdir_option
def note_command(run: str, text: str, logdir: Path) -> None:
    """Replace the note of RUN by TEXT; an empty one removes it."""
    from mnist_tb.runs import manage

    found = manage.run_in_logdir(logdir, run)
    notes = manage.annotate(found, note=text)
    say(f"{found.name}: {notes.note or 'no note'}")


@runs_group.command("rename")
@click.argument("run")
@click.argument("name")
@logdir_option
def rename_command(run: str, name: str, logdir: Path) -> None:
    """Give RUN another NAME; it keeps its number."""
    from mnist_tb.runs import manage

    renamed = manage.rename(logdir, manage.run_in_logdir(logdir, run), name)
    say(f"It is now {renamed.path}")


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
    say("\n".join(printable(str(path)) for path in named))
    if not yes and not click.confirm(f"Delete {'these' if len(named) > 1 else 'this'} for good?"):
        raise TrainingError("nothing was deleted")
    for found in named.values():
        manage.remove(logdir, found)
    say("Deleted.")


@click.command("export")
@click.argument("run", nargs=-1)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), help="The output format: CSV, if none is given.")
@json_option
@click.option("--tag", "tags", multiple=True, metavar="PATTERN", help="Only such tags, e.g. 'loss/*'. Repeatable.")
@click.option(
    "--since",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only what has been written since the last export with this FILE, which keeps the place.",
)
@logdir_option
def export_command(
    run: tuple[str, ...], form: str | None, as_json: bool, tags: tuple[str, ...], since: Path | None, logdir: Path
) -> None:
    """Print every scalar of each RUN, or of all: run, tag, step, wall time, value."""
    from mnist_tb.cli import export

    if as_json and form == "csv":
        raise InputError("--json, --format csv: give one of them")
    found = read(logdir, run)
    place = export.Place(since)
    written = export.export(found.runs, "json" if as_json else form or "csv", tags, place, sys.stdout)
    sys.stdout.flush()  # if nobody takes it, the place stays where it was
    place.keep()
    report_problems([*dict.fromkeys([*found.problems, *written])])


def read(logdir: Path, which: Sequence[str], told: Told | None = None) -> RunList:
    """Those runs of a log folder, or all. Raises InputError. told: as in `list_runs`."""
    from mnist_tb.runs.query import list_runs, select_runs

    return select_runs(logdir, which, told or {}) if which else list_runs(logdir, told or {})


def report_problems(problems: Sequence[Problem]) -> None:
    """Print what could not be read, and fail if something is missing, though the rest was shown."""
    for problem in problems:
        say(f"mnist-tb: {problem.text}", err=True)
    if any(problem.lost for problem in problems):
        raise TrainingError(f"not everything could be read: {len(problems)} problem{'s' if len(problems) > 1 else ''}")


def _print_runs(found: RunList, chosen: Sequence[RunSummary]) -> None:
    """A list of what `LoadedRun.to_dict` says of each run."""
    from mnist_tb.analysis.loading import LoadedRun

    _print_json([LoadedRun(run).to_dict() for run in chosen])
    report_problems(found.problems)


def _print_json(value: Any) -> None:
    """Numbers that are not finite become null."""
    from mnist_tb.config.hyperparameters import finite_or_none

    say(json.dumps(finite_or_none(value), indent=1))


def console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)
