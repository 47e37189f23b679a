"""When the loop checkpoints and when it stops: the clock, the user's signals, and the other processes."""

from __future__ import annotations

import time
from typing import Any

from mnist_tb.training import signals
from mnist_tb.training.context import TrainingContext


class LoopControl:
    """The loop's clock, and whether somebody wants it to stop. A context manager: within, Ctrl-C raises nothing.

    All processes of a training get the same answer after the same update.
    """

    def __init__(self, context: TrainingContext, seconds: float = 0.0) -> None:
        """seconds: for which the run has been trained before."""
        self._context = context
        self._start = time.perf_counter() - seconds
        self._interval = context.config.tracking.checkpoint_seconds
        self._due = time.perf_counter() + self._interval
        self._deferred = signals.deferred()

    def __enter__(self) -> LoopControl:
        self._signal = self._deferred.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._deferred.__exit__(*error)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, evaluation included, in all processes that have worked on the run."""
        return time.perf_counter() - self._start

    def checkpoint_is_due(self) -> bool:
        """Whether to save a checkpoint after this update: it is time, or the training is to stop."""
        if not (self._is_to_stop() or time.perf_counter() > self._due):
            return False
        self._due = time.perf_counter() + self._interval
        return True

    def stop_if_asked(self) -> None:
        """Raise KeyboardInterrupt, once the last checkpoint is written, where the user wants the training to stop."""
        if self._is_to_stop():
            self._context.checkpointer.wait()
            raise KeyboardInterrupt

    def _is_to_stop(self) -> bool:
        return self._context.distributed.sync_stop(self._signal.requested)
