"""Pictures for controls: every function takes the values of the controls and returns a figure; it changes nothing else.

`fusionlib.notebook.widgets` puts them under sliders and draws them again at each move. They are therefore laid out by
hand, on figures without pyplot, in a fraction of the time that `fusionlib.notebook.plotting` takes. Slow results that
do not depend on the controls (a network's features) are computed once and passed as arguments.

Convention: images are (H, W), (1, H, W) or (3, H, W) in [0, 1], fields (1, 2, H, W) in pixels; colours as in
`fusionlib.notebook.plotting`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fusionlib.deformation import (
    Level,
    Misaligned,
    compose,
    fold_share,
    jacobian_determinant,
    misalign,
    sample_field,
    warp,
)
from fusionlib.metrics import endpoint_error
from fusionlib.network import FusionNetwork
from fusionlib.notebook.plotting import AMBER, MARK, WIDTH, checkerboard, draw_arrows, draw_grid
from fusionlib.support.inputs import downsample, local_structure

VIEWS = ("swipe", "checkerboard", "first", "second")
Features = tuple[Tensor, Tensor, Tensor]


def panels(
    pictures: Mapping[str, Tensor], limits: Sequence[float] = (0, 1), cmap: str = "gray", width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """A row of images under their titles, of equal height; `width` in inches, of all together."""
    arrays = [_array(image) for image in pictures.values()]
    shapes = np.array([array.shape[1] / array.shape[0] for array in arrays])
    gap, head = 0.06, 0.26  # inches
    high = (width - gap * (len(arrays) - 1)) / shapes.sum()
    figure = Figure(figsize=(width, high + head))
    left = 0.0
    axes = []
    for title, array, shape in zip(pictures, arrays, shapes, strict=True):
        axis = figure.add_axes((left / width, 0, shape * high / width, high / (high + head)))
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        axis.imshow(array, cmap, vmin=limits[0], vmax=limits[1], interpolation="bilinear", aspect="auto")
        axes.append(axis)
        left += shape * high + gap
    return figure, axes


def compare(pictures: Mapping[str, Tensor], first: str, second: str, position: float, view: str) -> Figure:
    """Two images of one size in one frame.

    Args:
        pictures: title to image.
        first, second: titles of the two.
        position: 0 to 100. Of a swipe, the per cent of the width that shows the first; of a checkerboard, how large
            the tiles are, from 1/32 to a half of the width.
        view: one of `VIEWS`: "swipe"; "checkerboard"; and "first" and "second", which show one of them alone: going to
            and fro between these two is the flicker by which eyes find what moves.
    """
    a, b = (_colour(pictures[name]) for name in (first, second))
    width = a.shape[-1]
    if view == "checkerboard":
        tile = max(1, round(width / 32 + position / 100 * (width / 2 - width / 32)))
        shown, title = checkerboard(a, b, tile), f"{first} (upper left tile) and {second} by turns"
    elif view == "swipe":
        cut = round(position / 100 * width)
        shown, title = torch.cat([a[..., :cut], b[..., cut:]], -1), f"left: {first} · right: {second}"
    else:
        shown, title = (a, first) if view == "first" else (b, second)
    figure, (axis,) = panels({title: shown}, width=WIDTH / 2)
    if view == "swipe":
        axis.axvline(cut - 0.5, color=MARK, lw=1.5)
    return figure


def studio(
    ir: Tensor,
    shift: float = 3.0,
    rotation: float = 3.0,
    elastic: float = 0.8,
    smoothness: float = 6.0,
    times: float = 1.0,
    draw: int = 0,
) -> Figure:
    """An infrared image, deformed and restored: the grid, the label, the result and what is left.

    Args:
        ir: aligned infrared (1, 1, H, W).
        shift, elastic, smoothness: the level's translation, elastic part and smoothing, in per cent of the side.
        rotation: degrees at most.
        times: the field is multiplied by this; if the factor is large, it folds and has no inverse.
        draw: key of the draw.

    Raises:
        InputError: the level folds in every draw, before the field is multiplied.
    """
    level = Level("of these sliders", shift / 100, rotation, elastic / 100, smoothness / 100)
    psi = times * sample_field(level, *ir.shape[-2:], key=("studio", draw))
    if folds := fold_share(psi).item():
        moved = warp(ir, psi)
        title = f"WARNING: {100 * folds:.1f} % of the pixels fold (orange)"
        figure, axes = panels({title: moved, "no field undoes this": torch.ones_like(moved)}, width=WIDTH * 0.7)
        smallest = jacobian_determinant(psi).min().item()
        text = f"smallest determinant {smallest:.2f};\nan inverse needs more than 0"
        axes[1].text(0.5, 0.5, text, ha="center", va="center", transform=axes[1].transAxes)
        draw_grid(axes[0], psi[0])
        return figure
    moved = misalign(ir, psi, tolerance=1e-3)
    lengths, restored = moved.phi_gt.norm(dim=1), warp(moved.ir, moved.phi_gt)
    errors = compose(psi, moved.phi_gt).norm(dim=1, keepdim=True)[moved.valid]
    residual = f"{errors.max():.4f} px" if len(errors) else "nothing inside"
    pictures = {
        f"moved, {lengths.mean():.1f} px on average": moved.ir,
        f"its inverse, {lengths.max():.1f} px at most": lengths / lengths.max().clamp(min=1e-6),
        f"restored; residual: {residual}": restored,
        "error of the image, x4": 4 * (restored - ir).abs(),
    }
    figure, axes = panels(pictures)
    axes[1].images[0].set_cmap("viridis")
    draw_grid(axes[0], moved.phi_gt[0])
    draw_arrows(axes[1], moved.phi_gt[0])
    return figure


def how_far(
    ir: Tensor,
    vi: Tensor,
    register: Callable[[Tensor, Tensor], Tensor],
    shift: float,
    rotation: float,
    elastic: float,
    draw: int,
) -> Figure:
    """How far may the infrared image be moved? Checkerboards with the visible image before and after.

    Args:
        ir, vi: aligned pair, (1, 1, H, W).
        register: deformed infrared and visible image to a field (1, 2, H, W) pixels.
        shift, rotation, elastic, draw: as in `studio`.
    """
    level = Level("of these sliders", shift / 100, rotation, elastic / 100)
    moved = misalign(ir, sample_field(level, *ir.shape[-2:], key=("play", draw)), tolerance=1e-2)
    field = register(moved.ir, vi)
    error_before, error_after = (
        endpoint_error(phi, moved.phi_gt, moved.valid).item() for phi in (torch.zeros_like(field), field)
    )
    tile = max(4, vi.shape[-2] // 12)
    boards = [checkerboard(_colour(vi), _colour(each) * AMBER, tile) for each in (moved.ir, warp(moved.ir, field))]
    titles = (f"as given: {error_before:.1f} px apart", f"registered: {error_after:.1f} px left")
    return panels(dict(zip(titles, boards, strict=True)), width=0.8 * WIDTH)[0]


def fields(found: Mapping[str, Tensor], moved: Misaligned) -> Figure:
    """Lengths of fields beside that of the true one, on one scale, with arrows and their end-point errors.

    Args:
        found: title to field (1, 2, H, W) in pixels.
        moved: what was registered.
    """
    errors = {name: endpoint_error(field, moved.phi_gt, moved.valid).item() for name, field in found.items()}
    shown = {f"{name}: {errors[name]:.1f} px off": field for name, field in found.items()}
    shown["the true field"] = moved.phi_gt
    lengths = {title: field.norm(dim=1) for title, field in shown.items()}
    largest = max(length.max().item() for length in lengths.values())
    figure, axes = panels(lengths, (0, max(largest, 1.0)), "viridis", width=0.8 * WIDTH)
    for axis, field in zip(axes, shown.values(), strict=True):
        draw_arrows(axis, field[0])
    return figure


@torch.no_grad()
def stages(network: FusionNetwork, ir: Tensor, vi: Tensor) -> dict[str, Features]:
    """The features of a pair at each stage of the network, three of (C, H, W) for each stage.

    Args:
        network: in the mode in which it is to be looked at.
        ir: deformed infrared (1, 1, H, W) in [0, 1].
        vi: visible (1, 1, H, W) in [0, 1].

    Returns:
        Stage to its infrared features, the same warped by the field that the network finds, and its visible features.
        The last stage has no modalities any more: the image fused without the warp, the one fused with it, and the
        visible image.
    """
    output = network(ir, vi)
    phi, size, stride = output.field, ir.shape[-2:], network.config.registration_stride
    common, specific = network.common_features(ir, vi), (network.ir_sfe(ir), network.vi_sfe(vi))
    reduced = network.common_features(*(downsample(image, network.registration_size(*size)) for image in (ir, vi)))
    coarse = [F.avg_pool2d(each, stride) for each in reduced]
    enhanced = [F.interpolate(each, size) for each in (network.ir_cseb(coarse[0]), network.vi_cseb(coarse[1]))]
    pairs_of = {"images": (ir, vi)}
    if network.config.common_input == "structure":
        pairs_of["structure (input of the common extractors)"] = (local_structure(ir), local_structure(vi))
    pairs_of |= {"common features": common, "enhanced by CSEB": enhanced, "specific features": specific}
    features_of = {name: (of_ir[0], warp(of_ir, phi)[0], of_vi[0]) for name, (of_ir, of_vi) in pairs_of.items()}
    # The head reads all four features; in the third ablation, the specific ones alone.
    head_inputs = [common[0], specific[0], common[1], specific[1]] if network.config.common_in_fusion else specific
    doubled = (network.head(torch.cat(list(head_inputs), 1)) + 1) / 2
    return features_of | {"fused image": (doubled[0], output.image[0], vi[0])}


def walk(all_stages: Mapping[str, Features], stage: str, channel: int) -> Figure:
    """One channel of a stage of `stages`, all three on one colour scale; the last channel if there are not so many."""
    features = all_stages[stage]
    number = min(channel, len(features[0]) - 1)
    channels = [each[number] for each in features]
    titles = ("infrared, as given", "infrared, warped by the field", "visible")
    if stage == "fused image":
        titles = ("fused without the warp", "fused with it", "visible")
    grey = stage in ("images", "fused image")
    values = torch.stack(channels)
    low, high = (0, 1) if grey else np.percentile(_array(values), [1, 99])
    marked = [
        f"{title} · channel {number} of 0 to {len(features[0]) - 1}" if not i and not grey else title
        for i, title in enumerate(titles)
    ]
    return panels(
        dict(zip(marked, channels, strict=True)), (low, max(high, low + 1e-6)), "gray" if grey else "viridis"
    )[0]


def _colour(image: Tensor) -> Tensor:
    """(3, H, W) of (H, W), (C, H, W) or a batch of one."""
    return image.reshape(-1, *image.shape[-2:]).expand(3, -1, -1)


def _array(image: Tensor) -> np.ndarray:
    """(H, W) or (H, W, 3), colours in [0, 1]."""
    pixels = image.detach().cpu().float().squeeze().numpy()
    return pixels.transpose(1, 2, 0).clip(0, 1) if pixels.ndim == 3 and len(pixels) == 3 else pixels
