"""MPDR, the registration network of IMF: one pass, in which fields from coarse to fine guide and refine one another.

Source: see `fusionlib.methods.baselines.imf`. Two encoders give features at 1/2, 1/4, 1/8 and 1/16 of the size. From
the coarsest up, each level warps the moving features by the field found so far, fuses them with the fixed ones and with
what comes from below, and predicts a flow. DFF makes one field of all flows up to a level, PFF fuses its features.

Convention: the moving image is the infrared one. Flows and fields (B, 2, h, w) are in pixels of THEIR OWN level and,
unlike elsewhere in the project, ROW FIRST: channel 0 points down, 1 right. `warp_rows(x, f)(p) = x(p + f(p))`, with 0
outside. Enlarging a flow leaves its values as they are (the published code does not double them with the size).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.sampling import warp_with_zeros


class Registered(NamedTuple):
    """What the registration gives.

    Attributes:
        moved: the moving image on the fixed one, (B, 1, H, W).
        fixed_back: the fixed image warped by the negated field, towards the moving one. The published training compares
            it; here only the test against golden values and the record of behaviour do.
        fields: at 1/4, 1/2 and full size, each (B, 2, h, w), row first; the last one moved the image.
    """

    moved: Tensor
    fixed_back: Tensor
    fields: tuple[Tensor, Tensor, Tensor]


class MPDRNet(nn.Module):
    """The network, 1,816,968 parameters; module names are those of the published code.

    `forward` takes the fixed (pseudo infrared) and the moving (infrared) image, (B, 1, H, W) in [0, 1], sides multiples
    of 16. A published state_dict that was saved after a forward pass also holds sampling grids, names that end in
    ".grid", which are no weights.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.fix_encoder, self.mov_encoder = Encoder(w), Encoder(w)
        self.bottle_1, self.bottle_2 = Layer(16 * w, 8 * w), Layer(8 * w, 8 * w)
        self.upsample0, self.upsample1, self.upsample2 = (
            Enlarge(8 * w, 4 * w),
            Enlarge(12 * w, 2 * w),
            Enlarge(6 * w, w),
        )
        for i, channels in enumerate((8 * w, 12 * w, 6 * w, 3 * w)):
            self.add_module(f"predict_flow{i}", nn.Conv2d(channels, 2, 3, padding=1, bias=False))
            self.add_module(f"DFF_{i + 1}", FieldFusion(i + 1))
        self.PFF_1, self.PFF_2, self.PFF_3 = (FeatureFusion(channels) for channels in (4 * w, 2 * w, w))

    def forward(self, fixed: Tensor, moving: Tensor) -> Registered:
        fixed_features, moving_features = self.fix_encoder(fixed), self.mov_encoder(moving)
        decoded = self.bottle_2(self.bottle_1(torch.cat([moving_features[0], fixed_features[0]], 1)))
        flows, fields = [self.predict_flow0(decoded)], []
        levels = (
            (self.DFF_1, self.upsample0, self.PFF_1, self.predict_flow1),
            (self.DFF_2, self.upsample1, self.PFF_2, self.predict_flow2),
            (self.DFF_3, self.upsample2, self.PFF_3, self.predict_flow3),
        )
        for i, (fuse_flows, enlarge, fuse_features, predict) in enumerate(levels, start=1):
            fields.append(fuse_flows(flows))
            moved = warp_rows(moving_features[i], fields[-1])
            decoded = fuse_features(enlarge(decoded), moved, fixed_features[i])
            flows.append(predict(decoded))
        phi = self.DFF_4(flows)
        return Registered(warp_rows(moving, phi), warp_rows(fixed, -phi), (fields[1], fields[2], phi))


def warp_rows(image: Tensor, phi: Tensor) -> Tensor:
    """`image(p + phi(p))` for a field in this module's order, row first."""
    return warp_with_zeros(image, phi.flip(1))


class Layer(nn.Module):
    """3x3 convolution, BatchNorm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.conv(x)), 0.1)


class Enlarge(nn.Module):
    """Transposed convolution to twice the size, BatchNorm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.transconv, self.bn = nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.transconv(x)), 0.1)


