"""Displacement fields: one warp, the true inverse, and the sampler that misaligns an infrared image.

Convention:
    - A field `phi` is (B, 2, H, W), float32, in pixels; channel 0 points right (x), channel 1 down (y).
    - `warp(image, phi)(p) = image(p + phi(p))`: a field says where each output pixel is *fetched from*, so a constant
      phi = (3, 0) moves the content three pixels to the left.
    - Pixel centres have integer coordinates; bilinear, `align_corners=True`; outside the image its border is repeated.
    - A batch of one, of images or fields, goes with a batch of any size.
    - `deformed = warp(ir, psi)` misaligns; its label is the inverse `phi_gt = invert(psi)`, so that
      `warp(deformed, phi_gt) = ir`. Never `-psi`, and fields are composed, never added.

PAPER-GAP: the paper misaligns by "a combination of rigid and non-rigid deformations" and gives neither magnitude, units
nor direction. `LEVELS` states three magnitudes as parts of the image side; every table says which one it used. A fourth
level moves images as a second camera does.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.support.files import InputError
from fusionlib.support.inputs import constants
from fusionlib.support.random_fields import LEVELS as LEVELS
from fusionlib.support.random_fields import Level, draw, get_level, pixel_grid

_CONVERGED = 0.01  # pixels: a larger last step gives a warning; rounding alone gives 2e-4 for a large field


def warp(image: Tensor, phi: Tensor, exact: bool = True) -> Tensor:
    """Resample an image by a field, Eq. (6): `warp(image, phi)(p) = image(p + phi(p))`.

    Args:
        image: (B, C, H, W), any floating dtype and range; differentiable.
        phi: (B, 2, H, W) pixels; differentiable. A batch of one image or field is used for each of the other.
        exact: compute coordinates in float64, so that a zero field is the identity to 1e-6 and an integer shift moves
            by exactly that many pixels. False computes in float32, or in the float64 of an image: up to 3e-5 px off and
            faster, for feature maps.

    Returns:
        (B, C, H, W) in the dtype of `image`.

    Raises:
        InputError: the shapes or the sizes of the batches do not fit.

    >>> image = torch.tensor([[[[0.0, 1, 2, 3]]]])
    >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)  # fetch from one pixel to the right
    >>> warp(image, right).flatten().tolist()
    [1.0, 2.0, 3.0, 3.0]
    """
    if image.ndim != 4:
        raise InputError(f"Images to be warped must be (B, C, H, W), not {tuple(image.shape)}; add what is missing.")
    height, width = image.shape[-2:]
    if phi.shape[1:] != (2, height, width):
        what = f"A field of shape {tuple(phi.shape)} cannot warp an image of {height} x {width} pixels"
        raise InputError(f"{what}; give one of (B, 2, {height}, {width}).")
    if (images := image.shape[0]) != (fields := phi.shape[0]):
        if 1 not in (images, fields):
            raise InputError(f"{fields} fields cannot warp {images} images; give as many of both, or one of either.")
        image, phi = (each.expand(max(images, fields), -1, -1, -1) for each in (image, phi))
    dtype = torch.float64 if exact else torch.promote_types(image.dtype, torch.float32)
    with torch.autocast(image.device.type, enabled=False):
        target = pixel_grid(height, width, phi.device, dtype) + phi.to(dtype)
        scale = constants(max(width - 1, 1), max(height - 1, 1), like=target)
        grid = target.permute(0, 2, 3, 1) * (2 / scale) - 1
        warped = F.grid_sample(image.to(dtype), grid, "bilinear", "border", align_corners=True)
    return warped.to(image.dtype)


def valid_mask(phi: Tensor) -> Tensor:
    """Where a warp by `phi` reads inside the image: (B, 1, H, W) bool; elsewhere it repeats the border.

    Raises:
        InputError: `phi` is not (B, 2, H, W).

    >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    >>> valid_mask(right).flatten().tolist()
    [True, True, True, False]
    """
    _check_field(phi)
    height, width = phi.shape[-2:]
    x, y = (pixel_grid(height, width, phi.device, phi.dtype) + phi).split(1, dim=1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """One field for two warps: `warp(warp(image, first), then) = warp(image, compose(first, then))`.

    Args:
        first: (B, 2, H, W) pixels, the field applied to the image.
        then: (B, 2, H, W) pixels, the field applied to the result.

    Returns:
        (B, 2, H, W) pixels: `then(p) + first(p + then(p))`.

    Raises:
        InputError: as `warp`.

    >>> shift = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    >>> compose(shift, shift)[0, :, 0, 0].tolist()
    [4.0, -2.0]
    """
    _check_field(first)
    return then + warp(first, then)


def invert(psi: Tensor, tolerance: float = 1e-4) -> Tensor:
    """The field that undoes `psi`, by the fixed point `phi(p) = -psi(p + phi(p))`.

    It converges where the field is smooth (no folds, neighbouring displacements differing by less than a pixel), as
    every field of `LEVELS` is; where it does not, a warning says so. Beyond the border `psi` is taken as constant.

    Args:
        psi: (B, 2, H, W) pixels.
        tolerance: pixels; the iteration stops when no displacement changes by more, or after 60 steps.

    Returns:
        (B, 2, H, W) pixels.

    Raises:
        InputError: `psi` is not (B, 2, H, W).

    >>> shift = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    >>> invert(shift)[0, :, 0, 0].tolist()
    [-2.0, 1.0]
    """
    _check_field(psi)
    phi = -psi
    for _ in range(60):
        better = -warp(psi, phi, exact=False)
        step = (better - phi).abs().max()
        phi = better
        if step < tolerance:
            break
    else:
        if not step <= _CONVERGED:  # so that NaN warns, too
            fact = f"This field has no inverse that 60 iterations find: the last one moved it by {step:.2g} pixels"
            warnings.warn(f"{fact}; give a smoother or a shorter field.", stacklevel=2)
    return phi


def jacobian_determinant(phi: Tensor) -> Tensor:
    """Local change of area of `p -> p + phi(p)` by central differences: (B, H-2, W-2); at most 0 where it folds.

    Raises:
        InputError: `phi` is not (B, 2, H, W), or under 3 pixels a side.

    >>> jacobian_determinant(torch.zeros(1, 2, 3, 4)).tolist()
    [[[1.0, 1.0]]]
    """
    _check_field(phi)
    if min(phi.shape[-2:]) < 3:
        size = f"{phi.shape[-2]} x {phi.shape[-1]}"
        raise InputError(f"A field of {size} pixels is too small to have folds; give 3 x 3 or more.")
    du_dx, dv_dx = ((phi[:, :, 1:-1, 2:] - phi[:, :, 1:-1, :-2]) / 2).unbind(1)
    du_dy, dv_dy = ((phi[:, :, 2:, 1:-1] - phi[:, :, :-2, 1:-1]) / 2).unbind(1)
    return (1 + du_dx) * (1 + dv_dy) - du_dy * dv_dx


def fold_share(phi: Tensor) -> Tensor:
    """Share of pixels where the field folds (determinant <= 0) or is not finite: (B,) in [0, 1].

    >>> x = torch.arange(5.0).expand(5, 5)
    >>> fold_share(torch.stack([-2 * x, 0 * x])[None]).item()  # p + phi(p) mirrors the image
    1.0
    """
    return (~(jacobian_determinant(phi) > 0)).float().mean(dim=(1, 2))


def sample_field(
    level: Level | str, height: int, width: int, key: object, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw the misaligning field `psi` of one image: an elastic field, then a rotation and a shift.

    `cameras` adds a scale and a perspective. The draw depends on the key alone, on every machine and in every order,
    and is the same deformation at every size.

    Args:
        level: a `Level` or the name of one of `LEVELS`.
        height, width: of the image, in pixels.
        key: anything with a stable text form; the project uses (seed, pair name, epoch).
        device: where the field is built.

    Returns:
        (1, 2, H, W) pixels, without folds.

    Raises:
        InputError: unknown level, one that folds in every draw, or under 3 pixels a side.

    >>> sample_field("light", 32, 48, key=(0, "a pair", 1)).shape
    torch.Size([1, 2, 32, 48])
    """
    level = get_level(level)
    for attempt in range(8):
        psi = draw(level, height, width, (key, attempt), device)
        if fold_share(psi).item() == 0:
            return psi
    raise InputError(
        f"Level {level.name} folds the image in every draw; lower its elastic part or raise its smoothing."
    )


