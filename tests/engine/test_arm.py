"""The kernels on ARM, which nobody here has: compiled for it, and run by an emulator. And whose code is whose."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers.fixtures import missing
from mnist_tb import model as models
from mnist_tb.engine import kernels

pytestmark = pytest.mark.slow

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
COUNT = 21


@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_loss_gradient_and_logits_are_autograds(cpu: str, tmp_path: Path) -> None:
    if shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None:
        missing("no ARM (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)")
    network = models.build((16, 32, 64), 1, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(COUNT, 1, 28, 28, generator=random), torch.randint(10, (COUNT,), generator=random)
    vector = kernels.vector(network)
    (tmp_path / "in").write_bytes(vector.numpy().tobytes() + inputs.numpy().tobytes() + labels.numpy().tobytes())

    flags = [flag for flag in kernels._FLAGS if flag not in ("-march=native", "-fPIC")]
    march = {"cortex-a53": "armv8-a", "max": "armv8.2-a+sve"}[cpu]
    channels = ["-DREAL=float", "-DC1=16", "-DC2=32", "-DC3=64"]
    source = Path(__file__).with_name("arm_main.cpp")
    include = ["-I", str(kernels._SOURCE.parent), "-static", "-o", str(tmp_path / "step")]
    subprocess.run([COMPILER, *flags, f"-march={march}", *channels, *include, str(source)], check=True, timeout=120)
    emulated = [EMULATOR, "-cpu", cpu, str(tmp_path / "step"), str(tmp_path / "in"), str(tmp_path / "out"), str(COUNT)]
    subprocess.run(emulated, check=True, timeout=120)

    found = torch.from_numpy(np.fromfile(tmp_path / "out", np.float32))
    gradient, loss, logits = found[: len(vector)], found[len(vector)], found[len(vector) + 1 :].view(COUNT, 10)
    expected_logits = network(inputs)
    expected_loss = functional.cross_entropy(expected_logits, labels, label_smoothing=0.1)
    gradients = torch.autograd.grad(expected_loss, list(network.parameters()))
    expected = torch.cat(models.as_vector(gradients))
    assert torch.allclose(logits, expected_logits.detach(), atol=1e-5)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert torch.linalg.vector_norm(gradient - expected) < 1e-5 * torch.linalg.vector_norm(expected)


ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
"""


@pytest.mark.parametrize("change", [("aes", "aes sve"), ("0xd0c", "0xd40"), ("0x41", "0xc0"), ("0x3", "0x4")])
def test_two_kinds_of_processor_never_share_their_code(change: tuple[str, str], tmp_path: Path) -> None:
    """A home folder that several machines have: each finds the code that was compiled for its kind."""
    (tmp_path / "one").write_text(ARM * 4)
    (tmp_path / "other").write_text(ARM.replace(*change))
    (tmp_path / "slower").write_text(ARM.replace("50.00", "25.00"))
    assert kernels._processor(tmp_path / "one") != kernels._processor(tmp_path / "other")
    assert kernels._processor(tmp_path / "one") == kernels._processor(tmp_path / "slower")
    assert kernels._processor(tmp_path / "none") == kernels._processor(tmp_path / "nothing")
    here = kernels._processor()
    assert "flags" in here or "Features" in here
