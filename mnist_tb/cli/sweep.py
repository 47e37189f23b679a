"""The command sweep. Thin, as `cli`."""

from __future__ import annotations

from pathlib import Path

import click

from mnist_tb.cli.runs import console, logdir_option
from mnist_tb.engine.distributed import is_one_of_several
from mnist_tb.errors import InputError

_SHOWN = 10


@click.command("sweep")
@click.argument("file")
@click.option(
    "--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes on this machine."
)
@click.option(
    "--storage",
    metavar="URL",
    help="Where several machines share the sweep: postgresql://… or a journal's file in a folder they share.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of every run. Repeatable.")
@click.option("--device", help="auto, cpu, cuda or cuda:N; with auto and cuda, the workers share out the GPUs.")
@logdir_option
@click.option(
    "--data-root",
    metavar="FOLDER",
    envvar="MNIST_TB_DATA_ROOT",
    show_envvar=True,
    help="A folder that holds the dataset's files already; nothing is downloaded.",
)
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

    The same command again goes on where it stopped.
    """
    from mnist_tb.sweep import plan as plans

    if is_one_of_several():
        raise InputError("a sweep has its own processes: start it without torchrun, once on each machine")
    options: list[tuple[str, str, object]] = []
    if device is not None:
        options.append(("--device", "device", device))
    if data_root is not None:
        options += [("--data-root", "data.root", data_root), ("--data-root", "data.download", False)]
    plan = plans.load(file, overrides, options)
    folder = logdir / plan.name

    from mnist_tb.analysis import tables
    from mnist_tb.sweep import result
    from mnist_tb.sweep.pool import sweep
    from mnist_tb.sweep.storage import storage_errors
    from mnist_tb.sweep.study import Study

    with storage_errors(), Study(plan, folder, storage) as study:
        sweep(plan, study, folder, storage, workers, lambda line: click.echo(line))
        counts, best, importances = study.counts(), result.require_best(study), study.importances()
    aside = [f"{count} {word}" for count, word in ((counts.pruned, "pruned"), (counts.failed, "failed")) if count]
    click.echo(f"\n{counts.finished} trials: {', '.join([f'{counts.complete} complete', *aside])}")
    tables.grid("The best on validation", *result.rows(plan, best[:_SHOWN]), console())
    verdict = result.verdict(best)
    if verdict is not None:
        click.echo(verdict)
    if importances:
        told = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        click.echo(f"What decides whether a trial is among the best: {told}")
    path = result.write_best(plan, best[0], folder)
    click.echo(f"The best configuration: {path}\nCompare: mnist-tb compare --group --logdir {folder}")
