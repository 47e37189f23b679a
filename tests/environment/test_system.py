"""The machine's curves: what they say, how often, and that no sensor harms a training."""

from __future__ import annotations

import json
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
from mnist_tb.events.writer import EventWriter

TAGS = {"cpu_percent", "memory_percent", "process_cpu_percent", "process_memory_gb", "process_written_mb"}


def read_now(sensors: Sensors) -> dict[str, float]:
    sensors._due = 0.0
    return {tag.removeprefix("system/"): value for tag, value in sensors.due().items()}


CHILD = """if True:
    import os, sys, time
    held = bytearray(b"x") * (300 * 2**20)
    with open(sys.argv[1], "wb") as file:
        file.write(os.urandom(20 * 2**20)); file.flush(); os.fsync(file.fileno())
    while time.process_time() < 1.0: pass
    print("ready", flush=True)
    input()"""

PARENT = """if True:
    import json, subprocess, sys, time
    from mnist_tb.environment.system import Sensors
    def read():
        sensors._due = 0.0
        return {tag.removeprefix("system/"): value for tag, value in sensors.due().items()}
    sensors = Sensors(1.0)
    start, before = time.monotonic(), read()
    child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    during, seconds = read(), time.monotonic() - start
    child.communicate(b"\\n")
    print(json.dumps([before, during, read(), seconds]))"""


def test_what_the_sensors_say(tmp_path: Path) -> None:
    """Of a process without other children than one of known size: it computes, holds memory and writes."""
    command = [sys.executable, "-c", PARENT, CHILD, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, during, after, seconds = json.loads(done.stdout)
    assert before.keys() == during.keys() == after.keys() == TAGS
    assert during["process_memory_gb"] > before["process_memory_gb"] + 0.28
    assert after["process_memory_gb"] < during["process_memory_gb"] - 0.28, "the child is gone"
    assert during["process_cpu_percent"] == pytest.approx(100 * 1.05 / seconds, rel=0.5)
    assert 0 <= during["cpu_percent"] <= 100
    assert 0 < during["memory_percent"] < 100
    if during["process_written_mb"]:  # not every file system counts
        assert 20 <= during["process_written_mb"] < 25
    assert after["process_written_mb"] >= during["process_written_mb"], "what the child has written is not gone"


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


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensors are asked as often as they are to be, and at once: git is not waited for."""

    monkeypatch.setattr(log, "gather_recent", lambda *_: ({}, b""))
    monkeypatch.setattr(EventWriter, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(system, "_MOST_COST", 1.0)


@pytest.mark.slow
def test_curves_of_a_training_one_point_a_step(train: Train, often: None) -> None:
    """And they make no difference to it."""
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


def test_of_a_tracker(tmp_path: Path, often: None) -> None:
    with Tracker(tmp_path, "mine", system_seconds=0.02) as tracker:
        end, step = time.monotonic() + 60, 0
        while len(scalars(tracker.run).get("system/process_memory_gb", [])) < 2 and time.monotonic() < end:
            step += 1
            tracker.scalars(step, {"loss/train": 1.0 / step})
            time.sleep(0.02)
    points = scalars(tracker.run)["system/process_memory_gb"]
    assert len(points) > 1
    assert len({step for step, _ in points}) == len(points)
