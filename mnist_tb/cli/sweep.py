"""The command sweep."""

from __future__ import annotations

from pathlib import Path

import click

from mnist_tb.cli.options import data_root_option, logdir_option, say
from mnist_tb.cli.runs import console
from mnist_tb.engine.distributed import is_distributed
from mnist_tb.errors import InputError, command_line

_SHOWN = 10


@click.command("sweep")
@click.argument("file")
@click.option(
    "--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes on this machine."
)
@click.option(
    "--storage",
    envvar="MNIST_TB_STORAGE",
    metavar="URL",
    help="Where several machines share the sweep: postgresql://… or a journal's file in a folder they share. Or"
    " MNIST_TB_STORAGE.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of every run. Repeatable.")
@click.option("--device", help="auto, cpu, cuda or cuda:N; with auto and cuda, the workers share the GPUs.")
@logdir_option
@data_root_option
def sweep_command(
    file: str,
    workers: int,
    storage: str | None,
    overrides: tuple[str, ...],
    device: str | None,
    logdir: Path,
    data_root: str | None,
) -> None:
    """Search over configurations as FILE says, or one that comes with mnist-tb, such as sweeps/lr.

    The same command again continues a sweep that was stopped.
    """
    from mnist_tb.config.load import with_data_root
    from mnist_tb.sweep.plan import load_plan

    if is_distributed():
        raise InputError("a sweep starts its own processes: start it without torchrun, once on each machine")
    options: list[tuple[str, str, object]] = [] if device is None else [("--device", "device", device)]
    plan = load_plan(file, overrides, [*options, *with_data_root(data_root)])
    folder = logdir / plan.name

    from mnist_tb.analysis.tables import print_table
    from mnist_tb.sweep import result
    from mnist_tb.sweep.pool import sweep
    from mnist_tb.sweep.storage import storage_errors
    from mnist_tb.sweep.study import Study

    with storage_errors(), Study(plan, folder, storage) as study:
        sweep(plan, study, folder, storage, workers, say)
        counts, best, importances = study.counts(), result.require_best(study), study.importances()
    others = [f"{count} {word}" for count, word in ((counts.pruned, "pruned"), (counts.failed, "failed")) if count]
    say(f"\n{counts.finished} trials: {', '.join([f'{counts.complete} complete', *others])}")
    print_table("The best on validation", *result.rows(plan, best[:_SHOWN]), console())
    verdict = result.verdict(best)
    if verdict is not None:
        say(verdict)
    if importances:
        parts = ", ".join(f"{key} {fraction:.0%}" for key, fraction in importances.items())
        say(f"What decides whether a trial is among the best: {parts}")
    path = result.write_best(plan, best[0], folder)
    say(f"The best configuration: {path}\nCompare: {command_line('compare', '--group', '--logdir', folder)}")
