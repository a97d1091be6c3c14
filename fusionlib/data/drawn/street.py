"""A road with houses, people and vehicles: what stands where, and what colour and temperature each thing has.

The convention is that of `fusionlib.data.drawn.canvas`: metres, sRGB in [0, 1], degrees Celsius.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from math import cos, nan, pi, sin

import numpy as np

from fusionlib.data.drawn.canvas import EYE_X, Canvas, Points, ring

PERSON, BICYCLE, CAR = range(3)

KERB, FACADE = 4.6, 7.4  # |x| of the kerbs and of the house fronts
BLACK, STEEL, GLASS, SKIN = (0.07, 0.07, 0.08), (0.38, 0.4, 0.42), (0.2, 0.26, 0.32), (0.75, 0.56, 0.45)
WHITE, RED, LAMPLIGHT, MOONLIGHT = (0.95, 0.95, 0.92), (0.8, 0.08, 0.06), (1.0, 0.86, 0.62), (0.75, 0.85, 1.0)
BODYWORK = ((0.7, 0.1, 0.1), (0.12, 0.25, 0.55), WHITE, (0.6, 0.62, 0.65), (0.15, 0.15, 0.17), (0.1, 0.42, 0.35))
CLOTHES = ((0.55, 0.15, 0.15), (0.14, 0.18, 0.32), (0.2, 0.2, 0.2), (0.5, 0.45, 0.2), (0.75, 0.72, 0.66))
WALLS = ((0.62, 0.38, 0.3), (0.8, 0.71, 0.56), (0.62, 0.62, 0.62), (0.72, 0.56, 0.42), (0.84, 0.81, 0.76))

Range = tuple[int, int]  # fewest and most, both included


class Street(Canvas):
    """A street laid out and painted, the farthest first; every method paints one kind of thing.

    Args:
        rng: What decides the layout; it is drawn from in the same order at every size.
        height, width: Of the images in pixels.
        night_probability: How likely it is night.
        people, cyclists, cars: Fewest and most of each that are placed.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        night_probability: float,
        people: Range,
        cyclists: Range,
        cars: Range,
    ) -> None:
        self.rng = rng
        super().__init__(height, width, pan=rng.uniform(-0.06, 0.06))
        self.night = bool(rng.random() < night_probability)
        self.air = rng.uniform(3, 11) if self.night else rng.uniform(6, 15)  # degrees Celsius
        self.sun = np.array([rng.choice([-1, 1]) * rng.uniform(0.4, 1.1), rng.uniform(-0.5, 0.5)])
        self.sun *= not self.night  # x and z to where a point 1 m above the ground casts its shadow
        self.clouds = rng.uniform(0.1, 0.75)
        self.lamps: list[tuple[float, float]] = []  # x and z of the pools of light
        zebra = rng.uniform(8, 15)
        self.ground(zebra)
        for side in (-1, 1):
            self.street_front(side, built=rng.uniform(0.4, 0.95))
        for _, paint in sorted(self.traffic(zebra, people, cyclists, cars), key=lambda item: -item[0]):
            paint()

    def warm(self, by_day: float, by_night: float) -> float:
        """Temperature so many degrees above the air's."""
        return self.air + (by_night if self.night else by_day)

    def lit(self, x: float, z: float) -> float:
        """Brightness of a wall that faces (x, z): full towards the sun, dimmer away from it."""
        return 1.0 if self.night or x * self.sun[0] + z * self.sun[1] < 0 else 0.7

    def cast(self, x0: float, x1: float, z0: float, z1: float, low: float, high: float) -> None:
        """Shadow of a block between two heights: its base swept along the ground by the sun, at night the base."""
        (dx, dz), (sx, sz) = low * self.sun, (high - low) * self.sun
        base = [(x + dx, 0, z + dz) for x, z in ((x0, z0), (x1, z0), (x1, z1), (x0, z1))]
        edges = zip(base, base[1:] + base[:1], strict=True)
        swept = [(a, b, (b[0] + sx, 0, b[2] + sz), (a[0] + sx, 0, a[2] + sz)) for a, b in edges]
        for outline in [base] if self.night else [base, *swept]:
            self._pens[1].polygon(self.project(outline), fill=255)

    def traffic(self, zebra: float, people: Range, cyclists: Range, cars: Range) -> list[tuple[float, Callable]]:
        """Depth and painter of everything that stands or moves between the house fronts."""
        rng, items = self.rng, []

        def add(paint: Callable, x: float, z: float) -> None:
            items.append((z, partial(paint, x, z)))

        lanes = {x: rng.uniform(7, 12) if abs(x) > 2 else zebra + rng.uniform(4, 9) for x in (-3.6, 3.6, -1.4, 1.4)}
        for _ in range(rng.integers(*cars, endpoint=True)):
            lane = rng.choice(list(lanes))
            add(self.car, lane + rng.uniform(-0.2, 0.2), lanes[lane])
            lanes[lane] += rng.uniform(6, 12) if abs(lane) > 2 else rng.uniform(9, 20)
        crossing = cycle(rng.permutation(np.linspace(-2.4, 3.8, 24).reshape(6, 4)[:, rng.integers(4)]))
        for _ in range(rng.integers(*cyclists, endpoint=True)):
            add(self.cyclist, next(crossing), zebra - rng.uniform(0.5, 1.5))
        for _ in range(rng.integers(*people, endpoint=True)):
            if rng.random() < 0.45:
                add(self.person, next(crossing), zebra + rng.uniform(0.4, 2.4))
            else:  # on the pavement, far enough ahead to be in a square picture
                x = rng.choice([-1, 1]) * rng.uniform(KERB + 0.7, FACADE - 0.6)
                add(self.person, x, 2.1 * abs(x - EYE_X) * rng.uniform(1, 1.8))
        for z in np.arange(rng.uniform(9, 16), 70, 14):
            for side, shift in ((-1, -5), (1, 2)):
                add(self.lamp, side * (KERB + 0.5), z + shift)
                if rng.random() < 0.5:
                    add(rng.choice([self.tree, self.sign]), side * (KERB + 0.6), z + shift + rng.uniform(3, 10))
        return items

    def ground(self, zebra: float) -> None:
        """Hills, meadow, road, pavements and markings; at night the lights of the far end and the moon."""
        rng, road, line = self.rng, self.warm(7, 4), (WHITE, self.warm(6.6, 3.8), 0, 0.1)
        hills = zip(np.linspace(-700, 700, 30).tolist(), rng.uniform(4, 28, 30).tolist(), [400] * 30, strict=True)
        self.polygon([(-700, 0.1, 400), *hills, (700, 0.1, 400)], (0.25, 0.33, 0.27), self.warm(-0.5, -0.5))
        self.strip(-4000, 4000, 0.1, 4000, (0.36, 0.44, 0.22), self.warm(1, -2), grain=0.2)
        self.strip(-KERB, KERB, 0.1, 400, (0.37, 0.37, 0.39), road, grain=0.12)
        for side in (-1, 1):
            self.strip(side * KERB, side * FACADE, 0.1, 400, (0.6, 0.58, 0.55), self.warm(4.5, 2), grain=0.08)
            for z in np.arange(2, 32, 1.5):  # paving
                self.strip(side * KERB, side * FACADE, z, z + 0.04, (0.5, 0.48, 0.46), self.warm(4.5, 2))
            self.strip(side * KERB, side * (KERB + 0.18), 0.1, 400, (0.74, 0.73, 0.7), self.warm(5, 2.5))
            self.strip(side * 2.7, side * 2.8, 0.1, 200, *line)
        for x, z, w, d in rng.uniform((-4, 3, 0.5, 1), (3, 20, 1.6, 5), (4, 4)):  # mended tarmac
            self.strip(x, x + w, z, z + d, (0.31, 0.31, 0.33), road, grain=0.12)
        for z in np.arange(rng.uniform(1, 4), 90, 5):
            self.strip(-0.07, 0.07, z, z + 2.5, *line)
        for x in np.arange(0.3 - KERB, KERB - 0.3, 0.95):
            self.strip(x, x + 0.5, zebra, zebra + 2.8, *line)
        if self.night:
            for x, y, size, glow in rng.uniform((-900, 60, 1, 0.1), (900, 480, 3, 0.9), (70, 4)):
                self.stroke([(x, y, 1e3), (x + size, y, 1e3)], size, WHITE, nan, glow)
            moon_x, moon_y = rng.uniform((-300, 250), (300, 380))
            self.polygon(ring(moon_x, moon_y, 1e3, 20, 20), (1, 0.97, 0.86), nan, 1.2)

    def street_front(self, side: int, built: float) -> None:
        """Houses and gardens along one side."""
        ends = np.cumsum([self.rng.uniform(-8, 4), *self.rng.uniform(9, 18, 8)])
        for start, end in zip(ends[-2::-1], ends[:0:-1], strict=True):
            if self.rng.random() < built:
                self.house(side, start, end - self.rng.choice([0, 2]))
            else:
                for share in (0.75, 0.25):
                    self.tree(side * (FACADE + self.rng.uniform(1, 6)), start + share * (end - start))

    def house(self, side: int, start: float, end: float) -> None:
        """Block of two to five floors between two depths, with its windows; the low ones have a roof."""
        rng = self.rng
        floors, near, far = int(rng.integers(2, 6)), side * FACADE, side * (FACADE + rng.uniform(9, 14))
        top, wall = 3.1 * floors + 0.8, self.warm(*rng.uniform(1, 4, 2))
        colour = np.array(WALLS[rng.integers(len(WALLS))]) * rng.uniform(0.8, 1.1)
        flank, front = colour * self.lit(-side, 0), colour * self.lit(0, -1)
        self.cast(*sorted((near, far)), start, end, 0, top)
        self.polygon([(near, 0, start), (far, 0, start), (far, top, start), (near, top, start)], front, wall, 0, 0.1)
        self.polygon([(near, 0, start), (near, 0, end), (near, top, end), (near, top, start)], flank, wall, 0, 0.1)
        if floors < 4:
            ridge = [((near + far) / 2, top + 3, end), ((near + far) / 2, top + 3, start)]
            self.polygon([(near, top, start), (near, top, end), *ridge], (0.45, 0.22, 0.17), self.warm(5, -3), 0, 0.15)
            self.polygon([(near, top, start), (far, top, start), ridge[1]], front, wall, 0, 0.1)
        for on_flank, a, b in ((True, start, end), (False, near, far)):
            pitch = (b - a) / max(2, round(abs(b - a) / 2.6))
            for floor, s in [(f, s) for f in range(floors) for s in np.arange(a + pitch / 4, b - pitch / 4, pitch)]:
                chance, e, y = rng.random(), s + pitch / 2, 3.1 * floor + 1
                pane = [(s, y), (e, y), (e, y + 1.5), (s, y + 1.5)]
                glow = 0.2 + chance if self.night and chance < 0.35 else 0  # rooms lit are rooms heated
                light = (LAMPLIGHT if glow else GLASS, wall + 4 - 6 * chance, glow)
                self.polygon([(near, h, p) if on_flank else (p, h, start) for p, h in pane], *light)

    def tree(self, x: float, z: float) -> None:
        """Trunk and a crown of boughs."""
        height, spread = self.rng.uniform((4.5, 1.3), (7.5, 2.1))
        self.stroke([(x, 0, z), (x, 0.6 * height, z)], 0.28, (0.3, 0.23, 0.17), self.warm(1, 0.5), 0, 0.2)
        for i, (angle, reach, shade) in enumerate(self.rng.uniform((0, 0, 0.65), (2 * pi, 1, 0.85), (10, 3))):
            radius, green = 0.7 * spread * reach**0.5, (shade + 0.06 * i) * np.array((0.27, 0.4, 0.16))
            bough = ring(x + radius * cos(angle), 0.7 * height + radius * sin(angle), z, 0.55 * spread, 0.5 * spread)
            self.polygon(bough, green, self.warm(0.5, -0.5), 0, 0.35)
        self.cast(x - 0.1, x + 0.1, z - 0.1, z + 0.1, 0, height)
        self.cast(x - spread, x + spread, z - spread, z + spread, 0.5 * height, 0.9 * height)

    def lamp(self, x: float, z: float) -> None:
        """Street lamp, whose arm reaches over the road."""
        side, pole, bulb = np.sign(x), (STEEL, self.warm(1, -1)), (LAMPLIGHT, self.warm(2, 30), 5.0 * self.night)
        self.stroke([(x, 0, z), (x, 5.6, z), (x - 0.5 * side, 6.2, z), (x - 1.9 * side, 6.4, z)], 0.14, *pole)
        self.stroke([(x - 1.3 * side, 6.3, z), (x - 2.2 * side, 6.4, z)], 0.26, *bulb)
        self.lamps.append((x - 1.9 * side, z))

    def sign(self, x: float, z: float) -> None:
        """Round road sign on a pole."""
        self.stroke([(x, 0, z), (x, 2.4, z)], 0.08, STEEL, self.warm(1, -1))
        for radius, colour in zip((0.42, 0.29), self.rng.permutation([RED, WHITE, (0.1, 0.25, 0.6)]), strict=False):
            self.polygon(ring(x, 2.5, z, radius, radius), colour, self.warm(2, -1.5), 0.15 * self.night)

    def person(self, x: float, z: float, saddle: float = 0) -> None:
        """Somebody who walks or, with the height of a saddle in metres, rides."""
        rng = self.rng
        size, stride, turn = rng.uniform(1.6, 1.9), rng.uniform(0.04, 0.13), rng.choice([-1, 1])
        jacket, trousers = np.array(CLOTHES)[rng.integers(len(CLOTHES), size=2)] * rng.uniform(0.7, 1.2, (2, 1))
        coat, legs = 27.5 - 2 * self.night, 26 - 2.5 * self.night
        skin, base = np.array(SKIN) * rng.uniform(0.6, 1.15), saddle - 0.47 * size if saddle else 0.0

        def at(*points: tuple[float, float]) -> Points:
            return [(x + u * size * turn, base + v * size, z) for u, v in points]

        with self.object(PERSON):
            for foot in (-stride, stride):
                knee = (0.12 + foot, 0.36) if saddle else (foot + 0.03, 0.26)
                self.stroke(at((0, 0.5), knee, (foot, 0.03), (foot + 0.05, 0.015)), 0.075 * size, trousers, legs)
            trunk = at((-0.1, 0.82), (-0.05, 0.85), (0.05, 0.85), (0.1, 0.82), (0.085, 0.46), (-0.085, 0.46))
            self.polygon(trunk, jacket, coat)
            for arm in (-1, 1):
                hand = (0.25, 0.6) if saddle else (arm * 0.13 + stride, 0.45)
                self.stroke(at((arm * 0.1, 0.81), (arm * 0.13, 0.63), hand), 0.05 * size, 0.8 * jacket, coat)
            self.polygon(ring(x, base + 0.93 * size, z, 0.055 * size, 0.075 * size), skin, 33)
            self.polygon(ring(x, base + 0.945 * size, z, 0.058 * size, 0.065 * size, 0.5), BLACK, 29)
        self.cast(x - 0.15, x + 0.15, z - 0.15, z + 0.15, 0, size)

    def cyclist(self, x: float, z: float) -> None:
        """Bicycle and, as an object of its own, its rider."""
        turn, colour = self.rng.choice([-1, 1]), BODYWORK[self.rng.integers(len(BODYWORK))]
        frame = [(-0.52, 0.34), (-0.15, 0.8), (0.4, 0.85), (0, 0.34), (-0.15, 0.8), (0, 0.34), (-0.52, 0.34)]
        with self.object(BICYCLE):
            for hub in (-0.52, 0.52):
                self.stroke(ring(x + hub, 0.34, z, 0.32, 0.32), 0.05, BLACK, self.warm(5, 3))
            for bar in (frame, [(0.52, 0.34), (0.4, 0.85), (0.36, 1.05), (0.5, 1.05)]):
                self.stroke([(x + turn * u, v, z) for u, v in bar], 0.045, colour, self.warm(2, -1))
        self.person(x - 0.15 * turn, z, saddle=0.92)

    def car(self, x: float, z: float) -> None:
        """Car seen from behind on the right half of the road, from ahead on the left half; the parked ones are cold."""
        away, moving, metal = x > 0, abs(x) < 2.5, self.warm(3, -2)
        tall, colour = self.rng.uniform(0.98, 1.2), np.array(BODYWORK[self.rng.integers(len(BODYWORK))])
        body, hot, glass = (colour, metal), (colour, metal + 13 * moving), (GLASS, self.warm(-2, -4))
        tyre, end, towards = (BLACK, metal + 4 + 9 * moving), 0 if away else 4.25, -np.sign(x - EYE_X)
        profile = [(0, 0.3), (0, 0.9), (0.12, 1.0), (0.6, 1.42), (2.2, 1.46), (3.0, 1.0), (4.15, 0.8), (4.25, 0.3)]
        panels = list(zip((body, body, glass, body, glass, hot, hot), profile[:-1], profile[1:], strict=True))

        def at(along: float, across: float, y: float) -> tuple[float, float, float]:
            return x + across * (0.88 - 0.4 * max(0.0, y - 0.95)), y * tall, z + (along if away else 4.25 - along)

        def both(inner: float, outer: float, low: float, high: float, *paint: object) -> None:
            """The same rectangle left and right on the nearer end."""
            for m in (-1, 1):
                corners = ((inner, low), (outer, low), (outer, high), (inner, high))
                self.polygon([at(end, m * u, y) for u, y in corners], *paint)

        self.cast(x - 0.95, x + 0.95, z - 0.1, z + 4.3, 0, 1.3)
        with self.object(CAR):
            both(0.6, 0.97, 0, 0.5, *tyre)
            for paint, (a, ya), (b, yb) in panels[::-1] if away else panels:
                self.polygon([at(a, -1, ya), at(a, 1, ya), at(b, 1, yb), at(b, -1, yb)], *paint)
            if abs(x - EYE_X) > 0.9:
                self.polygon([at(a, towards, y) for a, y in profile], 0.8 * colour, metal)
                self.polygon([at(a, towards, y) for a, y in ((0.75, 1), (0.98, 1.36), (2.1, 1.39), (2.75, 1))], *glass)
                for axle in (0.85, 3.4):
                    self.polygon([at(a, towards, y) for a, y, _ in ring(axle, 0.34, 0, 0.34, 0.34)], *tyre)
            both(0, 0.88, 0.3, 0.42, BLACK, metal)
            both(0, 0.27, 0.48, 0.6, WHITE, metal)
            if away:
                both(0.62, 0.97, 0.68, 0.88, RED, metal + 3, (0.15 + self.night) * moving)
                both(0.35, 0.6, 0.2, 0.34, BLACK, metal + 25 * moving)  # exhaust
            else:
                both(0.52, 0.9, 0.56, 0.76, WHITE, metal + 8 * moving, (0.2 + 6 * self.night) * moving)
