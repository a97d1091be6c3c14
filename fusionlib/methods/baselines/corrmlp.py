"""CorrMLP: deformable registration by multi-layer perceptrons that see the correlation of both images; here in 2-D.

M. Meng, D. Feng, L. Bi, J. Kim, "Correlation-aware Coarse-to-fine MLPs for Deformable Medical Image Registration", IEEE
Conference on Computer Vision and Pattern Recognition, 2024, 9645-9654, arXiv 2406.00123.
Published code: MungoMeng/Registration-CorrMLP@cc0d85d339bf6c5513e4a9c12a549ed1c25729f3, GPL-3.0; written from a
description. Its weights are not available.

    fixed, moving --Encoder--> four levels each; at each level, coarse to fine:
        warp moving by the flow so far, compare with fixed (mlp_1), join with the coarser level (mlp_2), add to the flow

The published network registers volumes. What is written here is the same in two dimensions, for slices: kernels,
windows and correlation are squares instead of cubes, all names of weights stay, and whatever grew with 27 or 343
positions grows with 9 or 49.

An MLP over the positions of a window has the reach of attention, at full resolution, with less memory. The product of
features, by which the network compares, and its published loss, NCC, are meant for one modality.

Convention: images (B, 1, H, W) in [0, 1], sides multiples of 8 from 16 up; features (B, C, h, w). A flow is (B, 2, h,
w) in pixels of its own size, channel 0 = y (rows), 1 = x: the order of the tensor's axes, not that of this project.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.losses import registration_loss
from fusionlib.methods.baselines.corrmlp_blocks import CMW, layer_norm
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.methods.baselines.sampling import warp_with_zeros
from fusionlib.methods.protocol import Fused
from fusionlib.support.files import InputError
from fusionlib.support.inputs import pad_to_multiple
from fusionlib.training.batches import Batch


class CorrMLP(nn.Module):
    """The network in 2-D, 1,276,890 parameters; module names are those of the published 3-D one.

    `forward` takes the fixed and the moving image and gives the moving one warped, (B, 1, H, W), and the flow at full
    size, for which `warped(p) = moving(p + flow(p))`, 0 outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Encoder = Encoder()
        self.Decoder = Decoder()

    def forward(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        height, width = fixed.shape[-2:]
        if height % 8 or width % 8 or min(height, width) < 16:
            raise InputError(f"CorrMLP takes sides of 16, 24, 32, ... pixels, not {height} x {width}.")
        flow = self.Decoder(self.Encoder(fixed), self.Encoder(moving))
        return transformed(moving, flow), flow


class Encoder(nn.Module):
    """An image to features of four levels, 8, 16, 32 and 64 channels, each half as large as the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.Convblock_1 = ConvBlock(1, 8)
        self.Convblock_2 = ConvBlock(8, 16)
        self.Convblock_3 = ConvBlock(16, 32)
        self.Convblock_4 = ConvBlock(32, 64)

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [self.Convblock_1(image)]
        for block in (self.Convblock_2, self.Convblock_3, self.Convblock_4):
            levels.append(block(F.avg_pool2d(levels[-1], 2)))
        return levels


class ConvBlock(nn.Module):
    """3x3 convolution, LeakyReLU, then instance norm, twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv_1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.Conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.Conv_1, self.Conv_2):
            x = F.instance_norm(F.leaky_relu(conv(x), 0.2))
        return x


class Decoder(nn.Module):
    """The levels of both images to the flow (B, 2, H, W), from the coarsest level 4 to level 1."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp_11, self.mlp_12, self.mlp_13, self.mlp_14 = (CMW(8 * 2**i, 16 * 2**i) for i in range(4))
        self.mlp_21, self.mlp_22, self.mlp_23 = (CMW(16 * 2**i, 16 * 2**i) for i in range(3))
        self.upsample_1, self.upsample_2, self.upsample_3 = (Expand(16 * 2**i) for i in range(3))
        self.reghead_1, self.reghead_2, self.reghead_3, self.reghead_4 = (FlowHead(16 * 2**i) for i in range(4))

    def forward(self, fixed: list[Tensor], moving: list[Tensor]) -> Tensor:
        joint = self.mlp_14(fixed[3], moving[3])
        flow = self.reghead_4(joint)
        finer = [
            (self.mlp_13, self.mlp_23, self.upsample_3, self.reghead_3),
            (self.mlp_12, self.mlp_22, self.upsample_2, self.reghead_2),
            (self.mlp_11, self.mlp_21, self.upsample_1, self.reghead_1),
        ]
        for level, (compare, join, expand, head) in zip((2, 1, 0), finer, strict=True):
            flow = doubled(flow)
            compared = compare(fixed[level], transformed(moving[level], flow))
            joint = join(compared, expand(joint))
            flow = head(joint) + flow
        return flow


class Expand(nn.Module):
    """Features of a coarser level to twice the size and half the channels."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose2d(2 * outputs, outputs, 2, stride=2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(self.up_conv(x), self.norm)


class FlowHead(nn.Module):
    """The convolution that ends in a flow; it starts near zero."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.reg_head = nn.Conv2d(inputs, 2, 3, padding=1)
        nn.init.normal_(self.reg_head.weight, std=1e-5)
        nn.init.zeros_(self.reg_head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.reg_head(x)


def transformed(image: Tensor, flow: Tensor) -> Tensor:
    """(B, C, h, w) sampled at p + flow(p), 0 outside."""
    return warp_with_zeros(image, flow.flip(1))


def doubled(flow: Tensor) -> Tensor:
    """A flow at twice the size, its displacements doubled."""
    return F.interpolate(2 * flow, scale_factor=2, mode="bilinear", align_corners=True)


def training_loss(network: CorrMLP, batch: Batch) -> Tensor:
    """Eq. (5) of the reproduced paper on the flow: the published loss, local correlation, expects one modality."""
    _, flow = network(batch.vi, batch.moved)
    return registration_loss(flow.flip(1), batch.phi_gt)


class CorrMLPMethod(NetworkMethod):
    """CorrMLP for use: the visible image (T1) is fixed, the infrared (T2) moves. It does not fuse: both are averaged.

    Images are padded by repeating the lower and right border until the levels halve evenly, and cut back. `field` is
    the flow with x first; `registered_ir` repeats the border where the network's own warp gives 0. Args as
    `NetworkMethod`'s; the network is a `CorrMLP`.
    """

    name = "corrmlp"

    def run(self, ir: Tensor, vi: Tensor) -> Fused:
        _, flow = self.network(pad_to_multiple(vi, 8), pad_to_multiple(ir, 8))
        field = flow.flip(1)[..., : ir.shape[-2], : ir.shape[-1]]
        registered = warp(ir, field)
        return Fused((registered + vi) / 2, field, registered)
