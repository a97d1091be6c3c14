"""The fusion part of SuperFusion (`fusionlib.methods.baselines.superfusion`): a spatial map decides between the
modalities.

    infrared --encoder--> p
    luma     --encoder--> v;    map m from p and v;    p m + v (1 - m) --decoder--> fused luma

The map comes from scans: along every row and column, in four directions, a recurrence of one state a channel carries
what it has seen onwards, so that after two of them every pixel knows of the whole image. Published as a CUDA kernel;
here a loop over lines, which autograd can follow.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32  # channels of p, v and m


class FusionNet(nn.Module):
    """The fusion network, part FN of a published checkpoint, 138,741 parameters; module names are the checkpoint's.

    `forward` takes the registered infrared and the luma of the visible, (B, 1, H, W) each in [0, 1], and gives
    the fused luma (B, 1, H, W) in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder_ir = _layers(1, 8, 16, 16, WIDTH)
        self.encoder_vi = _layers(1, 8, 16, 16, WIDTH)
        self.decoder = nn.Sequential(*_layers(WIDTH, 16, 16, 8), Block(8, 1, nn.Tanh()))
        self.SAM = SpatialAttention()

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        p, v = self.encoder_ir(ir), self.encoder_vi(luma)
        m = self.SAM(torch.cat([p, v], 1))
        return (self.decoder(p * m + v * (1 - m)) + 1) / 2


class SpatialAttention(nn.Module):
    """The map (B, 32, H, W) by two rounds of scans over (B, 64, H, W).

    It is meant to lie in (0, 1), and has no bounds: the published code asks for its last activation by a misspelt name
    and silently gets none. The weights of the four directions, from `attention_layer`, are computed and dropped there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = Block(2 * WIDTH, WIDTH)
        self.irnn1 = Scan(WIDTH)
        self.conv2 = Block(4 * WIDTH, WIDTH)
        self.irnn2 = Scan(WIDTH)
        self.conv3 = Block(4 * WIDTH, WIDTH, nn.LeakyReLU(0.01))
        self.conv_out = Block(WIDTH, WIDTH)
        # Without influence on any output; the published weights hold it.
        self.attention_layer = nn.ModuleDict({"model": nn.Sequential(*_layers(2 * WIDTH, 16, 16), Block(16, 4))})

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(torch.cat(self.irnn1(self.conv_in(x)), 1))
        return self.conv_out(self.conv3(torch.cat(self.irnn2(x), 1)))


class Scan(nn.Module):
    """Recurrences h(j) = ReLU(w h(j-1) + b + x(j)) over the lines of (B, C, H, W), each direction with its own w and b.

    Gives the four results (B, C, H, W): upwards, to the right, downwards, to the left.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for direction in ("up", "right", "down", "left"):
            self.add_module(f"{direction}_weight", nn.Conv2d(channels, channels, 1, groups=channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            _scan(x.flip(2), self.up_weight, 2).flip(2),
            _scan(x, self.right_weight, 3),
            _scan(x, self.down_weight, 2),
            _scan(x.flip(3), self.left_weight, 3).flip(3),
        )


def _scan(x: Tensor, step: nn.Conv2d, along: int) -> Tensor:
    weight, bias = step.weight.view(-1, 1), step.bias.view(-1, 1)
    first, *others = x.unbind(along)
    states = [F.relu(first)]
    for line in others:
        states.append(F.relu(weight * states[-1] + bias + line))
    return torch.stack(states, along)


class Block(nn.Module):
    """A 3x3 convolution that keeps the size (unless strided), and what follows it."""

    def __init__(
        self, inputs: int, outputs: int, *then: nn.Module, dilation: int = 1, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=bias)
        self.model = nn.Sequential(conv, *then)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _layers(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(Block(a, b, nn.LeakyReLU(0.01)) for a, b in pairwise(widths)))
