"""Does the confidence of a field say the truth? Places whose confidence is 0.8 should be right in 80 % of cases.

One row for each set, condition, pair and bin of confidence: how many places fall into it, their mean confidence, and
the share of them whose residual is below `field_confidence.WITHIN` of the image side. From these rows come the
reliability diagram and the expected calibration error (Guo et al., ICML 2017).

The conditions: the pair as published ("aligned", whose field should be 0), each level of deformation, and `medium` with
a visible image in little light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from fusionlib.data import PairSet
from fusionlib.data.scenes import scenes_of
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation, robustness, runner
from fusionlib.methods import Method
from fusionlib.methods.field_confidence import WITHIN, Calibration, cues
from fusionlib.methods.field_refinement import RefinedNetwork, match_confidence
from fusionlib.metrics.statistics import LEAST_SCENES
from fusionlib.support.keys import Key
from fusionlib.support.random_fields import generator

BINS = 10
PLACES = 400  # of each pair: neighbouring places are alike, so there is no need for all
LIGHT = (100.0, 30.0, 10.0, 3.0)  # photons that white catches, see `robustness.night`


@dataclass(frozen=True)
class Condition:
    """How pairs are given: with a level of deformation, or none; and with so many photons, or in full light."""

    level: str | None
    photons: float | None = None

    def __str__(self) -> str:
        level = self.level or "aligned"
        return level if self.photons is None else f"{level}, {self.photons:g} photons"

    def given(self, ir: Tensor, vi: Tensor, name: str) -> tuple[Misaligned, Tensor]:
        """The deformed infrared and the visible image, (1, 1, H, W)."""
        moved = evaluation.aligned(ir) if self.level is None else evaluation.deform(ir, name, self.level)
        return moved, vi if self.photons is None else robustness.night(vi, self.photons, name)


DAY = tuple(map(Condition, (None, "light", "medium", "heavy")))
ALL = (*DAY, *(Condition("medium", photons) for photons in LIGHT))


def run(sets: Sequence[tuple[PairSet, Sequence[Condition]]], method: Method, mark: Key, path: Path) -> pd.DataFrame:
    """Measure the confidence of a method on sets of pairs, or read what was measured by the same method before.

    Args:
        sets: aligned pairs, each with the conditions under which they are given.
        method: one whose `Fused` has a confidence.
        mark: the key of what it is, see `methods.origin`.
        path: CSV file in which the rows are kept.

    Returns:
        Columns set, condition, pair, places, confidence (mean of the bin), right (share of places).
    """
    parts = []
    for pairs, conditions in sets:
        key = runner.key_of(pairs, "deformation", "hardships", "confidence", places=PLACES) | mark
        for condition in conditions:
            where = {"set": pairs.title, "condition": str(condition)}
            parts.append(runner.Part(where, key, partial(_measure, pairs, condition, method)))
    return runner.run(path, parts)


def _measure(pairs: PairSet, condition: Condition, method: Method) -> pd.DataFrame:
    rows = []
    for name, ir, vi in pairs.one_by_one():
        moved, visible = condition.given(ir, vi, name)
        fused = method.fuse(moved.ir, visible)
        confidence, right = fused.confidence[0, 0], _right(fused.field, moved)[0, 0]
        indices = _places(moved.valid[0, 0], name)
        places = pd.DataFrame({"confidence": confidence[indices].numpy(), "right": right[indices].numpy()})
        bins = places.groupby(np.minimum((places["confidence"] * BINS).astype(int), BINS - 1))
        rows.append(bins.mean().assign(places=bins.size(), pair=name))
    return pd.concat(rows)[["pair", "places", "confidence", "right"]]


def means(rows: pd.DataFrame, by: object) -> pd.DataFrame:
    """Rows of `run`, grouped as pandas groups them, to one row for each group: places, confidence, right."""
    weighed = rows.assign(confidence=rows["confidence"] * rows["places"], right=rows["right"] * rows["places"])
    total = weighed.groupby(by, sort=False)[["places", "confidence", "right"]].sum()
    return total.assign(confidence=total["confidence"] / total["places"], right=total["right"] / total["places"])


def diagram(rows: pd.DataFrame) -> pd.DataFrame:
    """The reliability diagram: rows of `run` to one row for each bin: places, confidence, right."""
    bins = np.minimum((rows["confidence"] * BINS).astype(int), BINS - 1).rename("bin")
    return means(rows, bins).sort_index()


def calibration_error(rows: pd.DataFrame) -> float:
    """Expected calibration error: mean distance between what is said and what is right, over places, in [0, 1]."""
    bins = diagram(rows)
    return float(((bins["confidence"] - bins["right"]).abs() * bins["places"]).sum() / bins["places"].sum())


def calibration_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval of `calibration_error`, drawing scenes (`data.scenes`), by percentiles; NaN of fewer than
    `statistics.LEAST_SCENES`.
    """
    by_scene = [scene_rows for _, scene_rows in rows.groupby(scenes_of(rows["pair"]), sort=False)]
    if len(by_scene) < LEAST_SCENES:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    draws_of_scenes = (rng.integers(0, len(by_scene), len(by_scene)) for _ in range(500))
    errors = [calibration_error(pd.concat([by_scene[place] for place in places])) for places in draws_of_scenes]
    return tuple(np.quantile(errors, (0.025, 0.975)).tolist())


