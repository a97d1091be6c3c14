"""The registration part of SuperFusion (`fusionlib.methods.baselines.superfusion`): a coarse-to-fine matcher with cost
volumes.

    image --own extractor, shared pyramid--> features at 1/2, 1/4, 1/8
    1/8: matcher2 -> d2;  warp 1/4 by d2: matcher1 -> d1;  warp 1/2 by d1 + d2: refiner -> d, brought to full size

The first layers are each modality's own, to bring both to common features, on which the shared pyramid can be one.

Convention: `a` are features of the source, which moves, and `b` of the target. Displacements (B, 2, h, w) are in the
units of `edge_warp`, channel 0 = x; the published code adds those of two levels, which is close to composing them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from fusionlib.methods.baselines.superfusion_fusion import Block

SHIFTS = range(-12, 13, 4)  # pixels of a level, along each axis, at which the cost volume compares
LARGEST = 300.0  # raw displacements are clamped to this


class DenseMatcher(nn.Module):
    """The matcher, part DM of a published checkpoint, 1,823,688 parameters; module names are those of the checkpoint.

    `forward` takes infrared and visible, (B, 3, H, W) each in [0, 1], 9 pixels a side or more, and gives the
    displacement (B, 2, H, W) by which `edge_warp` lays the infrared on the visible, or with `reverse` the other one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor_unshare1 = Extractor()
        self.feature_extractor_unshare2 = Extractor()
        for i, (inputs, width) in enumerate(((16, 32), (32, 64), (64, 128))):
            level = nn.Sequential(_normed(inputs, width, 2**i), _normed(width, width, 2**i, stride=2))
            self.add_module(f"feature_extractor_share{i + 1}", level)
        self.matcher1 = Matcher(64, dilation=4)
        self.matcher2 = Matcher(128, dilation=2)
        self.refiner = Refiner(32)

    def forward(self, ir: Tensor, vi: Tensor, reverse: bool = False) -> Tensor:
        return self.levels(*self.features(ir, vi)[:: -1 if reverse else 1], ir.shape[-2:])[0]

    def features(self, ir: Tensor, vi: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features of the infrared and of the visible, at 1/2, 1/4 and 1/8 of the size, rounded up."""
        pyramids = []
        for x in (self.feature_extractor_unshare1(ir), self.feature_extractor_unshare2(vi)):
            half = self.feature_extractor_share1(x)
            quarter = self.feature_extractor_share2(half)
            pyramids.append([half, quarter, self.feature_extractor_share3(quarter)])
        return pyramids[0], pyramids[1]

    def levels(self, a: list[Tensor], b: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Displacements (B, 2, H, W) from source to target as they grow: final, after 1/4, after 1/8 (for training)."""
        half = a[0].shape[-2:]
        coarse = _resize(self.matcher2(a[2], b[2]), a[1].shape[-2:])
        coarse, fine = _resize(coarse, half), _resize(self.matcher1(edge_warp(a[1], coarse), b[1]), half)
        final = self.refiner(edge_warp(a[0], fine + coarse), b[0], fine + coarse)
        return [_resize(displacement, size) for displacement in (final, fine + coarse, coarse)]


class Extractor(nn.Module):
    """The layers of one modality: (B, 3, H, W) to (B, 16, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _normed(3, 8), _normed(8, 8, 2, act=nn.ReLU()), _normed(8, 16, 2), _normed(16, 16, 4, act=nn.ReLU())
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.layers[0](image)
        x = self.layers[2](x + self.layers[1](x))
        return x + self.layers[3](x)


class Matcher(nn.Module):
    """A displacement (B, 2, h, w) from features (B, C, h, w) of source and target.

    Two things go into it: both features compressed together, and a cost volume, the squared difference of the target
    feature to the blurred source feature at 7 x 7 places around it.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.preprocessor = _plain(width, width, dilation=dilation)
        self.featcompressor = _compressor(width)
        self.layers = _estimator(width + len(SHIFTS) ** 2, width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.preprocessor(a), self.preprocessor(b)
        raw = self.layers(torch.cat([self.featcompressor(torch.cat([a, b], 1)), cost_volume(a, b)], 1))
        return blur(raw, 13, 3, "replicate").clamp(-LARGEST, LARGEST) / _steps(raw)


class Refiner(nn.Module):
    """A better displacement from features already warped by it, the target's, and itself in half pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.preprocessor = nn.Sequential(_plain(width, width))
        self.featcompressor = _compressor(width)
        self.estimator = _estimator(width + 2, width)

    def forward(self, a: Tensor, b: Tensor, displacement: Tensor) -> Tensor:
        a, b = self.preprocessor(a), self.preprocessor(b)
        steps = displacement * _steps(displacement)
        steps = steps + self.estimator(torch.cat([self.featcompressor(torch.cat([a, b], 1)), steps], 1))
        return blur(steps, 17, 5, "replicate") / _steps(steps)


def _plain(inputs: int, outputs: int, *then: nn.Module, dilation: int = 1, stride: int = 1) -> Block:
    return Block(inputs, outputs, *then, dilation=dilation, stride=stride, bias=False)


def _normed(inputs: int, outputs: int, dilation: int = 1, stride: int = 1, act: nn.Module | None = None) -> Block:
    then = nn.InstanceNorm2d(outputs), act or nn.LeakyReLU(0.1)
    return _plain(inputs, outputs, *then, dilation=dilation, stride=stride)


def _compressor(width: int) -> nn.Sequential:
    return nn.Sequential(_plain(2 * width, 2 * width, nn.LeakyReLU(0.1)), _plain(2 * width, width))


def _estimator(inputs: int, width: int) -> nn.Sequential:
    """Four layers with ever fewer channels and a growing view, down to x and y; BatchNorm learns nothing."""
    widths = [inputs, width // 2, width // 4, width // 8]
    layers = [
        _plain(a, b, nn.BatchNorm2d(b, affine=False), nn.LeakyReLU(0.1), dilation=2**i)
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    return nn.Sequential(*layers, _plain(widths[-1], 2))


def cost_volume(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of b(p) and blurred a(p + shift), row by row of shifts: (B, 49, h, w); 0 is a match."""
    height, width = a.shape[-2:]
    reach = SHIFTS[-1]
    around = F.pad(blur(a, 13, 3, "constant"), [reach] * 4)
    costs = []
    for dy in SHIFTS:
        for dx in SHIFTS:
            shifted = around[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            costs.append((b - shifted).square().mean(1))
    return torch.stack(costs, 1)


def blur(x: Tensor, side: int, sigma: float, border: str) -> Tensor:
    """Gaussian blur of (B, C, H, W) with a kernel of `side` x `side`; `border` is a padding mode of torch."""
    return gaussian_blur2d(x, (side, side), (sigma, sigma), border)


def edge_warp(x: Tensor, displacement: Tensor) -> Tensor:
    """The system's warp of (B, C, H, W), zeros outside; see the convention in
    `fusionlib.methods.baselines.superfusion`."""
    axes = (torch.linspace(-1, 1, side, device=x.device) for side in reversed(x.shape[-2:]))
    grid = torch.stack(torch.meshgrid(*axes, indexing="xy")) + displacement
    return F.grid_sample(x, grid.permute(0, 2, 3, 1), "bilinear", "zeros", align_corners=False)


def _steps(x: Tensor) -> Tensor:
    """How many steps of half a pixel a normalised unit has along x and y, (1, 2, 1, 1)."""
    height, width = x.shape[-2:]
    return torch.tensor([width - 1, height - 1], dtype=x.dtype, device=x.device).view(1, 2, 1, 1)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear")
