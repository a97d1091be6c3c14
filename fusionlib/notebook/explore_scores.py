"""Charts for controls: losses under other weights, metrics of a degraded image, detections above a threshold.

As in `fusionlib.notebook.explore`: values of controls in, a figure out. Orange marks what to look at, or a false alarm;
blue the rest, or what is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from kornia.filters import gaussian_blur2d
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from torch import Tensor

from fusionlib import metrics
from fusionlib.deformation import warp
from fusionlib.losses import LossWeights, total_loss
from fusionlib.metrics.directions import sign
from fusionlib.notebook.explore import panels
from fusionlib.notebook.plotting import COLOURS, WIDTH
from fusionlib.support.boxes import NAMES, iou

BLUE, ORANGE, SKY, YELLOW = COLOURS[0], COLOURS[1], COLOURS[5], "#F0E442"
MEANING = {
    "l_c": "l_c, Eq. 1",
    "l_s": "l_s, Eq. 2",
    "l_reg": "λ₁ l_reg, Eq. 5",
    "l_coarse": "λ₁ ½ l_coarse (ours)",
    "l_match": "λ₁ l_match (ours)",
    "l_b": "λ₂ l_b, Eq. 11",
    "l_g": "λ₂ γ l_g, Eq. 10",
    "l_ob": "λ₃ l_ob, Eq. 8",
}
RING = " without the outermost ring"
INTERIOR = f"Q_CV{RING}"


# --- Eq. (12)


def weighted_terms(terms: Mapping[str, float], weights: LossWeights) -> pd.Series:
    """What each unweighted term of `losses.alignment_terms`, `losses.fusion_terms` and l_ob adds to l_t of Eq. (12)."""
    return pd.Series({name: float(total_loss({name: value}, weights)) for name, value in terms.items()})


def loss_bars(
    terms: Mapping[str, float], gamma: float = 2, lambda1: float = 10, lambda2: float = 5, lambda3: float = 5
) -> Figure:
    """Bars of the weighted terms of one batch, the largest in orange, and their sum l_t in the title."""
    weights = LossWeights(gamma=gamma, lambda_reg=lambda1, lambda_fusion=lambda2, lambda_detection=lambda3)
    parts = weighted_terms(terms, weights)
    leader = parts.abs().idxmax()
    figure, axis = _chart(0.7 * WIDTH, 0.75 + 0.3 * len(parts), left=0.25, right=0.03)
    axis.barh(range(len(parts)), parts, color=[ORANGE if name == leader else BLUE for name in parts.index])
    for place, value in enumerate(parts):
        axis.annotate(
            f"{value:.3g}", (max(value, 0), place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(parts)), [MEANING[name] for name in parts.index])
    axis.set_xlim(min(0, parts.min()) * 1.1, max(parts.max() * 1.15, 0.1))
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", lw=0.8)
    share = parts[leader] / parts.abs().sum()
    axis.set_title(f"l_t = {parts.sum():.3g}; {MEANING[leader]} leads with {share:.0%} of all magnitudes", fontsize=9)
    return figure


# --- the metrics


def spoilt(fused: Tensor, blur: float = 0, noise: float = 0, shift: float = 0, contrast: float = 100) -> Tensor:
    """A fused image (1, 1, H, W) after blur, noise, a shift or a change of contrast, in [0, 1].

    Args:
        fused: in [0, 1].
        blur: standard deviation of a Gaussian, pixels.
        noise: standard deviation of noise, per cent of the range; the same noise each time.
        shift: pixels to the right; the border is repeated.
        contrast: per cent; 100 leaves it as it is, values are scaled about their mean.
    """
    image = fused
    if shift:
        image = warp(image, torch.tensor([-float(shift), 0.0]).view(1, 2, 1, 1).expand(-1, -1, *image.shape[-2:]))
    if blur:
        reach = int(np.ceil(3 * blur))
        image = gaussian_blur2d(image, 2 * reach + 1, (blur, blur), "replicate")
    image = image.mean() + contrast / 100 * (image - image.mean()) if contrast != 100 else image
    if noise:
        drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
        image = image + noise / 100 * drawn
    return image.clamp(0, 1)


def scores(ir: Tensor, vi: Tensor, fused: Tensor) -> pd.Series:
    """The four metrics of one pair (1, 1, H, W), and Q_CV without its outermost ring of pixels."""
    values = {name: value.item() for name, value in metrics.fusion_metrics(ir, vi, fused).items()}
    return pd.Series(values | {INTERIOR: metrics.q_cv(*(255 * x for x in (ir, vi, fused)), interior=True).item()})


def metric_bars(ir: Tensor, vi: Tensor, image: Tensor, before: pd.Series) -> Figure:
    """An image, and by how many per cent each metric rates it better or worse than another image.

    Args:
        ir, vi: the sources, (1, 1, H, W).
        image: the image that is scored, (1, 1, H, W) in [0, 1].
        before: the `scores` of the other image, such as the fused image without any change.
    """
    after = scores(ir, vi, image)
    better = 100 * (after - before) / before.abs() * [sign(name.removesuffix(RING)) for name in before.index]
    shown = better.clip(-100, 100)
    figure, (axis,) = panels({"the image that is scored": image}, width=0.34 * WIDTH)
    share = figure.get_figwidth() / WIDTH
    figure.set_size_inches(WIDTH, figure.get_figheight())
    axis.set_position([0, 0, share, axis.get_position().height])
    chart = figure.add_axes((share + 0.24, 0.17, 0.98 - share - 0.24, 0.7))
    _bare(chart)
    chart.barh(range(len(shown)), shown, color=[ORANGE if value < 0 else BLUE for value in shown])
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        text = f"{old:.4g} → {new:.4g}"
        chart.text(0.99, place, text, ha="right", va="center", fontsize=8, transform=chart.get_yaxis_transform())
    chart.set_yticks(range(len(shown)), [name.replace(" without", "\nwithout") for name in shown.index], fontsize=8)
    chart.set(xlim=(-105, 165), xticks=[-100, -50, 0, 50, 100])
    chart.set_xlabel("worse  ←  change in %, cut at 100  →  better", fontsize=8)
    chart.set_title("what the metrics say", fontsize=9)
    chart.axvline(0, color="0.4", lw=0.8)
    chart.invert_yaxis()
    return figure


# --- detections


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections (M, 6) of one image, best first, compared with its boxes (N, 5), by COCO's rule.

    Attributes:
        detections, boxes: as given.
        right: (M,) bool, whether a detection claims a box. What is found above a threshold does not depend on what
            lies below it, so this holds for every threshold.
        claimed_by: (N,) the place of the detection that claims a box; M if none does.
    """

    detections: Tensor
    boxes: Tensor
    right: Tensor
    claimed_by: Tensor

    def above(self, least: float) -> tuple[Tensor, Tensor]:
        """Of the K detections of a score of at least `least`, which are right, (K,); which boxes they find, (N,)."""
        count = int((self.detections[:, 1] >= least).sum())
        return self.right[:count], self.claimed_by < count