@dataclass(frozen=True)
class Misaligned:
    """A deformed infrared batch with its label.

    Attributes:
        ir: (B, 1, H, W) the deformed infrared, `warp(aligned, psi)`.
        phi_gt: (B, 2, H, W) pixels, the label: `warp(ir, phi_gt)` is the aligned infrared again.
        valid: (B, 1, H, W) bool, where the label points inside the image; elsewhere the content is lost.
    """

    ir: Tensor
    phi_gt: Tensor
    valid: Tensor


def misalign(ir: Tensor, psi: Tensor, tolerance: float = 1e-4) -> Misaligned:
    """Deform an aligned infrared batch (B, 1, H, W) by `psi` (B, 2, H, W) and keep the inverse as the label."""
    phi_gt = invert(psi, tolerance)
    return Misaligned(warp(ir, psi), phi_gt, valid_mask(phi_gt))


def misalign_by_key(
    ir: Tensor, level: Level | str | list[Level | str], keys: list[object], tolerance: float = 1e-4
) -> Misaligned:
    """Misalign each image of a batch (B, 1, H, W) by the field of its own key, on the batch's device.

    Args:
        ir: (B, 1, H, W) in [0, 1], aligned.
        level: one for all, or a list with one for each image.
        keys: one for each image, else InputError; see `sample_field`.
        tolerance: of the inverse, see `invert`.

    >>> moved = misalign_by_key(torch.rand(2, 1, 32, 32), "light", keys=[0, 1])
    >>> moved.ir.shape, moved.phi_gt.shape, moved.valid.dtype
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 2, 32, 32]), torch.bool)
    """
    if len(keys) != len(ir):
        raise InputError(f"{len(keys)} keys cannot misalign {len(ir)} images; give one for each.")
    height, width = ir.shape[-2:]
    levels = level if isinstance(level, list) else [level] * len(keys)
    drawn = [draw(get_level(one), height, width, (key, 0), ir.device) for one, key in zip(levels, keys, strict=True)]
    psi = torch.cat(drawn)
    for index in fold_share(psi).nonzero().flatten().tolist():  # rare, and asked once for the whole batch
        psi[index] = sample_field(levels[index], height, width, keys[index], ir.device)[0]
    return misalign(ir, psi, tolerance)


def _check_field(phi: Tensor) -> None:
    if phi.ndim != 4 or phi.shape[1] != 2:
        raise InputError(f"A field must be (B, 2, H, W), in pixels, not {tuple(phi.shape)}.")
