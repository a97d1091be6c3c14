"""EMMA: a U-shaped fuser whose blocks have a global branch (attention) beside a local one (convolutions).

Z. Zhao, H. Bai, J. Zhang, Y. Zhang, K. Zhang, S. Xu, D. Chen, R. Timofte, L. Van Gool, "Equivariant Multi-Modality
Image Fusion", CVPR 2024, doi 10.48550/arXiv.2305.11443.
Published code: Zhaozixiang1228/MMIF-EMMA@9983ca2f627588cd001ed08e21eadf1ab5c48beb, no licence stated. Its weights,
model/EMMA.pth, could not be had here (`System.untried`); without them the network has to be trained.

    infrared --encoder--> i1 .. i4 --\\
                                      join level by level --> f1 .. f4 --decoder, from f4 up, f3 .. f1 as skips--> fused
    visible  --encoder--> v1 .. v4 --/

The idea of the paper lies in the training: a fused image has no truth, but turning the fused image and fusing what two
sensors would see of it must give the turned fused image ("equivariance"). The sensors are networks that learn to make
the infrared or the visible image out of a fused one. At test the fuser alone is used, and it alone is here. The
published code is followed where it goes beyond the paper: see `EMMAMethod` for its tiles and its stretch.

Convention: images in [0, 1]; features (B, C, H/2^k, W/2^k). Wherever both occur, infrared comes before visible.
"""

from __future__ import annotations

from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.network_method import FusingMethod

_WIDTHS = (8, 16, 32, 32)  # channels of the four levels, each half the size of the one before
_HEADS = 8


class Ufuser(nn.Module):
    """The fuser, 1,517,657 parameters; module names are those of the published code.

    `forward` takes infrared and visible, (B, 1, H, W) in [0, 1] each, sides a multiple of 8 and 16 at least, and gives
    the fused image (B, 1, H, W) in (0, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        levels = list(enumerate(_WIDTHS, 1))
        for image in "VI":
            for (k, width), inputs in zip(levels, (1, *_WIDTHS), strict=False):
                self.add_module(f"{image}_en_{k}", Block(inputs, width))
        for k, width in levels:
            self.add_module(f"f_{k}", Block(2 * width, width))
        for image in "VI":
            for k, width in levels[:-1]:
                self.add_module(f"{image}_down{k}", _reflecting(width, width, stride=2))
        for k, (coarse, fine) in zip((4, 3, 2), pairwise(_WIDTHS[::-1]), strict=True):
            self.add_module(f"up{k}", upsampling(coarse, fine))
        self.de_1 = Block(16, 8)
        self.de_2 = Block(32, 16)
        self.de_3 = Block(64, 32)
        self.de_4 = Block(32, 32)
        self.last = nn.Sequential(_reflecting(8, 1, bias=True), nn.Sigmoid())

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        levels = zip(self._encode("I", ir), self._encode("V", vi), strict=True)
        f1, f2, f3, f4 = (self.get_submodule(f"f_{k}")(torch.cat(pair, 1)) for k, pair in enumerate(levels, 1))
        feature = self.up4(self.de_4(f4))
        feature = self.up3(self.de_3(torch.cat([feature, f3], 1)))
        feature = self.up2(self.de_2(torch.cat([feature, f2], 1)))
        return self.last(self.de_1(torch.cat([feature, f1], 1)))

    def _encode(self, image: str, feature: Tensor) -> list[Tensor]:
        """The four levels of one image, from fine to coarse; `image` is I or V."""
        levels = [self.get_submodule(f"{image}_en_1")(feature)]
        for k in (2, 3, 4):
            smaller = self.get_submodule(f"{image}_down{k - 1}")(levels[-1])
            levels.append(self.get_submodule(f"{image}_en_{k}")(smaller))
        return levels


class Block(nn.Module):
    """Restormer-CNN block, (B, inputs, h, w) to (B, outputs, h, w).

    A transformer layer, to which the whole feature map is visible, and two residual convolution blocks, which see a
    few pixels, work on the same features; a convolution joins them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.embed = _reflecting(inputs, outputs)
        self.GlobalFeature = TransformerLayer(outputs)
        self.LocalFeature = nn.ModuleDict({"Extraction": nn.Sequential(Residual(outputs), Residual(outputs))})
        self.FFN = _reflecting(2 * outputs, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        feature = self.embed(feature)
        local = self.LocalFeature["Extraction"](feature)
        return self.FFN(torch.cat([self.GlobalFeature(feature), local], 1))


class TransformerLayer(nn.Module):
    """Attention, then a gated perceptron, both residual on features normalised pixel by pixel; shape unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = PixelNorm(channels)
        self.attn = ChannelAttention(channels)
        self.norm2 = PixelNorm(channels)
        self.mlp = GatedPerceptron(channels)

    def forward(self, feature: Tensor) -> Tensor:
        feature = feature + self.attn(self.norm1(feature))
        return feature + self.mlp(self.norm2(feature))


class PixelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, feature: Tensor) -> Tensor:
        return self.body(feature.movedim(1, -1)).movedim(-1, 1).contiguous()


class ChannelAttention(nn.Module):
    """Attention between channels instead of pixels, as in Restormer (Zamir et al., CVPR 2022); shape unchanged.

    The weights are the cosine similarities of the channels of a head over the whole image, times a learned scale. The
    cost grows with the number of pixels, not with its square. Restormer's convolution after the projection is
    depthwise; here it is a full one, the largest part of EMMA's cost.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(_HEADS, 1, 1))
        self.qkv1 = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv2 = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        batch, channels, height, width = feature.shape
        qkv = self.qkv2(self.qkv1(feature)).view(batch, 3, _HEADS, channels // _HEADS, height * width)
        query, key, value = qkv.unbind(1)  # (B, heads, C / heads, h w)
        alike = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * self.scale
        return self.proj((alike.softmax(-1) @ value).view(feature.shape))


class GatedPerceptron(nn.Module):
    """One half of the widened features gates the other; neighbouring channels form groups; shape unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.dwconv = _reflecting(2 * channels, 2 * channels, groups=channels)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        gate, passing = self.dwconv(self.project_in(feature)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * passing)


class Residual(nn.Module):
    """Two convolutions around a ReLU, added to what went in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _reflecting(channels, channels, bias=True), nn.ReLU(), _reflecting(channels, channels, bias=True)
        )

    def forward(self, feature: Tensor) -> Tensor:
        return feature + self.conv(feature)


def upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Twice as large by a transposed convolution, then ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.ReLU())


