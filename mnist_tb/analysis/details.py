"""All that is known of one run, in words: what `runs show` prints."""

from __future__ import annotations

from datetime import datetime

from mnist_tb.config.hyperparameters import format_value
from mnist_tb.config.numbers import loss_text, percent
from mnist_tb.runs.query import RunSummary


def run_details(run: RunSummary) -> list[tuple[str, list[tuple[str, str]]]]:
    """All that is known of a run, as tables of name and value."""
    facts = {
        "status": run.status,
        "error": run.error,
        "tags": ", ".join(run.notes.tags) or None,
        "note": run.notes.note or None,
        "data": run.data,
        "started": None if run.started is None else f"{datetime.fromtimestamp(run.started):%Y-%m-%d %H:%M:%S}",
        "began with": None if run.init_from is None else f"the best weights of {run.init_from}",
        "segments": _segments(run),
        "epoch": None if run.epochs is None else f"{run.epoch or 0} of {run.epochs}",
        "step": None if run.step is None else f"{run.step:,}",
        "validation": _result(run.val_accuracy, run.val_loss),
        "test": _result(run.test_accuracy, run.test_loss),
        "training": None if run.seconds is None else f"{run.seconds:,.1f} s",
        "images/s": None if run.images_per_second is None else f"{run.images_per_second:,.0f}",
    }
    known = [(name, text) for name, text in facts.items() if text is not None]
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [
        (run.name, [(name * (at == 0), line) for name, text in known for at, line in enumerate(text.splitlines())]),
        ("settings", [(key, format_value(value)) for key, value in run.settings.items()]),
        ("files", [(str(path.relative_to(run.path)), f"{path.stat().st_size:,} bytes") for path in files]),
    ]


def _segments(run: RunSummary) -> str | None:
    """The parts of a run whose schedule ends before it does, in words."""
    names = ("schedule.name", "schedule.epochs", "schedule.after", "train.lr")
    schedule, epochs, after, peak = (run.settings.get(name) for name in names)
    if not isinstance(epochs, int) or run.epochs is None or run.epochs <= epochs:  # a foreign file may say anything
        return None
    rate = format_value(peak if after is None else after)
    return f"{epochs} epochs laid out as {schedule}, then {run.epochs - epochs} at the constant learning rate {rate}"


def _result(accuracy: float | None, loss: float | None) -> str | None:
    parts = [f"accuracy {percent(accuracy)}%"] if accuracy is not None else []
    return ", ".join([*parts, *([f"loss {loss_text(loss)}"] if loss is not None else [])]) or None
