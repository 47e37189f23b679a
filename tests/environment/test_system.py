"""The machine's curves: what they say, how often, and that no sensor harms a training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest
import torch

from helpers.events import read_events, scalars
from helpers.fixtures import Train
from helpers.killing import record_counts
from mnist_tb import Tracker
from mnist_tb.environment import log, system
from mnist_tb.environment.system import Sensors

TAGS = {"cpu_percent", "memory_percent", "process_cpu_percent", "process_memory_gb", "process_written_mb"}


def read_now(sensors: Sensors) -> dict[str, float]:
    sensors._due = 0.0
    return {tag.removeprefix("system/"): value for tag, value in sensors.due().items()}


def test_what_the_sensors_say(tmp_path: Path) -> None:
    """Against work of a known size: a child of ours computes, holds memory and writes."""
    sensors = Sensors(1.0)
    assert sensors.due() == {}, "not yet"
    program = f"""if True:
        import os, time
        held = bytearray(300 * 2**20)
        with open({str(tmp_path / "file")!r}, "wb") as file:
            file.write(os.urandom(20 * 2**20)); file.flush(); os.fsync(file.fileno())
        while time.process_time() < 1.0: pass
        print("ready", flush=True)
        input()"""
    before = psutil.Process().memory_info().rss / 2**30
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        found, seconds = read_now(sensors), time.monotonic() - start
    finally:
        child.communicate(b"\n")
    assert found.keys() == TAGS
    assert found["process_memory_gb"] > before + 0.2
    assert 100 * 0.9 / (seconds + 1) < found["process_cpu_percent"] < 100 * (os.cpu_count() or 1) * 1.1
    assert 0 <= found["cpu_percent"] <= 100
    assert 0 < found["memory_percent"] < 100
    if found["process_written_mb"]:  # not every file system counts
        assert 20 <= found["process_written_mb"] < 40
    after = read_now(sensors)
    assert after["process_memory_gb"] < found["process_memory_gb"] - 0.2, "the child is gone"
    assert after["process_written_mb"] >= found["process_written_mb"], "what it has written is not"


def test_a_sensor_that_raises_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = Sensors(1.0)

    def broken() -> None:
        raise RuntimeError("no such register")

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    assert read_now(sensors).keys() == TAGS - {"cpu_percent", "memory_percent"}
    monkeypatch.undo()
    assert read_now(sensors).keys() == TAGS - {"cpu_percent", "memory_percent"}, "for good"
    monkeypatch.setattr(psutil, "Process", broken)
    assert read_now(Sensors(1.0)) == {}


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nvidia-ml-py says it, in our units; a value that is not known is none."""
    nvml = types.SimpleNamespace(
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: types.SimpleNamespace(gpu=90 + handle),
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used=2**31),
        nvmlDeviceGetPowerUsage=lambda handle: 250_500,
        nvmlDeviceGetTemperature=lambda handle, kind: float("nan") if handle else 61,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = read_now(Sensors(1.0))
    gpu = {tag: value for tag, value in found.items() if tag.startswith("gpu")}
    assert gpu == {
        "gpu0_percent": 90, "gpu0_memory_gb": 2, "gpu0_power_w": 250.5, "gpu0_temperature_c": 61,
        "gpu1_percent": 91, "gpu1_memory_gb": 2, "gpu1_power_w": 250.5,
    }  # fmt: skip
    nvml.nvmlInit = lambda: (_ for _ in ()).throw(OSError("no driver"))
    assert read_now(Sensors(1.0)).keys() == TAGS


def test_a_slow_sensor_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 0.3 % of the time."""
    sensors = Sensors(1.0)
    clock = iter([10.0, 10.0, 10.5, 10.5, 10.5, 100.0, 170.0, 177.5, 177.6, 177.7, 177.7, 177.7])
    monkeypatch.setattr(system.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sensors, "_sensors", [lambda: {"x": 1.0}])
    sensors._due = 0.0
    assert sensors.due() == {"system/x": 1.0}
    assert sensors._due == pytest.approx(10.0 + 1.0)
    assert system._MOST_COST == 0.003


def test_curves_of_a_training_one_point_a_step(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is resumed; and they are no difference between two runs."""
    monkeypatch.setattr(log, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(system, "_MOST_COST", 1.0)
    options = ("--epochs", "12", "--set", "tracking.projector=false")
    run = train(*options, "--set", "tracking.system_seconds=0.02")
    found = {tag: scalars(run)[f"system/{tag}"] for tag in TAGS}
    for tag, points in found.items():
        steps = [step for step, _ in points]
        assert len(steps) >= 3, tag
        assert steps == sorted(set(steps))
        assert steps[0] >= 0
        assert steps[-1] <= 12 * 20
    assert max(record_counts(run).values()) == 1
    off = train(*options)
    assert not any(tag.startswith("system/") for tag in read_events(off).Tags()["scalars"])
    assert all(
        torch.equal(value, torch.load(off.weights, weights_only=True)[name])
        for name, value in torch.load(run.weights, weights_only=True).items()
    )


def test_of_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(system, "_MOST_COST", 1.0)
    with Tracker(tmp_path, "mine", system_seconds=0.02) as tracker:
        end, step = time.monotonic() + 30, 0
        while (time.monotonic() < end and step < 50) or step == 0:
            step += 1
            tracker.scalars(step, {"loss/train": 1.0 / step})
            time.sleep(0.01)
    points = scalars(tracker.run)["system/process_memory_gb"]
    assert len(points) > 1
    assert len({step for step, _ in points}) == len(points)
