"""What a network takes in: pairs of images that fit each other, padded to a size that it can halve."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.support.files import InputError


def check_pair(ir: Tensor, vi: Tensor, smallest: int) -> tuple[int, int]:
    """Height and width of two images (B, 1, H, W) that can be fused; InputError says what is wrong otherwise."""
    for name, image in (("Infrared", ir), ("Visible", vi)):
        if image.ndim != 4:
            raise InputError(f"{name} must be (B, 1, H, W), not {tuple(image.shape)}; add what is missing.")
        if image.shape[1] != 1:
            raise InputError(f"{name} has {image.shape[1]} channels; give one, of a colour image its luma.")
        if not image.is_floating_point():
            raise InputError(f"{name} has whole numbers, {image.dtype}; give floats in [0, 1], 8 bits divided by 255.")
    if ir.shape[0] != vi.shape[0]:
        raise InputError(f"{len(ir)} infrared and {len(vi)} visible images make no pairs; give as many of both.")
    if ir.shape != vi.shape:
        raise InputError(f"Infrared {tuple(ir.shape)} and visible {tuple(vi.shape)} differ in size; resize one.")
    if min(ir.shape[-2:]) < smallest:
        raise InputError(f"Images of {ir.shape[-2]} x {ir.shape[-1]} are too small; each side needs {smallest} pixels.")
    if not (torch.isfinite(ir).all() and torch.isfinite(vi).all()):
        raise InputError("An image contains NaN or infinity; replace those pixels before fusing.")
    return ir.shape[-2], ir.shape[-1]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the lower and right border until both sides of (B, C, H, W) are multiples of `multiple`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
