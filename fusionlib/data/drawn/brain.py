"""Drawn T1 and T2 brains: one axial slice, aligned and skull-stripped, for the MRI study without a download.

The slice is drawn as shares of tissues, each with its relaxation times and proton density; a spin echo at two settings
gives two images of the same anatomy: fluid is dark in T1 and bright in T2, white matter the other way round. Shapes and
folds are random, the same for the same key. It is anatomy as a test image needs it, not as a physician does.

Convention:
    Anatomy is drawn on 240x240 mm with x to the right of the image and y up, in mm from the middle; anterior is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, exp, pi, sin

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusionlib.data.images import to_tensor
from fusionlib.support.files import InputError
from fusionlib.support.random_fields import generator

FIELD = 240  # mm, and pixels of the drawing: the frame of BraTS
SMALLEST = 64
BRIGHTEST = 99.5  # percentile that becomes white, as `fusionlib.data.volumes` scales real volumes
NOISE = 0.02  # standard deviation in each channel of the receiver, as a share of what becomes white
CORTEX = 3.4  # mm of grey matter

Point = tuple[float, float]


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and proton density relative to water, at 1.5 T."""

    t1: float
    t2: float
    density: float


# Kwan, Evans & Pike: MRI simulation-based evaluation of image-processing and classification methods, IEEE TMI 18(11),
# 1999, for fluid, cortex, white matter and lesions (those of multiple sclerosis). Deep grey lies between cortex and
# white matter; its iron shortens T2.
TISSUES = {
    "fluid": Tissue(2569, 329, 1.0),
    "cortex": Tissue(833, 83, 0.86),
    "white": Tissue(500, 70, 0.77),
    "deep": Tissue(680, 70, 0.82),
    "lesion": Tissue(752, 237, 0.76),
}


@dataclass(frozen=True)
class SpinEcho:
    """A setting of the scanner: repetition time and echo time in ms."""

    repetition: float
    echo: float

    def signal(self, tissue: Tissue) -> float:
        """S = PD (1 - exp(-TR/T1)) exp(-TE/T2), the signal of a spin echo relative to that of water at rest."""
        return tissue.density * (1 - exp(-self.repetition / tissue.t1)) * exp(-self.echo / tissue.t2)


T1_WEIGHTED = SpinEcho(repetition=400, echo=10)
T2_WEIGHTED = SpinEcho(repetition=4000, echo=100)


@dataclass(frozen=True, eq=False)
class Brain:
    """An aligned pair in [0, 1], in exact steps of 1/255: `t1` and `t2` (1, H, W).

    `shares` (5, H, W) says how much of a pixel is which of `TISSUES`, in their order; outside the brain all are 0.
    """

    name: str
    t1: Tensor
    t2: Tensor
    shares: Tensor


def brain(key: int | str | tuple, height: int = FIELD, width: int = FIELD) -> Brain:
    """Draw the brain that belongs to a key; the same key at another resolution shows the same brain.

    Args:
        key: A number, a text or a tuple of them; it also makes the name.
        height, width: Pixels of the images, at least 64; the whole field of 240x240 mm is stretched over them.

    Returns:
        The aligned pair and the tissues behind it.

    Raises:
        InputError: The size is below 64 pixels.
    """
    if min(height, width) < SMALLEST:
        raise InputError(f"A brain of {width}x{height} pixels is too small to show its parts: ask for 64x64 or more.")
    name = "_".join(map(str, ("brain", *(key if isinstance(key, tuple) else (key,)))))
    # Averaging shares, not images, leaves pixels on a boundary what they are in a scanner: a mixture.
    shares = np.stack([_resized(share, height, width) for share in _anatomy(generator(name, "anatomy"))])
    t1 = _scanned(shares, T1_WEIGHTED, generator(name, "T1"))
    t2 = _scanned(shares, T2_WEIGHTED, generator(name, "T2"))
    return Brain(name, t1, t2, torch.from_numpy(shares))


