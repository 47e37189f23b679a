"""A `Tracker` for other people's trainings: in a folder that they chose, settings later, curves of any name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml

from mnist_tb.config.hyperparameters import Settings, flatten, hyperparameters, short_name
from mnist_tb.events.curves import find_curves
from mnist_tb.events.tags import CONFIG_TEXT
from mnist_tb.events.texts import config_text
from mnist_tb.events.writer import EventWriter
from mnist_tb.integrations.tracker import Charts, Tracker
from mnist_tb.runs.files import write_atomically
from mnist_tb.runs.folder import Run, adopt_folder

_PREFIXES = {"train": "", "val": "val_", "test": "test_"}
_MOST_TAGS = 200
"""Among so many tags loss and accuracy are looked for."""


class Adapter(Tracker):
    """Which curves are loss and accuracy is guessed, as `compare` does. Settings come with `settings`."""

    def __init__(
        self,
        logdir: Path,
        name: str,
        folder: Path | None = None,
        start: int | None = None,
        everywhere: bool = False,
        after: Adapter | None = None,
        **named: Any,
    ) -> None:
        """folder: to write to, whatever is in it; None for a new one, as `Tracker`'s. start: as for `EventWriter`.

        everywhere: in all processes of torchrun. after: the one, closed, with whose run this one goes on.
        named: as for `Tracker`, but for the configuration and the charts.
        """
        self._everywhere, self._after = everywhere, after
        self._folder, self._start = folder, start
        self._seen: frozenset[str] = frozenset()
        self._has_settings = False
        super().__init__(logdir, name, **named)

    @property
    def events(self) -> EventWriter:
        return self._writer

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """As `Tracker.scalars`, of any tags."""
        self.see(step, [(tag, float(value)) for tag, value in values.items()])

    def see(self, step: int, values: list[tuple[str, float]], wall_time: float | None = None) -> None:
        """The same, of a list that belongs to the run from now on. wall_time: seconds since 1970; now, if None."""
        if not all(tag in self._seen for tag, _ in values):
            self._meet([tag for tag, _ in values])
        self._points(step, values, wall_time)

    def _meet(self, tags: Sequence[str]) -> None:
        """Curves, perhaps new ones. What others read meanwhile is replaced whole, never changed."""
        with self._changing:
            for tag in tags:
                if tag not in self._seen and len(self._seen) < _MOST_TAGS:
                    self._seen = self._seen | {tag}
                    found = find_curves(self._seen)
                    guessed = {known: _PREFIXES[split] + kind for (kind, split), known in found.items()}
                    self._outcome.fields = {**self._outcome.fields, **guessed}

    def settings(self, values: Mapping[str, Any]) -> None:
        """They count once: TensorBoard keeps the first that a run says of itself. What is no plain value is text."""
        if self._has_settings or not self._is_open:
            return
        self._has_settings = True
        flat = {key: _plain(value) for key, value in flatten(dict(values)).items()}
        self._writer.hparams(hyperparameters(flat), group=short_name(hyperparameters(flat)) or self.run.name)
        self._writer.texts(0, {CONFIG_TEXT: config_text(flat)})
        write_atomically(self.run.config, yaml.safe_dump(flat, sort_keys=False, allow_unicode=True).encode())
        self.run.update_metrics(config=flat)

    def _create(self, logdir: Path, name: str, config: Mapping[str, Any], facts: dict[str, Any]) -> Run:
        if self._folder is None:
            return super()._create(logdir, name, config, facts)
        try:
            return adopt_folder(self._folder, "{}\n", facts, self._lock)
        except BaseException as error:
            self._environment.close(error)
            raise

    def _write_beginning(self, name: str, flat: Settings, charts: Charts) -> None:
        self._step = max((self._start or 0) - 1, 0)
        if self._after is not None:
            self._outcome, self._step = self._after._outcome, self._after._step
            self._began -= self.run.read_metrics().get("train_seconds", 0.0)
            self._live.carry_on(self._after._live)
        self._live.update(self._step, now=True, phase="training")


def _plain(value: Any) -> Any:
    """As YAML and JSON have it; what they have not is text."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(value)  # a NumPy number is one too
    return value if value is None or type(value) in (bool, int, str) else str(value)
