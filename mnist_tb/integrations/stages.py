"""The run of a training that its framework reports in stages: a fit, a test after it, another training."""

from __future__ import annotations

from pathlib import Path

from mnist_tb.integrations.tracker import Options, Tracker


class Stages:
    """One run until `anew`; what is logged after a stage has ended goes on with it."""

    def __init__(self, logdir: str | Path, name: str, options: Options) -> None:
        """As for `Tracker`; the run begins when it is first asked for."""
        self._place = Path(logdir).absolute(), name  # wherever the program goes from here
        self.options = options
        self.last: Tracker | None = None
        self._is_over = False

    @property
    def tracker(self) -> Tracker:
        if self.last is None:
            self.last = Tracker._start(*self._place, self.options)
        elif self._is_over:
            self.last = self.last._go_on(self.options.get("notify", ()))
        self._is_over = False
        return self.last

    def end(self, error: BaseException | None = None) -> None:
        """A stage has ended."""
        if self.last is not None and not self._is_over:
            self._is_over = True
            self.last.__exit__(None, error, None)

    def anew(self) -> None:
        """Another training begins: a run of its own."""
        self.end()
        self.last = None
