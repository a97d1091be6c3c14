"""MCRM, the second part of MURF (`fusionlib.methods.baselines.murf`): a global affine registration on three scales.

Three networks of the same form work on the images at 1/4, 1/2 and full size, each on the residual of those before it.

Convention: positions are normalised, x to the right and y down, -1 and 1 the centres of the outermost pixels. A matrix
(B, 2, 3) maps a position of the infrared, homogeneous (x, y, 1), to where the visible image is read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.methods.baselines.murf_descriptor import SLOPE, Descriptors, reflecting

SHARPNESS = 0.05  # the smaller, the closer `sample` is to the nearest neighbour


class Coarse(NamedTuple):
    """What MCRM finds.

    Attributes:
        warped: (B, 3, H, W) the visible image laid on the infrared.
        matrix: (B, 2, 3) that did it; first and before are those of the scale 1/4, and of both smaller ones.
        inside: (B, 1, H, W) 1 where it was read inside the visible image, else 0.
    """

    warped: Tensor
    matrix: Tensor
    inside: Tensor
    first: Tensor
    before: Tensor


class MCRM(nn.Module):
    """Multi-scale coarse registration module: 2,882,994 parameters.

    `forward` takes colour (B, 3, H, W), which moves, and infrared (B, 1, H, W), in [0, 1], both sides multiples of 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.d4, self.d2, self.d1 = AffineNet(), AffineNet(), AffineNet()

    def forward(self, rgb: Tensor, ir: Tensor) -> Coarse:
        first = self.d4(rgb[..., ::4, ::4], ir[..., ::4, ::4])
        half = rgb[..., ::2, ::2]
        before = _composed(first, self.d2(affine_sample(half, first)[0], ir[..., ::2, ::2]))
        matrix = _composed(before, self.d1(affine_sample(rgb, before)[0], ir))
        warped, inside = affine_sample(rgb, matrix)
        return Coarse(warped, matrix, inside, first, before)


class AffineNet(nn.Module):
    """The matrix (B, 2, 3) that registers a colour image to an infrared one.

    After each of three large convolutions, a deformable step samples every channel at a position of its own and weights
    it, so that channels of the two modalities can coincide in spite of the shift between them.
    """

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, width) in enumerate(((4, 16), (16, 32), (32, 64)), 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, width, 9, padding=4))
            self.add_module(f"offset{i}", reflecting(width, 2 * width, bias=False))
            self.add_module(f"gate{i}", reflecting(width, width, bias=False))
            self.add_module(f"post{i}", Bias(width))
        self.conv4 = nn.Conv2d(64, 64, 7, padding=3)
        self.conv5 = nn.Conv2d(64, 128, 7, padding=3)
        self.fc = nn.Linear(128, 6)

    def forward(self, rgb: Tensor, ir: Tensor) -> Tensor:
        x = torch.cat([rgb, ir], 1)
        for i in (1, 2, 3):
            x = F.leaky_relu(getattr(self, f"conv{i}")(x), SLOPE)
            fetched = _fetched(x, getattr(self, f"offset{i}")(x)) * torch.sigmoid(getattr(self, f"gate{i}")(x))
            x = F.max_pool2d(F.leaky_relu(getattr(self, f"post{i}")(fetched), SLOPE), 2, ceil_mode=True)
        x = F.leaky_relu(self.conv5(F.leaky_relu(self.conv4(x), SLOPE)), SLOPE)
        change = F.leaky_relu(self.fc(x.mean((2, 3))), SLOPE)
        return torch.eye(2, 3, device=x.device, dtype=x.dtype) + change.view(-1, 2, 3)


