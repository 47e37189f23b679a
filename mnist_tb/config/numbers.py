"""Results as they are written, in the terminal, in messages and in the report."""

from __future__ import annotations


def percent(fraction: float) -> str:
    """A fraction as a percentage without its sign: `99.21`; 0.99996 is `99.996`, since not all is right."""
    for digits in range(2, 7):
        text = f"{100 * fraction:.{digits}f}"
        if 0 < float(text) < 100 or not 0 < fraction < 1:
            break
    return text


def loss_text(value: float) -> str:
    """A loss: `0.0312`; of a training that diverges `1.23e+07`."""
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.2e}"


def duration(seconds: float) -> str:
    """At most two units: `1 h 5 min`."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours:,} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