def _reflecting(inputs: int, outputs: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=bias, padding_mode="reflect")


class EMMAMethod(FusingMethod):
    """EMMA for use, with the tiles and the stretch of the published test script.

    An image with a side that is no multiple of 32 is not padded but fused in up to four overlapping tiles, each as
    large as multiples of 32 allow: the one at the top left counts whole, the others give the remaining right columns
    and lower rows. Channel attention looks at a whole tile, so a seam can show where they meet.

    Args:
        network: a `Ufuser`.
        name, device: as `FusingMethod`'s.
        stretch: bring each fused image to the range from 0 to 1, as the published results are. It changes contrast,
            and with it every metric of intensity; False leaves the network's own values.
    """

    name = "emma"

    def __init__(
        self, network: Ufuser, name: str | None = None, device: torch.device | str = "cpu", stretch: bool = True
    ) -> None:
        super().__init__(network, name, device)
        self.stretch = stretch

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        image = torch.empty_like(ir)
        for (rows, new_rows), (columns, new_columns) in product(*map(_tiles, ir.shape[-2:])):
            tile = self.network(ir[..., rows, columns], vi[..., rows, columns])
            new = image[..., new_rows, new_columns]
            new.copy_(tile[..., -new.shape[-2] :, -new.shape[-1] :])
        return stretched(image) if self.stretch else image


def _tiles(side: int) -> list[tuple[slice, slice]]:
    """Along one axis: what each tile covers, and its last part, which is taken from it."""
    rest = side % 32
    whole = side - rest
    tiles = [(slice(whole), slice(whole))]
    return [*tiles, (slice(rest, side), slice(whole, side))] if rest else tiles


def stretched(image: Tensor) -> Tensor:
    """Each image of (B, 1, H, W) on its own, brought to the range from 0 to 1; one without any contrast becomes 0."""
    low, high = image.aminmax(dim=-1, keepdim=True)
    low, high = low.amin(-2, keepdim=True), high.amax(-2, keepdim=True)
    return (image - low) / (high - low).clamp_min(torch.finfo(image.dtype).tiny)