def _anatomy(rng: np.random.Generator) -> np.ndarray:
    """Shares (5, 240, 240) float32 of the tissues, cut at a random height between basal ganglia and crown.

    Every part is known by its distances in mm, positive inside; about a millimetre on both sides of 0 is a mixture.
    """
    height = rng.uniform()  # up to 0.5 at the basal ganglia, up to 0.85 through the bodies of the ventricles
    place = np.arange(FIELD, dtype=np.float32) - (FIELD - 1) / 2
    across, up = rng.uniform(-4, 4, 2).tolist()
    turn = rng.uniform(-0.07, 0.07)
    x, y = place - across, -place[:, None] - up
    x, y = cos(turn) * x + sin(turn) * y, cos(turn) * y - sin(turn) * x
    x, y = (axis + 2 * _smooth(rng, 5) + 1.3 * _smooth(rng, 18) for axis in (x, y))  # nobody is symmetric

    wide, long = rng.uniform(63, 69) - 6 * height, rng.uniform(78, 86) - 6 * height
    depth = (1 - np.hypot(x / (wide * (1 - 0.13 * y / long)), y / long)) * wide
    surface = np.minimum.reduce([depth - 0.5, _sulci(rng, x, y, depth), _fissures(rng, x, y, height)])
    ventricles, nuclei = _middle(rng, x, y, height)
    place_x, place_y = (rng.choice([-1, 1]) * rng.uniform(21, 31)).item(), rng.uniform(-26, 30)
    spot = rng.uniform(5, 9) - np.hypot(x - place_x, y - place_y) + 3 * _smooth(rng, 22)

    fluid = np.maximum(_within(-surface), _within(ventricles))
    cortex = _within(CORTEX * rng.uniform(0.9, 1.2) - surface)
    deep = _within(nuclei) * (1 - cortex)
    lesion = _within(spot / 2) * (1 - cortex)  # a soft border, and the cortex is spared
    healthy = np.stack([cortex, 1 - cortex - deep, deep]) * (1 - lesion)
    return _within(depth) * np.concatenate([fluid[None], (1 - fluid) * healthy, ((1 - fluid) * lesion)[None]])


