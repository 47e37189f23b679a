"""TensorBoard as the live page: the server, the Live tab, and settings with which it follows trainings by itself.

Its face is `launcher.serve`. It knows event files and the console.log beside them, nothing else of run folders, and
nothing of training. TensorBoard imports this module to find the Live tab, so it imports little.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin


class LiveLoader(base_plugin.TBLoader):
    """Loads the Live tab; if that fails, TensorBoard works without it, with a warning."""

    def load(self, context: base_plugin.TBContext) -> Any:
        try:
            from mnist_tb.board.plugin import LivePlugin

            return LivePlugin(context)
        except Exception as error:
            logging.getLogger("tensorboard").warning("mnist_tb's Live tab cannot be shown: %r", error)
            return None
