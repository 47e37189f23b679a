"""Training images moved at random, a batch at a time, as tensor operations on their device.

Each image is turned, scaled, sheared and shifted by an affine map of its own around its middle, and sampled bilinearly;
what comes in from outside is background. The maps of update t depend on the seed and t alone: an interrupted training
goes on with the same ones, whatever else was drawn in between.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from mnist_tb.data import generator
from mnist_tb.schema import Augment


def draw(config: Augment, count: int, seed: int, step: int) -> Tensor | None:
    """The maps of one batch, float32 [count, 2, 3] on the CPU, as `move` takes them; None where nothing is moved."""
    if not config.enabled:
        return None
    within = 2 * torch.rand(5, count, generator=generator(seed, f"augmentation {step}")) - 1
    angle, shear = within[0] * config.rotate, within[1] * config.shear
    return inverse_maps(angle, 1 + within[2] * config.scale, shear, within[3:] * config.shift)


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
    """Images, uint8 or float [N, 28, 28], each through its map, float32 [N, 2, 3]: float32 [N, 28, 28]."""
    grid = torch.einsum("nij,pj->npi", maps, _positions(images.device))
    pixels = images.unsqueeze(1).to(torch.float32)
    moved = functional.grid_sample(pixels, grid.view(-1, 28, 28, 2), align_corners=False)
    return moved.squeeze(1)


@functools.cache
def _positions(device: torch.device) -> Tensor:
    """The middle of each pixel, row by row, and a 1: float32 [784, 3]."""
    line = (torch.arange(28, device=device) + 0.5) / 14 - 1
    down, right = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([right, down, torch.ones_like(right)], -1).view(-1, 3)
