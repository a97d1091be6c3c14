"""The numbers that are recorded of a probed value, and the small image pairs that probes use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusionlib.data import Pair, PairSet, splits

Seen = tuple[str, object, float]  # name, value, tolerance relative to the root mean square
DOUBLE, SINGLE, LOOSE = 1e-6, 1e-4, 3e-3  # computed in float64; in float32; in float32 over steps of a training
VIEWS = 3


def view(value: object, tolerance: float) -> list[float]:
    """Tolerance, number of values, root mean square, and projections of the values on three fixed random directions.

    A change of one value of a long tensor changes the projections in proportion to 1 / sqrt(size).
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    flat = np.asarray(value, dtype=float).ravel()
    directions = np.random.default_rng(flat.size).standard_normal((VIEWS, flat.size))
    finite = np.nan_to_num(flat, nan=-1.0, posinf=1e3, neginf=-1e3)
    scale = float(np.sqrt(np.mean(finite**2))) if flat.size else 0.0
    projections = directions @ finite / max(1, flat.size) ** 0.5
    return [tolerance, flat.size, *(float(f"{number:.12g}") for number in (scale, *projections))]


def scene(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(2, H, W), integers in 0..255: an infrared and a visible image of shapes, texture and a gradient.

    Built from integers and a few sines, so that it is the same on every machine, and without the library's code.
    """
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width] / min(height, width)
    infrared, visible = 60 + 40 * y, 120 + 60 * np.sin(9 * x + number) * np.cos(7 * y)
    for _ in range(9):
        (cx, cy), radius = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.2)
        inside = (
            ((x - cx) ** 2 + (y - cy) ** 2 < radius**2) if rng.random() < 0.5 else (abs(x - cx) + abs(y - cy) < radius)
        )
        infrared = np.where(inside, rng.uniform(30, 250), infrared)
        visible = np.where(inside, rng.uniform(0, 200), visible)
    grain = rng.integers(-12, 13, (2, height, width))
    return np.clip(np.round(np.stack([infrared, visible]) + grain), 0, 255)


def pair(
    number: int = 0, height: int = 64, width: int = 64, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A pair (1, 1, H, W) in [0, 1]."""
    ir, vi = torch.from_numpy(scene(number, height, width)).to(dtype) / 255
    return ir[None, None], vi[None, None]


class Pairs(PairSet):
    """Pairs in float64, or another precision, so that a training computes in it."""

    def __init__(self, count: int, dtype: torch.dtype = torch.float64, side: int = 64) -> None:
        self.dtype = dtype

        def load(name: str) -> Pair:
            ir, vi = pair(int(name), side, side, torch.float32)
            return Pair(name, ir[0], vi[0], vi[0].expand(3, -1, -1))

        super().__init__([str(number) for number in range(count)], load)

    def stack(self, indices: object) -> tuple[Tensor, Tensor]:
        """As in the base class, in that precision."""
        ir, vi = super().stack(indices)
        return ir.to(self.dtype), vi.to(self.dtype)


@contextmanager
def temporary_data_root(side: int = 64) -> Iterator[Path]:
    """A data root in the layout of RoadScene, with the names of its splits, images by `scene`, and boxes in each.

    The environment variable FUSIONLIB_DATA names it until the block ends.
    """
    before = os.environ.get("FUSIONLIB_DATA")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        places = [
            root / "RoadScene" / "cropinfrared",
            root / "RoadScene" / "crop_LR_visible",
            root / "FLIR_ADAS_v1/train",
        ]
        for place in places:
            place.mkdir(parents=True)
        names = [name for members in splits("RoadScene").values() for name in members]
        for number, name in enumerate(names):
            for place, picture in zip(places, scene(number % 8, side, side), strict=False):
                target = place / f"{name}.png"
                if number < 8:
                    Image.fromarray(picture.astype(np.uint8)).save(target)
                else:
                    os.link(place / f"{names[number % 8]}.png", target)
            (places[2] / f"{name}.txt").write_text(
                f"1 {40 + number % 8 * 30} 90 60 160\n3 300 {200 + number % 5 * 20} 180 120\n"
            )
        os.environ["FUSIONLIB_DATA"] = str(root)
        try:
            yield root
        finally:
            os.environ.pop("FUSIONLIB_DATA")
            if before is not None:
                os.environ["FUSIONLIB_DATA"] = before
