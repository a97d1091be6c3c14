"""The block that CorrMLP is built of: correlation of two feature maps, then MLPs on windows of three sizes ("CMW").

Convention: features (B, C, h, w); between `nhwc` and back (B, h, w, C), where LayerNorm and linear layers look at the
channels of one position. All norms are learned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines import windows

SIDES = (3, 5, 7)


class CMW(nn.Module):
    """Correlation-aware multi-window MLP block: two maps (B, inputs, h, w) to one (B, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv = nn.Conv2d(2 * inputs + 9, outputs, 3, padding=1)
        self.mlpLayer = MultiWindowMLP(outputs)
        self.channel_attention_block = ResidualChannelAttention(outputs)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        both = self.Conv(torch.cat([first, correlation(first, second), second], 1))
        return both + self.channel_attention_block(self.mlpLayer(both))


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Mean product of the features with those of the nine neighbours in the other map: (B, 9, h, w), row by row."""
    height, width = first.shape[-2:]
    around = F.pad(second, [1] * 4)
    shifts = [(y, x) for y in range(3) for x in range(3)]
    return torch.stack([(first * around[..., y : y + height, x : x + width]).mean(1) for y, x in shifts], 1)


def nhwc(x: Tensor) -> Tensor:
    """Channels last."""
    return x.permute(0, 2, 3, 1)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm over the channels of (B, C, h, w)."""
    return norm(nhwc(x)).permute(0, 3, 1, 2)


class MultiWindowMLP(nn.Module):
    """Three gated MLPs, on windows of 3, 5 and 7, side by side; each image weighs them channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.WinGmlpLayer_1, self.WinGmlpLayer_2, self.WinGmlpLayer_3 = (WindowGMLP(channels, s) for s in SIDES)
        self.reweight = nn.ModuleDict(
            {"fc1": nn.Linear(channels, channels // 4), "fc2": nn.Linear(channels // 4, 3 * channels)}
        )
        self.out_project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.LayerNorm(nhwc(x))
        outputs = [layer(normed) for layer in (self.WinGmlpLayer_1, self.WinGmlpLayer_2, self.WinGmlpLayer_3)]
        mean = sum(outputs).mean((1, 2))  # (B, C)
        scores = self.reweight["fc2"](F.gelu(self.reweight["fc1"](mean)))
        weights = scores.unflatten(1, (-1, 3)).softmax(2)[:, None, None]  # (B, 1, 1, C, 3)
        mixed = sum(weights[..., i] * part for i, part in enumerate(outputs))
        return x + self.out_project(mixed).permute(0, 3, 1, 2)


class WindowGMLP(nn.Module):
    """A gated MLP (Liu et al., NeurIPS 2021) on windows that do not overlap: (B, h, w, C) to the same.

    Half of the channels, mixed over the positions of the window, gates the other half.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.window = (side, side)
        self.LayerNorm = nn.LayerNorm(channels)
        self.in_project = nn.Linear(channels, 2 * channels)
        self.SpatialGatingUnit = SpatialGate(channels, side**2)
        self.out_project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        padded = windows.pad_last(x, self.window)
        cut = windows.split(padded, self.window)
        gated = self.SpatialGatingUnit(*F.gelu(self.in_project(self.LayerNorm(cut))).chunk(2, -1))
        done = windows.join(cut + self.out_project(gated), self.window, padded.shape[1:3])
        return done[:, : x.shape[1], : x.shape[2]]


class SpatialGate(nn.Module):
    """Multiplies features by one plus others that a linear layer has mixed over the positions of a window."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        self.Dense_0 = nn.Linear(positions, positions)
        self.LayerNorm = nn.LayerNorm(channels)

    def forward(self, feature: Tensor, gate: Tensor) -> Tensor:
        """Both (B, windows, positions, C)."""
        return feature * (self.Dense_0(self.LayerNorm(gate).mT).mT + 1)


class ResidualChannelAttention(nn.Module):
    """Two 3x3 convolutions whose channels are weighed by their means over the image, with a skip (RCAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.channel_attention = nn.ModuleDict(
            {"Conv_0": nn.Conv2d(channels, channels // 4, 1), "Conv_1": nn.Conv2d(channels // 4, channels, 1)}
        )

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.leaky_relu(self.conv1(layer_norm(x, self.LayerNorm)), 0.2))
        squeezed = self.channel_attention["Conv_0"](new.mean((2, 3), keepdim=True)).relu()
        return x + new * self.channel_attention["Conv_1"](squeezed).sigmoid()
