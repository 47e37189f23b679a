"""The network on the CPU, near the machine's limit: kernels.cpp, compiled for this CPU when it is first needed.

torch computes layer by layer: every activation goes out to memory and comes back, and on a network as small as this the
time between its operations is a third of the step. kernels.cpp takes each image through all layers, forward and
backward, while it is in the core's own cache. Where it cannot be compiled or used, `find` says so and torch does the
same work. The library is kept in the user's cache folder. It has threads of its own, which take pieces of the work as
they come to it: beside other programs that is several times quicker than OpenMP's teams, all of whom wait for the last.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_tb.model import CNN, as_vector

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fPIC", "-pthread")
_REALS = {torch.float32: "float", torch.bfloat16: "bf16"}
THREADS = torch.get_num_threads()
"""As many as torch had when this was imported: one a core, or OMP_NUM_THREADS."""
_LANES, _BLOCKS = 16, 8  # as in kernels.cpp
_MOST_CHANNELS = 128
_COMPILE_SECONDS = 120


class Kernels:
    """The network with certain numbers of channels, in one dtype. Call from one thread at a time.

    parameters, in all methods: the network's parameters as one vector of that dtype, in the order of `model.as_vector`.
    inputs: float32 [N, 1, 28, 28], normalised.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        self._threads = threads
        self._sums = torch.empty(0)

    def gather(self, images: Tensor, index: Tensor, mean: float, scale: float) -> Tensor:
        """(images - mean) · scale of those at `index`, int64 [B], of uint8 [N, 28, 28]: float32 [B, 1, 28, 28]."""
        inputs = torch.empty(len(index), 1, 28, 28)
        self._library.gather(_at(images), _at(index), len(index), mean, scale, _at(inputs), self._threads)
        return inputs

    def logits(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """float32 [N, 10]."""
        out = torch.empty(len(inputs), 10)
        self._library.logits(_at(parameters), _at(inputs), len(inputs), _at(out), self._threads)
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
            smoothing,
            len(labels),
            _at(self._sums),
            _at(gradient),
            _at(loss),
            _at(hits),
            self._threads,
        )
        return loss, hits


def find(network: nn.Module, threads: int = THREADS) -> Kernels | None:
    """The kernels for a network; None where it is another network or elsewhere, or they cannot be made here.

    threads: that share the work; their number changes no bit of the result.
    """
    if not isinstance(network, CNN) or os.environ.get("MNIST_TB_KERNELS") == "off":
        return None
    weight, channels = network.conv1.weight, [len(c.weight) for c in (network.conv1, network.conv2, network.conv3)]
    fitting = all(count % _LANES == 0 and count <= _MOST_CHANNELS for count in channels)
    if weight.device.type != "cpu" or weight.dtype not in _REALS or not fitting or network.linear.out_features != 10:
        return None
    library = _library(weight.dtype, *channels)
    return None if library is None else Kernels(library, threads)


@contextmanager
def threads_for(network: nn.Module) -> Iterator[None]:
    """Within, torch computes on one thread, where the kernels do the work on several.

    What is left to torch is too small to be worth sharing out, and its team of threads would wait for more, spinning,
    on the cores that the kernels' threads need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if find(network) is not None else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        library = ctypes.CDLL(str(_compiled(compiler, defined)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home folder
        return None
    at, size, real, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
    library.gather.argtypes = [at, at, size, real, real, at, number]
    library.logits.argtypes = [at, at, size, at, number]
    library.step.argtypes = [at, at, at, real, size, at, at, at, at, number]
    for function in (library.gather, library.logits, library.step):
        function.restype = None
    return library


def _compiled(compiler: str, defined: Sequence[str]) -> Path:
    """The library's path in the cache, compiled if it is not there. Raises what comes of it where that fails."""
    made_of = (_SOURCE.read_text(), *_FLAGS, *defined, compiler, str(os.stat(compiler).st_mtime), _processor())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_tb"
    path = cache / f"kernels-{hashlib.sha256('|'.join(made_of).encode()).hexdigest()[:20]}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            library = Path(folder) / "kernels.so"
            command = [compiler, *_FLAGS, *defined, "-shared", str(_SOURCE), "-o", str(library)]
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
            os.replace(library, path)  # whole, or not at all, also where two processes do this at once
    return path


def _processor() -> str:
    """What decides the code that -march=native makes."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return "|".join([platform.machine(), *sorted({line for line in lines if line.startswith(("flags", "model name"))})])


def _at(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()
