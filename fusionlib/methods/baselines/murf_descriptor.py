"""SIEM, the first part of MURF (`fusionlib.methods.baselines.murf`): one image of what infrared and visible have in
common.

Trained by contrast: the descriptors of the two modalities of one patch must be similar, those of different patches not.
So they contain only what both modalities show, and can be compared pixel by pixel.

Convention: images (B, C, H, W) in [0, 1], both sides multiples of 4; descriptors (B, 1, H, W), any range.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of every leaky ReLU in MURF


class Descriptors(NamedTuple):
    """Descriptors (B, 1, H, W), and the features (B, 32, H, W) that they are read from."""

    rgb: Tensor
    ir: Tensor
    rgb_feature: Tensor
    ir_feature: Tensor


class SIEM(nn.Module):
    """Shared information extraction module: 538,626 parameters, an encoder for each modality.

    `forward` takes colour (B, 3, H, W) and infrared (B, 1, H, W), in this order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rgb = Encoder(3)
        self.ir = Encoder(1)

    def forward(self, rgb: Tensor, ir: Tensor) -> Descriptors:
        (rgb_descriptor, rgb_feature), (ir_descriptor, ir_feature) = self.rgb(rgb), self.ir(ir)
        return Descriptors(rgb_descriptor, ir_descriptor, rgb_feature, ir_feature)


class Encoder(nn.Module):
    """A small U-Net on three scales: descriptor and feature of one image."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths = {1: (inputs, 32), 2: (32, 32), 3: (32, 64), 4: (64, 64), 5: (96, 64), 6: (96, 64), 7: (64, 32)}
        for i, (a, b) in widths.items():
            self.add_module(f"conv{i}", reflecting(a, b))
            self.add_module(f"in{i}", nn.InstanceNorm2d(b, affine=True))
        self.up5, self.up6 = reflecting(64, 64), reflecting(64, 64)
        self.conv8 = reflecting(32, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        full = self._layer(1, image)
        half = F.max_pool2d(self._layer(2, full), 2)
        quarter = F.max_pool2d(self._layer(4, self._layer(3, half)), 2)
        half = self._layer(5, torch.cat([F.leaky_relu(self.up5(_doubled(quarter)), SLOPE), half], 1))
        full = self._layer(6, torch.cat([F.leaky_relu(self.up6(_doubled(half)), SLOPE), full], 1))
        feature = self._layer(7, full)
        return self.conv8(feature), feature

    def _layer(self, i: int, x: Tensor) -> Tensor:
        return F.leaky_relu(getattr(self, f"in{i}")(getattr(self, f"conv{i}")(x)), SLOPE)


def reflecting(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that mirrors the image at its border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=bias)


def _doubled(x: Tensor) -> Tensor:
    """Twice as large: every pixel stays as it is, and the mean with the next one follows it (TensorFlow 1's resize)."""
    for along in (2, 3):
        following = torch.cat([x.narrow(along, 1, x.shape[along] - 1), x.narrow(along, -1, 1)], along)
        x = torch.stack([x, (x + following) / 2], along + 1).flatten(along, along + 1)
    return x
