"""The device: what `auto` stands for on this machine, how it is used, what torch says when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mnist_tb.config.load import replace_config
from mnist_tb.config.schema import Config
from mnist_tb.errors import InputError, MemoryFullError

_FULL = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def resolve_auto(config: Config, local_rank: int = 0) -> Config:
    """Replace `auto` by what this machine has. Raises InputError where the device does not exist.

    local_rank: the number of this process on its machine, from 0; each has its own GPU.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank > 0:
        name = f"cuda:{local_rank}"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name}: torch finds no CUDA GPU here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name}: there are only {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _is_bf16_fast(device) else "fp32"
    if precision == "bf16" and device.type == "cuda" and not _is_bf16_fast(device):
        raise InputError(f"precision bf16: the GPU {name} has none, that came with Ampere; use auto or fp32")
    return replace_config(config, {"device": name, "precision": precision})


def use_device(config: Config) -> torch.device:
    """The device of a configuration without `auto`, made CUDA's current one: its streams, graphs and events are there.

    fp32 is fp32 from then on: by default, torch rounds the inputs of convolutions on CUDA to TF32, 10 bits.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    device = torch.device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.allow_tf32 = False
    return device


def _is_bf16_fast(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself: GPUs since Ampere, x86 CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not public, so it may disappear
    return any(getattr(torch.cpu, name, lambda: False)() for name in supported)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's several ways of saying that the memory is full into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory_full(error):
            raise
        raise MemoryFullError("out of memory: try a smaller train.batch_size or model.channels") from None


def _is_memory_full(error: BaseException | None) -> bool:
    """Whether this is what an error says, or the one that it followed: a graph that fails to end hides the reason."""
    if error is None:
        return False
    is_it = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in _FULL)
    return is_it or _is_memory_full(error.__cause__ or error.__context__)
