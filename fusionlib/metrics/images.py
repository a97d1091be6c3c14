"""What every image metric builds on: checks, grey levels, means, correlation, Gaussian windows.

Convention: as in `fusionlib.metrics.fusion`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlib.support.files import InputError

IMAGE = (1, 2, 3)  # the dimensions of one image in a batch
WINDOW = 11  # pixels, of SSIM


def check_images(top: int, **images: Tensor) -> None:
    """Refuse images against this module's convention; half a gray level beyond 0..top is accepted."""
    first = next(iter(images.values()))
    for name, x in images.items():
        fact = f"{name} is {tuple(x.shape)} {x.dtype}"
        if x.ndim != 4 or x.shape[0] < 1 or x.shape[1] != 1 or min(x.shape[2:]) < WINDOW:
            raise InputError(f"{fact}; give (B, 1, H, W), gray, at least {WINDOW} pixels a side.")
        if x.dtype not in (torch.float32, torch.float64) or (x.shape, x.dtype) != (first.shape, first.dtype):
            raise InputError(f"{fact}; give all images one size and one dtype, torch.float32 or torch.float64.")
        low, high = (value.item() for value in x.aminmax())  # NaN if any pixel is
        if not -0.5 * top / 255 <= low <= high <= 255.5 * top / 255:
            raise InputError(f"{name} has values from {low:.4g} to {high:.4g}; they must be finite and in 0..{top}.")


def gray_levels(image: Tensor) -> Tensor:
    """[0, 1] to 0..255; an image that came from 8 bits is put back on exact integers.

    k * (1 / 255) * 255 is not always k, nor is k / 255 made in float32 and multiplied in double; such an error decides
    which way the halves of a stretched image are rounded. From 8 bits: every pixel within 1e-3 of an integer, which is
    far more than rounding errors (2e-5) and out of reach of chance.
    """
    levels = image * 255
    integers = levels.round()
    from_8_bits = (levels - integers).abs().amax(IMAGE, keepdim=True) < 1e-3
    return torch.where(from_8_bits, integers, levels)


def mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of each image over its valid pixels, (B,), in double; an invalid pixel may hold anything, even NaN."""
    if valid is None:
        return x.mean(IMAGE, dtype=torch.float64)
    return x.masked_fill(~valid, 0).sum(IMAGE, dtype=torch.float64) / valid.sum(IMAGE)


def correlation(x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
    """Pearson's r of each pair of images over the valid pixels, (B,), in double."""
    x, y = (_deviation(z.double(), valid) for z in (x, y))
    return mean(x * y, valid) / (mean(x * x, valid) * mean(y * y, valid)).sqrt()


def _deviation(x: Tensor, valid: Tensor | None) -> Tensor:
    # Less its maximum, a constant image is exactly zero: r becomes 0 / 0 = NaN, not a quotient of rounding errors.
    x = x - (x if valid is None else x.masked_fill(~valid, -torch.inf)).amax(IMAGE, keepdim=True)
    return x - mean(x, valid).view(-1, 1, 1, 1)


def sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives s_x, correlation with [-1 0 1; -2 0 2; -1 0 1], and s_y, with its transpose, of (B, 1, H, W).

    Both are (B, 1, H - 2, W - 2): what lies beyond the border is for the caller to pad.
    """
    columns = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    rows = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    return columns[..., 2:] - columns[..., :-2], rows[..., 2:, :] - rows[..., :-2, :]


def gaussian_mean(x: Tensor, side: int = WINDOW, sigma: float = 1.5) -> Tensor:
    """Gaussian mean of each window of `side` pixels inside the image, (B, 1, H - side + 1, W - side + 1).

    The Gaussian is separable; its weights sum to 1.
    """
    offset = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-(offset**2) / (2 * sigma**2))
    first, *others = (weights / weights.sum()).tolist()
    for dim in (-2, -1):
        length = x.shape[dim] - side + 1
        total = first * x.narrow(dim, 0, length)
        for start, weight in enumerate(others, 1):  # on a CPU far faster than a conv2d with one channel
            total.add_(x.narrow(dim, start, length), alpha=weight)
        x = total
    return x
