"""What the registering systems share: bilinear sampling with zeros outside the image.

The sampling differs from `fusionlib.deformation.warp` in one point: what lies outside the image is 0, not its border.
It is part of the published networks, so it has to be theirs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(image: Tensor, points: Tensor) -> Tensor:
    """Values at points between the pixels: bilinear, pixel centres at integers, 0 outside the image.

    Args:
        image: (B, C, H, W), both sides at least 2.
        points: (B, h, w, 2) pixels of `image`, x then y.

    Returns:
        (B, C, h, w).
    """
    height, width = image.shape[-2:]
    # Divided, not multiplied by the inverse: the last pixel has to come out at 1 exactly, since 0 lies right behind it.
    extent = torch.tensor([width - 1, height - 1], dtype=points.dtype, device=points.device)
    return F.grid_sample(image, 2 * points / extent - 1, "bilinear", "zeros", align_corners=True)


def pixel_grid(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """The place of every pixel, (1, H, W, 2), x then y."""
    x, y = (torch.arange(side, dtype=torch.float32, device=device) for side in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]


def warp_with_zeros(image: Tensor, phi: Tensor) -> Tensor:
    """`image(p + phi(p))` as `fusionlib.deformation.warp`, with 0 for what lies outside; shapes and units as there."""
    return sample(image, pixel_grid(*phi.shape[-2:], phi.device) + phi.permute(0, 2, 3, 1))