def matches(detections: Tensor, boxes: Tensor, overlap: float = 0.5) -> Matches:
    """Let each detection, from the best score down, claim the free box of its class that it overlaps most.

    Args:
        detections: (M, 6), best first.
        boxes: (N, 5), the truth.
        overlap: IoU that counts as found.
    """
    near = iou(detections, boxes) * (detections[:, :1] == boxes[None, :, 0])
    right = torch.zeros(len(detections), dtype=torch.bool)
    claimed_by = torch.full((len(boxes),), len(detections))
    for place in (near >= overlap).any(1).nonzero().flatten().tolist():
        free = near[place].where(claimed_by == len(detections), torch.tensor(0.0))
        if free.max() >= overlap:
            right[place], claimed_by[free.argmax()] = True, place
    return Matches(detections, boxes, right, claimed_by)


def objects_of(rows: pd.DataFrame, images: int) -> list[Tensor]:
    """The detections (M, 6), best first, of each image of one set; `rows` are of `detection_bench.detections`."""
    columns = ["class", "score", "x0", "y0", "x1", "y1"]
    detections = rows.dropna(subset="class").sort_values("score", ascending=False, kind="stable")
    per_image = [detections.loc[detections["place"] == place, columns].to_numpy() for place in range(images)]
    return [torch.tensor(one, dtype=torch.float32).reshape(-1, 6) for one in per_image]


