"""IVFWSR ("IVF-WoReg"): features of the infrared are moved into place by attention, and no field is ever predicted.

H. Li, J. Liu, Y. Zhang, Y. Liu, "A Deep Learning Framework for Infrared and Visible Image Fusion Without Strict
Registration", International Journal of Computer Vision 132, 1625-1644, 2024, doi 10.1007/s11263-023-01948-x.
Published code: yuliu316316/IVF-WoReg@4ce681827c70bd69981397c978906b62370a6474, test code only, no licence file ("Usage
of this code is free for research purposes only"); its weights, checkpoint/42.pkl, could not be had here
(`System.untried`).

    infrared --encoder--> g3     --offset-aware correction, guided by the visible g1----> U --\\
    visible  --encoder--> g1, g3 ------------------------------------------------------------ B --dense fusion--> fused

An encoder gives two lists of three feature maps: g1, local detail from dense convolutions, and g3, the same detail with
context from attention. The correction replaces every infrared feature by a weighted mean of those in its window of 14 x
14 pixels: content can move within a window, never from one to the next.

The published code is followed where one would expect otherwise: the windows are never shifted, though classes are named
after shifted windows; both sums of `MixingAttention` go back to its first; the gate of `OffsetAware` is a sigmoid of
what a ReLU left, so it only weakens a channel, to half at most.

Convention: features (B, 64, H, W) at full resolution; both sides are multiples of 14, since windows are 7 and 14 wide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.losses import fusion_loss
from fusionlib.methods.baselines.ivfwsr_blocks import (
    WIDTH,
    DenseBlock,
    Extract,
    FirstAttention,
    MixingAttention,
    Perceptron,
    WindowAttention,
    conv,
    convs,
    per_pixel,
)
from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.training.batches import Batch

MULTIPLE = 14  # both sides of an image


class IVFWSR(nn.Module):
    """The network, 14,092,815 parameters; module names are those of the published weights.

    `forward` takes the image to correct (infrared) and the reference (visible), (B, 3, H, W) each in [0, 1], channels
    blue, green, red, H and W multiples of 14. It gives the fused image (B, 3, H, W), from 0 up without a bound, meant
    to be stretched to the full range, and the three corrected feature maps (B, 64, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.up = Encoder()
        self.bottle = Encoder()
        self.layer = nn.ModuleList(Correction() for _ in range(3))
        self.Fusionlayer = DenseFusion()

    def forward(self, moving: Tensor, reference: Tensor) -> tuple[Tensor, list[Tensor]]:
        _, context = self.up(moving)
        reference_detail, reference_context = self.bottle(reference)
        corrected = [self.layer[i](context[i], reference_detail[i]) for i in range(3)]
        return self.Fusionlayer(reference_context, corrected), corrected


class Encoder(nn.Module):
    """From (B, 3, H, W) to the lists g1, local detail, and g3, detail in context."""

    def __init__(self) -> None:
        super().__init__()
        self.Fe_extractconv = Extract([3, WIDTH // 2, WIDTH, WIDTH], [3, 3, 3])
        self.layer_first = FirstAttention()
        self.BasiclayerBefore = EncoderStage(WIDTH)
        self.layers = nn.ModuleList(EncoderStage(2 * WIDTH) for _ in range(2))
        self.compress_in = conv(256, 128)  # unused; the published weights hold it

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features = self.Fe_extractconv(image)
        started = self.layer_first(features)
        first = self.BasiclayerBefore
        g1 = [first.RDB(features)]
        mixed, context = first.blocks[0](started, g1[0], started)
        g3 = [context]
        for stage in self.layers:
            g1.append(stage.RDB(torch.cat([g3[-1], g1[-1]], 1)) + g1[-1])
            mixed, context = stage.blocks[0](g3[-1], g1[-1], mixed)
            g3.append(context)
        return g1, g3


class EncoderStage(nn.Module):
    """The two parts of a stage, which the encoder calls: dense convolutions for detail, attention for context."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.RDB = DenseBlock(inputs)
        self.blocks = nn.ModuleList([MixingAttention()])


class Correction(nn.Module):
    """Offset-aware feature correction: (B, 64, H, W) of the infrared, moved to where the visible detail has it."""

    def __init__(self) -> None:
        super().__init__()
        self.aware_offset = OffsetAware()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.convQKV1 = conv(WIDTH, WIDTH)
        self.attn = WindowAttention(14, corrects=True)
        self.mlp = Perceptron()

    def forward(self, moving: Tensor, reference: Tensor) -> Tensor:
        offset = self.aware_offset(moving, reference)
        # Without the usual sum with its input, which would keep a copy of everything at its wrong place.
        moved = self.attn(self.convQKV1(per_pixel(moving, self.norm1)), offset)
        return moved + per_pixel(moved, self.norm2, self.mlp)


class OffsetAware(nn.Module):
    """A feature (B, 64, H, W) of how far apart the two images are at each pixel, seen at three sizes around it."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, 1, 3), (1, 1, 5), (1, 1, 7), (3, 1, 3), (2, 2, 3), (2, 2, 3), (2, 1, 1), (2, 1, 1)]
        for i, (inputs, outputs, side) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", nn.Sequential(conv(inputs * WIDTH, outputs * WIDTH, side), nn.ReLU()))

    def forward(self, moving: Tensor, reference: Tensor) -> Tensor:
        both = torch.cat([moving, reference], 1)
        scales = self.conv4(torch.cat([self.conv1(moving), self.conv2(moving), self.conv3(moving)], 1))
        difference = self.conv5(both)
        difference = self.conv7(difference * torch.sigmoid(self.conv6(difference)))
        return scales * difference + self.conv8(both)


class DenseFusion(nn.Module):
    """The image (B, 3, H, W) from three maps of the visible image and three corrected ones of the infrared.

    Three blocks read the visible maps, three the infrared ones, and each of them some results of those before it.
    """

    def __init__(self) -> None:
        super().__init__()
        for i, maps in enumerate((2, 4, 3, 4, 6, 4), 1):
            self.add_module(f"Fb{i}", Extract([maps * WIDTH] * 3 + [WIDTH], [3, 3, 1]))
        self.conv = convs([2 * WIDTH] * 3 + [3], [3, 3, 1])

    def forward(self, visible: list[Tensor], infrared: list[Tensor]) -> Tensor:
        b, u = visible, infrared
        o1 = self.Fb1(b[0], b[1])
        o2 = self.Fb2(*b, o1)
        o3 = self.Fb3(b[1], b[2], o2)
        o4 = self.Fb4(u[0], u[1], o1, o2)
        o5 = self.Fb5(*u, o2, o3, o4)
        o6 = self.Fb6(u[1], u[2], o3, o5)
        return self.conv(torch.cat([o3, o6], 1))


def training_loss(network: IVFWSR, batch: Batch) -> Tensor:
    """Eq. (9) of the reproduced paper on the luma, against the aligned pair, given the infrared out of place.

    Nothing about the published training is known but its optimiser. What is left over beyond multiples of 14 pixels is
    not looked at.
    """
    height, width = (side - side % MULTIPLE for side in batch.vi.shape[-2:])
    ir, vi, moved = (image[..., :height, :width] for image in (batch.ir, batch.vi, batch.moved))
    colours, _ = network(moved.expand(-1, 3, -1, -1), vi.expand(-1, 3, -1, -1))
    return fusion_loss(_luma(colours), ir, vi)


class IVFWSRMethod(FusingMethod):
    """IVFWSR for use: sides brought down to multiples of 14 by bilinear resizing, the result stretched to [0, 1].

    Grey images go in as three equal channels, and the luma of the coloured result comes out. The published script keeps
    its smaller size (504 for 512); here the result is resized back. There is no field, since the network has none: the
    infrared moves among its features only.

    Args as `FusingMethod`'s; the network is an `IVFWSR`. Images go through one by one, for memory's sake.
    """

    name = "ivfwsr"

    def merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        return torch.cat([self._merge(*pair) for pair in zip(ir.split(1), vi.split(1), strict=True)])

    def _merge(self, ir: Tensor, vi: Tensor) -> Tensor:
        height, width = ir.shape[-2:]
        fitting = (height - height % MULTIPLE, width - width % MULTIPLE)
        colours, _ = self.network(*(_resize(image, fitting).expand(-1, 3, -1, -1) for image in (ir, vi)))
        low, high = colours.aminmax()
        stretched = (colours - low) / (high - low).clamp_min(1e-12)
        return _resize(_luma(stretched), (height, width))


def _luma(colours: Tensor) -> Tensor:
    blue, green, red = colours.split(1, 1)
    return 0.114 * blue + 0.587 * green + 0.299 * red


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bilinear")
