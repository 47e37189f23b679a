"""TensorBoard's HParams tab, without the curves of each class and of the machine: their columns would hide others."""

from __future__ import annotations

from typing import Any

from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, hparams_plugin

from mnist_tb.events.tags import PER_CLASS, SYSTEM

TagContents = dict[str, dict[str, bytes]]
"""Run → tag → content."""


class HParamsOfResults(hparams_plugin.HParamsPlugin):
    """TensorBoard's plugin, on a context that leaves these curves out."""

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        self._context = _Context(context)


class _Context(backend_context.Context):
    def scalars_metadata(self, *arguments: Any, **named: Any) -> TagContents:
        found = super().scalars_metadata(*arguments, **named)
        return {
            run: {tag: data for tag, data in tags.items() if not tag.startswith((PER_CLASS, SYSTEM))}
            for run, tags in found.items()
        }
