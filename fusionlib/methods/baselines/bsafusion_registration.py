"""BSAFusion's third part: moves two feature maps towards each other, a small step at each of five scales.

At each scale both images propose a step from what they have in common so far. A step is at most one pixel of its scale
(tanh), so that together they reach 31 pixels of the image. Each step is applied before the next scale looks.

Convention: features (B, C, h, w); flows (B, 2, h, w) in pixels of their own size, channel 0 = x.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.sampling import pixel_grid, sample


def shift(image: Tensor, flow: Tensor) -> Tensor:
    """The network's own warp of (B, C, h, w), nearly `image(p + flow(p))`, with 0 for what lies outside.

    The published code normalises positions by the centres of the outermost pixels and samples by their edges, so that
    everything is stretched: with a flow of zero it reads half a pixel too far outwards at the borders.
    """
    side = flow.shape[-1]
    points = pixel_grid(side, side, flow.device) + flow.permute(0, 2, 3, 1)
    return sample(image, points * (side / (side - 1)) - 0.5)


def resize(x: Tensor, side: int, align_corners: bool = True) -> Tensor:
    """Bilinear to (B, C, side, side); the values of a flow stay as they are."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=align_corners)


def collect(flows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The steps of img1 and those of img2, each summed at full size: (B, 2, S, S) pixels twice."""
    side = flows[-1].shape[-1]
    full = [resize(flow, side) * (side // flow.shape[-1]) for flow in flows]
    return sum(full[0::2]), sum(full[1::2])


class RegistrationNet(nn.Module):
    """Features (B, 256, S/16, S/16) of both images to ten flows, two a scale, of img1 and img2 in turn.

    Args:
        widths: channels at each scale, from 1/16 to full size, and what a last upsampling would give.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        for level, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            self.add_module(f"f1_FR{level}", Step(inputs, outputs))
            self.add_module(f"f2_FR{level}", Step(inputs, outputs))
        self.D = nn.ModuleDict({f"up{i}": Up(a, b) for i, (a, b) in enumerate(pairwise(widths[:-1]), start=1)})

    def forward(self, feature1: Tensor, feature2: Tensor) -> list[Tensor]:
        memory1, memory2, flows = feature1, feature2, []
        levels = range(1, len(self.D) + 2)
        for level in levels:
            step1, step2 = self.get_submodule(f"f1_FR{level}"), self.get_submodule(f"f2_FR{level}")
            both = torch.cat([feature1, feature2], 1)
            (memory1, flow1), (memory2, flow2) = step1(memory1, both), step2(memory2, both)
            flows += [flow1, flow2]
            if level < levels[-1]:
                up = self.D[f"up{level}"]
                feature1, feature2 = up(shift(feature1, flow1)), up(shift(feature2, flow2))
                memory1, memory2 = step1.up1(memory1), step2.up1(memory2)
        return flows


class Step(nn.Module):
    """One image's step at one scale.

    What the image has gathered on coarser scales and what both show now attend to each other; a tanh of the outcome is
    the flow, and the outcome itself goes on to the next scale through `up1`, unused at the last one.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(nn.Conv2d(2 * inputs, inputs, 1), nn.LeakyReLU(0.01))
        self.crossAtt1 = CrossAttention(inputs)
        self.feature_output = nn.Sequential(Refine(inputs))
        self.flow_output = nn.Sequential(nn.Conv2d(inputs, 2, 3, padding=1), nn.Tanh())
        self.up1 = nn.Sequential(doubled(), nn.Conv2d(inputs, outputs, 1), nn.LeakyReLU(0.01))

    def forward(self, memory: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, C, h, w) and both images' features (B, 2C, h, w) to the new memory and the flow (B, 2, h, w)."""
        now = self.conv1x1(both)
        memory = self.feature_output(self.crossAtt1(memory, now) + self.crossAtt1(now, memory))
        return memory, self.flow_output(memory)


class CrossAttention(nn.Module):
    """Weighs the places of the first feature by how well both agree there, channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(2)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        feature = self.conv1(first)
        weights = (feature * self.conv2(second)).flatten(2).softmax(-1).view(feature.shape)
        return weights * feature + first


class Refine(nn.Module):
    """A 3x3 convolution with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.feature_output = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feature_output(x)


class Up(nn.Module):
    """Warped features to twice the size and fewer channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up_sample = nn.Sequential(doubled(), nn.Conv2d(inputs, outputs, 1))
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(self.conv1(self.up_sample(x))), 0.01)


def doubled(align_corners: bool = True) -> nn.Upsample:
    """Bilinear to twice the size; the fusion does not align corners."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
