"""Really unregistered pairs: the raw thermal frames of RoadScene beside its visible crops, with the true field.

RoadScene was aligned by hand: each aligned infrared crop is its raw 640x512 thermal frame under a homography, which
`data/homographies.json` records. Here the raw frame comes onto the canvas of the visible crop by one scale and one
shift alone, which is what knowing both focal lengths and cropping roughly gives. What is left is the real misalignment
of the two cameras: rotation, perspective, and scales that differ between the axes (by a tenth in one of the two rigs).

Drawn scenes need no download: a scene of `fusionlib.data.drawn.synthetic` is the raw thermal frame, and the homography
of a RoadScene pair, chosen by the scene's name, puts the picture of the visible camera onto its crop.

Convention:
    - A homography takes (x, y, 1) of the raw frame to the aligned crop; pixel centres have integer coordinates.
    - `phi_gt` is a field as in `fusionlib.deformation`: `warp(ir, phi_gt)` is the aligned infrared. It is computed from
      the homography, not by inversion.
    - Truth is the alignment that the data set comes with, a plane model: the parallax of near objects is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kornia.geometry.transform import warp_perspective
from PIL import Image
from torch import Tensor

from fusionlib.data.images import Size, height_width, luma, read_infrared, resize, to_tensor, to_uint8
from fusionlib.data.sets import Pair, PairSet, open_set
from fusionlib.deformation import Misaligned, valid_mask
from fusionlib.support.files import InputError, fingerprint
from fusionlib.support.paths import FACTS, data_root

HOMOGRAPHIES = FACTS / "homographies.json"
FRAME = (512, 640)  # (h, w) of RoadScene's raw frames, and of those that are drawn


@dataclass(frozen=True, eq=False)
class RawPair:
    """One scene as the two cameras saw it, on the canvas of the visible crop.

    Attributes:
        name: of the pair, as in `data.open_set`.
        ir: (1, H, W) in [0, 1], the raw thermal frame, scaled and shifted; beyond the frame its border is repeated.
        vi, rgb: (1, H, W) and (3, H, W) in [0, 1], the visible crop: luma and colour.
        phi_gt: (2, H, W) pixels of this canvas: `warp(ir, phi_gt)` is the aligned infrared.
        valid: (1, H, W) bool, where that is possible: the source lies inside the raw frame and on the canvas.
        rig: 0 or 1, which of RoadScene's two pairs of cameras took it, or lent its homography to a drawn scene.
    """

    name: str
    ir: Tensor
    vi: Tensor
    rgb: Tensor
    phi_gt: Tensor
    valid: Tensor
    rig: int

    @property
    def misaligned(self) -> Misaligned:
        """`ir`, `phi_gt` and `valid` as a batch of one, as `evaluation.registration` takes them."""
        return Misaligned(self.ir[None], self.phi_gt[None], self.valid[None])


@dataclass(frozen=True)
class Placement:
    """How a raw frame comes onto the canvas: pixel (x, y) of the frame goes to (scale * x + left, scale * y + top)."""

    scale: float
    left: float
    top: float


class RawSet(Sequence[RawPair]):
    """Raw pairs in the order of `names`; `aligned` has the same pairs with their aligned infrared.

    `read_frame` gives the raw thermal frame of a name, (1, h, w); `facts` its entry of the homographies; `size` is that
    of the canvas, None for the size of each crop.
    """

    def __init__(
        self,
        aligned: PairSet,
        read_frame: Callable[[str], Tensor],
        facts: dict[str, dict],
        size: Size | None = None,
    ) -> None:
        self.names = aligned.names
        self.aligned = aligned
        self.size = size
        self._read_frame, self._facts = read_frame, facts

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> RawPair:
        pair = self.aligned[index]
        frame = self._read_frame(pair.name)
        fact = self._facts[pair.name]
        homography, crop = np.array(fact["H"]), (fact["h"], fact["w"])
        ir = place(frame, placement(homography, crop), crop, self.size)
        phi_gt, valid = true_field(homography, crop, frame.shape[-2:], self.size)
        return RawPair(pair.name, ir, pair.vi, pair.rgb, phi_gt, valid, fact["cluster"])


def open_raw(
    name: str = "RoadScene",
    split: str | None = None,
    size: Size | None = None,
    root: Path | str | None = None,
    count: int | None = None,
) -> RawSet:
    """Open the raw pairs of a set; each is read, or drawn, when it is asked for.

    Args:
        name: RoadScene, or synthetic (drawn scenes, which need no download), in upper or lower case.
        split: as in `data.open_set`; None or "all" is every pair there is.
        size: None for the size of the crops, a side for a square, or (H, W). A square squeezes the crops, whose median
            aspect is 1.7, and scales the field by another factor on each axis: a rotation of the camera is then no
            rotation of the image. On purpose, since the aligned pairs are squeezed in the same way in training.
        root: Data root, by default `data_root()`.
        count: Only the first `count` pairs; of synthetic, how many scenes of each split are drawn.

    Raises:
        InputError: A set without raw frames, an unknown split, data that are not there, or no homography for a pair.
    """
    facts = json.loads(HOMOGRAPHIES.read_text(encoding="utf-8"))
    if name.lower() == "synthetic":
        return _draw(split, size, count, facts)
    if name.lower() != "roadscene":
        raise InputError(f"There are no raw thermal frames of {name!r}: choose RoadScene or synthetic.")
    root = data_root() if root is None else Path(root)
    aligned = open_set("RoadScene", split, size, root, count)
    frames = root / "RoadScene" / "infrared"
    absent = [name for name in aligned.names if not (frames / f"{name}.png").is_file()]
    if absent:
        some = f"{len(absent)} of the {len(aligned)} raw frames of RoadScene {split or 'all'}, such as {absent[0]}.png"
        raise InputError(f"{some}, are not in {frames}: run `python -m fusionlib data fetch roadscene`.")
    unknown = [name for name in aligned.names if name not in facts]
    if unknown:
        some = f"{len(unknown)} of the {len(aligned)} pairs of RoadScene {split or 'all'}, such as {unknown[0]}"
        raise InputError(f"{HOMOGRAPHIES} has no homography for {some}: open a split that the project came with.")
    return RawSet(aligned, lambda member: read_infrared(frames / f"{member}.png"), facts, size)


def placement(homography: np.ndarray, crop: tuple[int, int]) -> Placement:
    """The scale and shift that come closest to a homography, by least squares over the pixels of the crop.

    They minimise the mean of `|scale * r + shift - p|^2`, where r is the point of the raw frame that the homography
    takes to pixel p: the squared length of the field that is left.

    Args:
        homography: (3, 3), raw frame to crop.
        crop: (H, W) of the crop, pixels.
    """
    p_x, p_y = _axes(crop, crop)
    r_x, r_y = _source(homography, p_x, p_y)
    off_x, off_y = r_x - r_x.mean(), r_y - r_y.mean()
    scale = (off_x * p_x + off_y * p_y).sum() / (off_x**2 + off_y**2).sum()
    left, top = p_x.mean() - scale * r_x.mean(), p_y.mean() - scale * r_y.mean()
    return Placement(float(scale), float(left), float(top))


def place(frame: Tensor, at: Placement, crop: tuple[int, int], size: Size | None = None) -> Tensor:
    """Bring a raw frame onto the canvas of a crop, in one resampling from the raw pixels.

    Bicubic on 8 bits, smoothed where it reduces, as `images.resize` does it; beyond the frame its border is repeated.

    Args:
        frame: (1, h, w) in [0, 1], the raw frame.
        at: scale and shift onto the crop.
        crop: (H, W) of the crop, pixels.
        size: the canvas is resized to this; None keeps that of the crop.

    Returns:
        (1, H, W) in [0, 1].
    """
    height, width = crop if size is None else height_width(size)
    # The edges of the canvas in the frame, where pixel i reaches from i to i + 1: Pillow resizes just this box.
    left, top = ((-0.5 - shift) / at.scale + 0.5 for shift in (at.left, at.top))
    right, bottom = left + crop[1] / at.scale, top + crop[0] / at.scale
    reach = 2 * max((right - left) / width, (bottom - top) / height, 1)  # of the bicubic kernel
    over = max(-left, -top, right - frame.shape[-1], bottom - frame.shape[-2], 0)
    margin = int(np.ceil(over + reach))
    pixels = Image.fromarray(np.pad(to_uint8(frame)[0].numpy(), margin, mode="edge"))
    box = tuple(edge + margin for edge in (left, top, right, bottom))
    return to_tensor(pixels.resize((width, height), Image.Resampling.BICUBIC, box=box))


def true_field(
    homography: np.ndarray, crop: tuple[int, int], frame: tuple[int, int], size: Size | None = None
) -> tuple[Tensor, Tensor]:
    """The field that turns the placed raw frame into the aligned crop, and where it can.

    Pixel p of the crop shows the raw point H^-1 p, which the placement S puts at S(H^-1 p): phi(p) = S(H^-1 p) - p. On
    a resized canvas both points, and so the field, are scaled by each axis' own factor.

    Args:
        homography: (3, 3), raw frame to crop.
        crop: (H, W) of the crop, pixels.
        frame: (h, w) of the raw frame, pixels.
        size: of the canvas; None is that of the crop.

    Returns:
        phi_gt (2, H, W) in pixels of the canvas, and valid (1, H, W) bool: the source lies inside the raw frame and on
        the canvas.
    """
    canvas = crop if size is None else height_width(size)
    at = placement(homography, crop)
    p_x, p_y = _axes(canvas, crop)
    r_x, r_y = _source(homography, p_x, p_y)
    inside = (r_x >= 0) & (r_x <= frame[1] - 1) & (r_y >= 0) & (r_y <= frame[0] - 1)
    phi_x = (at.scale * r_x + at.left - p_x) * canvas[1] / crop[1]
    phi_y = (at.scale * r_y + at.top - p_y) * canvas[0] / crop[0]
    phi = torch.from_numpy(np.stack([phi_x, phi_y])).float()
    return phi, torch.from_numpy(inside)[None] & valid_mask(phi[None])[0]


def _draw(split: str | None, size: Size | None, count: int | None, known: dict[str, dict]) -> RawSet:
    """Drawn scenes as raw frames, each with one of the known homographies, the same at every call."""
    scenes, stems = open_set("synthetic", split, FRAME, count=count), sorted(known)
    facts = {name: known[stems[int(fingerprint(name), 16) % len(stems)]] for name in scenes.names}

    def drawn(name: str) -> Pair:
        return scenes[scenes.names.index(name)]

    def crop(name: str) -> Pair:
        scene, fact = drawn(name), facts[name]
        both, homography = torch.cat([scene.ir, scene.rgb])[None].double(), torch.tensor(fact["H"]).double()[None]
        canvas = (fact["h"], fact["w"])
        both = warp_perspective(both, homography, canvas, padding_mode="border", align_corners=True)[0].float()
        both = [resize(image, size or canvas) for image in (both[:1], both[1:])]  # on 8 bits, as images are read
        return Pair(name, both[0], luma(both[1]), both[1])

    return RawSet(PairSet(scenes.names, crop, scenes.title), lambda name: drawn(name).ir, facts, size)


def _axes(canvas: tuple[int, int], crop: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixel centres of a canvas lie in the crop that it shows: x (1, W) and y (H, 1)."""
    y, x = ((np.arange(side) + 0.5) * whole / side - 0.5 for side, whole in zip(canvas, crop, strict=True))
    return x[None, :], y[:, None]


def _source(homography: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of the raw frame, x and y each (H, W), that a homography takes to these of the crop."""
    u, v, w = (a * x + b * y + c for a, b, c in np.linalg.inv(homography))
    return u / w, v / w
