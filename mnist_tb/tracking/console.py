"""The terminal: a progress bar, or plain lines where the output goes elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mnist_tb.config.names import printable
from mnist_tb.config.numbers import loss_text
from mnist_tb.metrics import Evaluation, WindowMetrics, class_scores

_ROOM_FOR_ALL = 100
"""Columns of a terminal below which the bar and the time so far are left out, so that no number is cut."""


class Terminal:
    """The output of one training. A context manager: at its end the progress bar is gone and the cursor is back."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._progress: Progress | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, message: str) -> None:
        """One line."""
        message = printable(message, "\n")
        if self.console.is_terminal:
            self.console.print(Text(message), soft_wrap=True)
            return
        try:  # the same, in a hundredth of the time: a training says a hundred lines an epoch
            print(message, file=self.console.file, flush=True)
        except BrokenPipeError:
            self.console.on_broken_pipe()

    def warn(self, title: str, message: str) -> None:
        """A warning that must not be overlooked."""
        if self.console.is_terminal:
            text = Text(printable(message, "\n"), style="yellow")
            self.console.print(Panel(text, title=Text(printable(title)), border_style="bold yellow"))
        else:
            self.say(f"WARNING: {title}: {message}")

    def begin(self, steps: int) -> None:
        """The training begins: `steps` updates."""
        if not (self.console.is_terminal and self.console.file.isatty()):  # FORCE_COLOR makes rich take a pipe for one
            return
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            *(() if self.console.width < _ROOM_FOR_ALL else (BarColumn(),)),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}  {task.fields[speed]} images/s"),
            *(() if self.console.width < _ROOM_FOR_ALL else (TimeElapsedColumn(),)),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self.console, transient=True, refresh_per_second=5)
        self._progress.add_task("train", total=steps, epoch=1, loss="–", accuracy="–", speed="–")
        self._progress.start()

    def trained(self, epoch: int, batch: int, step: int, window: WindowMetrics) -> None:
        """A window of updates is complete; the last one was batch `batch`, from 1, of epoch `epoch`, from 0."""
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0],
                completed=step,
                epoch=epoch + 1,
                loss=loss_text(window.loss),
                accuracy=f"{window.accuracy:.4f}",
                speed=f"{window.images_per_second:,.0f}",
            )
        else:
            self.say(f"Epoch: {epoch}, Batch: {batch}, Loss: {loss_text(window.loss)}, Accuracy: {window.accuracy:.4f}")

    def validated(self, epochs: int, validation: Evaluation) -> None:
        """The validation result after `epochs` epochs."""
        when = f"after epoch {epochs}" if epochs else "untrained"
        self.say(f"Validation, {when}: loss {loss_text(validation.loss)}, accuracy {validation.accuracy:.4f}")

    def evaluated(self, title: str, evaluation: Evaluation, classes: tuple[str, ...]) -> None:
        """A result: precision, recall and F1 of each class, then the confusion matrix."""
        scores, confusion = Table(), Table()
        for name in ("class", "precision", "recall", "F1", "images"):
            scores.add_column(name, justify="left" if name == "class" else "right")
        for name, score in zip(classes, class_scores(evaluation.confusion), strict=True):
            scores.add_row(
                name, f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}", f"{score.support:,}"
            )
        for name in ("", *classes):
            confusion.add_column(name[:5], justify="right", no_wrap=True)
        for name, row in zip(classes, evaluation.confusion.tolist(), strict=True):
            confusion.add_row(name[:5], *(str(count) if count else "·" for count in row))
        width = None if self.console.is_terminal else 120
        self.say(title)
        self.console.print(scores, width=width)
        self.say("Row: true class, column: predicted class")
        self.console.print(confusion, width=width)


class Silent(Terminal):
    """Says nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    def warn(self, title: str, message: str) -> None:
        """Nothing."""

    def begin(self, steps: int) -> None:
        """Nothing."""

    def trained(self, epoch: int, batch: int, step: int, window: WindowMetrics) -> None:
        """Nothing."""

    def evaluated(self, title: str, evaluation: Evaluation, classes: tuple[str, ...]) -> None:
        """Nothing."""
