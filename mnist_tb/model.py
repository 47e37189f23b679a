"""The CNN, and its parameters as one vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeatureLinear(nn.Linear):
    """A linear layer over feature maps [N, C, H, W]; its weight is that of `nn.Linear` after `nn.Flatten`.

    In memory the maps are [N, H, W, C]. Permuting the weight to that order, in place of every image to the other, gives
    the same sums without a copy of the activations.
    """

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        weight = self.weight.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        return functional.linear(x.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


class CNN(nn.Module):
    """Three 3×3 convolutions, the first two followed by 2×2 pooling, and a linear layer.

    Pooling comes before ReLU: ReLU is monotonic, so the result is the same, with a quarter of the work.
    With the default channels it has 54,666 parameters.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.pool2 = nn.MaxPool2d(2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.relu3 = nn.ReLU(inplace=True)
        self.linear = FeatureLinear(7 * 7 * third, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] → logits [N, classes], in the dtype of the parameters."""
        logits: Tensor = self.linear(self.features(x)[-1])
        return logits

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, 1, 28, 28] → the activations of the three convolutions, after pooling and ReLU: [N, C, H, W] each."""
        first = self.relu1(self.pool1(self.conv1(x)))
        second = self.relu2(self.pool2(self.conv2(first)))
        return first, second, self.relu3(self.conv3(second))


def build(channels: Sequence[int], seed: int, device: torch.device) -> CNN:
    """A CNN with the initial weights of a seed, the same on every device; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CNN(channels)
    return model.to(device).to(memory_format=torch.channels_last)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def in_precision(model: CNN, precision: str) -> CNN:
    """The model that computes in a precision: in fp32 the model itself, else a copy of it in bf16."""
    return model if precision == "fp32" else copy.deepcopy(model).to(torch.bfloat16)


def as_vector(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor flattened with its channels last: a view where it is so in memory, else a copy."""
    return [(t.permute(0, 2, 3, 1) if t.dim() == 4 else t).reshape(-1) for t in tensors]


def flatten(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Move all parameters to one vector [P], of which they become views; their gradients likewise. Returns both."""
    parameters = list(model.parameters())
    vector = torch.cat(as_vector(p.detach() for p in parameters))
    gradient = torch.zeros_like(vector)
    sizes = [p.numel() for p in parameters]
    for p, part, gradient_part in zip(parameters, vector.split(sizes), gradient.split(sizes), strict=True):
        p.data, p.grad = _shaped(part, p), _shaped(gradient_part, p)
    return vector, gradient


def _shaped(part: Tensor, like: Tensor) -> Tensor:
    if like.dim() != 4:
        return part.view(like.shape)
    outputs, inputs, height, width = like.shape
    return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