class Bias(nn.Module):
    """A number to add for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(1, -1, 1, 1)


def coarse_loss(coarse: Coarse, descriptors: Descriptors) -> Tensor:
    """What MCRM is trained by: the descriptors of the images, moved as the images are, must correlate.

    Two terms, for the affine step at 1/4 and for all of them. Not checked against values of the published code; taken
    here on descriptors of full size, all scaled to [0, 1] together.
    """
    both = torch.cat([descriptors.rgb, descriptors.ir])
    low, high = both.aminmax()
    rgb, ir = ((both - low) / (high - low).clamp_min(1e-10)).chunk(2)
    loss = torch.zeros((), device=rgb.device)
    for matrix in (coarse.first, coarse.matrix):
        moved, inside = affine_sample(rgb, matrix)
        loss = loss - _correlation(moved, ir * inside)
    return loss


def affine_sample(image: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`sample` an image (B, C, H, W) where `matrix` (B, 2, 3) leads."""
    return sample(image, _affine_positions(image, matrix))


def affine_field(image: Tensor, matrix: Tensor) -> Tensor:
    """The field in pixels (B, 2, H, W), as in `fusionlib.deformation`, of `affine_sample`."""
    return (_affine_positions(image, matrix) - identity(image)) * extent(image) / 2


def sample(image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Read an image (B, C, H, W) at positions (B, 2, H, W), with the soft weights of the published code.

    The four pixels around a position are weighed by the softmax of their bilinear weights over `SHARPNESS`: nearly the
    nearest neighbour, but with a derivative.

    Returns:
        (B, C, H, W), 0 where the position is outside the image; (B, 1, H, W), 1 where it is inside, else 0.
    """
    height, width = image.shape[-2:]
    px, py = ((positions + 1) / 2 * extent(image)).unbind(1)
    left, top = px.floor(), py.floor()
    # Clamped before the weights are computed, as published: on the last row and column all four are then equal.
    x0, x1 = (x.clamp(0, width - 1) for x in (left, left + 1))
    y0, y1 = (y.clamp(0, height - 1) for y in (top, top + 1))
    corners = [(x0, y0, (x1 - px) * (y1 - py)), (x0, y1, (x1 - px) * (py - y0))]
    corners += [(x1, y0, (px - x0) * (y1 - py)), (x1, y1, (px - x0) * (py - y0))]
    weights = torch.softmax(torch.stack([weight for _, _, weight in corners], 1) / SHARPNESS, 1)
    read = torch.zeros_like(image)
    for (x, y, _), weight in zip(corners, weights.split(1, 1), strict=True):
        place = (y.long() * width + x.long()).flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1)
        read = read + image.flatten(2).gather(2, place).view_as(image) * weight
    inside = ((px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)).unsqueeze(1).to(image.dtype)
    return read * inside, inside


def identity(image: Tensor) -> Tensor:
    """The normalised position of each pixel of an image (B, C, H, W): (2, H, W), x then y."""
    axes = (torch.linspace(-1, 1, n, dtype=image.dtype, device=image.device) for n in reversed(image.shape[-2:]))
    return torch.stack(torch.meshgrid(*axes, indexing="xy"))


def extent(image: Tensor) -> Tensor:
    """Pixels from the first centre to the last along x and y, (2, 1, 1): twice as many as a normalised unit has."""
    height, width = image.shape[-2:]
    return torch.tensor([width - 1, height - 1], dtype=image.dtype, device=image.device).view(2, 1, 1)


def _affine_positions(image: Tensor, matrix: Tensor) -> Tensor:
    grid = identity(image)
    positions = torch.cat([grid, torch.ones_like(grid[:1])]).flatten(1)
    return (matrix @ positions).unflatten(2, grid.shape[1:])


def _composed(first: Tensor, then: Tensor) -> Tensor:
    """Two affine steps as one matrix, as published: the shift of the second, `then[:, :, 2]`, is lost."""
    return then[:, :, :2] @ first


def _fetched(x: Tensor, offset: Tensor) -> Tensor:
    """Each channel of (B, C, H, W) read where its own two channels of `offset` (B, 2C, H, W), down and right, point."""
    field = offset.unflatten(1, (-1, 2)).flatten(0, 1).flip(1)
    return warp(x.flatten(0, 1).unsqueeze(1), field, exact=False).view_as(x)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Normalised cross-correlation of two batches of images, averaged over the batch."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return ((a * b).mean(1) / (a.std(1, correction=0) * b.std(1, correction=0)).clamp_min(1e-10)).mean()
