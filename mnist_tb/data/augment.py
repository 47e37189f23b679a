"""Training images moved at random, a batch at a time, as tensor operations on their device.

Each image is turned, scaled, sheared and shifted by an affine map of its own around its middle, warped as if it were
drawn on rubber, and sampled bilinearly; what comes in from outside is background. The maps of update t depend on the
seed and t alone: an interrupted training goes on with the same ones, whatever else was drawn in between.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb.config.schema import Augment
from mnist_tb.data.datasets import generator


def draw(config: Augment, count: int, seed: int, step: int) -> Tensor | None:
    """The maps of one batch, float32 [count, 2, K] on the CPU, as `move` takes them; None where nothing is moved."""
    if not config.enabled:
        return None
    source = generator(seed, f"augmentation {step}")
    within = 2 * torch.rand(5, count, generator=source) - 1
    angle, shear = within[0] * config.rotate, within[1] * config.shear
    maps = inverse_maps(angle, 1 + within[2] * config.scale, shear, within[3:] * config.shift)
    if config.warp == 0:
        return maps
    pulls = torch.randn(count, 2, _POINTS**2, generator=source) * config.warp / (28 / 2)
    return torch.cat([maps, pulls], 2)


def inverse_maps(angle: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """For each output position, where it comes from, on torch's scale from -1 to 1: float32 [N, 2, 3].

    angle, shear: degrees [N]; scale: factors [N]; shift: pixels to the right and down, [2, N]. The same map as
    torchvision's `affine` with these values: shift ∘ rotation ∘ horizontal shear ∘ scale.
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.functional.affine.html
    """
    turn, slant = torch.deg2rad(angle), torch.deg2rad(shear)
    cosine, sine, tangent = torch.cos(turn), torch.sin(turn), torch.tan(slant)
    # rotation · shear = [[cos, -cos·tan - sin], [sin, -sin·tan + cos]], of determinant 1; its inverse over the scale:
    a, b = (cosine - sine * tangent) / scale, (cosine * tangent + sine) / scale
    c, d = -sine / scale, cosine / scale
    right, down = shift / (28 / 2)
    rows = [a, b, -(a * right + b * down), c, d, -(c * right + d * down)]
    return torch.stack(rows, 1).view(-1, 2, 3)


def move(images: Tensor, maps: Tensor) -> Tensor:
    """Images, uint8 or float [N, 28, 28], each through its map, float32 [N, 2, K]: float32 [N, 28, 28].

    A map says how much of each of K fields there is in where a pixel comes from, to the right and down: 3 for the
    affine part, and 16 more, where it warps, for how far each of 4 × 4 points that span the image is pulled.
    """
    grid = torch.matmul(maps, _fields(images.device)[: maps.shape[2]]).view(-1, 2, 28, 28).permute(0, 2, 3, 1)
    pixels = images.unsqueeze(1).to(torch.float32)
    return functional.grid_sample(pixels, grid, align_corners=False).squeeze(1)


_POINTS = 4


@functools.cache
def _fields(device: torch.device) -> Tensor:
    """For each pixel, row by row: its middle, a 1, and how far each point's pull reaches: float32 [3 + 16, 784].

    Between the points the pull is interpolated bicubically. A smooth random field is what Simard, Steinkraus and Platt
    2003 found to help most on these digits; theirs is noise blurred, https://doi.org/10.1109/ICDAR.2003.1227801.
    """
    line = (torch.arange(28, device=device) + 0.5) / 14 - 1
    down, right = torch.meshgrid(line, line, indexing="ij")
    points = torch.eye(_POINTS**2, device=device).view(-1, 1, _POINTS, _POINTS)
    reach = functional.interpolate(points, (28, 28), mode="bicubic", align_corners=True)
    return torch.cat([torch.stack([right, down, torch.ones_like(right)]), reach.squeeze(1)]).view(-1, 28 * 28)


def still(count: int, like: Augment) -> Tensor:
    """Maps that move nothing, as many and as large as those that are drawn: float32 [count, 2, K]."""
    maps = torch.zeros(count, 2, 3 + (_POINTS**2 if like.warp else 0))
    maps[:, 0, 0] = maps[:, 1, 1] = 1
    return maps
