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
from fusionlib.support.inputs import at_least_float32, constants


@dataclass(frozen=True)
class Stage:
    """One step of the registration, from the field `start` to the better `field`.

    Attributes:
        field: (B, 2, h, w) in pixels of its own size.
        start: (B, 2, h, w), what the step started from; None for the plain U-Net.
        scores: (B, W, (2 radius + 1)^2, h, w), the cost volume as logits of a softmax over the shifts away from
            `start`, averaged over W windows from narrow to wide; None for the plain U-Net.
        confidence: (B, 1, h, w) in [0, 1], confidence of `field`; None for an unrefined field.
    """

    field: Tensor
    start: Tensor | None = None
    scores: Tensor | None = None
    confidence: Tensor | None = None


def feature_layer(inputs: int, outputs: int, stride: int = 1, learn_scale: bool = True) -> nn.Sequential:
    """The paper's feature extraction layer, 3x3 convolution, BatchNorm, LeakyReLU: (B, C, H, W) to (B, C', H', W')."""
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
    """Multi-scale registration block in the plainest reading: a U-Net from the concatenated features to the field.

    Args:
        channels: C of the features.
        widths: channels of the U-Net's levels, from fine to coarse.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = UNet(2 * channels, widths)

    def forward(self, ir: Tensor, vi: Tensor) -> list[Stage]:
        """Features (B, C, h, w) of both modalities to one stage with a field (B, 2, h, w)."""
        return [Stage(self.unet(torch.cat([ir, vi], 1)))]


class PyramidMSRB(nn.Module):
    """Multi-scale registration block, coarse to fine, with a cost volume at each level.

    Both modalities share one encoder, since their enhanced features are meant to be equal. At each of its levels, the
    coarsest first, the infrared features are warped by the current field, a cost volume compares them with the visible
    ones, and a U-Net decodes it to a correction of the field.

    Args:
        channels: C of the features.
        widths: channels of the encoder's levels, from fine to coarse.
        decoder_widths: channels of each decoder U-Net, from fine to coarse.
        radius, windows: of the cost volumes, see `CostVolume`.

    >>> ir, vi = torch.rand(2, 1, 8, 16, 16)
    >>> [tuple(stage.field.shape) for stage in PyramidMSRB(8, (8, 8), (8, 8), radius=1, windows=(1, 3))(ir, vi)]
    [(1, 2, 4, 4), (1, 2, 8, 8)]
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        decoder_widths: tuple[int, ...],
        radius: int,
        windows: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.radius = radius
        self.encoder = nn.ModuleList(
            nn.Sequential(feature_layer(a, b, stride=2), feature_layer(b, b)) for a, b in pairwise([channels, *widths])
        )
        self.comparison = nn.ModuleList(CostVolume(b, radius, windows) for b in widths)
        inputs = (2 * radius + 1) ** 2 + 2 * len(windows) + 2
        self.decoder = nn.ModuleList(UNet(inputs + b, decoder_widths) for b in widths)

    def forward(self, ir: Tensor, vi: Tensor) -> list[Stage]:
        """Features (B, C, h, w) of both modalities to one stage per level, of size h/2^k x w/2^k, k = levels ... 1."""
        both, levels = torch.cat([ir, vi]), []
        for layer in self.encoder:
            both = layer(both)
            levels.append(both.chunk(2))
        stages: list[Stage] = []
        for k, (ir, vi) in reversed(list(enumerate(levels))):
            start = resize_field(stages[-1].field, ir.shape[-2:]) if stages else torch.zeros_like(ir[:, :2])
            moved = warp(ir, start, exact=False)
            scores = self.comparison[k](F.instance_norm(moved), F.instance_norm(vi))
            shifts = soft_argmax(scores, self.radius).flatten(1, 2)
            correction = self.decoder[k](torch.cat([scores[:, 0], shifts, start, vi], 1).to(vi.dtype))
            stages.append(Stage(start + correction, start, scores))
        return stages


