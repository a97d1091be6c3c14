"""Figures: every function takes images, fields or tables, gives a matplotlib Figure and changes nothing else.

Convention:
    An image is (H, W), (1, H, W) or (3, H, W) in [0, 1]; a field is (2, H, W) in pixels, as in `fusionlib.deformation`.
    Where batches are taken, each element gets a panel. Figures are pyplot's, so a notebook cell ends with `;` or
    `plt.show()`. Colour scales are viridis, lines and boxes Okabe and Ito's colours: safe for the colour-blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fusionlib.data import Pair
from fusionlib.deformation import jacobian_determinant
from fusionlib.support.boxes import NAMES

WIDTH = 9.5  # inches of a full figure
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
BOX = {"person": "#F0E442", "bicycle": "#56B4E9", "car": "#D55E00"}
BOX |= {"bus": "#009E73", "lamp": "#0072B2", "motorcycle": "#CC79A7", "truck": "#E69F00"}
AMBER = torch.tensor([1.0, 0.72, 0.35]).view(3, 1, 1)  # tells infrared tiles from visible ones
MARK, GRID, FOLD = "#E69F00", "#56B4E9", "#D55E00"
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of the companion, inside a `with` or as a decorator.

    Matplotlib's rc_context would also put back `interactive`, which Jupyter turns on when the first figure is made.
    """
    before = {name: plt.rcParams[name] for name in STYLE}
    plt.rcParams.update(STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(before)


@style()
def images(
    pictures: Mapping[str, Tensor],
    columns: int | None = None,
    limits: tuple[float, float] | None = (0, 1),
    cmap: str = "gray",
    marks: Mapping[str, tuple[float, float]] | None = None,
    boxes: Mapping[str, Tensor] | None = None,
) -> Figure:
    """Images under their titles, in a row or a grid.

    Args:
        pictures: title to image; one channel is drawn in `cmap`, three are colour.
        columns: panels a row; by default at most six.
        limits: values drawn as the first and the last colour; None takes those of each image.
        marks: title to a point (x, y) in pixels, ringed there.
        boxes: title to boxes (N, 5) or detections (M, 6), outlined there in the colour of their class.
    """
    figure, axes = _panels(list(pictures.values()), columns)
    outlines = {}
    for axis, (title, image) in zip(axes, pictures.items(), strict=True):
        _draw(axis, image, title, limits, cmap)
        if title in (marks or {}):
            axis.plot(*marks[title], "o", ms=11, mfc="none", mec=MARK, mew=2)
        if title in (boxes or {}):
            outlines |= _outline(axis, boxes[title])
    _name_classes(figure, outlines)
    return figure


@style()
def pairs_sheet(pairs: Iterable[Pair], boxes: bool = True) -> Figure:
    """Contact sheet: the visible image in colour above the infrared one, both with the boxes of pairs that have any."""
    pairs = list(pairs)
    gap = max(1, pairs[0].ir.shape[-2] // 40)
    sheets = [torch.cat([p.rgb, torch.ones_like(p.rgb[:, :gap]), p.ir.expand(3, -1, -1)], 1) for p in pairs]
    figure, axes = _panels(sheets, min(6, len(pairs)))
    outlines = {}
    for axis, sheet, pair in zip(axes, sheets, pairs, strict=True):
        _draw(axis, sheet, pair.name)
        for top in (0, pair.ir.shape[-2] + gap) if boxes and pair.boxes is not None else ():
            outlines |= _outline(axis, pair.boxes, top)
    _name_classes(figure, outlines)
    return figure


@style()
def grid_overlay(image: Tensor, phi: Tensor, titles: Sequence[str] = (), lines: int = 16) -> Figure:
    """The regular grid of `warp(image, phi)`, drawn over `image` where its pixels are fetched from: p + phi(p).

    Over a deformed image with its label phi_gt, this is a grid painted on the aligned image that moved along with it.
    Where the field folds, lines are orange.
    """
    batch, fields = _batch(image), _batch(phi)
    figure, axes = _panels(list(batch))
    for axis, picture, field, title in zip(axes, batch, fields, titles or [""] * len(batch), strict=True):
        _draw(axis, picture, title)
        draw_grid(axis, field, lines)
    return figure


def draw_grid(axis: Axes, field: Tensor, lines: int = 16) -> None:
    """Draw the grid of `grid_overlay` over an image that `axis` shows; field (2, H, W)."""
    height, width = field.shape[-2:]
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)) + _array(field), -1)
    rows, columns = (np.linspace(0, side - 1, lines).round().astype(int) for side in (height, width))
    folded = np.pad(_array(jacobian_determinant(field[None])[0]) <= 0, 1, mode="edge")
    folding = np.where(folded[..., None], points, np.nan)
    for grid, colour, thickness in ((points, GRID, 0.8), (folding, FOLD, 1.6)):
        grid_lines = [*grid[rows], *grid[:, columns].swapaxes(0, 1)]  # one artist, which is fast to draw
        axis.add_collection(LineCollection(grid_lines, colors=colour, linewidths=thickness))
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_arrows(axis: Axes, field: Tensor, arrows: int = 12) -> None:
    """Draw arrows, so many in a row, from pixels to where they are fetched from; field (2, H, W)."""
    y, x = (np.linspace(0, side, 2 * arrows, endpoint=False, dtype=int)[1::2] for side in field.shape[-2:])
    u, v = _array(field)[:, y[:, None], x]
    axis.quiver(x, y, u, v, color="white", angles="xy", scale_units="xy", scale=1, width=0.006)


