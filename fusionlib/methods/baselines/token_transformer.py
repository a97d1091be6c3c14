"""Building blocks that W. Tang and colleagues use in DATFuse, YDTR and MATR: a Swin transformer with windows of one.

A Swin transformer (Liu et al., ICCV 2021) cuts a feature map into windows and lets the tokens of a window attend to
each other. With windows of one token, as these systems are published, nothing is left to attend to but the token
itself: the softmax over one score is 1, and attention becomes a linear map of the value. The systems' papers describe
attention that reaches across the image; the published code, to which the published weights belong, is followed here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other under the given names, which become part of the names of their weights."""
    return nn.Sequential(OrderedDict(layers))


def unused_patch_embedding() -> nn.ModuleDict:
    """A LayerNorm that the published weights hold and no published network calls."""
    return nn.ModuleDict({"norm": nn.LayerNorm(96)})


class TokenTransformer(nn.Module):
    """Transformer blocks over runs of neighbouring pixels; (B, C, H, W) to the same shape.

    A vision transformer would take the C channels of one pixel as a token. The published code reads the memory of the
    feature map, channel after channel and row after row, as H W tokens of C numbers without moving the channels last:
    a token is a run of C neighbouring pixels of one channel, mostly within one row.

    Args:
        channels: C, the width of a token.
        depth: number of blocks.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TokenBlock(channels) for _ in range(depth))

    def forward(self, feature: Tensor) -> Tensor:
        batch, channels, height, width = feature.shape
        tokens = feature.reshape(batch, height * width, channels)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.reshape(feature.shape)


class TokenBlock(nn.Module):
    """Attention, then a two-layer perceptron four times as wide, both residual on normalised tokens (B, N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = SelfAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = named(fc1=nn.Linear(channels, 4 * channels), gelu=nn.GELU(), fc2=nn.Linear(4 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class SelfAttention(nn.Module):
    """Attention of a token to itself alone: its value, projected.

    Queries, keys and the position bias (8 heads) cannot change the result. Their weights are kept so that published
    files load, but nothing is computed from them; the published code does compute the queries and keys.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(1, 8))
        self.register_buffer("relative_position_index", torch.zeros(1, 1, dtype=torch.int64))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        value = slice(2 * self.proj.in_features, None)  # rows of the queries come first, then those of the keys
        return self.proj(F.linear(tokens, self.qkv.weight[value], self.qkv.bias[value]))
