"""Procedural road scenes: aligned infrared and visible images with exact boxes, painted on the spot without a download.

Every shape of a `fusionlib.data.drawn.street` carries a colour (what a visible camera sees by reflected light) and a
temperature (what a thermal camera sees of the same thing), so the two images agree on where things are and not on how
bright they are: a lane marking shows in the visible only, a pedestrian at night almost in the infrared only.

The images are area averages of the street's sub-pixels; the boxes are read from the same raster, to the sub-pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusionlib.data.drawn.canvas import EYE_X, EYE_Y, HORIZON
from fusionlib.data.drawn.street import LAMPLIGHT, MOONLIGHT, WHITE, Street
from fusionlib.data.images import luma, to_tensor
from fusionlib.support.files import InputError
from fusionlib.support.random_fields import generator
from fusionlib.support.settings import check

SKY_DAY = ((0.82, 0.87, 0.9), (0.3, 0.5, 0.8), (0.93, 0.93, 0.94))  # at the horizon, overhead, in clouds
SKY_NIGHT = ((0.2, 0.17, 0.17), (0.03, 0.05, 0.12), (0.1, 0.1, 0.12))


@dataclass(frozen=True)
class SceneConfig:
    """What scenes hold; number ranges are inclusive and count objects placed, some of which others may hide."""

    height: int = 128
    width: int = 128
    night_probability: float = 0.4
    people: tuple[int, int] = (2, 5)
    cyclists: tuple[int, int] = (0, 1)
    cars: tuple[int, int] = (2, 5)
    min_visible: float = 0.25  # an object of which less is seen has no box
    min_pixels: float = 8.0  # nor has one that covers fewer pixels

    def __post_init__(self) -> None:
        check(self, "night_probability", most=1)
        check(self, "min_visible", "min_pixels")
        for name in ("people", "cyclists", "cars"):
            fewest, most = getattr(self, name)
            if not 0 <= fewest <= most:
                raise InputError(f"{name}={fewest, most} is not a range: give the fewest (0 or more), then the most.")


DEFAULT = SceneConfig()


@dataclass(frozen=True)
class Scene:
    """An aligned pair; images are float32 in [0, 1] in exact steps of 1/255, as if read from 8-bit files.

    `ir` (1, H, W) is white-hot; `vi` (1, H, W) is the BT.601 luma of `rgb` (3, H, W) as Pillow's convert("L") has it.
    `boxes` (N, 5) holds [class, x0, y0, x1, y1] in pixels, tight around what is visible; x1 and y1 are exclusive edges.
    """

    name: str
    ir: Tensor
    vi: Tensor
    rgb: Tensor
    boxes: Tensor
    night: bool


def scene(
    key: int | str | tuple,
    height: int | None = None,
    width: int | None = None,
    config: SceneConfig = DEFAULT,
    dtype: type[np.floating] = np.float32,
) -> Scene:
    """Paint the scene that belongs to a key; the same key at another resolution shows the same scene.

    Args:
        key: A number, a text or a tuple of them; it also makes the name.
        height: Rows of the images, at least 32; the config's when left out.
        width: Columns of the images, at least 32; the config's when left out.
        config: How likely night is and how much is on the road.
        dtype: In which light and heat are computed. In float32 some pixels differ by one level between processors,
            whose instructions round otherwise; in float64 all of them give the same bytes.

    Returns:
        The aligned pair and its boxes.

    Raises:
        InputError: The size is below 32 pixels.
    """
    height, width = config.height if height is None else height, config.width if width is None else width
    if min(height, width) < 32:
        raise InputError(f"A scene of {height}x{width} pixels is too small to show a street: ask for 32x32 or more.")
    name = "_".join(map(str, ("synthetic", *(key if isinstance(key, tuple) else (key,)))))
    layout = generator(name, "layout")
    street = Street(layout, height, width, config.night_probability, config.people, config.cyclists, config.cars)
    rgb, ir = (to_tensor(photo) for photo in _photograph(street, name, dtype))
    return Scene(name, ir, luma(rgb), rgb, torch.from_numpy(_boxes(street, config)), street.night)


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Smallest (x0, y0, x1, y1), edges x1 and y1 exclusive, that holds every true pixel of a mask (H, W) with any."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _boxes(street: Street, config: SceneConfig) -> np.ndarray:
    """Class and corners in pixels (N, 5) of the objects of which enough is seen."""
    owners, size, rows = street.owners(), np.array(street.ids.size), []
    for number, (label, corners, painted) in enumerate(street.objects, start=1):
        visible, low, high = owners == number, corners.min(0), corners.max(0)
        in_frame = np.prod(np.clip(high, 0, size) - np.clip(low, 0, size)) / np.prod(high - low)
        share = in_frame * visible.sum() / max(painted, 1)
        if visible.sum() >= config.min_pixels * street.scale**2 and share >= config.min_visible:
            rows.append((label, *(edge / street.scale for edge in tight_box(visible))))
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def _photograph(street: Street, name: str, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray]:
    """What the two cameras make of a street: RGB (H, W, 3) and thermal (H, W), both 8-bit."""
    texture, sensor, s = generator(name, "texture"), generator(name, "sensor"), street.scale
    ids, table = np.asarray(street.ids), np.array(street.table, dtype=dtype)
    colour, glow, celsius, depth, grain = table[:, :3] ** 2.2, table[:, 3:4], table[:, 4], table[:, 5], table[:, 6]
    void, is_sky = np.isnan(celsius), np.arange(len(table)) == 0
    table = np.column_stack([colour, colour * glow, np.where(void, 0, celsius), void, is_sky, grain])
    layers = sum(table[ids[i::s, j::s]] for i in range(s) for j in range(s)) / s**2
    albedo, glow = layers[..., :3], layers[..., 3:6]
    celsius, void, is_sky, grain = np.moveaxis(layers[..., 6:], -1, 0)

    # light, haze and texture are smooth enough for one sample a pixel
    depth = depth[ids[s // 2 :: s, s // 2 :: s]]
    (height, width), ground = depth.shape, depth == 0
    down = np.arange(height, dtype=dtype)[:, None] + 0.5 - street.vanishing[1]
    depth = np.where(ground, street.focal * EYE_Y / np.maximum(down, 0.5), depth)
    x = EYE_X + (np.arange(width, dtype=dtype) + 0.5 - street.vanishing[0]) * depth / street.focal
    tile = texture.standard_normal((256, 256))
    leaves = _noise(texture, depth.shape, 50) + _noise(texture, depth.shape, 110)
    asphalt = tile[(16 * depth).astype(int) % 256, (16 * x).astype(int) % 256] * np.exp(-depth / 15)
    grain = grain * np.where(ground, asphalt, leaves)
    backdrop, backdrop_celsius = _sky(street, texture, height, width)

    # visible: reflected light, haze, own light, sky; then bloom, exposure and noise
    shadow = ground * _blur(np.asarray(street.shadow.reduce(s), dtype=dtype) / 255, 0.8, dtype)
    light = (0.9 if street.night else 1.15) - (0.8 - 0.35 * street.clouds) * shadow[..., None]
    if street.night:
        light = light * _night_light(street, depth, x, EYE_Y - down * depth / street.focal)
    haze = np.exp(-depth / 200)[..., None]
    reflected = albedo * light * np.clip(1 + grain, 0.2, 2)[..., None]
    skyline = backdrop[int(HORIZON * height) - 1].mean(0)
    photo = reflected * haze + (1 - is_sky)[..., None] * (1 - haze) * skyline + glow + is_sky[..., None] * backdrop
    for share, spread in ((0.5, 0.012), (0.25, 0.05)):
        photo = photo + share * _blur(np.maximum(photo - 1, 0), spread * min(height, width), dtype)
    photo = (1 - np.exp(-1.55 * photo)) ** (1 / 2.2)
    photo = photo + (0.022 if street.night else 0.008) * sensor.standard_normal(photo.shape)

    # thermal: neither light, paint nor shadow; air dims what is far, the lens blurs, the gain follows the picture
    warmth = (1 - void) * street.air + (celsius + 2 * grain - (1 - void) * street.air) * np.exp(-depth / 400)
    warmth = _blur(warmth + void * backdrop_celsius, max(0.5, 0.004 * min(height, width)), dtype)
    low = max(np.percentile(warmth, 1), street.air - 7)
    high = min(max(np.percentile(warmth, 99.8), street.air + 17), 35)
    thermal = np.clip((warmth - low) / (high - low), 0, 1) ** 0.85
    thermal = thermal + 0.006 * sensor.standard_normal((1, width)) + 0.01 * sensor.standard_normal((height, width))
    return tuple(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8) for image in (photo, thermal))


def _night_light(street: Street, depth: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Light (H, W, 3) after dark: a trace of sky, the low beam of the camera's car, pools under the lamps."""
    beam = np.exp(-(((x - EYE_X) / (1.2 + 0.2 * depth)) ** 2)) * np.minimum(1, 12 / depth) ** 1.5
    beam = 0.45 * beam / (1 + np.exp(np.clip(10 * (y - 0.7), -50, 50)))  # the cut-off leaves faces dark
    pools = sum(np.exp(-((x - lamp_x) ** 2 + (depth - lamp_z) ** 2) / 16) for lamp_x, lamp_z in street.lamps)
    parts = ((0.03, MOONLIGHT), (beam[..., None], WHITE), (0.5 * (pools * (y < 6))[..., None], LAMPLIGHT))
    return sum(strength * np.array(colour) ** 2.2 for strength, colour in parts)


