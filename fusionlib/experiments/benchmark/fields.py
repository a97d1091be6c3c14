"""Deformations whose bytes are the same on every machine: fields in whole parts of a pixel, warped in whole numbers.

A field of the project is drawn in floating point, and its last digit depends on the processor. Here it is rounded to
1/256 px BEFORE anything is done with it; the infrared is moved in integers, and the true field is found by elementwise
float64 steps, each of which IEEE 754 rounds alike everywhere (no sums over pixels, no matrix products, no functions).

Near-ties of that first rounding: drawn fields differ between processors by about 1e-14 px before they become float32,
so a value of 10 px (steps of 1e-6) comes out one step apart once in 1e8 values, and changes its 1/256 px only if it
lies within a step of a tie, once in 2000: together less than 1e-11 a value, 1e-3 for the 1e8 values of the whole
benchmark. Should it happen, the digest of the part says so.

Convention: as in `fusionlib.deformation`, as int64 arrays (2, H, W) of `STEP` parts of a pixel.
"""

from __future__ import annotations

import numpy as np

STEP = 256  # parts of a pixel
_STEPS, _CLOSE = 60, 1e-4  # of the inversion, as `deformation.invert`


def quantised(field: np.ndarray) -> np.ndarray:
    """A field (2, H, W) in pixels to the nearest whole parts of a pixel.

    >>> quantised(np.array([[[0.5]], [[-0.002]]])).flatten().tolist()
    [128, -1]
    """
    return np.rint(np.asarray(field, np.float64) * STEP).astype(np.int64)


def move(image: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Bilinear warp of an image (H, W) uint8, `moved(p) = image(p + psi(p))`, in integers; halves are rounded up."""
    (x, fx), (y, fy) = (_place(psi[axis], axis) for axis in (0, 1))
    levels = image.astype(np.int64)
    right, below = np.minimum(x + 1, image.shape[1] - 1), np.minimum(y + 1, image.shape[0] - 1)
    top = levels[y, x] * (STEP - fx) + levels[y, right] * fx
    bottom = levels[below, x] * (STEP - fx) + levels[below, right] * fx
    return ((top * (STEP - fy) + bottom * fy + STEP * STEP // 2) // STEP**2).astype(np.uint8)


def inverse(psi: np.ndarray) -> np.ndarray:
    """The true field: `phi(p) = -psi(p + phi(p))`, by fixed point; beyond the border psi is taken as constant."""
    height, width = psi.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    psi_pixels = psi / STEP
    phi = -psi_pixels
    for _ in range(_STEPS):
        better = -_sampled(psi_pixels, x + phi[0], y + phi[1])
        done = np.abs(better - phi).max() < _CLOSE
        phi = better
        if done:
            break
    return quantised(phi)


def inside(phi: np.ndarray) -> np.ndarray:
    """Where a field points inside the image, (H, W) bool: elsewhere the content is lost."""
    height, width = phi.shape[1:]
    x = np.arange(width) * STEP + phi[0]
    y = np.arange(height)[:, None] * STEP + phi[1]
    return (x >= 0) & (x <= (width - 1) * STEP) & (y >= 0) & (y <= (height - 1) * STEP)


def _place(shift: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels and parts of a pixel to which each pixel's shift along x (0) or y (1) leads, inside the image."""
    side = shift.shape[1 - axis]
    positions = np.arange(side) if axis == 0 else np.arange(side)[:, None]
    target = np.clip(positions * STEP + shift, 0, (side - 1) * STEP)
    return target // STEP, target % STEP


def _sampled(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values (2, H, W) at the points x, y, bilinear; the border is repeated."""
    height, width = values.shape[1:]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = x - left, y - top
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    upper = values[:, top, left] * (1 - fx) + values[:, top, right] * fx
    lower = values[:, below, left] * (1 - fx) + values[:, below, right] * fx
    return upper * (1 - fy) + lower * fy