@style()
def field_picture(phi: Tensor, titles: Sequence[str] = (), arrows: int = 14) -> Figure:
    """Length of a field in colour, on one scale for all panels, and arrows from pixels to where they are fetched from.

    `arrows` is how many stand in a row; 0 draws none, for fields too short to be seen as arrows.
    """
    fields = _batch(phi)
    lengths = fields.norm(dim=1)
    figure, axes = _panels(list(lengths))
    for axis, field, length, title in zip(axes, fields, lengths, titles or [""] * len(fields), strict=True):
        drawn = _draw(axis, length, title, (0, lengths.max().item()), "viridis")
        if arrows:
            draw_arrows(axis, field, arrows)
    bar = figure.colorbar(drawn, ax=axes, label="displacement, px", shrink=0.85, aspect=25, pad=0.01)
    bar.outline.set_visible(False)
    return figure


def checkerboard(a: Tensor, b: Tensor, tile: int) -> Tensor:
    """Tiles of two images (..., H, W) by turns, `a` in the upper left corner; edges that are aligned run on."""
    y, x = (torch.arange(side, device=a.device) // tile for side in a.shape[-2:])
    return torch.where((y[:, None] + x) % 2 == 0, a, b)


def overlay(ir: Tensor, vi: Tensor) -> Tensor:
    """Composite (..., 3, H, W) of (..., 1, H, W): visible in green, infrared in magenta, grey where equally bright."""
    return torch.cat([ir, vi, ir], -3)


@style()
def alignment(vi: Tensor, before: Tensor, after: Tensor) -> Figure:
    """The visible image (1, H, W) and its checkerboards with the infrared, in amber, before and after registration.

    Below each, a place with visible texture where the two infrared images differ, enlarged.
    """
    vi, before, after = (image.reshape(1, *image.shape[-2:]) for image in (vi, before, after))
    height, width = vi.shape[-2:]
    tile, window = max(4, height // 12), (height // 5, width * 2 // 5)
    texture = (vi - avg_pool2d(vi, 5, 1, 2)).abs()
    interest = avg_pool2d(texture, window, 1) * avg_pool2d((before - after).abs(), window, 1)
    top, left = divmod(interest.argmax().item(), width - window[1] + 1)
    rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
    ratios = (height / width, window[0] / window[1])
    inches = WIDTH / 3 * sum(ratios) + 0.3
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, inches), height_ratios=ratios)
    for (axis, close), title, ir in zip(axes.T, ("visible", "before", "after"), (None, before, after), strict=True):
        board = vi.expand(3, -1, -1) if ir is None else checkerboard(vi, ir * AMBER, tile)
        _draw(axis, board, title)
        _draw(close, board[:, rows, columns], "")
        corner = (left - 0.5, top - 0.5)
        axis.add_patch(Rectangle(corner, window[1], window[0], fill=False, ec=MARK, lw=1.5))
        axis.set_axis_off()
        close.set(xticks=[], yticks=[])
        close.spines[:].set(visible=True, color=MARK, linewidth=1.5)
    return figure


def feature_maps(features: Tensor, count: int = 4, title: str = "channel") -> Figure:
    """The first channels of features (C, H, W), or of a batch's first image, each stretched from its own 1 to 99 %."""
    channels = {}
    for number, channel in enumerate(_batch(features)[0][:count]):
        low, high = np.percentile(_array(channel), [1, 99])
        channels[f"{title} {number}"] = (channel - low) / max(high - low, 1e-12)
    return images(channels, columns=min(4, len(channels)), cmap="viridis")


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, for `ipywidgets.Image`; the figure is closed."""
    file = BytesIO()
    # Level 1 is three times as fast as the usual 6, for files a fifth larger.
    figure.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    return file.getvalue()


def _panels(pictures: Sequence[Tensor], columns: int | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with an empty panel without axes for each picture, as high as the tallest needs."""
    columns = columns or min(6, len(pictures))
    rows, panel = ceil(len(pictures) / columns), WIDTH / max(columns, 2)
    height = 0.22 + panel * max(picture.shape[-2] / picture.shape[-1] for picture in pictures)
    figure, axes = plt.subplots(rows, columns, figsize=(panel * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat[: len(pictures)])


def _draw(
    axis: Axes, image: Tensor, title: str, limits: Sequence[float] | None = (0, 1), cmap: str = "gray"
) -> AxesImage:
    low, high = limits or (None, None)
    pixels = _array(image.squeeze())
    axis.set_title(title)
    return axis.imshow(pixels.transpose(1, 2, 0).clip(0, 1) if pixels.ndim == 3 else pixels, cmap, vmin=low, vmax=high)


def _outline(axis: Axes, boxes: Tensor, top: int = 0) -> dict[str, Rectangle]:
    """Draw boxes or detections on an image that begins `top` pixels down; a rectangle of each class, by its name."""
    outlines = {}
    for label, *_, x0, y0, x1, y1 in boxes.tolist():
        name = NAMES[int(label)]
        corner = (x0 - 0.5, top + y0 - 0.5)  # of the pixel, whose centre has integer coordinates
        outlines[name] = axis.add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, ec=BOX[name], lw=1.2))
    return outlines


def _name_classes(figure: Figure, outlines: Mapping[str, Rectangle]) -> None:
    names = [name for name in BOX if name in outlines]
    if names:
        figure.legend([outlines[name] for name in names], names, loc="outside lower center", ncols=len(names))


def _batch(x: Tensor) -> Tensor:
    return x[None] if x.ndim == 3 else x


def _array(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
