"""F2M, the third part of MURF (`fusionlib.methods.baselines.murf`): a field for what is still out of place, then the
fusion.

Convention: images (B, C, H, W) in [0, 1], both sides multiples of 8; positions normalised as in
`fusionlib.methods.baselines.murf_coarse`. Colour (`rgb`) moves, the infrared stays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.murf_coarse import identity, sample
from fusionlib.methods.baselines.murf_descriptor import SLOPE, reflecting

REACH = 0.2  # the largest offset along an axis, normalised: a tenth of the side
NORMED = {1: (4, 32), 3: (32, 32), 5: (32, 32), 6: (64, 32), 7: (64, 32), 8: (64, 32), 10: (32, 16)}


class Fine(NamedTuple):
    """What F2M gives.

    Attributes:
        fused: (B, 3, H, W), in [0, 1] but for strong colours.
        luma: (B, 1, H, W) in (0, 1), what `fused` gets its brightness from.
        offset: (B, 2, H, W) normalised: `warped` at p is the colour image at p + offset(p).
        warped: (B, 3, H, W) the colour image laid on the infrared, 0 where there is nothing.
    """

    fused: Tensor
    luma: Tensor
    offset: Tensor
    warped: Tensor


class F2M(nn.Module):
    """Fine registration and fusion module: 116,123 numbers, 416 of them statistics that nothing uses.

    `forward` takes colour (B, 3, H, W) and infrared (B, 1, H, W), in this order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offset = OffsetNet()
        for modality, inputs in (("a", 3), ("b", 1)):
            self.add_module(f"{modality}1", nn.Conv2d(inputs, 8, 1))
            self.add_module(f"{modality}2", nn.Conv2d(8, 16, 3, padding=1))
            self.add_module(f"{modality}3", nn.Conv2d(16, 32, 3, padding=1))
        self.ca = GradientAttention()
        # Two groups: half of its outputs see the visible image alone, the other half the infrared.
        self.f1 = nn.Conv2d(64, 32, 3, padding=1, groups=2)
        self.f2 = nn.Conv2d(32, 16, 3, padding=1)
        self.f3 = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, rgb: Tensor, ir: Tensor) -> Fine:
        offset = self.offset(torch.cat([rgb, ir], 1))
        warped, _ = sample(rgb, identity(rgb) + offset)
        a, b = warped, ir
        for i in (1, 2, 3):
            a = F.leaky_relu(getattr(self, f"a{i}")(a), SLOPE)
            b = F.leaky_relu(getattr(self, f"b{i}")(b), SLOPE)
        x = F.leaky_relu(self.f1(torch.cat([a, b], 1) * self.ca(a, b).repeat(1, 2, 1, 1)), SLOPE)
        luma = torch.tanh(self.f3(F.leaky_relu(self.f2(x), SLOPE))) / 2 + 0.5
        return Fine(with_colour(luma, warped), luma, offset, warped)


class OffsetNet(nn.Module):
    """The offset (B, 2, H, W) from both images (B, 4, H, W), by a small U-Net on four scales."""

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, width) in NORMED.items():
            self.add_module(f"conv{i}", reflecting(inputs, width))
            self.add_module(f"bn{i}", OwnNorm(width))
        self.conv2 = reflecting(32, 32)
        self.conv11 = reflecting(16, 2)

    def forward(self, images: Tensor) -> Tensor:
        full = self._layer(1, images)
        half = F.leaky_relu(self.conv2(_halved(full)), SLOPE)
        quarter = self._layer(3, _halved(half))
        x = self._layer(5, _halved(quarter))
        for i, finer in ((6, quarter), (7, half), (8, full)):
            x = self._layer(i, torch.cat([F.interpolate(x, scale_factor=2), finer], 1))
        return REACH * torch.tanh(self.conv11(self._layer(10, x)))

    def _layer(self, i: int, x: Tensor) -> Tensor:
        return F.leaky_relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)), SLOPE)


class OwnNorm(nn.Module):
    """BatchNorm with a shift but no scale, by the statistics of the batch at hand, in evaluation mode too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        # Never read; the published weights hold them.
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, bias=self.bias, training=True, eps=1e-3)


class GradientAttention(nn.Module):
    """A weight in (0, 1) for each of 32 channels, one for both modalities: what has strong edges counts.

    From mean and maximum over the image of each channel's Laplacian. Published without a nonlinearity between the two
    linear layers, which therefore are one of low rank.
    """

    def __init__(self) -> None:
        super().__init__()
        self.avg1, self.avg2 = nn.Linear(32, 4), nn.Linear(4, 32)
        self.max1, self.max2 = nn.Linear(32, 4), nn.Linear(4, 32)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        edges = [laplacian(x).abs().flatten(2) for x in (a, b)]
        mean, largest = sum(x.mean(2) for x in edges), sum(x.amax(2) for x in edges)
        return torch.sigmoid(self.avg2(self.avg1(mean)) + self.max2(self.max1(largest)))[:, :, None, None]


def laplacian(x: Tensor) -> Tensor:
    """Four neighbours minus four times the pixel, per channel of (B, C, H, W), zeros outside."""
    kernel = x.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def with_colour(luma: Tensor, rgb: Tensor) -> Tensor:
    """The brightness of one image (B, 1, H, W) with the Cb and Cr of another (B, 3, H, W); not clamped."""
    red, green, blue = rgb.split(1, 1)
    cb = -0.1687 * red - 0.3313 * green + 0.5 * blue
    cr = 0.5 * red - 0.4187 * green - 0.0813 * blue
    return torch.cat([luma + 1.402 * cr, luma - 0.34414 * cb - 0.71414 * cr, luma + 1.772 * cb], 1)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 4, 2, padding=1)
