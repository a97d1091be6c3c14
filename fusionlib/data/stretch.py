"""Measured values, such as a thermal camera's 16 bits or kelvin, to 256 grey levels.

A scene fills little of what such a file can hold, so the levels span the percentiles 0.1 and 99.9. Pixels that hold no
measurement must not change the levels: values that the file declares missing, a fill value far from all others, a
constant margin, dead and hot pixels. They are set aside where that changes the levels, with a warning.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from PIL import Image, ImageFilter

from fusionlib.support.files import InputError

PERCENTILES = (0.1, 99.9)
FEWEST = 16  # different values that the kept pixels must have, or nothing is set aside
LEAST = 0.05  # share of the pixels that must be kept, or nothing is set aside
PLATEAU = 5e-4  # share of pixels with one value from which it may be a fill value
FAR = 0.5  # its distance from the others, in units of the range that most of them fill
ISOLATED = 2.0  # distance of a dead or hot pixel from the median around it, in the same units
MATTERS = 0.9  # pixels are set aside only if the range shrinks to less than this part
FEW_LEVELS = 24  # of 256; if four fifths of the pixels have fewer, a scene is hardly visible


def to_levels(values: np.ndarray, missing: np.ndarray | None = None, inverted: bool = False) -> tuple[np.ndarray, str]:
    """Stretch measured values to grey levels.

    Args:
        values: (H, W) or (H, W, 3) of any real type; channels are stretched together, so that colours stay.
        missing: (H, W) bool, pixels that hold no measurement; they become black.
        inverted: the highest value is black.

    Returns:
        uint8 of the same shape, and what was done, in words.

    Raises:
        InputError: nothing but missing pixels, or NaN or infinity elsewhere; the message begins after the file's name.
    """
    values = values.astype(np.float64)
    kept = np.ones(values.shape[:2], bool) if missing is None else ~missing
    if not kept.any():
        raise InputError("holds no measured pixel, as it says itself: give another file")
    if not np.isfinite(values[kept]).all():
        raise InputError("holds NaN or infinite values: replace them by numbers and save it again")
    low, high = np.percentile(values[kept], PERCENTILES)
    words = ""
    aside = _aside(values, kept)
    if (rest := kept & ~aside).any() and aside.any():
        closer = np.percentile(values[rest], PERCENTILES)
        enough = rest.sum() >= LEAST * kept.sum() and _different(values[rest])
        with np.errstate(over="ignore"):
            if enough and np.subtract(*closer[::-1]) < MATTERS * (high - low):
                odd = np.percentile(values[aside], 50, method="nearest")
                words = f", and {_percent(aside.sum() / aside.size)} of its pixels, around {odd:g}, were set aside"
                words += " as no measurement"
                (low, high), kept = closer, rest
    words = f"its values from {low:g} to {high:g} (percentiles 0.1 and 99.9) were stretched to 8 bits{words}"
    # A hot spot in a flat image is infinitely far above it, and white.
    with np.errstate(over="ignore", invalid="ignore"):
        unit = np.clip(np.nan_to_num((values - low) / max(high - low, np.finfo(float).tiny)), 0, 1)
    most = np.subtract(*np.percentile(unit[kept], [90, 10])) * 255
    if most < FEW_LEVELS:
        words += f", which leaves {round(most) + 1} of 256 grey levels to four fifths of the picture"
    levels = np.round((1 - unit if inverted else unit) * 255).astype(np.uint8)
    if missing is not None:
        levels[missing] = 0
    return levels, words


def _aside(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that may be no measurement."""
    odd = _margins(values) | _plateaus(values, kept)
    if odd[kept].all():
        return odd & kept
    return (odd | _isolated(values, kept & ~odd)) & kept