class CostVolume(nn.Module):
    """Similarity of two feature maps for each shift between them, averaged over windows of several sizes.

    Between modalities a single position is ambiguous, a neighbourhood is less so: a window averages the similarities of
    its positions for each shift, as block matching does. A learned confidence weighs each position, since a uniform
    area such as a road matches at every shift.

    Args:
        channels: C of the features.
        radius: largest shift along each axis, in positions.
        windows: sides of the windows, odd, from narrow to wide.
    """

    def __init__(self, channels: int, radius: int, windows: tuple[int, ...]) -> None:
        super().__init__()
        self.radius, self.windows = radius, windows
        self.confidence = nn.Conv2d(2 * channels, 1, 1)
        self.sharpness = nn.Parameter(10.0 * torch.arange(1, len(windows) + 1))  # scale of the logits

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Features (B, C, h, w) to scores (B, W, (2 radius + 1)^2, h, w), see `Stage`."""
        confidence = self.confidence(torch.cat([moving, fixed], 1)).sigmoid()
        similarity = confidence * local_correlation(moving, fixed, self.radius)
        averaged = [window_mean(similarity, side) for side in self.windows]
        return torch.stack(averaged, 1) * self.sharpness.view(1, -1, 1, 1, 1)


def window_mean(x: Tensor, side: int) -> Tensor:
    """Mean of (B, C, h, w) over the square of an odd `side` around each position, without what lies outside.

    >>> window_mean(torch.tensor([[[[0.0, 3, 6]]]]), 3).tolist()
    [[[[1.5, 3.0, 4.5]]]]
    """
    half = side // 2
    x = F.avg_pool2d(x, (side, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, half), count_include_pad=False)


class UNet(nn.Module):
    """A U-Net from features to a field: (B, inputs, h, w) to (B, 2, h, w) pixels, zero before training.

    Args:
        inputs: channels of the features.
        widths: channels of the levels, from fine to coarse.
    """

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
        with torch.autocast(x.device.type, enabled=False):  # in half precision, a field is exact to a tenth of a pixel
            return at_least_float32(self.to_field(x.to(self.to_field.weight.dtype)))


def field_layer(inputs: int) -> nn.Conv2d:
    """The last convolution of a registration, with zero weights: training starts from the identity, phi = 0."""
    layer = nn.Conv2d(inputs, 2, 3, padding=1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def local_correlation(moving: Tensor, fixed: Tensor, radius: int) -> Tensor:
    """Cosine similarity of each fixed feature with the moving features around it.

    Args:
        moving, fixed: (B, C, H, W) features.
        radius: largest shift along each axis, in pixels.

    Returns:
        (B, (2 radius + 1)^2, H, W) in [-1, 1], row by row from the upper left neighbour; 0 outside the image.

    >>> feature = torch.rand(1, 8, 6, 6)
    >>> local_correlation(feature, feature, radius=1)[0].argmax(0).unique().tolist()  # of 3 x 3 shifts, (0, 0)
    [4]
    """
    least = max(1e-12, torch.finfo(fixed.dtype).tiny)  # in float16 the usual 1e-12 is 0, and flat features are 0 / 0
    moving, fixed = (F.normalize(features, dim=1, eps=least) for features in (moving, fixed))
    return _Correlation.apply(F.pad(moving, [radius] * 4), fixed, radius)


class _Correlation(torch.autograd.Function):
    """Dot products for every shift. The gradient is explicit because autograd would keep a copy for each shift."""

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
    """Slices of the padded moving features of the size of `fixed`, one for each shift."""
    height, width = fixed.shape[-2:]
    steps = range(2 * radius + 1)
    return [(..., slice(y, y + height), slice(x, x + width)) for y in steps for x in steps]


def soft_argmax(logits: Tensor, radius: int) -> Tensor:
    """Soft-argmax: mean shift under the softmax of the scores, (..., (2 radius + 1)^2, H, W) to (..., 2, H, W) pixels.

    >>> scores = torch.zeros(9, 1, 1)
    >>> scores[5] = 100.0  # of 3 x 3 shifts, row by row, the one to the right
    >>> soft_argmax(scores, radius=1).flatten().tolist()
    [1.0, 0.0]
    """
    steps = torch.arange(-radius, radius + 1, device=logits.device, dtype=logits.dtype)
    shifts = torch.stack(torch.meshgrid(steps, steps, indexing="xy")).flatten(1)  # x, then y, of each shift
    return torch.einsum("...khw,ck->...chw", logits.softmax(-3), shifts)


def resize_field(phi: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize a field (B, 2, h, w) bilinearly to (B, 2, H, W); its displacements are scaled with the size.

    >>> resize_field(torch.ones(1, 2, 4, 4), (8, 12))[0, :, 0, 0].tolist()
    [3.0, 2.0]
    """
    height, width = phi.shape[-2:]
    if (height, width) == tuple(size):
        return phi
    scale = constants(size[1] / width, size[0] / height, like=phi).view(1, 2, 1, 1)
    return F.interpolate(phi, tuple(size), mode="bilinear", align_corners=False) * scale
