"""The error that a registration leaves, in parts: affine and non-rigid, systematic and random.

Each part has a column:

    affine, bent      the affine part (shift, rotation, shear, stretch) can be estimated from a few good places; the
                      non-rigid rest, `bent`, differs from place to place and cannot be seen where both images are empty
    own               systematic error of a pair, the same whatever the deformation: of the published alignment, and of
                      what the method gets wrong in these two images
    chance            the random rest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib.data import PairSet
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method
from fusionlib.methods.field_refinement import affine_fit
from fusionlib.support.keys import Key


def run(methods: Mapping[Method, Key], pairs: PairSet, levels: Sequence[str], draws: int, path: Path) -> pd.DataFrame:
    """The rows of `parts` for every method and level, or what was measured by the same method before.

    Args:
        methods: each with the key of what it is, see `methods.origin`.
        pairs, draws: as in `parts`.
        levels: of deformation.
        path: CSV file in which the rows are kept; a part is one method at one level.

    Returns:
        Columns method, level, what, and those of `parts`.
    """
    key = runner.key_of(pairs, "deformation", "error-parts", draws=draws)
    table_parts = []
    for (method, mark), level in product(methods.items(), levels):
        where, measure = {"method": method.name, "level": level}, partial(_measure, method, pairs, level, draws)
        table_parts.append(runner.Part(where, key | mark, measure))
    return runner.run(path, table_parts)


def _measure(method: Method, pairs: PairSet, level: str, draws: int) -> pd.DataFrame:
    return parts(method, pairs, level, draws).reset_index()


def parts(method: Method, pairs: PairSet, level: str, draws: int) -> pd.DataFrame:
    """What is to be undone and what a method leaves of it, in parts.

    Args:
        method: one that registers.
        pairs: aligned pairs.
        level: of deformation; keyed as in `fusionlib.experiments.evaluation`, draw by draw.
        draws: deformations per pair, at least 2.

    Returns:
        Rows "to undo" and "left", columns EPE, affine, bent, own, chance: mean lengths in pixels over the valid pixels,
        averaged over draws and pairs. The parts do not add up to the EPE, as the sides of a triangle do not. `own` is
        the length of the mean error at each pixel over the other draws, `chance` what is left without that mean.
    """
    rows = []
    for name, ir, vi in pairs.one_by_one():
        moved = [evaluation.deform(ir, name, level, seed=draw) for draw in range(draws)]
        valid = torch.cat([deformed.valid for deformed in moved])
        wanted = torch.cat([deformed.phi_gt for deformed in moved])
        residual = torch.cat([method.fuse(deformed.ir, vi).field for deformed in moved]) - wanted
        for what, fields in (("to undo", wanted), ("left", residual)):
            affine = affine_fit(fields, valid.float())
            own = _mean_of_the_others(fields, valid)
            columns = {"EPE": fields, "affine": affine, "bent": fields - affine, "own": own, "chance": fields - own}
            rows.append({"what": what} | {column: _length(part, valid) for column, part in columns.items()})
    return pd.DataFrame(rows).groupby("what", sort=False).mean()


def _mean_of_the_others(fields: Tensor, valid: Tensor) -> Tensor:
    """Of each draw, the mean of the other draws' fields at each pixel where they are valid; 0 where none is."""
    masked = fields * valid
    others = (valid.sum(0, keepdim=True) - valid.float()).clamp(min=1)
    return (masked.sum(0, keepdim=True) - masked) / others


def _length(fields: Tensor, valid: Tensor) -> float:
    """Mean length of the vectors of fields (D, 2, H, W) over the valid pixels of each, then over the draws."""
    lengths = fields.norm(dim=1, keepdim=True) * valid
    return (lengths.sum((1, 2, 3)) / valid.sum((1, 2, 3))).mean().item()
