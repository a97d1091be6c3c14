"""How well the "aligned" pairs of a set are aligned themselves: how accurate the true field of a registration is.

A deformation is undone exactly by its inverse, but only with respect to the pair as published. Where the published pair
is a little off, a method that aligns what is visible is penalised for it. This module measures by how much, without any
network: it matches blocks of edges between the two images of an undeformed pair and keeps only unmistakable matches.

Convention: a displacement (dx, dy) in pixels says where the content of the visible image at (x, y) lies in the infrared
one, at (x + dx, y + dy): the field that would bring the pair into perfect register.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.data import PairSet
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method
from fusionlib.registration import window_mean
from fusionlib.support.keys import Key

SIDE = 41  # of a block in pixels, odd
REACH = 7  # largest displacement looked for along each axis, in pixels
STEP = 10  # pixels between blocks
LEAST = 0.5  # smallest correlation of a match that counts
# By how much a match must exceed every other one RING pixels away. It keeps out straight edges, along which a block can
# slide, and patterns that repeat.
DISTINCT, RING = 0.2, 3


def run(methods: Mapping[Method, Key], sets: Mapping[str, PairSet], levels: Sequence[str], path: Path) -> pd.DataFrame:
    """The means of `at_blocks` for every set and level, or what was measured of the same methods before.

    Args:
        methods: each with the key of what it is, see `methods.origin`.
        sets: name to aligned test pairs.
        levels: of deformation.
        path: CSV file in which the rows are kept; a part is one set at one level.

    Returns:
        Columns set, level, blocks (their number), and those of `at_blocks`.
    """
    marks, parts = Key(), []
    for mark in methods.values():
        marks |= mark
    for (name, pairs), level in product(sets.items(), levels):
        key = runner.key_of(pairs, "deformation", "label-accuracy")
        measure = partial(_measure, list(methods), pairs, level)
        parts.append(runner.Part({"set": name, "level": level}, key | marks, measure))
    return runner.run(path, parts)


def _measure(methods: Sequence[Method], pairs: PairSet, level: str) -> pd.DataFrame:
    blocks = at_blocks(methods, pairs, level)
    means = blocks.mean().to_frame().T
    means.insert(0, "blocks", len(blocks))
    return means


def at_blocks(methods: Sequence[Method], pairs: PairSet, level: str) -> pd.DataFrame:
    """Lengths in pixels at the kept blocks of all pairs: a row a block.

    Columns: "the pair itself", its own error; "doing nothing", the deformation; and of each method its error "NAME, to
    the label" and "NAME, to the corrected label".
    """
    tables = []
    for name, ir, vi in pairs.one_by_one():
        own, moved = own_misalignment(ir, vi), evaluation.deform(ir, name, level)
        label, corrected_label = sample_at(moved.phi_gt, own["x"], own["y"]), corrected(moved.phi_gt, own)
        errors = {"the pair itself": label - corrected_label, "doing nothing": label}
        for method in methods:
            displacement = sample_at(method.fuse(moved.ir, vi).field, own["x"], own["y"])
            errors |= {f"{method.name}, to the label": displacement - label}
            errors |= {f"{method.name}, to the corrected label": displacement - corrected_label}
        tables.append(pd.DataFrame({column: error.norm(dim=1).numpy() for column, error in errors.items()}))
    return pd.concat(tables)


def own_misalignment(ir: Tensor, vi: Tensor, least: float = LEAST) -> pd.DataFrame:
    """Displacements left in an undeformed pair, at blocks whose match is unmistakable.

    Args:
        ir, vi: (1, 1, H, W) in [0, 1].
        least: smallest correlation of a match that counts.

    Returns:
        One row a block: x, y (its centre, pixels), dx, dy (to a fraction of a pixel), ncc.
    """
    margin = SIDE // 2 + REACH
    correlation = _correlations(_edges(ir), _edges(vi))  # (2 REACH + 1, 2 REACH + 1, H, W), dy then dx
    rows = []
    for y in range(margin, ir.shape[-2] - margin, STEP):
        for x in range(margin, ir.shape[-1] - margin, STEP):
            scores = correlation[:, :, y, x]
            row, column = np.unravel_index(scores.argmax(), scores.shape)
            if min(row, column) < RING or max(row, column) > 2 * REACH - RING:
                continue
            ring = scores[row - RING : row + RING + 1, column - RING : column + RING + 1].copy()
            ring[1:-1, 1:-1] = -1
            best = scores[row, column]
            if best >= least and best - ring.max() >= DISTINCT:
                dx = column - REACH + _vertex(*scores[row, column - 1 : column + 2])
                dy = row - REACH + _vertex(*scores[row - 1 : row + 2, column])
                rows.append((x, y, dx, dy, best))
    return pd.DataFrame(rows, columns=["x", "y", "dx", "dy", "ncc"])


def corrected(phi_gt: Tensor, own: pd.DataFrame) -> Tensor:
    """The displacements to find at the blocks if the pair's own misalignment is undone too.

    Where the aligned infrared matches at p + d, and the deformation moved that to p + d + phi_gt(p + d), the deformed
    one matches at p + (d + phi_gt(p + d)).

    Args:
        phi_gt: the label of the deformed pair, (1, 2, H, W) pixels.
        own: from `own_misalignment` of the undeformed pair.

    Returns:
        (N, 2) pixels, x and y.
    """
    d = torch.tensor(own[["dx", "dy"]].to_numpy(np.float32))
    return d + sample_at(phi_gt, own["x"] + own["dx"], own["y"] + own["dy"])


def sample_at(phi: Tensor, x: pd.Series, y: pd.Series) -> Tensor:
    """A field (1, 2, H, W) at points, to the nearest pixel: (N, 2)."""
    columns = torch.tensor(x.round().to_numpy(np.int64)).clamp(0, phi.shape[-1] - 1)
    rows = torch.tensor(y.round().to_numpy(np.int64)).clamp(0, phi.shape[-2] - 1)
    return phi[0, :, rows, columns].T


def _edges(image: Tensor) -> Tensor:
    """Strength of the gradient of the image, blurred over 3 x 3 pixels."""
    smooth = F.pad(window_mean(image, 3), [1] * 4, mode="replicate")
    across, down = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2], smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    return torch.hypot(across, down).double()


def _correlations(a: Tensor, b: Tensor) -> np.ndarray:
    """Pearson's r of the block of b around each pixel with the block of a displaced by (dx, dy)."""
    steps = range(-REACH, REACH + 1)
    mean_b = _block_mean(b)
    variance_b = _block_mean(b * b) - mean_b**2
    maps = []
    for dy in steps:
        for dx in steps:
            moved = torch.roll(a, (-dy, -dx), dims=(-2, -1))  # what wraps around lies in the margin
            mean_a = _block_mean(moved)
            variance_a = _block_mean(moved * moved) - mean_a**2
            covariance = _block_mean(moved * b) - mean_a * mean_b
            maps.append(covariance / (variance_a * variance_b).clamp(min=1e-16).sqrt())
    return torch.cat(maps).view(len(steps), len(steps), *a.shape[-2:]).numpy()


def _block_mean(x: Tensor) -> Tensor:
    """Mean of the block around each pixel, from running sums: as fast for a large block as for a small one."""
    before, after = SIDE // 2 + 1, SIDE // 2
    total = F.pad(x, (before, after, before, after)).cumsum(-2).cumsum(-1)
    rows = total[..., SIDE:, :] - total[..., :-SIDE, :]
    return (rows[..., SIDE:] - rows[..., :-SIDE]) / SIDE**2


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through three equidistant values has its maximum, in steps from the middle."""
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0
