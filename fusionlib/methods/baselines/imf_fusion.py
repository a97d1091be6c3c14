"""TCF, the fusion network of IMF: a transformer and a convolutional branch side by side, then attention, then a sum.

Source: see `fusionlib.methods.baselines.imf`. Convention: images (B, 1, H, W) in [0, 1], sides multiples of 8; features
(B, 64, H, W) at full resolution. Names that end in 1 belong to the infrared image, in 2 to the visible one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlib.methods.baselines.imf_registration import ResidualBlock
from fusionlib.methods.baselines.windows import join, neighbours, split

SIDE = 8  # of an attention window, in pixels
WINDOW = (SIDE, SIDE)


class CoFusionNet(nn.Module):
    """The network, 247,334 parameters; module names are those of the published code.

    `forward` takes registered infrared and visible, (B, 1, H, W) in [0, 1], sides multiples of 8, and gives the fused
    image (B, 1, H, W), meant as grey in [0, 1]; there is no activation at the end.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.m_head_1, self.m_head_2 = (nn.Sequential(_conv(1, width, 3)) for _ in range(2))
        self.head_1, self.head_2 = MixedBlock(width), MixedBlock(width)
        self.neck_1, self.neck_2 = DualAttention(width), DualAttention(width)
        self.body = nn.Sequential(*[ResidualBlock(width, nn.ReLU()) for _ in range(2)])
        self.tail = nn.Sequential(_conv(width, 1, 3))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        ir = self.neck_1(self.head_1(self.m_head_1(ir)))
        vi = self.neck_2(self.head_2(self.m_head_2(vi)))
        return self.tail(self.body(ir + vi))


class MixedBlock(nn.Module):
    """One half of the channels goes through convolutions (near), the other through window attention (farther)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.trans_block = TransformerBlock(half)
        self.conv1_1, self.conv1_2 = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.conv_block = nn.Sequential(_conv(half, half, 3), nn.ReLU(), _conv(half, half, 3))

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.conv1_1(x).chunk(2, 1)
        near = near + self.conv_block(near)
        far = self.trans_block(far.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.conv1_2(torch.cat([near, far], 1))


class TransformerBlock(nn.Module):
    """Window attention, then a small network at each pixel, each beside a short cut: (B, H, W, C) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.msa = ShiftedWindowAttention(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.msa(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class ShiftedWindowAttention(nn.Module):
    """Attention of each pixel to the 64 pixels of its window, with one head: (B, H, W, C) to the same.

    The image is first rolled up and left by half a window. Windows at the lower and right end then hold pixels from
    opposite borders, which are masked from each other. A bias is learned for each relative position.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relative_position_params = nn.Parameter(torch.zeros(1, 2 * SIDE - 1, 2 * SIDE - 1))
        self.embedding_layer = nn.Linear(channels, 3 * channels)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape[1:]
        tokens = split(x.roll((-SIDE // 2, -SIDE // 2), (1, 2)), WINDOW)  # (B, windows, 64, C)
        query, key, value = self.embedding_layer(tokens).chunk(3, -1)
        scores = query @ key.mT * channels**-0.5 + self._position_bias()
        near = neighbours((height, width), WINDOW, (SIDE // 2, SIDE // 2))[:, 0].to(x.device)
        values = scores.masked_fill(~near, -torch.inf).softmax(-1) @ value
        return join(self.linear(values), WINDOW, (height, width)).roll((SIDE // 2, SIDE // 2), (1, 2))

    def _position_bias(self) -> Tensor:
        """(64, 64), for the offset of each query from each key."""
        place = torch.arange(SIDE**2)
        down, right = (axis[:, None] - axis + SIDE - 1 for axis in (place // SIDE, place % SIDE))
        return self.relative_position_params[0, down, right]


class DualAttention(nn.Module):
    """The features weighed by place beside the features weighed by channel, joined to as many as came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.SA = SpatialGate()
        self.CA = ChannelGate(channels)
        self.conv1x1 = _conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(torch.cat([self.SA(x), self.CA(x)], 1))


class SpatialGate(nn.Module):
    """Weighs each place of (B, C, H, W) by the largest and mean value over its channels, 5 x 5 around."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential()
        self.spatial.add_module("conv", _conv(2, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.spatial(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()


class ChannelGate(nn.Module):
    """Weighs each channel of (B, C, H, W) by what the means of all channels say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(_conv(channels, channels // 8, 1), nn.ReLU(), _conv(channels // 8, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True)).sigmoid()


def _conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """Zero-padded convolution without bias."""
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
