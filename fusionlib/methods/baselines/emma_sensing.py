"""The sensors that EMMA is trained with: U-Nets that see in a fused image what one camera would have seen.

Paper, published code and licence as in `fusionlib.methods.baselines.emma`. There are two of them, one trained to give
back the infrared and one the visible image (A_i and A_v in the paper), on images that other methods fused. In the
training of the fuser their weights stay as they are; at test they are not used. The published code comes without their
weights.

Convention: images (B, 1, H, W) in [0, 1], sides a multiple of 16.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.emma import upsampling

_WIDTHS = (64, 128, 256, 512, 1024)  # channels of the five levels, each half the size of the one before


class SensingUNet(nn.Module):
    """A U-Net, 39,397,761 parameters: fused image (B, 1, H, W) to what a sensor sees, (B, 1, H, W) in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        for k, (inputs, outputs) in enumerate(pairwise((1, *_WIDTHS)), 1):
            self.add_module(f"down{k}", DoubleConvolution(inputs, outputs))
        for k, (coarse, fine) in zip((5, 4, 3, 2), pairwise(_WIDTHS[::-1]), strict=True):
            self.add_module(f"up_sample{k}", upsampling(coarse, fine))
            self.add_module(f"up{k - 1}", DoubleConvolution(2 * fine, fine))
        self.last = nn.Sequential(nn.Conv2d(_WIDTHS[0], 1, 3, padding=1), nn.Sigmoid())

    def forward(self, fused: Tensor) -> Tensor:
        levels = [self.down1(fused)]
        for k in (2, 3, 4, 5):
            levels.append(self.get_submodule(f"down{k}")(F.max_pool2d(levels[-1], 2)))
        feature = levels.pop()
        for k in (5, 4, 3, 2):
            larger = self.get_submodule(f"up_sample{k}")(feature)
            feature = self.get_submodule(f"up{k - 1}")(torch.cat([larger, levels.pop()], 1))
        return self.last(feature)


class DoubleConvolution(nn.Module):
    """Convolution, BatchNorm, ReLU, twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [(inputs, outputs), (outputs, outputs)]
        self.conv = nn.Sequential(
            *[m for a, b in layers for m in (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())]
        )

    def forward(self, feature: Tensor) -> Tensor:
        return self.conv(feature)
