"""The registration network of the paper (Fig. 3): CSEB and MSRB, from common features to a displacement field.

Convention: features (B, C, h, w); fields (B, 2, h, w) in pixels of their own size, see `fusionlib.deformation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import warp


@dataclass(frozen=True)
class Stage:
    """One step of the registration: from the field `start` to the better `field`, both (B, 2, h, w).

    Fields are in pixels of their own size. `scores`, (B, W, (2 radius + 1)^2, h, w), say how well each shift away from
    `start` fits, seen through W windows from narrow to wide: the logits of a softmax. The plain U-Net compares nothing,
    so it has neither `start` nor `scores`.
    """

    field: Tensor
    start: Tensor | None = None
    scores: Tensor | None = None


def feature_layer(inputs: int, outputs: int, stride: int = 1, learn_scale: bool = True) -> nn.Sequential:
    """The paper's feature extraction layer: 3x3 convolution, BatchNorm, LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs, affine=learn_scale),
        nn.LeakyReLU(0.2),
    )


class CSEB(nn.Module):
    """Channel and spatial enhancement block, Eqs. (3) and (4): six feature extraction layers and an average pool."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(*[feature_layer(channels, channels) for _ in range(3)])
        self.channel = nn.Sequential(*[feature_layer(channels, channels) for _ in range(3)])

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, enhanced."""
        enhanced = self.spatial(feature) * feature  # Eq. (3)
        weights = self.channel(enhanced).mean(dim=(2, 3), keepdim=True)
        return weights * enhanced  # Eq. (4)


class UNetMSRB(nn.Module):
    """Multi-scale registration block, the plain reading: a U-Net from the concatenated features to the field."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = UNet(2 * channels, widths)

    def forward(self, ir: Tensor, vi: Tensor) -> list[Stage]:
        """Features (B, C, h, w) of both modalities to one stage with a field (B, 2, h, w)."""
        return [Stage(self.unet(torch.cat([ir, vi], 1)))]


class PyramidMSRB(nn.Module):
    """Multi-scale registration block, coarse to fine: it looks where the field found so far points, and corrects it.

    Both modalities run through one encoder, since their enhanced features are meant to be alike. At each of its levels,
    the coarsest first, the infrared features are warped by the field found so far and compared with the visible ones
    around each position. A U-Net turns the comparisons of a wide surrounding into a smooth correction of the field.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        gathering: tuple[int, ...],
        radius: int,
        windows: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.radius = radius
        self.encoder = nn.ModuleList(
            nn.Sequential(feature_layer(a, b, stride=2), feature_layer(b, b)) for a, b in pairwise([channels, *widths])
        )
        self.comparison = nn.ModuleList(Comparison(b, radius, windows) for b in widths)
        inputs = (2 * radius + 1) ** 2 + 2 * len(windows) + 2
        self.decoder = nn.ModuleList(UNet(inputs + b, gathering) for b in widths)

    def forward(self, ir: Tensor, vi: Tensor) -> list[Stage]:
        """Features (B, C, h, w) of both modalities to one stage a level, of size h/2^k x w/2^k for k = levels .. 1."""
        both, levels = torch.cat([ir, vi]), []
        for layer in self.encoder:
            both = layer(both)
            levels.append(both.chunk(2))
        stages: list[Stage] = []
        for k, (ir, vi) in reversed(list(enumerate(levels))):
            start = resize_field(stages[-1].field, ir.shape[-2:]) if stages else torch.zeros_like(ir[:, :2])
            moved = warp(ir, start, exact=False)
            scores = self.comparison[k](F.instance_norm(moved), F.instance_norm(vi))
            shifts = expected_shift(scores, self.radius).flatten(1, 2)
            correction = self.decoder[k](torch.cat([scores[:, 0], shifts, start, vi], 1).to(vi.dtype))
            stages.append(Stage(start + correction, start, scores))
        return stages


