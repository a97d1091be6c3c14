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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fusionlib import data, metrics
from fusionlib.benches import BenchConfig
from fusionlib.data import PairSet, open_set
from fusionlib.data.raw_pairs import HOMOGRAPHIES, RawSet
from fusionlib.data.scenes import scenes_of
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation, runner
from fusionlib.methods import Method
from fusionlib.methods.field_refinement import RefinedNetwork, Refinement
from fusionlib.metrics import statistics
from fusionlib.network import FusionNetwork
from fusionlib.support.keys import Key

Area = Callable[[Tensor, Tensor], Tensor]

# The refinement of the field with all its steps, and with one step left out.
STEPS: Mapping[str, Refinement | None] = {
    "the field found": None,
    "all steps": Refinement(),
    "without weights": Refinement(power=0.0),
    "without the Wiener factor": Refinement(noise=0.0),
    "without the test for evidence": Refinement(chance=0.0, match=1e-3),
}


def run(config: BenchConfig, methods: Mapping[Method, Key], path: Path, area: Area | None = None) -> pd.DataFrame:
    """Measure every method, or read what was measured by the same method on the same deformations before.

    Args:
        config: what is measured.
        methods: each with the key of what it is, see `methods.origin`.
        path: CSV file in which the rows are kept.
        area: (ir, vi) to where errors count, (1, 1, H, W) bool; None for everywhere.
    """
    parts, components = [], ["deformation", "scores", *([] if area is None else ["head-scores"])]
    for (name, split), size in product(config.sets, config.sizes):
        pairs = open_set(name, split, size, count=config.count)
        key = runner.key_of(pairs, *components, draws=config.draws)
        for level, (method, mark) in product(config.levels, methods.items()):
            where = {"set": name, "split": split, "size": size, "level": level, "method": method.name}
            parts.append(runner.Part(where, key | mark, partial(_measure, method, pairs, level, config.draws, area)))
    return runner.run(path, parts)


def _measure(method: Method, pairs: PairSet, level: str, draws: int, area: Area | None) -> pd.DataFrame:
    rows = []
    for name, ir, vi in pairs.one_by_one():
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


