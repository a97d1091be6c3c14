"""How much more is found on images of one method than on those of another, and how certain that is.

Two things make such a difference uncertain. Other trainings, of the detectors or of the networks, would give another
one: methods are compared seed by seed. And so would other scenes: both methods see the same ones, which are therefore
drawn for both at once, so that what makes a scene hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from fusionlib.benches import DetectionBenchConfig
from fusionlib.experiments.detection_bench.scoring import Found, truth
from fusionlib.metrics import average_precision
from fusionlib.metrics.statistics import deviation_of, holm, paired_t, with_more_spread

Draws = Mapping[tuple[str, str], np.ndarray]  # by test and mean: its value in each draw of scenes


def draws(found: Iterable[Found], config: DetectionBenchConfig) -> Draws:
    """The means of average precision on scenes drawn with replacement, averaged over detectors.

    Args:
        found: what each detector finds on the images of one method. The draws are the same for every method.
    """
    of_detectors: dict[tuple[str, str], list[np.ndarray]] = {}
    truths = truth(config)
    for each in found:
        for title, true in truths.items():
            ap = average_precision.resampled(each[title], true.boxes, true.classes, scenes=true.scenes)
            for mean, values in average_precision.means_of(ap).items():
                of_detectors.setdefault((title, mean), []).append(values)
    return {name: np.mean(values, 0) for name, values in of_detectors.items()}


def over_scenes(one: Draws, other: Draws) -> pd.DataFrame:
    """How much one - other changes from one draw of the scenes to another.

    Returns:
        A row per test and mean: `deviation`, a standard deviation in [0, 1], a quarter of the middle 95 % of the draws.
    """
    ends = {name: np.nanquantile(values - other[name], [0.025, 0.975]) for name, values in one.items()}
    rows = [(*name, deviation_of(*low_and_high)) for name, low_and_high in ends.items()]
    return pd.DataFrame(rows, columns=["dataset", "mean", "deviation"])


def pairwise(
    table: pd.DataFrame, scenes: pd.DataFrame, reference: str = "ours", columns: Sequence[str] = ("mAP50", "mAP50:90")
) -> pd.DataFrame:
    """One method against every other, seed by seed.

    Args:
        table: of `run`.
        scenes: of `over_scenes`, with a column `method`: that of reference - method.
        reference: the method that the others are subtracted from.
        columns: means that are compared.

    Returns:
        A row for each dataset, mean and method: seeds, mean `difference` of reference - method, its 95 % interval `low`
        and `high`, and `p`: those of Student's t over seeds (`statistics.paired_t`), wider by what the scenes change
        (`statistics.with_more_spread`). None where the reference, a second seed or the scenes' share is missing.
    """
    overall, rows = table[table["class"] == "all"], []
    deviations = scenes.set_index(["dataset", "mean", "method"])["deviation"]
    for dataset, set_rows in overall.groupby("dataset", sort=False):
        values = set_rows.pivot(index="seed", columns="method", values=list(columns))
        for mean, method in product(columns, set_rows["method"].unique()):
            if method == reference or reference not in values[mean] or (dataset, mean, method) not in deviations:
                continue
            differences = (values[mean, reference] - values[mean, method]).dropna()
            if len(differences) > 1:
                over_seeds = differences.mean(), *paired_t(differences)
                line = with_more_spread(*over_seeds, deviations[dataset, mean, method])
                rows.append((dataset, mean, method, len(differences), *line))
    return pd.DataFrame(rows, columns=["dataset", "mean", "method", "seeds", "difference", "low", "high", "p"])


def against(table: pd.DataFrame, scenes: pd.DataFrame, reference: str = "ours") -> pd.DataFrame:
    """`pairwise`, with p corrected by Holm for all methods and means of a set."""
    lines = pairwise(table, scenes, reference)
    corrected = [pd.Series(holm(of_set["p"].to_dict())) for _, of_set in lines.groupby("dataset")]
    return lines.assign(p=pd.concat(corrected)) if corrected else lines
