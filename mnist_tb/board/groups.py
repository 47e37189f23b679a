"""Runs of one configuration as one, for the Live tab: their settings, and the mean of their curves over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.data import provider
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from mnist_tb.board.series import Where, statuses
from mnist_tb.config.hyperparameters import format_value, from_hparam, hyperparameters, to_hparam
from mnist_tb.config.load import with_defaults
from mnist_tb.events import configurations
from mnist_tb.events.configurations import MeanCurve, about_means, mean_curve
from mnist_tb.events.curves import by_step, find_curves, find_measured
from mnist_tb.events.status import UNKNOWN, Status


@dataclass(frozen=True)
class _Run:
    """A run, as `configurations.Known`. points: (kind, split) → points."""

    name: str
    data: str
    settings: Mapping[str, Any]
    seed: int | str | float | None
    status: str
    points: Mapping[Any, Any]


def mean_curves(source: provider.DataProvider, where: Where, runs: Sequence[str], read: int, sent: int) -> Any:
    """Some runs by their configurations: `{"about": …, "groups": […]}`, each group with these keys.

    about: what has to be said of the lines, in words. name: what the group is called. runs: their names. settings: in
    words, without the seed; empty where the runs have none. seeds: how many.
    curves: kind → split → [step, mean, standard deviation or null], null where a seed's value is not finite.
    read, sent: how many points of a curve are read, and how many are sent. A run without settings is its own group.
    """
    groups = configurations.groups(_runs(source, where, runs, read), by_configuration=True)
    names = configurations.names(groups)
    means = [_means(group.seeds) for group in groups]
    return {
        "about": about_means((name, found.values()) for name, found in zip(names, means, strict=True)),
        "groups": [
            {
                "name": name,
                "runs": [run.name for run in group.runs],
                "settings": {key: format_value(value) for key, value in group.runs[0].settings.items()},
                "seeds": len(group.seeds),
                "curves": _rows(found, sent),
            }
            for name, group, found in zip(names, groups, means, strict=True)
        ],
    }


def _runs(source: provider.DataProvider, where: Where, runs: Sequence[str], read: int) -> list[_Run]:
    settings, points = _settings(source, where, runs), _points(source, where, runs, read)
    said = {run: status for run, (status, _) in statuses(source, where, runs).items()}
    found = []
    for run in runs:
        status = said.get(run, Status(UNKNOWN))
        own = {key: from_hparam(value) if run in said else value for key, value in settings.get(run, {}).items()}
        found.append(_Run(run, status.dataset or "data not known", own, status.seed, status.state, points[run]))
    return found


def _settings(source: provider.DataProvider, where: Where, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    only = provider.RunTagFilter(runs=runs, tags=[metadata.SESSION_START_INFO_TAG])
    series = source.list_tensors(**where, plugin_name=metadata.PLUGIN_NAME, run_tag_filter=only)
    found = {}
    for run, known in series.items():
        try:
            content = plugin_data_pb2.HParamsPluginData.FromString(
                known[metadata.SESSION_START_INFO_TAG].plugin_content
            )
        except (DecodeError, KeyError):
            continue
        hparams = content.session_start_info.hparams.items()
        values = {name: getattr(value, value.WhichOneof("kind") or "", None) for name, value in hparams}
        found[run] = hyperparameters(_with_defaults(values))
    return found


def _with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one of our runs as today's have them; those of other programs as they are."""
    if "train.batch_size" not in values:
        return dict(values)
    known = hyperparameters(with_defaults({}))
    return {**{key: to_hparam(value) for key, value in known.items()}, **values}


def _points(source: provider.DataProvider, where: Where, runs: Sequence[str], read: int) -> dict[str, dict[Any, Any]]:
    """Run → (kind, split) → points."""
    only = provider.RunTagFilter(runs=runs)
    series = source.list_scalars(**where, plugin_name="scalars", run_tag_filter=only)
    shown = {run: find_curves(series.get(run, {})) for run in runs}
    wanted = sorted({tag for curves in shown.values() for tag in curves.values()})
    these = provider.RunTagFilter(runs=runs, tags=wanted)
    data = source.read_scalars(**where, plugin_name="scalars", downsample=read, run_tag_filter=these) if wanted else {}
    return {
        run: {
            key: by_step((point.step, point.value / unit) for point in data[run][tag])
            for key, (tag, unit) in find_measured(data.get(run, {})).items()
        }
        for run in runs
    }


def _means(seeds: Sequence[Sequence[_Run]]) -> dict[Any, MeanCurve]:
    """(kind, split) → the mean curve."""
    kinds = {key: None for repeats in seeds for run in repeats for key in run.points}
    means = {key: mean_curve([[run.points.get(key, []) for run in repeats] for repeats in seeds]) for key in kinds}
    return {key: mean for key, mean in means.items() if mean is not None}


def _rows(means: Mapping[Any, MeanCurve], sent: int) -> dict[str, dict[str, Any]]:
    curves: dict[str, dict[str, Any]] = {}
    for (kind, split), mean in means.items():
        curves.setdefault(kind, {})[split] = mean.rows(sent)
    return curves
