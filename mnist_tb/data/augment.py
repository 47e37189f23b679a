"""Random augmentation of training images, a batch at a time, on the device that holds the images.

Each image gets a transform of its own: an affine map about the centre and, where `warp` is set, a smooth elastic
distortion. Images are interpolated bilinearly over a background of zeros. The transforms of an update depend on the
seed and the update's number alone, so a resumed training gets the same ones as an uninterrupted training.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb.config.schema import Augment
from mnist_tb.data.datasets import generator

_POINTS = 4
"""Control points of the elastic distortion along each side of the image."""
_DRAWN = 8_192
"""Images whose transforms are drawn at once, or a batch where that is more: 1.2 MB with the elastic distortion."""


class Transforms:
    """The random transforms of a training's updates, on its device.

    They are brought there for many updates at once, which takes little longer than for one: a GPU would have to wait.
    """

    def __init__(self, config: Augment, num_images: int, batch_size: int, seed: int, device: torch.device) -> None:
        """num_images: in an epoch, whose last batch has those that are left."""
        self._config, self._seed, self._device = config, seed, device
        self._sizes = [min(batch_size, num_images - start) for start in range(0, num_images, batch_size)]
        self._ahead = max(1, _DRAWN // batch_size)
        self._first: int | None = None
        self._drawn: tuple[Tensor, ...] = ()

    def of(self, step: int) -> Tensor:
        """The transforms of update `step`: float32 [B, 2, K], as `warp` takes them, one for each image of its batch."""
        first = step // self._ahead * self._ahead  # a resumed training draws from there too: not one bit may differ
        if first != self._first:
            sizes = [self._sizes[i % len(self._sizes)] for i in range(first, first + self._ahead)]
            drawn = sample(self._config, sizes, self._seed, first)
            self._first, self._drawn = first, _to_device(drawn, self._device).split(sizes)
        return self._drawn[step - first]


def sample(config: Augment, sizes: Sequence[int], seed: int, first: int = 0) -> Tensor:
    """Random transforms of update `first` and those after it, of so many images: float32 [sum of sizes, 2, K].

    On the CPU. Each update has a random generator of its own.
    """
    random = [generator(seed, f"augmentation {first + i}") for i in range(len(sizes))]
    drawn = [torch.rand(5, size, generator=one) for size, one in zip(sizes, random, strict=True)]
    uniform = 2 * torch.cat(drawn, 1) - 1
    angle, shear = uniform[0] * config.rotate, uniform[1] * config.shear
    transforms = inverse_transforms(angle, 1 + uniform[2] * config.scale, shear, uniform[3:] * config.shift)
    if config.warp == 0:
        return transforms
    noise = [torch.randn(size, 2, _POINTS**2, generator=one) for size, one in zip(sizes, random, strict=True)]
    return torch.cat([transforms, torch.cat(noise) * config.warp / (28 / 2)], 2)


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy values from the CPU, where nobody changes them afterwards, without waiting for the device."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def inverse_transforms(angle: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Affine maps from output to input positions, in the coordinates of `grid_sample`, -1 to 1: float32 [N, 2, 3].

    angle, shear: degrees [N]; scale: factors [N]; shift: pixels to the right and down, [2, N]. The image is scaled,
    sheared horizontally, rotated and shifted, in this order, as by torchvision's `affine` with the same values.
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.functional.affine.html
    """
    angle, shear = torch.deg2rad(angle), torch.deg2rad(shear)
    cos, sin, tan = torch.cos(angle), torch.sin(angle), torch.tan(shear)
    # rotation · shear = [[cos, -cos·tan - sin], [sin, -sin·tan + cos]] has determinant 1; its inverse, over the scale:
    a, b = (cos - sin * tan) / scale, (cos * tan + sin) / scale
    c, d = -sin / scale, cos / scale
    right, down = shift / (28 / 2)
    rows = [a, b, -(a * right + b * down), c, d, -(c * right + d * down)]
    return torch.stack(rows, 1).view(-1, 2, 3)


def identity(count: int, config: Augment) -> Tensor:
    """Transforms that change nothing, of the same shape as `sample` returns for `config`: float32 [count, 2, K]."""
    transforms = torch.zeros(count, 2, 3 + (_POINTS**2 if config.warp else 0))
    transforms[:, 0, 0] = transforms[:, 1, 1] = 1
    return transforms


def warp(images: Tensor, transforms: Tensor) -> Tensor:
    """Apply one transform to each image: uint8 or float [N, 28, 28] and float32 [N, 2, K] → float32 [N, 28, 28].

    A transform holds the coefficients, for the x and the y of the input position, of K basis functions of the output
    position: 3 for the affine map and, with elastic distortion, one for each of the 4 × 4 control points.
    """
    basis = _basis(images.device)[: transforms.shape[2]]
    grid = torch.matmul(transforms, basis).view(-1, 2, 28, 28).permute(0, 2, 3, 1)
    pixels = images.unsqueeze(1).to(torch.float32)
    return functional.grid_sample(pixels, grid, align_corners=False).squeeze(1)


@functools.cache
def _basis(device: torch.device) -> Tensor:
    """The basis functions at each pixel, row by row: x, y, 1 and the weight of each control point, float32 [19, 784].

    Between control points the displacement is interpolated bicubically. Simard, Steinkraus and Platt (2003) found
    elastic distortions the most effective augmentation for MNIST; they smooth random noise with a Gaussian instead.
    https://doi.org/10.1109/ICDAR.2003.1227801
    """
    centres = (torch.arange(28, device=device) + 0.5) / 14 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.eye(_POINTS**2, device=device).view(-1, 1, _POINTS, _POINTS)
    weights = functional.interpolate(points, (28, 28), mode="bicubic", align_corners=True)
    return torch.cat([torch.stack([x, y, torch.ones_like(x)]), weights.squeeze(1)]).view(-1, 28 * 28)
