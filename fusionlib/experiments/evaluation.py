"""Score methods on deformed test pairs: one long table, a row for each number.

Columns: method, dataset, level, pair, metric, value. Metrics as in `fusionlib.metrics`, and

    EPE             end-point error in pixels inside the valid area; of a method without a field, the identity's
    EPE_p95         its 95th percentile
    EPE_share       EPE over that of the identity: 1 means no improvement; of several pairs see `means`
    folds           share of pixels where the field folds
    NCC, MSE        registered against undeformed infrared, inside the valid area
    Q_...@given     the fusion metric against the deformed infrared the method was given, not against the aligned one
    seconds         of `fuse` for one pair

PAPER-GAP: the paper does not say whether its metrics see the aligned or the deformed infrared. Here they see the
aligned one, the truth; the other reading stands beside it as `@given`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib import metrics
from fusionlib.data import PairSet
from fusionlib.data.scenes import scenes_of
from fusionlib.deformation import Level, Misaligned, fold_share, misalign_by_key
from fusionlib.experiments import runner
from fusionlib.methods import Fused, Method
from fusionlib.metrics import statistics
from fusionlib.support.keys import Key

COLUMNS = ["method", "dataset", "level", "pair", "metric", "value"]
BOUND = "bound"  # the name under which the largest possible Q_CC of each pair stands in the table


@dataclass(frozen=True)
class Case:
    """A test pair as a method meets it: `ir` aligned, `vi` (both (1, 1, H, W)), and the deformed infrared `moved`."""

    name: str
    ir: Tensor
    vi: Tensor
    moved: Misaligned


def cases(pairs: PairSet, level: str, seed: int = 0) -> Iterator[Case]:
    """Every pair of a set, its infrared deformed by `deform`, one at a time."""
    for name, ir, vi in pairs.one_by_one():
        yield Case(name, ir, vi, deform(ir, name, level, seed))


def evaluate(methods: Iterable[Method], pairs: PairSet, dataset: str, level: str) -> pd.DataFrame:
    """Deform the infrared of every pair, let every method fuse it, score what comes out.

    Args:
        methods: what to compare; all see the same deformations.
        pairs: aligned test pairs.
        dataset: name for the table.
        level: of deformation, see `deform`.

    Returns:
        The long table; the Q_CC that no fused image can exceed stands in it as method "bound".
    """
    methods, rows = list(methods), []
    for case in cases(pairs, level):
        place = (dataset, level, case.name)
        rows.append((BOUND, *place, "Q_CC", metrics.q_cc_bound(case.ir, case.vi).item()))
        for method in methods:
            values = score(method, case.ir, case.vi, case.moved)
            rows += [(method.name, *place, metric, value) for metric, value in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def run(methods: Mapping[Method, Key], sets: Mapping[str, PairSet], levels: Sequence[str], path: Path) -> pd.DataFrame:
    """The table of `evaluate` for several sets and levels; what was measured by the same methods before is read.

    Args:
        methods: each with the key of what it is, see `methods.origin`.
        sets: name to aligned test pairs.
        levels: of deformation.
        path: CSV file in which the rows are kept; a part is one method on one set at one level.
    """
    parts = []
    for (name, pairs), level in product(sets.items(), levels):
        key = runner.key_of(pairs, "deformation", "scores")
        for method, mark in {None: Key(), **methods}.items():  # None: the bound, which no method is needed for
            where = {"method": BOUND if method is None else method.name, "dataset": name, "level": level}
            parts.append(runner.Part(where, key | mark, partial(_measure, method, pairs, name, level)))
    return runner.run(path, parts)


def _measure(method: Method | None, pairs: PairSet, dataset: str, level: str) -> pd.DataFrame:
    rows = evaluate([] if method is None else [method], pairs, dataset, level)
    of_method = rows["method"] == (BOUND if method is None else method.name)
    return rows.loc[of_method, ["pair", "metric", "value"]]


def deform(ir: Tensor, name: str, level: str | Level, seed: int = 0) -> Misaligned:
    """The deformed infrared (1, 1, H, W) of a test pair, always the same for a name, level and seed."""
    return misalign_by_key(ir, level, [("test", seed, name)])


def aligned(ir: Tensor) -> Misaligned:
    """A pair as published: the infrared (B, 1, H, W) as it is, with the identity as its true field."""
    return Misaligned(ir, ir.new_zeros(len(ir), 2, *ir.shape[-2:]), torch.ones_like(ir, dtype=torch.bool))


def timed(method: Method, ir: Tensor, vi: Tensor) -> tuple[Fused, float]:
    """What a method makes of a pair, and the seconds that it took."""
    start = time.perf_counter()
    fused = method.fuse(ir, vi)
    return fused, time.perf_counter() - start


def score(method: Method, ir: Tensor, vi: Tensor, moved: Misaligned) -> dict[str, float]:
    """Every number of one method on one pair; `ir` is the aligned infrared, `moved` what the method is given."""
    fused, seconds = timed(method, moved.ir, vi)
    return scores_of(fused, ir, vi, moved) | {"seconds": seconds}


def scores_of(fused: Fused, ir: Tensor, vi: Tensor, moved: Misaligned) -> dict[str, float]:
    """Every number of `score` about what a method has made, the time left out."""
    values = {
        **metrics.fusion_metrics(ir, vi, fused.image),
        **{f"{name}@given": value for name, value in metrics.fusion_metrics(moved.ir, vi, fused.image).items()},
    }
    return {name: value.item() for name, value in values.items()} | with_share(registration(fused, ir, moved))


def registration(fused: Fused, ir: Tensor, moved: Misaligned) -> dict[str, float]:
    """Every number about the registration of one pair: EPE, EPE_p95, EPE_identity, folds, NCC, MSE.

    Args:
        fused: what a method made of `moved.ir`; without a field it counts as the identity.
        ir: the aligned infrared, (1, 1, H, W).
        moved: what the method was given.
    """
    identity = torch.zeros_like(moved.phi_gt)
    field = identity if fused.field is None else fused.field
    registered = moved.ir if fused.registered_ir is None else fused.registered_ir
    distances = (field - moved.phi_gt).norm(dim=1, keepdim=True)[moved.valid]
    return {
        "EPE": metrics.endpoint_error(field, moved.phi_gt, moved.valid).item(),
        "EPE_p95": distances.quantile(0.95).item() if len(distances) else float("nan"),
        "EPE_identity": metrics.endpoint_error(identity, moved.phi_gt, moved.valid).item(),
        "folds": fold_share(field).item(),
        "NCC": metrics.ncc(registered, ir, moved.valid).item(),
        "MSE": metrics.mse(registered, ir, moved.valid).item(),
    }


def with_share(found: Mapping[str, float]) -> dict[str, float]:
    """The numbers of `registration` with EPE_share in the place of EPE_identity; NaN of a pair that is not deformed.

    >>> with_share({"EPE": 1.0, "EPE_identity": 4.0}), with_share({"EPE": 1.0, "EPE_identity": 0.0})
    ({'EPE': 1.0, 'EPE_share': 0.25}, {'EPE': 1.0, 'EPE_share': nan})
    """
    rest = {name: value for name, value in found.items() if name != "EPE_identity"}
    identity = found["EPE_identity"] or float("nan")
    return rest | {"EPE_share": found["EPE"] / identity}


def means(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Means over pairs: a row a group, in the order of the table.

    EPE_share is the mean EPE over the mean of the identity: what is left of the misalignment of all pairs together. The
    mean of the pairs' own shares would give pairs that are hardly misaligned more weight than those that are.

    Args:
        rows: one row per pair, with EPE if EPE_share is among the columns.
        by: columns whose values make a group.
        columns: metrics.

    >>> pairs = pd.DataFrame({"set": ["a", "a"], "EPE": [1.0, 1.0], "EPE_share": [0.25, 1]})  # identity: 4 and 1 px
    >>> means(pairs, ["set"], ["EPE_share"])["EPE_share"].tolist()
    [0.4]
    """
    groups = rows.assign(identity=identity_of(rows)).groupby(list(by), sort=False)
    table = groups[list(columns)].mean()
    if "EPE_share" in columns:
        table["EPE_share"] = groups["EPE"].mean() / groups["identity"].mean()
    return table


