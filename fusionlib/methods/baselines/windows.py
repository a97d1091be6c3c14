"""Windows that do not overlap, as CorrMLP, IMF, IVFWSR and RMR-Fusion cut their feature maps.

Convention: features with their channels last, (B, H, W, C); a window is (height, width); windows and the positions in
them are counted row by row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_last(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Add zeros below and to the right of (B, H, W, C) until the windows fit."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % window[1], 0, -x.shape[1] % window[0]))


def split(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B, H, W, C), of a size that the windows fit, to (B, windows, positions, C)."""
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return grid.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def join(parts: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undo `split`: (B, windows, positions, C) to (B, H, W, C), with `size` = (H, W)."""
    batch, _, _, channels = parts.shape
    grid = parts.reshape(batch, size[0] // window[0], size[1] // window[1], *window, channels)
    return grid.transpose(2, 3).reshape(batch, *size, channels)


def neighbours(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Which positions of a window of the rolled map are neighbours in the map itself: (windows, 1, N, N) bool.

    Rolling brings the first rows and columns to the end, beside the last ones, where they do not belong.
    """
    region = torch.zeros(1, *size, 1)
    for axis, (side, w, s) in enumerate(zip(size, window, shift, strict=True), start=1):
        if s:
            ranges = torch.tensor([side - w, w - s, s])
            number = torch.repeat_interleave(torch.arange(3.0), ranges)
            region = region + (number * 3 ** (axis - 1)).view([-1 if i == axis else 1 for i in range(4)])
    region = split(region, window)[0]  # (windows, N, 1)
    return (region == region.mT)[:, None]
