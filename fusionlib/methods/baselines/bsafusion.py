"""BSAFusion: registers and fuses two unaligned medical images in one pass, step by step from coarse to fine.

H. Li, D. Su, Q. Cai, Y. Zhang, "BSAFusion: A Bidirectional Stepwise Feature Alignment Network for Unaligned Medical
Image Fusion", AAAI Conference on Artificial Intelligence, 2025.
Published code: slrl123/BSAFusion@c9821828fba42b22856fa74d156ec0bea33937c2, no licence file; written from a
description. Its weights are not available.

    img1, img2 --encoder--> details, semantics --transfer--> features without modality
        --reg_net--> flows from 1/16 to full size, summed;  details, semantics, flow --fusion_net--> fused

Features of an MRI and a CT cannot be compared, since they differ in modality. The `transfer` adds the class token of
each image, which encodes its modality, to the tokens of the other one, so that both contain both. The `reg_net` then
warps the feature maps towards each other ("bidirectional") by a small step at each scale; the steps of one side minus
those of the other are the deformation. These two parts are in `bsafusion_transfer` and `bsafusion_registration`.

Where the published code is surprising it is followed: see `bsafusion_transfer`, and `shift` for the warp inside the
network, half a pixel off at the borders. The published training loss warps exactly, with the convention of
`fusionlib.deformation`, so that the flow means what our fields mean.

Convention: img1 is the reference (MRI; here visible or T1), img2 is moved onto it; (B, 1, S, S) in [0, 1], square, S a
multiple of 16, at least 32. Flows (B, 2, h, w) in pixels of their own size, channel 0 = x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.methods.baselines.bsafusion_registration import RegistrationNet, collect, doubled, resize, shift
from fusionlib.methods.baselines.bsafusion_transfer import Transfer, Transferred
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.protocol import Fused
from fusionlib.support.files import InputError


@dataclass(frozen=True)
class BSAOutput:
    """What one pass gives.

    Attributes:
        fused: (B, 1, S, S) in (0, 1).
        flow: (B, 2, S, S) pixels; img2 sampled at p + flow(p) lies on img1.
        warped: img2 so sampled by the network's own warp, (B, 1, S, S); see `shift`.
        flows: the ten steps, two a scale from 1/16 to full size, those of img1 and img2 in turn.
        transferred: the features they were found on, with the logits that training judges.
    """

    fused: Tensor
    flow: Tensor
    warped: Tensor
    flows: list[Tensor]
    transferred: Transferred


class BSAFusion(nn.Module):
    """The network, 10,028,296 parameters in the four parts of a published checkpoint, with its names.

    `forward` takes img1 (the reference) and img2 and gives a `BSAOutput`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.transfer = Transfer()
        self.reg_net = RegistrationNet((256, 64, 32, 16, 8, 1))
        self.fusion_net = FusionNet((256, 64, 32, 16, 12))

    def forward(self, img1: Tensor, img2: Tensor) -> BSAOutput:
        height, width = img1.shape[-2:]
        if height != width or height % 16 or height < 32:
            raise InputError(f"BSAFusion takes squares with a multiple of 16 pixels a side, not {height} x {width}.")
        (detail1, semantic1), (detail2, semantic2) = self.encoder(img1), self.encoder(img2)
        transferred = self.transfer(semantic1, semantic2)
        flows = self.reg_net(transferred.feature1, transferred.feature2)
        of_img1, of_img2 = collect(flows)
        flow = of_img2 - of_img1
        fused = self.fusion_net(detail1, detail2, transferred.own1, transferred.own2, flow)
        return BSAOutput(fused, flow, shift(img2, flow), flows, transferred)


