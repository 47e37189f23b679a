"""Track your own training: one run, one row, its status and the Live tab, as for `mnist-tb train`.

    with Tracker("runs", "mlp", {"lr": 0.1, "batch_size": 128}, steps=1000, dataset="fashion_mnist") as tracker:
        for step, (images, labels) in enumerate(batches, 1):
            ...
            tracker.scalars(step, {"loss/train": loss, "accuracy/train": accuracy})

See it with `mnist-tb board`, compare it with `mnist-tb compare`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from mnist_tb.config import strict_yaml
from mnist_tb.config.load import check_run_name
from mnist_tb.config.plain import nested, plain_settings
from mnist_tb.config.redaction import hide_settings
from mnist_tb.environment.notify import Notifier
from mnist_tb.errors import InputError
from mnist_tb.events import summaries
from mnist_tb.events.summaries import Picture
from mnist_tb.events.writer import EventWriter
from mnist_tb.runs.notes import Notes, make_notes
from mnist_tb.runs.predictions import save_predictions
from mnist_tb.runs.tracked import Asked, Charts, RunFiles
from mnist_tb.tracking import graph
from mnist_tb.tracking.charts import LAYOUT
from mnist_tb.tracking.recording import Recording

Image = Picture | torch.Tensor | Callable[[], Picture]


class Options(TypedDict, total=False):
    """What a Tracker and all that have one can be asked for; see `Tracker`."""

    steps: int
    dataset: str
    tags: Sequence[str]
    note: str
    code: bool
    system_seconds: float
    notify: Sequence[str]


class Tracker:
    """A run of your own training in a log folder; a context manager that records how it ended.

    The folder is there at once, with config.yaml and metrics.json. Calls check what they are given, and return at once;
    one thread writes the events. A tensor is read by the call, so that it may change afterwards.
    step, in all calls: completed optimiser updates. Curves may have any name; which of them are loss and accuracy, in
    the Live tab and in comparisons, their names say: `loss/train`, `val_acc`, `eval/loss`.

    Open: what a call has accepted is written, whatever comes after it. A call that is given what cannot be written
    raises TypeError or ValueError. A picture that cannot be drawn is left out, which is said once.
    Closed: a call raises TrainingError; `close` and the end of a `with` block close it. If nobody does, it is closed
    when the Tracker is no longer in use, or when the program ends: completed, or failed by the error or the exit code
    that ends the program.
    Failed: a call raises TrainingError, with the reason: the disk is full, or the folder is gone.
    In another process, such as a fork, in a copy that was pickled, and under torchrun in all processes but that of rank
    0: calls do nothing, and there is no `run`. Call from any thread.
    """

    def __init__(
        self,
        logdir: str | Path,
        name: str,
        config: Mapping[str, Any] | None = None,
        *,
        steps: int = 0,
        dataset: str = "",
        charts: Charts | None = None,
        tags: Sequence[str] = (),
        note: str = "",
        code: bool = True,
        system_seconds: float = 5.0,
        notify: Sequence[str] = (),
    ) -> None:
        """Begin a run.

        config: its settings, nested or flat: numbers, strings, booleans, and lists of those; NumPy's numbers are
        Python's. What is called a password, a token or the like is not kept. Runs that differ only in `seed` are
        repetitions: one row of the HParams table.
        steps: how many are planned, for progress and the time left; 0 if unknown.
        dataset: what it is tested on; runs on different data are not ranked against each other.
        charts: the Custom Scalars tab, category → chart title → tags; None for the charts of `mnist-tb train`.
        tags, note: what you want to say of it; see `mnist-tb runs tag` and `note`.
        code: whether the commit and the patch of your code are kept, beside the command, the packages and the machine.
        system_seconds: between two points of the curves under `system/`; 0 for none.
        notify: addresses of Apprise's that are told how the run ends, and of a loss that is NaN; see docs/live.md.
        Raises InputError if the name, a tag, the configuration or the log folder cannot be used.
        """
        settings = hide_settings(plain_settings(config or {}, strict=True))
        check_run_name(name)
        asked = Asked(steps, dataset, charts, code, system_seconds)
        notes, text = make_notes(tags, note), strict_yaml.dump(nested(settings))
        layout = LAYOUT if charts is None else charts
        try:
            summaries.layout(layout)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"charts: must be category → title → list of tags: {error}") from None
        if self._begin(lambda: RunFiles.create(Path(logdir), name, settings, text, asked, notes), notify):
            assert self._recording is not None
            self._recording.write_settings()
            self._writer.layout(layout)

    def _begin(
        self,
        open_files: Callable[[], RunFiles],
        notify: Sequence[str] = (),
        everywhere: bool = False,
        **recorded: Any,
    ) -> bool:
        """Whether it is this process that writes. everywhere: in all processes of torchrun. recorded: see Recording."""
        self._recording: Recording | None = None
        self._writer = EventWriter(None)
        if not everywhere and os.environ.get("RANK", "0") != "0":
            return False
        self._recording = recording = Recording(open_files, Notifier(notify), **recorded)
        self._writer, self.run = recording.writer, recording.files.run
        weakref.finalize(self, recording.end_lost).atexit = False
        return True

    @classmethod
    def _start(cls, logdir: str | Path, name: str, options: Options) -> Tracker:
        """A new run in all processes of torchrun, whose settings come with `settings`."""
        tracker, (asked, notes, notify) = cls.__new__(cls), _split(options)
        check_run_name(name)
        create = lambda: RunFiles.create(Path(logdir), name, {}, "{}\n", asked, notes)  # noqa: E731
        tracker._begin(create, notify, everywhere=True, may_vanish=True)
        return tracker

    @classmethod
    def adopt(cls, folder: str | Path, *, purge_step: int | None = None, **options: Unpack[Options]) -> Tracker:
        """Begin a run in a folder of yours, whatever is in it: nothing is changed but what a Tracker has written there.

        What is kept beside the event files is in its folder `.mnist_tb`. The settings come with `settings`.
        purge_step: TensorBoard forgets what it has read of this folder from that step on; None to add to it.
        options: as for a new run. If the folder is removed, that is said once, and calls do nothing.
        Raises InputError as for a new run, and if the folder is a run of `mnist-tb train`.
        """
        return cls._adopt(Path(folder), purge_step, options)

    @classmethod
    def _adopt(cls, folder: Path, purge_step: int | None, options: Options, suffix: str = "") -> Tracker:
        tracker, (asked, notes, notify) = cls.__new__(cls), _split(options)
        adopt = lambda: RunFiles.adopt(folder, asked, notes, purge_step)  # noqa: E731
        tracker._begin(adopt, notify, everywhere=True, suffix=suffix, may_vanish=True)
        return tracker

    def _go_on(self, notify: Sequence[str] = ()) -> Tracker:
        """Open the run again that was closed here: another stage of it, such as a test."""
        tracker = type(self).__new__(type(self))
        tracker._begin(
            lambda: RunFiles.go_on(self.run), notify, everywhere=True, before=self._recording, may_vanish=True
        )
        return tracker

    @property
    def is_open(self) -> bool:
        """Whether calls write."""
        return self._recording is not None and self._writer.enabled and self._recording.is_open

    @classmethod
    def resume(
        cls, run: str | Path, state: Mapping[str, Any], *, steps: int = 0, notify: Sequence[str] = ()
    ) -> Tracker:
        """Go on with a run of yours where `state`, from `state_dict`, was taken; every point is written once.

        run: its folder. What its Tracker logged after that is removed from its event files; nothing else is.
        steps: how many are planned now; 0 for as many as before. notify: as for a new run. All else is as it was.
        Raises InputError if it is not a run, somebody has it, or the state is empty, of another run, or older than what
        was removed since.
        """
        tracker = cls.__new__(cls)
        if tracker._begin(lambda: RunFiles.resume(Path(run), state, steps), notify):
            assert tracker._recording is not None
            tracker._recording.has_settings = True
        return tracker

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording is not None:
            self._recording.end(error)

    def close(self) -> None:
        """The run is complete; for where a `with` block does not fit, such as a notebook."""
        self.__exit__(None, None, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_another_process, (type(self),)

    def state_dict(self) -> dict[str, Any]:
        """What `resume` needs, plain numbers and strings: save it in your checkpoint, after the step that is in it.

        Waits until all that was logged is on the disk. Of a closed run it is the state at its end; in processes of
        torchrun that do not write it is empty. Raises TrainingError in a fork.
        """
        return {} if self._recording is None else self._recording.state_dict()

    def settings(self, values: Any) -> None:
        """More settings, if they are known only now. What is no plain value is kept as text.

        HParams shows those that are known when the first point is logged; comparisons know all.
        values: a mapping, nested or flat, a Namespace or a dataclass.
        """
        if self._recording is not None and self._writer.enabled:
            self._recording.add_settings(hide_settings(plain_settings(values, strict=False)))

    def scalars(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """One point on each named curve. Values are numbers, or tensors that hold one, on any device.

        Raises TypeError or ValueError if a value is no number, or the step is no whole one.
        """
        if self._recording is not None:
            self._points(index(step), summaries.numbers(values))

    def _points(self, step: int, values: list[tuple[str, Any]], wall_time: float | None = None) -> None:
        """The same, of tags and floats. wall_time: when it was, seconds since 1970; now, if None."""
        if self._recording is not None:
            if self._recording.has_news:
                self._recording.write_settings()
            self._writer.points(step, values, wall_time)
            self._recording.live.see(step, values)

    def _see(self, step: int, values: list[tuple[str, Any]]) -> None:
        """Points that were written past the Tracker, for the Live tab."""
        if self._recording is not None:
            self._recording.live.see(step, values)

    def histograms(self, step: int, values: Mapping[str, torch.Tensor] | nn.Module) -> None:
        """The distribution of each tensor's elements, or of all parameters of a module, as `weights/<parameter>`."""
        if isinstance(values, nn.Module):
            values = {f"weights/{name}": parameter for name, parameter in values.named_parameters()}
        self._see(step, [])
        self._writer.histograms(step, values)

    def images(self, step: int, pictures: Mapping[str, Image]) -> None:
        """Pictures: uint8 [height, width, 3] or [height, width], or a function that draws one on the writing thread.

        `predictions/test` and `results/test` are shown in the Live tab.
        """
        self._see(step, [])
        self._writer.images(step, pictures)

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for the Text tab."""
        self._see(step, [])
        self._writer.texts(step, texts)

    def graph(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        """The layers of a model without data-dependent control flow, for an input of this shape; once a run.

        Nothing of the model changes. Raises ValueError if its graph cannot be drawn.
        """
        if self._writer.enabled:
            self._writer.graph(graph.draw(model, input_shape))

    def predictions(self, labels: torch.Tensor | ArrayLike, probabilities: torch.Tensor | ArrayLike) -> None:
        """The class of each test sample, int [N], and the probabilities, [N, C], for McNemar's test between runs."""
        if self._writer.enabled:
            given = (v.detach().cpu() if isinstance(v, torch.Tensor) else v for v in (labels, probabilities))
            save_predictions(self.run, *map(np.asarray, given))


def _split(options: Options) -> tuple[Asked, Notes, Sequence[str]]:
    """Raises InputError."""
    kept: dict[str, Any] = {key: value for key, value in options.items() if key not in ("tags", "note", "notify")}
    return Asked(**kept), make_notes(options.get("tags", ()), options.get("note", "")), options.get("notify", ())


def _in_another_process(kind: type[Tracker]) -> Tracker:
    """A pickled Tracker is its maker's: in another process, and as a copy, its calls do nothing."""
    tracker = kind.__new__(kind)
    tracker._recording, tracker._writer = None, EventWriter(None)
    return tracker