def against_identity(rows: pd.DataFrame) -> pd.DataFrame:
    """What is left of the misalignment with its interval, and how many pairs are better and worse than unregistered.

    Returns:
        Rows as in `summary`: scenes, EPE_share, low, high (95 % bootstrap over scenes; NaN of fewer than
        `statistics.LEAST_SCENES`), and shares of the pairs whose mean error is more than a tenth of a pixel below
        (better) or above (worse) that of the identity; the others are equal.
    """
    places = ["set", "split", "size", "level", "method"]
    pair_means = rows.groupby([*places, "pair"], sort=False)[["EPE", "EPE_identity"]].mean()
    lines = {}
    for place, pairs in pair_means.groupby(places, sort=False):
        scenes = scenes_of(pairs.index.get_level_values("pair"))
        low, high = statistics.share_interval(pairs["EPE"], pairs["EPE_identity"], scenes)
        if (count := len(set(scenes))) < statistics.LEAST_SCENES:
            low = high = float("nan")
        gain = pairs["EPE_identity"] - pairs["EPE"]
        lines[place] = {
            "scenes": count, "EPE_share": pairs["EPE"].mean() / pairs["EPE_identity"].mean(), "low": low, "high": high,
            "better": (gain > 0.1).mean(), "equal": (gain.abs() <= 0.1).mean(), "worse": (gain < -0.1).mean(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(places)


def raw_frames(methods: Mapping[Method, Key], raw: Mapping[str, RawSet], path: Path) -> pd.DataFrame:
    """Register the raw frames of each split, or read what was measured by the same method before.

    Args:
        methods: each with the key of what it is, see `methods.origin`.
        raw: split to its raw pairs, in the size in which they are registered.
        path: CSV file in which the rows are kept; a part is one method on one split.

    Returns:
        The long table: method, dataset, split, pair, metric, value; metrics are those of `evaluation.with_share`.
    """
    parts = []
    for split, pairs in raw.items():
        key = key_of_raw(pairs) | Key.of(["scores"], **({} if pairs.size is None else {"size": pairs.size}))
        for method, mark in methods.items():
            where = {"method": method.name, "dataset": pairs.aligned.title, "split": split}
            parts.append(runner.Part(where, key | mark, partial(_measure_raw, method, pairs)))
    return runner.run(path, parts)


def _measure_raw(method: Method, raw: RawSet) -> pd.DataFrame:
    rows = []
    for pair, aligned in zip(raw, raw.aligned, strict=True):
        fused = method.fuse(pair.ir[None], pair.vi[None])
        values = evaluation.with_share(evaluation.registration(fused, aligned.ir[None], pair.misaligned))
        rows += [{"pair": pair.name, "metric": metric, "value": value} for metric, value in values.items()]
    return pd.DataFrame(rows)


def raw_summary(table: pd.DataFrame) -> pd.DataFrame:
    """What is left on the raw frames of the test split, by the networks and by the best of the classical methods.

    Args:
        table: of `raw_frames`.

    Returns:
        Rows method, the classical one last; columns share (mean EPE over that of the identity), low and high (its 95 %
        interval over scenes), and p of the difference in EPE from the classical method, by sign flips over scenes,
        corrected by Holm (NaN in its own row).
    """
    test = table[table["split"] == "test"].pivot(index=["method", "pair"], columns="metric", values="value")
    shares = evaluation.means(test.reset_index(), ["method"], ["EPE_share"])["EPE_share"]
    networks = [name for name in ("ours", "ours_refined", "ours_robust") if name in shares]
    best = shares.drop(["identity", *networks]).idxmin()
    p_values = {}
    for name in networks:
        difference = (test.loc[name, "EPE"] - test.loc[best, "EPE"]).dropna()
        p_values[name] = statistics.sign_flips(difference, scenes_of(difference.index))
    ends = {name: evaluation.share_interval(test.loc[name].reset_index()) for name in (*networks, best)}
    summary = pd.DataFrame.from_dict(ends, orient="index", columns=["low", "high"]).rename_axis("method")
    summary.insert(0, "share", shares)
    return summary.assign(p=pd.Series(statistics.holm(p_values)))


def key_of_raw(raw: RawSet) -> Key:
    """The key of raw frames: their files, the homographies, and how they are read."""
    dataset = raw.aligned.title
    facts = {dataset: data.checksum(dataset, raw.names), "homographies": HOMOGRAPHIES.read_text(encoding="utf-8")}
    return Key.of([*data.components_of(dataset), "raw-frames"], **facts)


def refinement_steps(
    network: FusionNetwork, mark: Key, pairs: PairSet, raw: RawSet, levels: Sequence[str], draws: int, path: Path
) -> pd.DataFrame:
    """What each step of the refinement contributes: the mean error as a share of the identity's, with and without it.

    Args:
        network: the trained network, whose field is refined.
        mark: key of the network, see `methods.key_of_network`.
        pairs, raw: validation pairs, aligned and raw, of the same set and split.
        levels: of deformation of the aligned pairs.
        draws: deformations per pair and level.
        path: CSV file in which the rows are kept; a part is one of `STEPS`.

    Returns:
        A row for each of `STEPS`: field, a column for each level, and "raw frames".
    """
    facts = {"size": pairs[0].ir.shape[-1], "levels": levels, "draws": draws}
    key = key_of_raw(raw) | Key.of(["deformation", "scores"], **facts) | mark
    parts = []
    for name, steps in STEPS.items():
        steps_key = Key() if steps is None else Key.of(["refinement"], steps=steps)
        measure = partial(_measure_steps, network, steps, pairs, raw, levels, draws)
        parts.append(runner.Part({"field": name}, key | steps_key, measure))
    return runner.run(path, parts)


def _measure_steps(
    network: FusionNetwork, steps: Refinement | None, pairs: PairSet, raw: RawSet, levels: Sequence[str], draws: int
) -> pd.DataFrame:
    refined = network if steps is None else RefinedNetwork(network, steps).eval()
    aligned_pairs = list(pairs.one_by_one())
    inputs = {
        level: [
            (evaluation.deform(ir, name, level, draw), vi) for name, ir, vi in aligned_pairs for draw in range(draws)
        ]
        for level in levels
    }
    inputs["raw frames"] = [(pair.misaligned, pair.vi[None]) for pair in raw]
    return pd.DataFrame(
        [{condition: share_left(refined, condition_pairs) for condition, condition_pairs in inputs.items()}]
    )


def share_left(network: FusionNetwork, pairs: Sequence[tuple[Misaligned, Tensor]]) -> float:
    """The mean end-point error on pairs (deformed infrared, visible) as a share of the identity's."""
    errors, identity = [], []
    for moved, vi in pairs:
        with torch.inference_mode():
            field = network.align(moved.ir, vi).field
        errors.append(metrics.endpoint_error(field, moved.phi_gt, moved.valid))
        identity.append(metrics.endpoint_error(torch.zeros_like(field), moved.phi_gt, moved.valid))
    return (sum(errors) / sum(identity)).item()
