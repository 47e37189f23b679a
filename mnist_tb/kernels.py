"""The network on the CPU, near the machine's limit: kernels.cpp, compiled for this CPU when it is first needed.

torch computes layer by layer: every activation goes out to memory and comes back, and on a network as small as this the
time between its operations is a third of the step. kernels.cpp takes each image through all layers, forward and
backward, while it is in the core's own cache. Where it cannot be compiled or used, `find` says so and torch does the
same work. The library is kept in the user's cache folder, and runs on torch's own team of threads: it is linked without
an OpenMP library of its own and finds torch's.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_tb.model import CNN, as_vector

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fopenmp", "-fPIC")
_REALS = {torch.float32: "float", torch.bfloat16: "bf16"}
_LANES, _BLOCKS = 16, 8  # as in kernels.cpp
_MOST_CHANNELS = 128
_COMPILE_SECONDS = 120


class Kernels:
    """The network with certain numbers of channels, in one dtype. Call from one thread at a time.

    parameters, in all methods: the network's parameters as one vector of that dtype, in the order of `model.as_vector`.
    inputs: float32 [N, 1, 28, 28], normalised.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._sums = torch.empty(0)

    def logits(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """float32 [N, 10]."""
        out = torch.empty(len(inputs), 10)
        self._library.logits(_at(parameters), _at(inputs), ctypes.c_long(len(inputs)), _at(out))
        return out

    def step(
        self, parameters: Tensor, inputs: Tensor, labels: Tensor, gradient: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the mean cross-entropy, written to `gradient`, float32 [P]. labels: int64 [N].

        smoothing: as `label_smoothing` in torch's cross_entropy.

        Returns the mean cross-entropy, float32 [], and the number of right predictions, int64 [].
        """
        if len(self._sums) == 0:
            self._sums = torch.empty(_BLOCKS * len(gradient))
        loss, hits = torch.empty(()), torch.empty((), dtype=torch.int64)
        self._library.step(
            _at(parameters),
            _at(inputs),
            _at(labels),
            ctypes.c_float(smoothing),
            ctypes.c_long(len(labels)),
            _at(self._sums),
            _at(gradient),
            _at(loss),
            _at(hits),
        )
        return loss, hits


def find(network: nn.Module) -> Kernels | None:
    """The kernels for a network; None where it is another network or elsewhere, or they cannot be made here."""
    if not isinstance(network, CNN) or os.environ.get("MNIST_TB_KERNELS") == "off":
        return None
    weight, channels = network.conv1.weight, [len(c.weight) for c in (network.conv1, network.conv2, network.conv3)]
    fitting = all(count % _LANES == 0 and count <= _MOST_CHANNELS for count in channels)
    if weight.device.type != "cpu" or weight.dtype not in _REALS or not fitting or network.linear.out_features != 10:
        return None
    library = _library(weight.dtype, *channels)
    return None if library is None else Kernels(library)


def vector(network: nn.Module) -> Tensor:
    """The network's parameters as the kernels want them: [P], a copy."""
    return torch.cat(as_vector(p.detach() for p in network.parameters()))


@functools.cache
def _library(dtype: torch.dtype, *channels: int) -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return None
    defined = [f"-DREAL={_REALS[dtype]}", *(f"-DC{i}={count}" for i, count in enumerate(channels, 1))]
    try:
        return ctypes.CDLL(str(_compiled(compiler, defined)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home folder
        return None


def _compiled(compiler: str, defined: Sequence[str]) -> Path:
    """The library's path in the cache, compiled if it is not there. Raises what comes of it where that fails."""
    made_of = (_SOURCE.read_text(), *_FLAGS, *defined, compiler, str(os.stat(compiler).st_mtime), _processor())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_tb"
    path = cache / f"kernels-{hashlib.sha256('|'.join(made_of).encode()).hexdigest()[:20]}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            unit, library = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
            # Two commands: -fopenmp given to the linker would load an OpenMP library beside torch's.
            for command in (
                [compiler, *_FLAGS, *defined, "-c", str(_SOURCE), "-o", str(unit)],
                [compiler, "-shared", str(unit), "-o", str(library)],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
            os.replace(library, path)  # whole, or not at all, also where two processes do this at once
    return path


def _processor() -> str:
    """What decides the code that -march=native makes."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return "|".join([platform.machine(), *sorted({line for line in lines if line.startswith(("flags", "model name"))})])


def _at(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
