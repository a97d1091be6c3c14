"""What IVFWSR (`fusionlib.methods.baselines.ivfwsr`) is built from: dense convolutions, and transformer blocks on
windows.

Convention: features (B, 64, H, W), sides multiples of the window; (windows, pixels, 64) inside the attention, windows
and the pixels in them row by row. Convolutions keep the size and pad with zeros.
"""

from __future__ import annotations

from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.windows import join, split

WIDTH = 64  # channels of a feature map
HEADS = 4
WINDOWS_AT_ONCE = 256  # attended to together: bounds memory and changes no result


class DenseBlock(nn.Module):
    """Three convolutions, each reading the input and all that was found before it, and one that compresses to 64."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList(
            nn.ModuleDict({"conv": conv(inputs + i * WIDTH, WIDTH), "normal": nn.LayerNorm(WIDTH)}) for i in range(3)
        )
        self.LFF = conv(inputs + 3 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.conv:
            x = torch.cat([x, F.relu(per_pixel(layer["conv"](x), layer["normal"]))], 1)
        return self.LFF(x)


class FirstAttention(nn.Module):
    """A transformer block on windows of 7, with a convolution before the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.convqkv = conv(WIDTH, WIDTH)
        self.attn = WindowAttention(7)
        self.mlp = Perceptron()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.convqkv(per_pixel(x, self.norm1)))
        return x + per_pixel(x, self.norm2, self.mlp)


class MixingAttention(nn.Module):
    """A transformer block on windows of 7 that also takes up the detail and what the block before it mixed.

    `forward` takes context, detail and the mixture before, and gives the new mixture and the new context.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.convQKV1 = conv(WIDTH, WIDTH)
        self.attn = WindowAttention(7)
        self.conv1, self.conv2 = nn.Sequential(conv(2 * WIDTH, WIDTH)), nn.Sequential(conv(2 * WIDTH, WIDTH))
        self.mlp = Perceptron()

    def forward(self, context: Tensor, detail: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        attended = context + self.attn(self.convQKV1(per_pixel(context, self.norm1)))
        mixed = attended + self.conv1(torch.cat([attended, before], 1))
        mixed = attended + self.conv2(torch.cat([mixed, detail], 1))
        return mixed, attended + per_pixel(mixed, self.norm2, self.mlp)


class WindowAttention(nn.Module):
    """Self-attention with four heads among the pixels of each window of `side` x `side`.

    If it `corrects`, a linear map of the offset feature (B, 64, H, W) at a pixel, 16 channels a head, says how strongly
    that pixel should draw from each of the `side`^2 places of its window, and is added to the logits.
    """

    def __init__(self, side: int, corrects: bool = False) -> None:
        super().__init__()
        self.side = side
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        if corrects:
            self.correct = nn.Linear(WIDTH // HEADS, side**2)

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        size = x.shape[-2:]
        tokens = self._windows(x).split(WINDOWS_AT_ONCE)
        offsets = [None] * len(tokens) if offset is None else self._windows(offset).split(WINDOWS_AT_ONCE)
        mixed = torch.cat([self._attend(*part) for part in zip(tokens, offsets, strict=True)])
        return join(mixed.unflatten(0, (len(x), -1)), (self.side,) * 2, size).permute(0, 3, 1, 2)

    def _windows(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (windows, side^2, C)."""
        return split(x.permute(0, 2, 3, 1), (self.side,) * 2).flatten(0, 1)

    def _attend(self, tokens: Tensor, offset: Tensor | None) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        logits = q * q.shape[-1] ** -0.5 @ k.mT
        if offset is not None:
            logits = logits + self.correct(offset.unflatten(-1, (HEADS, -1)).transpose(1, 2))
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """The two linear layers of a transformer block, 64 to 128 to 64 channels at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Extract(nn.Module):
    """Convolutions, each with a ReLU, over the maps given."""

    def __init__(self, widths: list[int], sides: list[int]) -> None:
        super().__init__()
        self.feature_extract1 = convs(widths, sides)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.feature_extract1(torch.cat(maps, 1))


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


def convs(widths: list[int], sides: list[int]) -> nn.Sequential:
    layers = [(conv(a, b, side), nn.ReLU()) for (a, b), side in zip(pairwise(widths), sides, strict=True)]
    return nn.Sequential(*chain.from_iterable(layers))


def per_pixel(x: Tensor, *layers: nn.Module) -> Tensor:
    """Apply layers that work along the last dimension to the channels of each pixel of (B, C, H, W)."""
    return nn.Sequential(*layers)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
