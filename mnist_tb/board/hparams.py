"""TensorBoard's HParams tab, with every setting known for every run of `mnist-tb train`.

A run from before a setting existed has no value for it, and without one TensorBoard leaves its line out of the parallel
coordinates. It was trained as that setting's default does, so that is shown. Other programs' runs stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, hparams_plugin, metadata, plugin_data_pb2

from mnist_tb.config import hyperparameters as settings
from mnist_tb.config import load as configuration
from mnist_tb.config.schema import Config
from mnist_tb.events.tags import PER_CLASS

_OURS = ("train.lr", "train.batch_size", "model.channels", "data.name")
"""A run that has all these is of `mnist-tb train`: there from the beginning on."""

Contents = dict[str, dict[str, bytes]]


class CompleteHParams(hparams_plugin.HParamsPlugin):
    """TensorBoard's plugin on a context that fills in."""

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        self._context = _CompleteContext(context)


class _CompleteContext(backend_context.Context):
    def hparams_metadata(self, *arguments: Any, **named: Any) -> Contents:
        return complete(super().hparams_metadata(*arguments, **named))

    def scalars_metadata(self, *arguments: Any, **named: Any) -> Contents:
        """Without the curves of each class: ten more columns of metrics would hide the others."""
        found = super().scalars_metadata(*arguments, **named)
        return {
            run: {t: data for t, data in tags.items() if not t.startswith(PER_CLASS)} for run, tags in found.items()
        }


def complete(found: Mapping[str, Mapping[str, bytes]]) -> Contents:
    """Run → tag → content, with what runs of ours lack that others have."""
    usual = settings.deciding(configuration.flat(Config()))
    defaults = {key: settings.hparam(value) for key, value in usual.items()}
    sessions = {run: _session(tags.get(metadata.SESSION_START_INFO_TAG)) for run, tags in found.items()}
    ours = {run: data for run, data in sessions.items() if data is not None and _is_ours(data)}
    keys = {key for data in ours.values() for key in data.session_start_info.hparams if key in defaults}
    made = {run: dict(tags) for run, tags in found.items()}
    for run, data in ours.items():
        values = data.session_start_info.hparams
        lacking, seeded = keys - set(values), settings.SEED in values
        if seeded:  # early runs had it; it is no setting, and differs within a row
            del values[settings.SEED]
        for key in lacking:
            default = defaults[key]
            if isinstance(default, str):
                values[key].string_value = default
            else:
                values[key].number_value = default
        if lacking or seeded:
            made[run][metadata.SESSION_START_INFO_TAG] = data.SerializeToString()
    return made


def _session(content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        return plugin_data_pb2.HParamsPluginData.FromString(content)
    except DecodeError:
        return None


def _is_ours(data: Any) -> bool:
    return all(key in data.session_start_info.hparams for key in _OURS)