def f1(detections: Tensor, boxes: Tensor) -> float:
    """Harmonic mean of the precision and the recall of one image's detections (M, 6); `boxes` (N, 5), at least one."""
    right = matches(detections, boxes).right.sum().item()
    return 2 * right / (len(detections) + len(boxes))


def precision_recall(right: Tensor, claimed: Tensor) -> tuple[float, float]:
    """Share of the detections that are right, and of the boxes that are found; NaN where there is none."""
    return tuple(each.float().mean().item() if len(each) else float("nan") for each in (right, claimed))


def threshold_picture(image: Tensor, matched: Matches, least: float) -> Figure:
    """Detections above a threshold on their image, and precision and recall of this picture over all thresholds.

    Args:
        image: (1, H, W) or (3, H, W) in [0, 1].
        matched: its detections and boxes.
        least: scores below are not drawn.
    """
    right, claimed = matched.above(least)
    precision, recall = precision_recall(right, claimed)
    counts = f"{int(right.sum())} right, {int((~right).sum())} false alarms, {int((~claimed).sum())} missed"
    figure, (axis,) = panels({counts: image}, width=WIDTH / 2)
    share = 0.5
    figure.set_size_inches(WIDTH, figure.get_figheight())
    axis.set_position([0, 0, share, axis.get_position().height])
    for box in matched.boxes[~claimed]:
        _outline(axis, box, YELLOW, ":")
    shown = matched.detections[: len(right)]
    for kind, colour, dash in ((~right, ORANGE, "--"), (right, SKY, "-")):  # what is right lies on top
        for box in shown[kind]:
            _outline(axis, box, colour, dash)
    chart = figure.add_axes((share + 0.07, 0.14, 0.41, 0.66))
    _bare(chart)
    steps = np.geomspace(0.001, 1, 61)
    points = np.array([precision_recall(*matched.above(step)) for step in steps])
    for values, name, colour, dash in zip(points.T, ("precision", "recall"), (BLUE, ORANGE), ("-", "--"), strict=True):
        chart.plot(steps, values, dash, color=colour, label=name)
    chart.plot([least] * 2, [precision, recall], "o", color="black", ms=5)
    chart.axvline(least, color="0.5", lw=0.8)
    chart.set(xscale="log", xlim=(0.001, 1), ylim=(-0.03, 1.03))
    # Plain text: powers of ten would be typeset as formulas, which is slow.
    chart.set_xticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
    chart.xaxis.set_minor_locator(NullLocator())
    chart.set_xlabel("score that counts as found", fontsize=9)
    texts = ["undefined" if np.isnan(value) else f"{value:.2f}" for value in (precision, recall)]
    chart.set_title("at {:.3f}: precision {}, recall {}".format(least, *texts), fontsize=9, pad=22)
    chart.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    key = "light blue: right   ·   orange, dashed: false alarm   ·   yellow, dotted: missed"
    axis.text(0.5, 0.02, key, ha="center", fontsize=7, transform=axis.transAxes, bbox={"fc": "white", "ec": "none"})
    return figure


def _outline(axis: Axes, box: Tensor, colour: str, dash: str) -> None:
    label, *_, x0, y0, x1, y1 = box.tolist()
    axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, ls=dash, lw=1.5))
    axis.text(x0, y0 - 1, NAMES[int(label)], color=colour, fontsize=7, va="bottom", clip_on=True)


def _chart(width: float, height: float, left: float, right: float) -> tuple[Figure, Axes]:
    """An empty chart with margins as parts of the width; inches."""
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((left, 0.3 / height, 1 - left - right, 1 - 0.6 / height))
    _bare(axis)
    return figure, axis


def _bare(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