def fit(network: RefinedNetwork, pairs: PairSet) -> Calibration:
    """The calibration of a network: maximum likelihood on pairs that it has not been trained on.

    Args:
        network: whose cues are calibrated; its present calibration has no part in it.
        pairs: aligned pairs; they are given under all conditions, each with equal weight.
    """
    all_cues, all_right = [], []
    for name, ir, vi in pairs.one_by_one():
        for condition in ALL:
            moved, visible = condition.given(ir, vi, name)
            with torch.inference_mode():
                aligned = network.align(moved.ir, visible)
                *_, unrefined, refined = aligned.stages
                pair_cues = cues(unrefined.field, refined.field, match_confidence(unrefined.scores))
            padded = network.prepared(moved.ir).shape[-2:]
            rows, columns = _places(moved.valid[0, 0], name)
            pair_cues = F.interpolate(pair_cues, padded, mode="bilinear", align_corners=False)
            all_cues.append(pair_cues[0, :, rows, columns].T.numpy())
            all_right.append(_right(aligned.field, moved)[0, 0, rows, columns].numpy())
    return logistic(np.concatenate(all_cues), np.concatenate(all_right))


def fitted(network: RefinedNetwork, mark: Key, pairs: PairSet, path: Path) -> pd.DataFrame:
    """`fit` under all conditions, in one row, or what was fitted before; `mark` is the key of the network."""
    facts = {"places": PLACES, "conditions": list(map(str, ALL))}
    key = runner.key_of(pairs, "deformation", "hardships", "confidence", **facts) | mark
    part = runner.Part({"set": pairs.title}, key, lambda: pd.DataFrame([asdict(fit(network, pairs))]))
    return runner.run(path, [part]).drop(columns="set")


def logistic(seen: np.ndarray, right: np.ndarray) -> Calibration:
    """Logistic regression by maximum likelihood: from cues (N, 3) and whether each place was right, (N,) bool."""
    design, right = np.c_[np.ones(len(seen)), seen].astype(float), right.astype(float)
    scale = np.r_[1.0, design[:, 1:].std(0) + 1e-9]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        odds = design / scale @ weights
        gradient = (design / scale).T @ (1 / (1 + np.exp(-odds)) - right) / len(right)
        return float(np.mean(np.logaddexp(0, odds) - right * odds)), gradient

    return Calibration(*(minimize(loss, np.zeros(design.shape[1]), jac=True, method="BFGS").x / scale).tolist())


def _right(field: Tensor, moved: Misaligned) -> Tensor:
    """Where a field (1, 2, H, W) is right, (1, 1, H, W) bool."""
    side = (field.shape[-2] * field.shape[-1]) ** 0.5
    return (field - moved.phi_gt).norm(dim=1, keepdim=True) < WITHIN * side


def _places(valid: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Rows and columns of `PLACES` places inside the valid area (H, W), always the same for a name."""
    rows, columns = valid.nonzero(as_tuple=True)
    drawn = torch.from_numpy(generator("places", name).integers(0, len(rows), PLACES))
    return rows[drawn], columns[drawn]
