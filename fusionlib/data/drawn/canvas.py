"""What a street is painted on: shapes in the world, seen by one camera, each with a colour and a temperature.

Convention:
    World in metres: x to the right of the road's centre line, y above the road, z ahead of the camera. Colours are sRGB
    in [0, 1]; temperatures are degrees Celsius as a long-wave camera reads them. Shapes are rasterised as ids at 2 or 3
    times the resolution of the images: the sub-pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import cos, hypot, nan, pi, sin

import numpy as np
from PIL import Image, ImageDraw

EYE_X, EYE_Y = 1.2, 1.5  # the camera: in the right-hand lane, at the height of a windscreen
FOCAL, HORIZON = 1.0, 0.43  # focal length per shorter image side; row of the horizon per image height

Points = Sequence[tuple[float, float, float]]
Colour = Sequence[float]


class Canvas:
    """Shapes painted over one another as ids that point into a table of what the shapes are made of."""

    def __init__(self, height: int, width: int, pan: float) -> None:
        self.scale = 3 if height * width <= 160 * 160 else 2
        self.focal = FOCAL * min(height, width)
        self.vanishing = (width / 2 + pan * self.focal, height * HORIZON)
        self.ids = Image.new("I", (width * self.scale, height * self.scale))
        self.shadow = Image.new("L", self.ids.size)
        self.table = [(0.0, 0.0, 0.0, 0.0, nan, 1e4, 0.0, 0)]  # colour, glow, celsius, depth, grain, owner; id 0 is sky
        self.objects: list[tuple[int, np.ndarray, int]] = []  # class, corners (M, 2), sub-pixels before occlusion
        self._pens = ImageDraw.Draw(self.ids), ImageDraw.Draw(self.shadow)
        self._owner, self._corners = 0, []

    def project(self, points: Points) -> list[tuple[float, float]]:
        """World to sub-pixels; what lies behind the camera is pulled in front of it, where it is out of the frame."""
        u, v, zoom = *(self.scale * c for c in self.vanishing), self.scale * self.focal
        near = [(x, y, zoom / max(z, 0.1)) for x, y, z in points]
        return [(u + k * (x - EYE_X), v - k * (y - EYE_Y)) for x, y, k in near]

    def polygon(self, points: Points, rgb: Colour, celsius: float, glow: float = 0, grain: float = 0) -> None:
        """Paint over what is there; `glow` is own light in units of daylight, `grain` the contrast of the texture.

        A shape whose points all have y = 0 lies on the ground (depth 0: by pixel); celsius nan is as cold as the sky.
        """
        corners = self.project(points)
        self._corners += corners
        self._pens[0].polygon(corners, fill=len(self.table))
        depth = sum(z for _, _, z in points) / len(points) if any(y for _, y, _ in points) else 0.0
        self.table.append((*rgb, glow, celsius, depth, grain, self._owner))

    def stroke(self, points: Points, thickness: float, *paint: object, **more: float) -> None:
        """Line of `thickness` metres in a plane that faces the camera."""
        for (x0, y0, z), (x1, y1, _) in pairwise(points):
            half = thickness / 2 / (hypot(x1 - x0, y1 - y0) + 1e-9)
            dx, dy = half * (y0 - y1), half * (x1 - x0)
            quad = [(x0 + dx, y0 + dy, z), (x0 - dx, y0 - dy, z), (x1 - dx, y1 - dy, z), (x1 + dx, y1 + dy, z)]
            self.polygon(quad, *paint, **more)

    def strip(self, x0: float, x1: float, z0: float, z1: float, *paint: object, **more: float) -> None:
        """Rectangle on the ground."""
        self.polygon([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], *paint, **more)

    @contextmanager
    def object(self, label: int) -> Iterator[None]:
        """What is painted inside is one object and gets one box."""
        first, self._owner, self._corners = len(self.table), len(self.objects) + 1, []
        yield
        self.objects.append((label, np.array(self._corners), int((np.asarray(self.ids) >= first).sum())))
        self._owner = 0

    def owners(self) -> np.ndarray:
        """Number of the object seen at each sub-pixel (H * scale, W * scale), from 1; 0 is background."""
        return np.array([row[-1] for row in self.table])[np.asarray(self.ids)]


def ring(x: float, y: float, z: float, rx: float, ry: float, turns: float = 1) -> Points:
    """Ellipse, or the part of it `turns` goes round, in a plane that faces the camera."""
    return [(x + rx * cos(turns * a * pi / 7), y + ry * sin(turns * a * pi / 7), z) for a in range(15)]