def _margins(values: np.ndarray) -> np.ndarray:
    """Rows and columns at the border that hold one value each side."""
    rows = values.reshape(*values.shape[:2], -1)
    height, width = rows.shape[:2]
    top, bottom = (_constant_lines(side) for side in (rows, rows[::-1]))
    inner = rows[top : height - bottom].swapaxes(0, 1)
    left, right = (_constant_lines(side) for side in (inner, inner[::-1])) if inner.shape[1] else (0, 0)
    odd = np.ones((height, width), bool)
    odd[top : height - bottom, left : width - right] = False
    return odd


def _constant_lines(lines: np.ndarray) -> int:
    """How many lines from the first on hold its first value alone."""
    differ = (lines != lines[:1, :1]).any((1, 2))
    return int(differ.argmax()) if differ.any() else len(lines)


def _plateaus(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Fill values, and pixels in which a tool has blurred them and their neighbours."""
    flat = np.sort(values[kept], axis=None)
    low, high = -np.inf, np.inf
    with np.errstate(over="ignore"):
        for _ in range(8):  # a file may have several fill values
            if (fill := _fill_below(flat)) is not None:
                low, flat = fill[0], flat[fill[1] :]
            elif (fill := _fill_below(-flat[::-1])) is not None:
                high, flat = -fill[0], flat[: flat.size - fill[1]]
            else:
                break
        near, far = _most(flat)
        low = low if low == -np.inf else max(low, near - 2 * (far - near))
        high = high if high == np.inf else min(high, far + 2 * (far - near))
    odd = (values <= low) | (values >= high)
    return odd if odd.ndim == 2 else odd.any(2)


def _fill_below(flat: np.ndarray) -> tuple[float, int] | None:
    """Whether a sorted list begins with a fill value: one in many pixels, far from the rest, and few between.

    Returns:
        The value, and where the list goes on beyond the middle between it and the rest.
    """
    fill = flat[int(PERCENTILES[0] / 100 * flat.size)]
    start, end = np.searchsorted(flat, fill, "left"), np.searchsorted(flat, fill, "right")
    rest = flat[end:]
    if end - start < PLATEAU * flat.size or rest.size < LEAST * flat.size or not _different(rest):
        return None
    near, far = _most(rest)
    between = np.searchsorted(rest, fill / 2 + near / 2)
    return None if near - fill <= FAR * (far - near) or 2 * between > end - start else (fill, end + between)


def _most(flat: np.ndarray) -> tuple[float, float]:
    """The two values between which nine tenths of a sorted list lie."""
    return tuple(flat[int(share * (flat.size - 1))] for share in (0.05, 0.95))


def _isolated(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Pixels far from the median of the 5x5 around them: dead and hot ones, single or a few together."""
    near, far = np.percentile(values[kept], [5, 95])
    if not far > near:
        return np.zeros(kept.shape, bool)
    with np.errstate(over="ignore"):
        unit = np.clip((np.where(np.isfinite(values), values, near) - near) / (far - near), -1e6, 1e6)
    if (np.abs(unit - 0.5) > ISOLATED / 4).mean() < PERCENTILES[0] / 100:  # so few that they decide nothing
        return np.zeros(kept.shape, bool)
    channels = [unit] if unit.ndim == 2 else np.moveaxis(unit, 2, 0)
    pictures = (Image.fromarray(each.astype(np.float32)) for each in channels)
    around = (np.asarray(each.filter(ImageFilter.MedianFilter(5))) for each in pictures)
    away = reduce(np.maximum, (np.abs(a - b) for a, b in zip(channels, around, strict=True)))
    odd = np.zeros(kept.shape, bool)
    for _ in range(20):  # the range shrinks with every pixel that is set aside
        near, far = np.percentile(unit[kept & ~odd], [5, 95])
        more = away > ISOLATED * (far - near)
        if not far > near or more[kept].all() or (more == odd).all():
            break
        odd = more
    return odd


def _different(values: np.ndarray) -> bool:
    """Whether there are enough different values for a scene."""
    return np.unique(values.ravel()[:: max(1, values.size // 65536)]).size >= FEWEST


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
