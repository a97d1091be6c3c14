"""The network drawn by code, after the paper's Figs. 2 and 3: every size in it is read off a network that has run.

Look as in `fusionlib.notebook.plotting`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from fusionlib.detection import Detector
from fusionlib.network import FusionNetwork
from fusionlib.notebook.plotting import COLOURS, WIDTH, style

INFRARED, VISIBLE, REGISTRATION, HEADS, PLAIN = "#f6d9c4", "#cfe3f1", "#d3ebdf", "#f0dcea", "#eeeeee"


@torch.no_grad()
def shapes(network: FusionNetwork, side: int) -> dict[str, tuple[int, ...]]:
    """What every block of a network gives for a pair of `side` x `side` pixels, without the batch: (C, h, w).

    Returns:
        Name of the block to the shape of its output; `fused` is F_f, `stage 1`, `stage 2`, ... the fields of the MSRB.
    """
    shape_of: dict[str, tuple[int, ...]] = {}

    def recorder(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(block: nn.Module, inputs: object, made: object) -> None:
            if torch.is_tensor(made):
                shape_of.setdefault(name, tuple(made.shape[1:]))

        return hook

    hooks = [block.register_forward_hook(recorder(name)) for name, block in network.named_children()]
    training = network.training
    try:
        output = network.eval()(torch.zeros(1, 1, side, side), torch.zeros(1, 1, side, side))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    fields = {f"stage {i}": tuple(stage.field.shape[1:]) for i, stage in enumerate(output.alignment.stages, 1)}
    return shape_of | fields | {"fused": tuple(output.fused.shape[1:]), "field": tuple(output.field.shape[1:])}


@style()
def diagram(network: FusionNetwork, detector: Detector, side: int = 256) -> Figure:
    """The whole network and, below, its registration, with channels and sizes for a pair of `side` x `side` pixels.

    Args:
        network: one that fuses the common features too (Eq. 7), of any other configuration.
        detector: the head that reads its fused feature F_f.
        side: of the images, in pixels.
    """
    shape_of = shapes(network, side)
    levels = sum(name.startswith("stage") for name in shape_of)
    figure, (whole, inside) = plt.subplots(
        2, 1, figsize=(1.2 * WIDTH, 5 + 1.2 * levels), height_ratios=(5, 1.2 * levels)
    )
    for axis in (whole, inside):
        axis.set_axis_off()
    _whole(whole, network, detector, shape_of, side)
    _registration(inside, network, shape_of)
    return figure


def _whole(axis: Axes, network: FusionNetwork, detector: Detector, shape_of: dict, side: int) -> None:
    axis.set(xlim=(-0.7, 12.6), ylim=(-0.75, 4.15))
    axis.set_title("The network (Fig. 2)", loc="left", fontweight="bold")
    reads = "local structure" if network.config.common_input == "structure" else "the image"
    _box(axis, 0, 2.75, 1.1, 0.9, f"infrared $I_i^d$\n{_size((1, side, side))}", INFRARED)
    _box(axis, 0, 0.45, 1.1, 0.9, f"visible $I_v$\n{_size((1, side, side))}", VISIBLE)
    for name, y, colour, source in (
        ("ir_sfe", 3.35, INFRARED, 2.95),
        ("ir_cfe", 2.3, INFRARED, 2.55),
        ("vi_cfe", 0.9, VISIBLE, 0.65),
        ("vi_sfe", -0.15, VISIBLE, 0.25),
    ):
        kind = f"common: {reads}" if name.endswith("cfe") else "specific: the image"
        text = f"{_title(name)}\n{kind}\n{_widths(getattr(network, name))} channels"
        _box(axis, 2.3, y, 2.1, 0.85, text, colour)
        _arrow(axis, [(0.55, source), (1.25, y)])
    for name, y, tall in (("ir_cseb", 2.1, 2.05), ("vi_cseb", 1.1, 1.15)):
        text = f"{_title(name)} (Eqs. 3, 4)\n{_size(shape_of[name])}"
        _box(axis, 4.75, y, 1.5, 0.62, text, REGISTRATION)
        _arrow(axis, [(3.35, tall), (4.0, tall)])
        _arrow(axis, [(5.5, y), (5.85, 1.6 + (y - 1.6) * 0.7)])
    _box(axis, 6.5, 1.6, 1.3, 1.1, f"MSRB\n{_million(network.msrb)}".replace(" M ", " M\n"), REGISTRATION)
    _arrow(axis, [(7.15, 1.6), (7.95, 1.6), (7.95, 2.2)], f"field $\\phi$\n{_size(shape_of['field'])}", (7.2, 1.0))
    _box(axis, 7.95, 2.95, 0.9, 1.5, "warp\n(Eq. 6)", REGISTRATION)
    for y, text in ((3.35, r"$\hat F_i^d$"), (2.58, r"$F_i^d$")):
        _arrow(axis, [(3.35, y), (7.5, y)], text, (3.5, y + 0.06))
        _arrow(axis, [(8.4, y), (9.1, y)], text.replace("^d", "^r"), (8.5, y + 0.06))
    for y, text in ((0.62, r"$F_v$"), (-0.15, r"$\hat F_v$")):
        _arrow(axis, [(3.35, y), (9.1, y)], text, (3.5, y + 0.06))
    joined = "concatenate\n(Eq. 7)\n\n$F_f$\n" + _size(shape_of["fused"])
    _box(axis, 9.65, 1.6, 1.1, 4.2, joined, PLAIN)
    _box(axis, 11.6, 2.75, 1.8, 0.95, f"fusion head, Tanh\n{_widths(network.head)} channels", HEADS)
    _box(axis, 11.6, 0.45, 1.8, 0.95, f"YOLOv5 {detector.config.size} head (Eq. 8)\n{_million(detector)}", HEADS)
    for y, text in ((2.75, f"fused image $I_f$, {_size(shape_of['head'])}"), (0.45, "boxes and classes")):
        _arrow(axis, [(10.2, y), (10.7, y)])
        axis.text(11.6, y - 0.72, text, ha="center", va="center", fontsize=8)
        _arrow(axis, [(11.6, y - 0.475), (11.6, y - 0.62)])


def _registration(axis: Axes, network: FusionNetwork, shape_of: dict) -> None:
    config, levels = network.config, [name for name in shape_of if name.startswith("stage")]
    axis.set(xlim=(-0.7, 12.6), ylim=(-0.5, len(levels) - 0.4))
    axis.set_title("The registration: CSEB and MSRB (Fig. 3)", loc="left", fontweight="bold")
    pyramid = config.msrb == "pyramid"
    middle = 0 if pyramid else (len(levels) - 1) / 2  # the pyramid begins with its finest level, below
    _box(axis, 0.75, middle, 2.2, 0.75, f"enhanced features\n{_size(shape_of['ir_cseb'])} each", REGISTRATION)
    _arrow(axis, [(1.85, middle), (2.45 if pyramid else 3.7, middle)])
    if not pyramid:
        _box(axis, 5, middle, 2.6, 0.75, f"U-Net\n{_joined(config.msrb_widths)} channels", REGISTRATION)
        _box(axis, 9.5, middle, 1.8, 0.75, f"field $\\phi$\n{_size(shape_of['stage 1'])}", PLAIN)
        _arrow(axis, [(6.3, middle), (8.6, middle)])
        return
    shifts, reach = (2 * config.correlation_radius + 1) ** 2, ", ".join(f"{side}×{side}" for side in config.windows)
    for i, (name, width) in enumerate(zip(levels, reversed(config.msrb_widths), strict=True)):
        y, size = len(levels) - 1 - i, shape_of[name]
        texts = (
            f"encoder, both cameras\n{_size((width, *size[1:]))}",
            "warp infrared\nby the field so far" if i else "field so far: zero",
            f"cost volume: {shifts} shifts,\nwindows {reach}",
            f"U-Net, {_joined(config.gathering_widths)}\ncorrects the field",
            f"field {_size(size)}",
        )
        places = ((3.35, 1.8), (5.4, 1.6), (7.45, 1.85), (9.65, 1.85), (11.7, 1.6))
        for (x, wide), text in zip(places, texts, strict=True):
            _box(axis, x, y, wide, 0.62, text, PLAIN if text.startswith("field") else REGISTRATION)
        for (x, wide), (after, other) in pairwise(places):
            _arrow(axis, [(x + wide / 2, y), (after - other / 2, y)])
        if i:
            _arrow(axis, [(3.35, y + 0.31), (3.35, y + 0.69)])  # the coarser encoder goes on from the finer one
            _arrow(axis, [(11.7, y + 0.69), (11.7, y + 0.5), (5.4, y + 0.5), (5.4, y + 0.31)])


def _title(block: str) -> str:
    return block.upper().replace("_", "-")


def _widths(block: nn.Module) -> str:
    layers = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    return _joined([layers[0].in_channels, *(layer.out_channels for layer in layers)])


def _joined(widths: Sequence[int]) -> str:
    return "→".join(map(str, widths))


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _million(block: nn.Module) -> str:
    return f"{sum(weight.numel() for weight in block.parameters()) / 1e6:.2f} M parameters"


def _box(axis: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    corner, look = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.08"
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle=look, fc=colour, ec="0.35", lw=0.8, zorder=3))
    axis.text(x, y, text, ha="center", va="center", fontsize=8, zorder=4)


def _arrow(axis: Axes, points: Sequence[tuple[float, float]], text: str = "", at: tuple[float, float] = (0, 0)) -> None:
    line = {"color": COLOURS[6], "lw": 0.9}
    axis.plot(*zip(*points[:-1], strict=True), **line) if len(points) > 2 else None
    axis.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line})
    axis.text(*at, text, fontsize=8 if "\n" in text else 9, va="bottom")
