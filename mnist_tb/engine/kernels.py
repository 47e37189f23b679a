"""The network on the CPU, near the machine's limit: kernels.cpp, compiled for this CPU on first use.

torch computes layer by layer: every activation goes to memory and back, and on a network as small as this a third of
the step passes between its operations. kernels.cpp takes each image through all layers, forward and backward, while it
is in the core's cache. For another network, or if it cannot be compiled, `find` returns None and torch does the work.
The library is kept in the user's cache folder. It has a thread pool of its own, whose threads take pieces of the work
as they become free: beside other programs that is several times faster than OpenMP, where all wait for the slowest.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from mnist_tb.model import CNN, FeatureLinear, as_vector

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fPIC", "-pthread")
_REALS = {torch.float32: "float", torch.bfloat16: "bf16"}
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.1}
"""Of the norm of each result; 1.3e-6 and 0.051 are the most that was measured, of ten kinds of channels."""
_FINGERPRINT = "582c8dcc2845db96"
"""Of the classes in model.py that kernels.cpp computes: tests/engine/test_kernels.py says what to do if they change."""
THREADS = torch.get_num_threads()
"""As many as torch had when this was imported: one per core, or OMP_NUM_THREADS."""
_TORCHS = (nn.Linear, nn.Module, object)
_LANES = 16  # as in kernels.cpp
_MOST_CHANNELS = 128
_COMPILE_SECONDS = 120
_IMAGES = 19
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
    """The kernels for a model, until somebody changes it; None if torch does the work.

    threads: that share the work; their number changes no bit of the result.
    """
    library = _search(model)
    return None if isinstance(library, str) else Kernels(library, threads)


def why_not(model: nn.Module) -> str:
    """Why torch does the work of a model; empty if the kernels do it."""
    library = _search(model)
    return library if isinstance(library, str) else ""


def _search(model: nn.Module) -> ctypes.CDLL | str:
    """The library for a model, or why there is none."""
    if os.environ.get("MNIST_TB_KERNELS") == "off":
        return "MNIST_TB_KERNELS is off"
    channels = _channels(model)
    if not channels:
        return "the kernels compute another network"
    if any(count % _LANES or count > _MOST_CHANNELS for count in channels):
        return f"the kernels are for multiples of {_LANES} channels, {_MOST_CHANNELS} at most"
    return _library(next(model.parameters()).dtype, *channels)


def _channels(model: nn.Module) -> list[int]:
    """The channels of a network like the one in kernels.cpp: the same code, the same layers, no hooks; empty if not."""
    parameters = list(model.parameters())
    kinds = {(type(p), p.device.type, p.dtype, p.requires_grad, bool(p._backward_hooks)) for p in parameters}
    if kinds not in [{(nn.Parameter, "cpu", dtype, True, False)} for dtype in _REALS]:
        return []
    own = [vars(kind) for kind in (*type(model).__mro__, *FeatureLinear.__mro__) if kind not in _TORCHS]
    code = [value for one in own for name, value in one.items() if callable(value) or not name.startswith("__")]
    if _fingerprint(*(getattr(value, "__code__", None) for value in code)) != _FINGERPRINT:
        return []
    channels = [len(p) for p in parameters if p.dim() == 4]
    is_known = len(channels) == 3 and _anatomy(model) == _plain_anatomy(*channels)
    return channels if is_known and not torch_module._has_any_global_hook() else []


@functools.cache
def _fingerprint(*functions: CodeType | None) -> str:
    """Of the code of functions, but for comments, formatting and docstrings; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        for function in functions:
            tree: Any = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]  # type: ignore[arg-type]
            tree.body = tree.body[ast.get_docstring(tree) is not None :]
            digest.update(ast.unparse(tree).encode())
    except Exception:  # there is no source, or no function
        return ""
    return digest.hexdigest()[:16]


def _anatomy(module: nn.Module) -> dict[str, object]:
    """All attributes of a module, hooks among them, but of parameters only the sizes, and of modules their anatomy."""
    sizes = [(name, parameter.shape) for name, parameter in module.named_parameters(recurse=False)]
    layers = [(name, type(layer), _anatomy(layer)) for name, layer in module.named_children()]
    return {**vars(module), "training": None, "_parameters": sizes, "_modules": layers}


@functools.cache
def _plain_anatomy(*channels: int) -> dict[str, object]:
    with torch.device("meta"):
        return _anatomy(CNN(channels))


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
def _library(dtype: torch.dtype, *channels: int) -> ctypes.CDLL | str:
    """The compiled kernels, or why there are none."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return "there is no C++ compiler"
    defined = [f"-DREAL={_REALS[dtype]}", *(f"-DC{i}={count}" for i, count in enumerate(channels, 1))]
    try:
        library = ctypes.CDLL(str(_compiled(compiler, defined)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: without a home folder
        return "the kernels cannot be compiled here"
    at, size, real, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
    library.gather.argtypes = [at, at, size, real, real, at, number]
    library.logits.argtypes = [at, at, size, at, number]
    library.step.argtypes = [at, at, at, real, size, at, at, at, at, number]
    library.num_blocks.argtypes = [size]
    for function in (library.gather, library.logits, library.step):
        function.restype = None
    return library if _agrees(library, dtype, channels) else "the kernels compute wrong numbers here"


def _agrees(library: ctypes.CDLL, dtype: torch.dtype, channels: Sequence[int]) -> bool:
    """Whether the kernels come to the results of torch in fp32, of weights as large as a training makes them.

    They and the inputs are fractions so simple that activations are exact in fp32: poolings choose the same pixels.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so few images are not worth more
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            torch.manual_seed(0)
            model, images = CNN(channels), torch.randint(16, (_IMAGES, 28, 28), dtype=torch.uint8)
            for parameter in model.parameters():
                parameter.data = (48 * parameter.data).round() / 16
            index = torch.arange(_IMAGES).flip(0)
            labels = index % 10
            logits = model((images[index, None] - 8.0) / 4)
            loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
            gradients = as_vector(torch.autograd.grad(loss, list(model.parameters())))

            kernels, parameters = Kernels(library, 1), vector(model).to(dtype)
            inputs, gradient = kernels.gather(images, index, 8.0, 1 / 4), torch.empty(len(parameters))
            found_loss, num_correct = kernels.step(parameters, inputs, labels, gradient, 0.1)
            found_logits = kernels.logits(parameters, inputs)
    finally:
        torch.set_num_threads(threads)
    found = [found_logits, found_loss, *gradient.split([len(part) for part in gradients])]
    pairs = zip(found, [logits, loss, *gradients], strict=True)
    is_near = all((one - other).norm() <= _TOLERANCE[dtype] * other.norm() for one, other in pairs)
    return is_near and bool(num_correct == (found_logits.argmax(1) == labels).sum())


def _compiled(compiler: str, defined: Sequence[str]) -> Path:
    """The path of the library in the cache, compiled if it is not there. Raises OSError or SubprocessError."""
    source, changed = _SOURCE.read_text(encoding="utf-8"), str(os.stat(compiler).st_mtime)
    made_of = (source, *_FLAGS, *defined, compiler, changed, _processor())
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
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return "|".join([platform.machine(), *sorted({line for line in lines if line.startswith(_DECIDING)})])


def _at(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()