class ResidualBlock(nn.Module):
    """What two 3x3 convolutions add to their input; without norm."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, activation, second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """Features of an image (B, 1, H, W), coarse to fine: widths 8w, 4w, 2w, w at 1/16, 1/8, 1/4, 1/2 of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 4 * width, 8 * width)
        for level, inputs, outputs in zip((3, 2, 1, 0), widths[:-1], widths[1:], strict=True):
            blocks = [Layer(inputs, outputs, 2)]
            if level < 3:
                blocks.append(ResidualBlock(outputs, nn.LeakyReLU(0.1)))
            self.add_module(f"encoder_level_{level}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.encoder_level_3(image)]
        for encode in (self.encoder_level_2, self.encoder_level_1, self.encoder_level_0):
            features.insert(0, encode(features[0]))
        return features


class FieldFusion(nn.Module):
    """DFF: one smooth field, twice the size of the last flow, from all flows so far.

    All are enlarged to the same size; from all together it learns how much of each counts, at every pixel and along
    either axis. The weighted sum is taken for a velocity and followed for unit time in 2^7 equal steps ("scaling and
    squaring"), which keeps the field free of folds as long as the velocity is smooth.
    """

    squarings = 7

    def __init__(self, flows: int) -> None:
        super().__init__()
        self.conv_1 = nn.Sequential(nn.Conv2d(2 * flows, 32, 3, padding=1, bias=False), nn.ReLU())
        self.conv_2 = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.ReLU())
        self.convsig = nn.ModuleList(Gate() for _ in range(flows))

    def forward(self, flows: list[Tensor]) -> Tensor:
        """Flows from coarse to fine, each twice the size of the one before."""
        size = [2 * side for side in flows[-1].shape[-2:]]
        enlarged = [F.interpolate(flow, size, mode="bilinear", align_corners=True) for flow in flows]
        shared = self.conv_2(self.conv_1(torch.cat(enlarged, 1)))
        velocity = sum(flow * gate(shared) for flow, gate in zip(enlarged, self.convsig, strict=True))
        phi = velocity / 2**self.squarings
        for _ in range(self.squarings):
            phi = phi + warp_rows(phi, phi)
        return phi


class Gate(nn.Module):
    """How much a flow counts, in (0, 1), for every pixel and axis: (B, 32, h, w) to (B, 2, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 2, 3, padding=1)

    def forward(self, shared: Tensor) -> Tensor:
        return self.conv(shared).sigmoid()


class FeatureFusion(nn.Module):
    """PFF: joins decoded, warped moving and fixed features, (B, C, h, w) each, to (B, 3C, h, w).

    Each of the three is weighed by a map of where to look, then each channel by a gate. The published code takes the
    softmax of a map over all positions, so that its weights sum to 1 over the image and its features come out very
    small; kept, since weights belong to it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.downconv_1 = nn.Sequential(nn.Conv2d(3 * c, c, 1, bias=False), nn.ReLU())
        self.plainconv = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.ReLU())
        self.downconv_2 = nn.Sequential(nn.Conv2d(c, 3, 3, padding=1, bias=False), nn.ReLU())
        self.ca_layer = ChannelGate(3 * c)

    def forward(self, decoded: Tensor, moved: Tensor, fixed: Tensor) -> Tensor:
        joined = torch.cat([decoded, moved, fixed], 1)
        maps = self.downconv_2(self.plainconv(self.downconv_1(joined)))
        maps = maps.flatten(2).softmax(2).view_as(maps)
        return self.ca_layer(joined * maps.repeat_interleave(decoded.shape[1], dim=1))


class ChannelGate(nn.Module):
    """Weighs each channel of (B, C, h, w) by what its mean and its largest value over the image say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_fc, self.max_fc = (
            nn.Sequential(nn.Conv2d(channels, channels // 8, 1), nn.ReLU(), nn.Conv2d(channels // 8, channels, 1))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.avg_fc(x.mean((2, 3), keepdim=True)) + self.max_fc(x.amax((2, 3), keepdim=True))).sigmoid()
