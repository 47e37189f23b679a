"""A device for tests that no driver is needed for: torch takes its tensors for those of another device than the CPU.

Their contents lie on the CPU, where each operation is done; between it and them lies torch's dispatcher, which sees
whatever crosses from one device to the other and whatever waits for the device. What would fail on a GPU because a
tensor is of the wrong device, or because numpy is given one of a GPU's, fails here too. CUDA's own kernels, streams and
events are not here.
https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-native-api
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE, CPU = torch.device("meta"), torch.device("cpu")
"""Of torch's kinds of devices, `meta` is the one for which autograd asks no driver."""
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.")
"""Operations whose result the CPU has to know."""


class DeviceTensor(torch.Tensor):
    """A tensor of the device; its content is `held`, on the CPU."""

    held: torch.Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _on_the_cpu(func, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:
        return super().data

    @data.setter
    def data(self, value: DeviceTensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"DeviceTensor({self.held})"


class Device(TorchDispatchMode):
    """Within, the device is there: tensors can be made on it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _on_the_cpu(func, args, kwargs or {})


def _on_the_cpu(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Do an operation on what the tensors hold. The result is of the device that is asked for, or of the tensors'."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, DeviceTensor)]
    asked = kwargs.get("device")
    is_of_device = bool(given) if asked is None else torch.device(asked).type == DEVICE.type
    others = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
    if given and "copy" not in str(func):
        assert all(isinstance(leaf, DeviceTensor) for leaf in others), f"{func} is given tensors of two devices"

    def unwrapped(leaf: Any) -> Any:
        if isinstance(leaf, DeviceTensor):
            return leaf.held
        return CPU if isinstance(leaf, torch.device) else leaf

    wrappers = {id(tensor.held): tensor for tensor in given}  # what is changed in place is returned as it was given

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not is_of_device:
            return leaf
        return wrappers[id(leaf)] if id(leaf) in wrappers else DeviceTensor(leaf)

    with torch.inference_mode(False), torch.no_grad():  # what is made in inference mode could not be wrapped
        args, kwargs = tree_map(unwrapped, (args, dict(kwargs)))
        return tree_map(wrapped, func(*args, **kwargs))


class Recording(TorchDispatchMode):
    """Looks at each operation as the recording of a CUDA graph would.

    uploads: whether tensors may come from the CPU, as they may between two graphs; they are counted.
    """

    def __init__(self, uploads: bool = False) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []
        self.uploads: int | None = 0 if uploads else None
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        assert not any(word in name for word in WAITING), f"{name} waits for the device"
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **(kwargs or {}))
        got = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        is_upload = all(leaf.device == CPU for leaf in given) and any(leaf.device == DEVICE for leaf in got)
        if self.uploads is None:
            assert {tensor.device for tensor in [*given, *got]} <= {DEVICE}, f"{name} is of the CPU"
        elif is_upload and given:
            self.uploads += 1
        else:
            assert len({tensor.device for tensor in [*given, *got]}) <= 1, (
                f"{name} crosses from one device to the other"
            )
        self.made += [weakref.ref(tensor) for tensor in got if not any(tensor is other for other in given)]
        self.count += 1
        return result


def record(work: Callable[[], None]) -> Callable[[], None]:
    """A `Capture`: what the work allocates must be gone when it ends, for a replay writes to the same places again."""
    with Recording():
        work()  # what is made once, as when CUDA warms up
    with Recording() as recording:
        work()
    gc.collect()
    kept = [tensor for reference in recording.made if (tensor := reference()) is not None]
    assert not kept, f"{len(kept)} tensors outlive the recording"
    assert recording.count > 30
    return work