def _sky(street: Street, rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Radiance (H, W, 3) and temperature (H, W) of the sky: coldest overhead, milder under clouds."""
    up = np.clip(1 - np.arange(height) / (HORIZON * height), 0, 1)[:, None]
    cloud = sum(_noise(rng, (height, width), 4 * 2**i, 2 * 2**i) / 2**i for i in range(5))
    cloud = np.clip(1.5 * (cloud + 2 * street.clouds - 1), 0, 1) * np.minimum(1, 4 * up)
    horizon, zenith, white = np.array(SKY_NIGHT if street.night else SKY_DAY) ** 2.2
    clear = horizon + (zenith - horizon) * (up**0.7)[..., None]
    return clear + (white - clear) * cloud[..., None], street.air - 4 - 16 * up + 7 * cloud


def _noise(rng: np.random.Generator, shape: tuple[int, int], rows: int, columns: int | None = None) -> np.ndarray:
    """Smooth noise about 0 with so many cells, the same picture at every size."""
    lattice = rng.uniform(-1, 1, (rows, columns or rows)).astype(np.float32)
    return np.asarray(Image.fromarray(lattice).resize(shape[::-1], Image.Resampling.BICUBIC))


def _blur(image: np.ndarray, sigma: float, dtype: type[np.floating]) -> np.ndarray:
    """Gaussian blur of (H, W) or (H, W, C), as one matrix for the rows and one for the columns."""
    for axis in (0, 1):
        place = np.arange(image.shape[axis], dtype=dtype)
        kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
        image = np.moveaxis(np.tensordot(kernel / kernel.sum(1, keepdims=True), image, (1, axis)), 0, axis)
    return image
