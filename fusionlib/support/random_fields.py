"""Random numbers and fields that depend on a key alone, so they are the same on every machine and in every order.

A field is a smooth elastic part, a rigid motion, and the distortion of a second camera.

Convention: as in `fusionlib.deformation`, which says what such a field does to an image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fusionlib.support.files import InputError
from fusionlib.support.inputs import constants
from fusionlib.support.settings import check

_KNOTS = 64  # the elastic part is drawn on this many points a side, whatever the size of the image


def generator(*key: object) -> np.random.Generator:
    """A random generator seeded by a key, whose parts may be anything with a stable text form.

    >>> generator("a", 1).random(5).tolist() == generator("a", 1).random(5).tolist()
    True
    """
    return np.random.default_rng(int.from_bytes(_digest(key)))


@dataclass(frozen=True)
class Level:
    """Magnitude of a random deformation; lengths are parts of the image side, so they mean the same at every size.

    Attributes:
        name: what tables call it.
        translation: largest shift along each axis, uniform in +-translation.
        rotation: largest rotation about the image centre in degrees, uniform in +-rotation.
        elastic: standard deviation, per axis, of the smooth non-rigid part.
        smoothing: standard deviation of the Gaussian that smooths the non-rigid part.
        scale: largest change of scale, uniform in 1 +- scale; each axis draws its own.
        perspective: largest change of scale from the centre to a border, along each axis, uniform in +-perspective.

    Raises:
        InputError: a number is negative or not finite, or `smoothing` under a thousandth.
    """

    name: str
    translation: float
    rotation: float
    elastic: float
    smoothing: float = 0.06
    scale: float = 0.0
    perspective: float = 0.0

    def __post_init__(self) -> None:
        check(self, "translation", "rotation", "elastic", "scale", "perspective")
        check(self, "smoothing", least=1e-3)  # a narrower Gaussian reaches no knot, and 0 / 0 is NaN


LEVELS = {
    level.name: level
    for level in (
        Level("light", translation=0.01, rotation=0.0, elastic=0.005),  # the authors' lab (MulFS-CAP's generator)
        Level("medium", translation=0.03, rotation=3.0, elastic=0.008),
        Level("heavy", translation=0.06, rotation=8.0, elastic=0.012),
        # Two cameras side by side, as RoadScene's raw frames have them; trained on, and in no table of the paper's.
        Level("cameras", translation=0.02, rotation=3.0, elastic=0.003, scale=0.08, perspective=0.02),
    )
}


def get_level(level: Level | str) -> Level:
    """A level by name; a `Level` is returned as it is. Raises InputError for an unknown name.

    >>> get_level("medium").rotation
    3.0
    """
    if isinstance(level, Level):
        return level
    if level not in LEVELS:
        raise InputError(f"Unknown deformation level {level!r}; choose one of {', '.join(LEVELS)}.")
    return LEVELS[level]


def draw(level: Level, height: int, width: int, key: object, device: torch.device | str) -> Tensor:
    """The field (1, 2, H, W) in pixels of a level and a key; it may fold."""
    # Seeded in another way than `generator`: with its seeds, all fields behind the kept results would change.
    rng = np.random.default_rng(np.frombuffer(_digest(key), np.uint64))
    shift = rng.uniform(-level.translation, level.translation, 2) * (width, height)
    angle = np.deg2rad(rng.uniform(-level.rotation, level.rotation))

    # White noise on a grid of knots under a Gaussian, evaluated at every pixel: exact and smooth, at every image size.
    # The knots reach beyond the image on every side, so that the field is as strong at the border as inside.
    reach = int(np.ceil(4 * level.smoothing * _KNOTS))
    noise = rng.standard_normal((2, _KNOTS + 2 * reach, _KNOTS + 2 * reach)) * level.elastic
    rows, columns = (_gaussians(side, level.smoothing, reach) for side in (height, width))
    elastic = torch.from_numpy(rows @ noise @ columns.T * [[[width]], [[height]]])[None].to(device, torch.float32)

    # The rigid motion is applied to the displaced points: exact, without resampling a field.
    grid = pixel_grid(height, width, device, torch.float32)
    centre = constants((width - 1) / 2, (height - 1) / 2, like=grid).view(1, 2, 1, 1)
    x, y = (grid + elastic - centre).split(1, dim=1)
    if level.scale or level.perspective:
        x, y = _as_a_second_camera(level, rng, x, y, centre)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    turned = torch.cat([cos * x - sin * y, sin * x + cos * y], dim=1)
    return turned + centre + constants(*shift, like=grid).view(1, 2, 1, 1) - grid


def _as_a_second_camera(
    level: Level, rng: np.random.Generator, x: Tensor, y: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """Points relative to the centre after a change of scale along each axis and a perspective."""
    stretch_x, stretch_y = 1 + rng.uniform(-level.scale, level.scale, 2)
    tilt_x, tilt_y = rng.uniform(-level.perspective, level.perspective, 2)
    half_x, half_y = centre.flatten().tolist()
    depth = 1 + tilt_x * x / half_x + tilt_y * y / half_y
    return stretch_x * x / depth, stretch_y * y / depth


@cache
def _gaussians(side: int, smoothing: float, reach: int) -> np.ndarray:
    """Weight of each knot at each pixel of a side, (side, knots); rows of unit energy keep the spread of the noise."""
    pixels, knots = np.linspace(0, _KNOTS - 1, side), np.arange(-reach, _KNOTS + reach)
    weights = np.exp(-0.5 * ((pixels[:, None] - knots) / (smoothing * (_KNOTS - 1))) ** 2)
    return weights / np.sqrt((weights**2).sum(1, keepdims=True))


def pixel_grid(height: int, width: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """The coordinates of each pixel: (1, 2, H, W), x then y.

    >>> pixel_grid(2, 3, "cpu", torch.float32)[0, 0].tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    y = torch.arange(height, device=device, dtype=dtype)
    x = torch.arange(width, device=device, dtype=dtype)
    return torch.stack(torch.meshgrid(x, y, indexing="xy")).unsqueeze(0)


def _digest(key: object) -> bytes:
    return hashlib.sha256(repr(_plain(key)).encode()).digest()


def _plain(key: object) -> object:
    """Numbers of NumPy, whose text form depends on its version, as those of Python."""
    if isinstance(key, tuple):
        return tuple(map(_plain, key))
    return key.item() if isinstance(key, np.generic) else key
