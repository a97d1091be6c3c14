"""The encoder of RMR-Fusion: convolutions at full size, window attention at half, added together.

Convention: features (B, C, H, W); inside the transformer channels are last, (B, h, w, 48).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines import windows
from fusionlib.methods.baselines.token_transformer import named

WIDTH, HEADS, WINDOW = 48, 6, 7


def double_conv(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by a PReLU with a slope for each channel."""
    return named(
        double_conv=nn.Sequential(
            nn.Conv2d(inputs, middle, 3, padding=1),
            nn.PReLU(middle),
            nn.Conv2d(middle, outputs, 3, padding=1),
            nn.PReLU(outputs),
        )
    )


class Encoder(nn.Module):
    """An image (B, 1, H, W), both sides even, to 16 features (B, 16, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv_first = double_conv(1, WIDTH // 2, WIDTH)
        self.swinViT = SwinTransformer()
        up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2, bias=False)
        self.Conv_after_body = named(transp_conv_init=named(conv=up))
        self.Conv_last = double_conv(WIDTH, WIDTH // 2, 16)

    def forward(self, image: Tensor) -> Tensor:
        near = self.Conv_first(image)
        return self.Conv_last(self.Conv_after_body(self.swinViT(near)) + near)


class SwinTransformer(nn.Module):
    """Six blocks of window attention at half size: (B, 48, H, W) to (B, 48, H/2, W/2), normalised over channels.

    A Swin transformer (Liu et al., ICCV 2021) without its merging of patches: the size stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = named(proj=nn.Conv2d(WIDTH, WIDTH, 2, stride=2))
        self.layers1 = nn.ModuleList([named(blocks=three_blocks())])
        self.layers2 = nn.ModuleList([named(blocks=three_blocks())])

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        for layer in (*self.layers1, *self.layers2):
            x = layer(x)
        return F.layer_norm(x, [WIDTH]).permute(0, 3, 1, 2)


def three_blocks() -> nn.Sequential:
    """The windows of the middle block lie half a window further, so that information crosses their borders."""
    return nn.Sequential(*[SwinBlock(shift) for shift in (0, WINDOW // 2, 0)])


class SwinBlock(nn.Module):
    """Window attention and an MLP four times as wide, each behind a LayerNorm and with a skip: (B, h, w, 48)."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = WindowAttention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = named(linear1=nn.Linear(WIDTH, 4 * WIDTH), gelu=nn.GELU(), linear2=nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attended(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attended(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        window = min(height, WINDOW), min(width, WINDOW)
        shift = tuple(self.shift if side > WINDOW else 0 for side in (height, width))
        back = tuple(-s for s in shift)
        x = windows.pad_last(x, window)
        size = x.shape[1:3]
        mask = windows.neighbours(size, window, shift).to(x.device) if any(shift) else None
        mixed = self.attn(windows.split(x.roll(back, (1, 2)), window), mask)
        return windows.join(mixed, window, size).roll(shift, (1, 2))[:, :height, :width]


class WindowAttention(nn.Module):
    """Attention among the positions of a window, 6 heads of 8, with a learned bias for each relative position."""

    def __init__(self) -> None:
        super().__init__()
        steps = 2 * WINDOW - 1  # relative positions along an axis
        self.relative_position_bias_table = nn.Parameter(torch.zeros(steps**2, HEADS))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        place = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
        apart = place[:, None] - place + WINDOW - 1  # (49, 49, 2), each from 0 to 12
        self.register_buffer("relative_position_index", apart[..., 0] * steps + apart[..., 1])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, windows, N, 48) to the same; `mask` as `windows.neighbours` gives it.

        For a window that the map clips, the published code takes the index of the first N positions of a whole one.
        """
        count = x.shape[2]
        query, key, value = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index[:count, :count]].permute(2, 0, 1)
        if mask is not None:
            bias = bias - 100 * (~mask).to(bias.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # (B, windows, heads, N, 8)
        return self.proj(mixed.transpose(2, 3).flatten(3))
