"""The registration bench: several methods, the same deformations, sizes and pairs; what is left of the misalignment.

One row for each method, pair and draw. Columns: set, split, size, level, method, pair, draw and

    EPE, EPE_p95    mean and 95th percentile of the end-point error in pixels, inside the valid area
    EPE_identity    EPE of the identity field, from which the share is taken
    folds           share of pixels where the field folds
    NCC, MSE        registered against undeformed infrared, inside the valid area
    seconds         of `fuse` for one pair

Deformations are keyed as in `fusionlib.experiments.evaluation`, so draw 0 is the deformation of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from torch import Tensor

from fusionlib import data
from fusionlib.benches import BenchConfig
from fusionlib.data import PairSet, open_set
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method
from fusionlib.support.keys import Key

Area = Callable[[Tensor, Tensor], Tensor]


def run(config: BenchConfig, methods: Mapping[Method, Key], path: Path, area: Area | None = None) -> pd.DataFrame:
    """Measure every method, or read what was measured by the same method on the same deformations before.

    Args:
        config: what is measured.
        methods: each with the key of what it is, see `methods.origin`.
        path: CSV file in which the rows are kept.
        area: (ir, vi) to where errors count, (1, 1, H, W) bool; None for everywhere.
    """
    parts, scored = [], ["deformation", "scores", *([] if area is None else ["head-scores"])]
    for (name, split), size in product(config.sets, config.sizes):
        pairs = open_set(name, split, size, count=config.count)
        facts = {"size": size, "draws": config.draws, name: data.checksum(name, pairs.names)}
        key = Key.of([*data.components_of(name), *scored], **facts)
        for level, (method, mark) in product(config.levels, methods.items()):
            where = {"set": name, "split": split, "size": size, "level": level, "method": method.name}
            parts.append(runner.Part(where, key | mark, partial(_measure, method, pairs, level, config.draws, area)))
    return runner.run(path, parts)


def _measure(method: Method, pairs: PairSet, level: str, draws: int, area: Area | None) -> pd.DataFrame:
    rows = []
    for index, name in enumerate(pairs.names):
        ir, vi = pairs.stack([index])
        for draw in range(draws):
            moved = evaluation.deform(ir, name, level, seed=draw)
            if area is not None:
                moved = replace(moved, valid=moved.valid & area(ir, vi))
            fused, seconds = evaluation.timed(method, moved.ir, vi)
            rows.append({"pair": name, "draw": draw} | evaluation.registration(fused, ir, moved) | {"seconds": seconds})
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over pairs and draws: rows (set, split, size, level, method) in the order of the table.

    EPE_share is the mean EPE over the mean of the identity: what is left of the misalignment.
    """
    places = ["set", "split", "size", "level", "method"]
    means = rows.groupby(places, sort=False)[
        ["EPE", "EPE_p95", "EPE_identity", "folds", "NCC", "MSE", "seconds"]
    ].mean()
    means.insert(2, "EPE_share", means["EPE"] / means.pop("EPE_identity"))
    return means
