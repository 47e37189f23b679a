"""Runs of one configuration as one, for the Live tab: their settings, and the mean of their curves over the seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.data import provider
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from mnist_tb.board.series import Where, statuses
from mnist_tb.config.hyperparameters import hyperparameters, to_hparam
from mnist_tb.config.load import with_defaults
from mnist_tb.events.curves import by_step, find_curves, find_measured, thin
from mnist_tb.events.seeds import BAND, MeanCurve, by_seed, mean_curve


def mean_curves(source: provider.DataProvider, where: Where, runs: Sequence[str], read: int, sent: int) -> Any:
    """Some runs by their configurations: `{"band": …, "groups": […]}`, each group with these keys.

    runs: names. settings: as HParams has them, but for the seed; empty where the runs have none. seeds: how many.
    curves: kind → split → [step, mean, standard deviation or null], null where a seed's value is not finite.
    read, sent: how many points of a curve are read, and how many are sent. A run without settings is its own group.
    """
    settings = _settings(source, where, runs)
    seeds = {run: known.seed for run, (known, _) in statuses(source, where, runs).items()}
    groups: dict[str, list[str]] = {}
    for run in runs:
        key = json.dumps(settings[run], sort_keys=True) if settings.get(run) else f"run {run}"
        groups.setdefault(key, []).append(run)
    points = _points(source, where, runs, read)
    return {
        "band": BAND,
        "groups": [
            {
                "runs": members,
                "settings": settings.get(members[0], {}),
                "seeds": len(by_seed(members, seeds.get)),
                "curves": _means([[points[run] for run in same] for same in by_seed(members, seeds.get)], sent),
            }
            for members in groups.values()
        ],
    }


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


def _means(seeds: Sequence[Sequence[Mapping[Any, Any]]], sent: int) -> dict[str, dict[str, Any]]:
    curves: dict[str, dict[str, Any]] = {}
    for kind, split in {key: None for repeats in seeds for run in repeats for key in run}:
        mean = mean_curve([[run.get((kind, split), []) for run in repeats] for repeats in seeds])
        if mean is not None:
            curves.setdefault(kind, {})[split] = _rows(mean, sent)
    return curves


def _rows(mean: MeanCurve, sent: int) -> list[list[Any]]:
    return [[mean.steps[at], mean.mean[at], mean.deviation[at]] for at in thin(range(len(mean.steps)), sent)]
