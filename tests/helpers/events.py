"""What event files contain, by TensorBoard's own reader."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_tb.runs.folder import Run


def read_events(run: Run) -> EventAccumulator:
    """All that a run's event files hold, nothing sampled away."""
    events = EventAccumulator(
        str(run.path),
        size_guidance=dict.fromkeys(("scalars", "images", "histograms", "compressedHistograms", "tensors", "audio"), 0),
    )
    return events.Reload()


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = read_events(run)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