class Comparison(nn.Module):
    """How well each shift of one feature map fits another, through windows of several sizes.

    A single position is doubtful between modalities, a neighbourhood together is not: a window averages the similarity
    of its positions, shift by shift, as block matching does. Each position counts by its confidence, which is learned;
    an empty road has little to say.
    """

    def __init__(self, channels: int, radius: int, windows: tuple[int, ...]) -> None:
        super().__init__()
        self.radius, self.windows = radius, windows
        self.confidence = nn.Conv2d(2 * channels, 1, 1)
        self.sharpness = nn.Parameter(10.0 * torch.arange(1, len(windows) + 1))  # of the softmax over all shifts

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Features (B, C, h, w) to scores (B, W, (2 radius + 1)^2, h, w), see `Stage`."""
        confidence = self.confidence(torch.cat([moving, fixed], 1)).sigmoid()
        similarity = confidence * local_correlation(moving, fixed, self.radius)
        seen = [window_mean(similarity, side) for side in self.windows]
        return torch.stack(seen, 1) * self.sharpness.view(1, -1, 1, 1, 1)


def window_mean(x: Tensor, side: int) -> Tensor:
    """Mean over the square of an odd `side` around each position of (B, C, h, w), as far as it lies inside."""
    half = side // 2
    x = F.avg_pool2d(x, (side, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, half), count_include_pad=False)


class UNet(nn.Module):
    """A U-Net that ends in a field, which starts as zero: (B, inputs, h, w) to (B, 2, h, w)."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = feature_layer(inputs, widths[0])
        self.down = nn.ModuleList(feature_layer(a, b, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(feature_layer(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.to_field = field_layer(widths[0])

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.enter(x)]
        for layer in self.down:
            skips.append(layer(skips[-1]))
        x = skips.pop()
        for layer in self.up:
            skip = skips.pop()
            x = layer(torch.cat([F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False), skip], 1))
        return at_least_single(self.to_field(x))  # in half precision a pixel would have few decimals


def at_least_single(x: Tensor) -> Tensor:
    """The same in float32 where it has fewer digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def field_layer(inputs: int) -> nn.Conv2d:
    """The convolution that ends in a field; it starts at the identity, phi = 0."""
    layer = nn.Conv2d(inputs, 2, 3, padding=1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def local_correlation(moving: Tensor, fixed: Tensor, radius: int) -> Tensor:
    """Cosine similarity of each fixed feature with the moving ones around it.

    Args:
        moving, fixed: (B, C, H, W) features.
        radius: how far to look along each axis, in pixels.

    Returns:
        (B, (2 radius + 1)^2, H, W) in [-1, 1], row by row from the upper left neighbour; 0 outside the image.
    """
    least = max(1e-12, torch.finfo(fixed.dtype).tiny)  # in float16 the usual 1e-12 is 0, and flat features are 0 / 0
    moving, fixed = (F.normalize(features, dim=1, eps=least) for features in (moving, fixed))
    return _Correlation.apply(F.pad(moving, [radius] * 4), fixed, radius)


class _Correlation(torch.autograd.Function):
    """Dot products with every shift. Its gradient is written out because autograd would keep a copy for each shift."""

    @staticmethod
    def forward(ctx, around: Tensor, fixed: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(around, fixed)
        ctx.radius = radius
        return torch.stack([(around[window] * fixed).sum(1) for window in _windows(fixed, radius)], 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        around, fixed = ctx.saved_tensors
        to_around, to_fixed = torch.zeros_like(around), torch.zeros_like(fixed)
        for k, window in enumerate(_windows(fixed, ctx.radius)):
            to_around[window].addcmul_(gradient[:, k : k + 1], fixed)
            to_fixed.addcmul_(gradient[:, k : k + 1], around[window])
        return to_around, to_fixed, None


def _windows(fixed: Tensor, radius: int) -> list[tuple]:
    """The slices of the padded moving features that lie over `fixed`, one for each shift."""
    height, width = fixed.shape[-2:]
    steps = range(2 * radius + 1)
    return [(..., slice(y, y + height), slice(x, x + width)) for y in steps for x in steps]


def expected_shift(logits: Tensor, radius: int) -> Tensor:
    """Mean shift under the softmax of the scores: (..., (2 radius + 1)^2, H, W) to (..., 2, H, W) pixels."""
    steps = torch.arange(-radius, radius + 1, device=logits.device, dtype=logits.dtype)
    shifts = torch.stack(torch.meshgrid(steps, steps, indexing="xy")).flatten(1)  # x, then y, of each shift
    return torch.einsum("...khw,ck->...chw", logits.softmax(-3), shifts)


def resize_field(phi: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring a field (B, 2, h, w) to another size (H, W); its displacements grow with it."""
    height, width = phi.shape[-2:]
    if (height, width) == tuple(size):
        return phi
    scale = torch.tensor([size[1] / width, size[0] / height], device=phi.device, dtype=phi.dtype).view(1, 2, 1, 1)
    return F.interpolate(phi, tuple(size), mode="bilinear", align_corners=False) * scale