def _sulci(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Distance to the fluid in the folds: the zero lines of a wave around the brain, down to a limit that varies."""
    angle = np.arctan2(x, y) + 0.08 * _smooth(rng, 14)
    wave, limit = np.zeros_like(depth), np.full_like(depth, 16)
    for cycles, slant in zip(rng.integers(12, 29, 6).tolist(), rng.uniform(-0.2, 0.2, 6).tolist(), strict=True):
        wave += np.cos(cycles * angle + slant * depth + rng.uniform(0, 2 * pi))
    for cycles in rng.integers(6, 16, 3).tolist():
        limit += 5 * np.cos(cycles * angle + rng.uniform(0, 2 * pi))
    slope = np.hypot(*np.gradient(wave))  # a wave over its slope is the distance to its zero line
    below = np.maximum(depth - np.maximum(limit, 3), 0)
    return np.hypot(wave / np.maximum(slope, 0.05), below) - np.clip(1.3 - 0.05 * depth, 0.5, 1.3)


def _fissures(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, height: float) -> np.ndarray:
    """Distance to the fluid between the hemispheres and, low in the brain, in the two Sylvian fissures."""
    # Between front and back the corpus callosum joins the hemispheres, except above it.
    front, back = (rng.uniform(36, 42), rng.uniform(-48, -42)) if height < 0.85 else (0, 0)
    between = np.hypot(x, np.maximum(np.minimum(front - y, y - back), 0)) - 0.8
    if height >= 0.6:
        return between
    side, inner, level = np.abs(x), rng.uniform(37, 41), rng.uniform(2, 10)
    stem = np.hypot(y - level - 0.2 * (side - 45), np.maximum(inner - side, 0)) - 1.1
    insula = np.hypot(side - inner + 0.012 * (y - level) ** 2, np.maximum(np.abs(y - level) - 15, 0)) - 0.9
    return np.minimum.reduce([between, stem, insula])


def _middle(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the walls of the ventricles and to the borders of the deep grey nuclei."""
    side, size = np.abs(x), rng.uniform(0.7, 1.4)
    if height < 0.5:
        ventricles = [
            _horn(side, y, (3, 11), (12, 30), 1.6 * size, 3.4 * size),  # frontal
            _horn(side, y, (19, -29), (28, -44), 4.2 * size, 2.2 * size),  # occipital
            _horn(x, y, (0, 3), (0, -17), 0.8 * size, 1.6 * size),  # third
            _horn(x, y, (0, -25), (0, -29), 3.2, 2.2),  # a cistern, not a ventricle, but as full of fluid
        ]
        nuclei = [
            _ellipse(side, y, (14 + 1.5 * size, 19), (4, 9), 0.35),  # caudate
            _ellipse(side, y, (26, 4), (6.5, 15), -0.3),  # putamen and pallidum
            _ellipse(side, y, (10, -11), (8, 12), -0.5),  # thalamus
        ]
    elif height < 0.85:
        ventricles = [
            _horn(side, y, (7, 31), (6, 6), 3.6 * size, 3.8 * size),
            _horn(side, y, (6, 6), (13, -18), 3.8 * size, 3.6 * size),
            _horn(side, y, (13, -18), (22, -36), 3.6 * size, 4.4 * size),
        ]
        nuclei = [_ellipse(side, y, (9 + 4.5 * size, 14), (3.5, 15), -0.1)]
    else:
        return np.full_like(x, -FIELD), np.full_like(x, -FIELD)
    return np.maximum.reduce(ventricles), np.maximum.reduce(nuclei)


def _horn(x: np.ndarray, y: np.ndarray, start: Point, end: Point, near: float, far: float) -> np.ndarray:
    """Distance to the border of a tube between two points, whose radius goes from `near` to `far`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx**2 + dy**2), 0, 1)
    return near + along * (far - near) - np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def _ellipse(x: np.ndarray, y: np.ndarray, centre: Point, radii: Point, turn: float) -> np.ndarray:
    """About the distance to the border of an ellipse, turned by an angle in radians."""
    x, y = x - centre[0], y - centre[1]
    across, along = (cos(turn) * x - sin(turn) * y) / radii[0], (cos(turn) * y + sin(turn) * x) / radii[1]
    return (1 - np.hypot(across, along)) * min(radii)


def _within(distance: np.ndarray) -> np.ndarray:
    """Share of a voxel on the inner side of a border; the scanner blurs it over 1.4 mm."""
    return np.clip(distance / 1.4 + 0.5, 0, 1)


def _scanned(shares: np.ndarray, setting: SpinEcho, rng: np.random.Generator) -> Tensor:
    """Image (1, H, W) that the scanner makes of a mixture of tissues (5, H, W)."""
    height, width = shares.shape[1:]
    signal = np.tensordot(np.array([setting.signal(tissue) for tissue in TISSUES.values()], np.float32), shares, 1)
    uneven = 0.08 * _smooth(rng, 3) + 0.05 * _smooth(rng, 40)  # the coil's field, and no tissue is all alike
    signal, inside = signal * (1 + _resized(uneven, height, width)), shares.sum(0) > 0.5
    signal = signal / np.percentile(signal[inside], BRIGHTEST)
    # Rician: the magnitude of a complex signal with Gaussian noise in both channels; outside, the stripping leaves 0.
    real, imaginary = NOISE * rng.standard_normal((2, height, width), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary) * inside
    return to_tensor(np.round(255 * np.minimum(magnitude, 1)).astype(np.uint8))


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise (240, 240) about 0 with so many cells on a side."""
    lattice = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(lattice).resize((FIELD, FIELD), Image.Resampling.BICUBIC))


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
