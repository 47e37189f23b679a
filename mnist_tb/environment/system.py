"""What the machine does while it trains: curves under `system/`, of processor, memory, disk and GPUs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from mnist_tb.events.tags import SYSTEM

Reading = dict[str, float]

_GIGABYTE, _MEGABYTE = 2**30, 2**20
_MOST_COST = 0.003
"""Of the time, for reading sensors: a machine with thousands of processes is asked less often."""


class Sensors:
    """The sensors of this machine, read every so many seconds at most. One that fails is left out from then on.

    They are looked for when they are first asked: a run may be over before that.
    """

    def __init__(self, seconds: float) -> None:
        """seconds: between two readings; 0 for none."""
        self._seconds = seconds
        self._due = time.monotonic() + seconds
        self._sensors: list[Callable[[], Reading]] | None = None if seconds else []

    def due(self) -> Reading:
        """Tag → value, where a reading is due; else nothing. Percent, GB, MB, watts and degrees Celsius."""
        now = time.monotonic()
        if self._sensors is None:
            self._sensors = [*_found(lambda: [_machine(), _processes()]), *_found(_gpus)]
            self._read(self._sensors)  # a processor's share is measured from one reading to the next
        if not self._sensors or now < self._due:
            return {}
        found = self._read(self._sensors)
        end = time.monotonic()
        self._due = end + max(self._seconds, (end - now) / _MOST_COST)
        return found

    def _read(self, sensors: list[Callable[[], Reading]]) -> Reading:
        found: Reading = {}
        for sensor in list(sensors):
            try:
                found |= sensor()
            except Exception:
                sensors.remove(sensor)
        return {SYSTEM + name: value for name, value in found.items() if math.isfinite(value)}


def _found(find: Callable[[], list[Callable[[], Reading]]]) -> list[Callable[[], Reading]]:
    try:
        return find()
    except Exception:  # a library or a driver is missing or broken, each in its own way
        return []


def _machine() -> Callable[[], Reading]:
    import psutil

    return lambda: {"cpu_percent": psutil.cpu_percent(), "memory_percent": psutil.virtual_memory().percent}


def _processes() -> Callable[[], Reading]:
    """This process and all that come from it. 100 % is one core; memory that they share counts for each."""
    import psutil

    this = psutil.Process()
    before: dict[Any, tuple[float, int]] = {}  # process → seconds of processor, bytes written
    clock, written = time.monotonic(), 0

    def read() -> Reading:
        nonlocal before, clock, written
        now, seen, memory = time.monotonic(), {}, 0
        for process in [this, *this.children(recursive=True)]:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    on_disk = process.io_counters().write_bytes if hasattr(process, "io_counters") else 0
                    memory += process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
            seen[process] = times.user + times.system, on_disk
        gone = [
            (seconds - was, size - had)
            for one, (seconds, size) in seen.items()
            for was, had in [before.get(one, (0.0, 0))]
        ]
        busy = sum(seconds for seconds, _ in gone)
        written += sum(size for _, size in gone)
        share = 100 * busy / max(now - clock, 1e-9)
        before, clock = seen, now
        return {
            "process_cpu_percent": share,
            "process_memory_gb": memory / _GIGABYTE,
            "process_written_mb": written / _MEGABYTE,
        }

    return read


def _gpus() -> list[Callable[[], Reading]]:
    """NVIDIA's, all that this process may see, by nvidia-ml-py; none where it is not installed."""
    import pynvml  # type: ignore[import-not-found]

    pynvml.nvmlInit()

    def sensor(index: int) -> Callable[[], Reading]:
        handle, name = pynvml.nvmlDeviceGetHandleByIndex(index), f"gpu{index}"
        return lambda: {
            f"{name}_percent": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            f"{name}_memory_gb": pynvml.nvmlDeviceGetMemoryInfo(handle).used / _GIGABYTE,
            f"{name}_power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            f"{name}_temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        }

    return [sensor(index) for index in range(pynvml.nvmlDeviceGetCount())]