class Encoder(nn.Module):
    """Image (B, 1, S, S) to details (B, 8, S, S), which are fused, and semantics (B, 3, S, S), which go on."""

    def __init__(self) -> None:
        super().__init__()
        self.rb1 = Restormer(1, 8)
        self.rb2 = Restormer(8, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.rb1(image)
        return detail, self.rb2(detail)


class Restormer(nn.Module):
    """A transformer block whose attention runs between channels, not places (after Zamir et al., CVPR 2022).

    Its cost grows with the area only, so it works at full resolution: (B, inputs, h, w) to (B, outputs, h, w). Before
    each half, every channel of every image is normalised over its pixels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Conv2d(inputs, outputs, 1)
        self.mdta = ChannelAttention(outputs)
        self.gdfn = GatedFeedForward(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp(x)
        x = x + self.mdta(F.instance_norm(x))
        return x + self.gdfn(F.instance_norm(x))


def pointwise_then_3x3(inputs: int, outputs: int) -> nn.Sequential:
    """1x1, then full 3x3 convolution."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, outputs, 3, padding=1))


class ChannelAttention(nn.Module):
    """Every channel becomes a mixture of all value channels; the softmax runs over the whole table of pairs at once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (pointwise_then_3x3(channels, channels) for _ in range(3))
        self.conv4 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).flatten(2) for conv in (self.conv1, self.conv2, self.conv3))  # (B, C, pixels)
        weights = (key @ query.mT).flatten(1).softmax(1).view(len(x), key.shape[1], -1)  # (B, key, query)
        return self.conv4((weights.mT @ value).view(x.shape))


class GatedFeedForward(nn.Module):
    """Two convolutional paths four times as wide; one, through a GELU, gates the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Dconv1, self.Dconv2 = (pointwise_then_3x3(channels, 4 * channels) for _ in range(2))
        self.conv = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.gelu(self.Dconv1(x)) * self.Dconv2(x))


class FusionNet(nn.Module):
    """Fuses from 1/16 to full size; at each scale the features of img2 are warped by the flow before they join.

    The unaligned deep features (B, 256, S/16, S/16) are brought up step by step; the details (B, 8, S, S) enter last.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        first, second, third, fourth, last = widths
        self.F1 = Restormer(2 * first, second)
        self.F2 = Restormer(3 * second, third)
        self.F3 = Restormer(3 * third, fourth)
        self.F4 = Restormer(3 * fourth, last)
        self.up_sample1 = FusionUp(first, second)
        self.up_sample2 = FusionUp(second, third)
        self.up_sample3 = FusionUp(third, fourth)
        self.last_up = doubled(align_corners=False)
        self.outLayer = nn.Sequential(Restormer(last + 16, last), Restormer(last, 1))

    def forward(self, detail1: Tensor, detail2: Tensor, own1: Tensor, own2: Tensor, flow: Tensor) -> Tensor:
        """To the fused image, (B, 1, S, S) in (0, 1)."""
        fused = self.F1(torch.cat([own1, self._moved(own2, flow)], 1))
        steps = [(self.up_sample1, self.F2), (self.up_sample2, self.F3), (self.up_sample3, self.F4)]
        for up, fuse in steps:
            own1, own2, fused = up(own1, own2, fused)
            fused = fuse(torch.cat([own1, self._moved(own2, flow), fused], 1))
        return self.outLayer(torch.cat([self.last_up(fused), detail1, shift(detail2, flow)], 1)).sigmoid()

    @staticmethod
    def _moved(feature: Tensor, flow: Tensor) -> Tensor:
        factor = flow.shape[-1] // feature.shape[-1]
        return shift(feature, resize(flow, feature.shape[-1], align_corners=False) / factor)


class FusionUp(nn.Module):
    """Twice the size: both images' features with shared weights (`up1`), the fused ones with their own (`up3`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up1 = nn.Sequential(doubled(align_corners=False), nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        self.up3 = nn.Sequential(doubled(align_corners=False), nn.Conv2d(outputs, outputs, 1), nn.ReLU())

    def forward(self, own1: Tensor, own2: Tensor, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.up1(own1), self.up1(own2), self.up3(fused)


class BSAFusionMethod(NetworkMethod):
    """BSAFusion for use: the visible image (T1) is the reference, the infrared (T2) is moved onto it.

    Images are padded to a square by repeating the lower and right border, and cut back. `registered_ir` is the infrared
    warped exactly by the field, as in the published training loss. Args as `NetworkMethod`'s; the network is a
    `BSAFusion`.
    """

    name = "bsafusion"

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        height, width = ir.shape[-2:]
        side = -(-max(height, width) // 16) * 16
        square = [F.pad(image, (0, side - width, 0, side - height), mode="replicate") for image in (vi, ir)]
        output = self.network(*square)
        image, field = (result[..., :height, :width] for result in (output.fused, output.flow))
        return Fused(image.clamp(0, 1), field, warp(ir, field))
