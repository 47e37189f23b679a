"""The network on the CPU, near the machine's limit: kernels.cpp, compiled for this CPU on first use.

torch computes layer by layer: every activation goes to memory and back, and on a network as small as this a third of
the step passes between its operations. kernels.cpp takes each image through all layers, forward and backward, while it
is in the core's cache. Where it cannot be compiled or used, `find` returns None and torch does the same work. The
library is kept in the user's cache folder. It has a thread pool of its own, whose threads take pieces of the work as
they become free: beside other programs that is several times faster than OpenMP, where all wait for the slowest.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_tb.model import CNN, as_vector

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fPIC", "-pthread")
_REALS = {torch.float32: "float", torch.bfloat16: "bf16"}
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3}
"""Of logits of about 0.1, whose roundings in two orders of summation differ by 4e-8 and 3e-4."""
THREADS = torch.get_num_threads()
"""As many as torch had when this was imported: one per core, or OMP_NUM_THREADS."""
_LANES = 16  # as in kernels.cpp
_MOST_CHANNELS = 128
_COMPILE_SECONDS = 120
_DECIDING = ("flags", "model name", "Features", "CPU implementer", "CPU part", "CPU variant")


class Kernels:
    """The kernels for certain numbers of channels and one dtype. Call from one thread at a time.

    parameters, in all methods: those of the model as one vector of that dtype, in the order of `model.as_vector`.
    inputs: float32 [N, 1, 28, 28], normalised.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        self._threads = threads
        self._sums = torch.empty(0)

    def gather(self, images: Tensor, index: Tensor, mean: float, scale: float) -> Tensor:
        """(images - mean) · scale of the images at `index`: float32 [B, 1, 28, 28].

        images: uint8 [N, 28, 28]. index: int64 [B].
        """
        inputs = torch.empty(len(index), 1, 28, 28)
        self._library.gather(_at(images), _at(index), len(index), mean, scale, _at(inputs), self._threads)
        return inputs

    def logits(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """The logits of the inputs, float32 [N, 10]."""
        out = torch.empty(len(inputs), 10)
        self._library.logits(_at(parameters), _at(inputs), len(inputs), _at(out), self._threads)
        return out

    def step(
        self, parameters: Tensor, inputs: Tensor, labels: Tensor, gradient: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Write the gradient of the mean cross-entropy to `gradient`, float32 [P]. labels: int64 [N].

        smoothing: as `label_smoothing` in torch's cross_entropy.
        Returns the mean cross-entropy, float32 [], and the number of correct predictions, int64 [].
        """
        num_sums = self._library.num_blocks(len(labels)) * len(gradient)
        if len(self._sums) < num_sums:
            self._sums = torch.empty(num_sums)
        loss, num_correct = torch.empty(()), torch.empty((), dtype=torch.int64)
        self._library.step(
            _at(parameters),
            _at(inputs),
            _at(labels),
            smoothing,
            len(labels),
            _at(self._sums),
            _at(gradient),
            _at(loss),
            _at(num_correct),
            self._threads,
        )
        return loss, num_correct


def find(model: nn.Module, threads: int = THREADS) -> Kernels | None:
    """The kernels for a model; None for another network or device, or where they cannot be compiled.

    threads: that share the work; their number changes no bit of the result.
    """
    if not isinstance(model, CNN) or os.environ.get("MNIST_TB_KERNELS") == "off":
        return None
    weight, channels = model.conv1.weight, [len(c.weight) for c in (model.conv1, model.conv2, model.conv3)]
    if weight.device.type != "cpu" or weight.dtype not in _REALS or not _is_supported(model, channels):
        return None
    build: Callable[[Sequence[int]], CNN] = type(model)
    library = _library(build, weight.dtype, *channels)
    return None if library is None else Kernels(library, threads)


def _is_supported(model: CNN, channels: Sequence[int]) -> bool:
    """Whether the parameters are of the sizes that kernels.cpp reads."""
    first, second, third = channels
    sizes = [9 * first, first, 9 * first * second, second, 9 * second * third, third, 49 * third * 10, 10]
    is_same = [parameter.numel() for parameter in model.parameters()] == sizes
    return is_same and all(count % _LANES == 0 and count <= _MOST_CHANNELS for count in channels)


@contextmanager
def threads_for(model: nn.Module) -> Iterator[None]:
    """Within, torch computes on one thread, if the kernels are used for this model.

    What is left to torch is too small to be divided, and its threads would spin, waiting for more, on the cores that
    the kernels' threads need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if find(model) is not None else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def vector(model: nn.Module) -> Tensor:
    """A copy of a model's parameters as the kernels expect them: [P]."""
    return torch.cat(as_vector(p.detach() for p in model.parameters()))


@functools.cache
def _library(build: Callable[[Sequence[int]], CNN], dtype: torch.dtype, *channels: int) -> ctypes.CDLL | None:
    """The kernels for a class of networks; None where they cannot be compiled, or the class computes something else."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return None
    defined = [f"-DREAL={_REALS[dtype]}", *(f"-DC{i}={count}" for i, count in enumerate(channels, 1))]
    try:
        library = ctypes.CDLL(str(_compiled(compiler, defined)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: without a home folder
        return None
    at, size, real, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
    library.gather.argtypes = [at, at, size, real, real, at, number]
    library.logits.argtypes = [at, at, size, at, number]
    library.step.argtypes = [at, at, at, real, size, at, at, at, at, number]
    library.num_blocks.argtypes = [size]
    for function in (library.gather, library.logits, library.step):
        function.restype = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new_model = build(channels)
    return library if _agrees(library, new_model.to(dtype)) else None


def _agrees(library: ctypes.CDLL, model: CNN) -> bool:
    """Whether the kernels compute what a new model does, in training mode: somebody may have changed its class."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two images are not worth more
    try:
        with torch.inference_mode():
            dtype = model.conv1.weight.dtype
            inputs = torch.linspace(-1, 1, 2 * 28 * 28).view(2, 1, 28, 28)
            expected = model(inputs.to(dtype)).float()
            found = Kernels(library, 1).logits(vector(model.to(memory_format=torch.channels_last)), inputs)
    finally:
        torch.set_num_threads(threads)
    return torch.allclose(found, expected, rtol=0, atol=_TOLERANCE[dtype])


def _compiled(compiler: str, defined: Sequence[str]) -> Path:
    """The path of the library in the cache, compiled if it is not there. Raises OSError or SubprocessError."""
    made_of = (_SOURCE.read_text(), *_FLAGS, *defined, compiler, str(os.stat(compiler).st_mtime), _processor())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_tb"
    path = cache / f"kernels-{hashlib.sha256('|'.join(made_of).encode()).hexdigest()[:20]}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            library = Path(folder) / "kernels.so"
            if sys.stderr.isatty():
                print("Compiling the network for this processor, once: some ten seconds …", file=sys.stderr)
            command = [compiler, *_FLAGS, *defined, "-shared", str(_SOURCE), "-o", str(library)]
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
            os.replace(library, path)  # all or nothing, also where two processes do this at once
    return path


def _processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """What decides the code that -march=native produces, of x86 (flags, model name) and of ARM."""
    lines = info.read_text().splitlines() if info.exists() else []
    return "|".join([platform.machine(), *sorted({line for line in lines if line.startswith(_DECIDING)})])


def _at(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()
