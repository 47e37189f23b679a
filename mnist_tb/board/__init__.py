"""TensorBoard as the live page. This module is what TensorBoard imports to find the Live tab: it imports little."""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin


class LiveLoader(base_plugin.TBLoader):
    """Makes the Live tab, or leaves TensorBoard as it is, with a warning, where that fails."""

    def load(self, context: base_plugin.TBContext) -> Any:
        try:
            from mnist_tb.board.plugin import LivePlugin

            return LivePlugin(context)
        except Exception as error:
            logging.getLogger("tensorboard").warning("mnist_tb's Live tab cannot be shown: %r", error)
            return None