def share_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval over scenes of the EPE_share of these pairs together, as `means` has it; NaN of fewer
    scenes than `statistics.LEAST_SCENES`.
    """
    scenes = scenes_of(rows["pair"])
    if len(set(scenes)) < statistics.LEAST_SCENES:
        return float("nan"), float("nan")
    return statistics.share_interval(rows["EPE"], identity_of(rows), scenes)


def made_worse(rows: pd.DataFrame) -> dict[str, float]:
    """The sets on which the mean EPE of these pairs of one method is above that of the identity, each with its p.

    By sign flips over scenes, with Holm's correction for the number of sets that are tested; sets of fewer scenes than
    `statistics.LEAST_SCENES` are not.
    """
    return _changed(rows, 1)


def made_better(rows: pd.DataFrame) -> dict[str, float]:
    """As `made_worse`, the sets on which it is below."""
    return _changed(rows, -1)


def _changed(rows: pd.DataFrame, direction: int) -> dict[str, float]:
    """The sets whose mean EPE differs from the identity's in a direction, 1 up or -1 down, each with its p."""
    p_values, change = {}, {}
    for name, set_rows in rows.groupby("dataset", sort=False):
        change[name], scenes = set_rows["EPE"] - identity_of(set_rows), scenes_of(set_rows["pair"])
        if len(set(scenes)) >= statistics.LEAST_SCENES:
            p_values[name] = statistics.sign_flips(change[name], scenes)
    return {name: p for name, p in statistics.holm(p_values).items() if direction * change[name].mean() > 0}


def harmed(rows: pd.DataFrame) -> list[str]:
    """The sets on which the EPE of these pairs of one method is significantly above that of the identity."""
    return [name for name, p in made_worse(rows).items() if p < statistics.SIGNIFICANCE]


def identity_of(rows: pd.DataFrame) -> pd.Series | float:
    """The end-point error of the identity of each pair, from EPE and EPE_share; NaN without them."""
    return rows["EPE"] / rows["EPE_share"] if {"EPE", "EPE_share"} <= set(rows) else float("nan")


def with_all_sets(table: pd.DataFrame) -> pd.DataFrame:
    """A long table; if it has several sets, all rows are in it a second time, with "all" as the name of their set."""
    return pd.concat([table, table.assign(dataset="all")]) if table["dataset"].nunique() > 1 else table


def summary(table: pd.DataFrame, metric_names: list[str]) -> pd.DataFrame:
    """Means by method: each dataset apart and, if there are several, "all" pairs together.

    Returns:
        Rows (dataset, level, method) in the order of the table, one column a metric.
    """
    places = ["dataset", "level", "method"]
    wide = with_all_sets(table).pivot_table(index=[*places, "pair"], columns="metric", values="value", sort=False)
    wide = wide.reindex(columns=[*dict.fromkeys([*wide.columns, *metric_names])])
    return means(wide.reset_index(), places, metric_names)
