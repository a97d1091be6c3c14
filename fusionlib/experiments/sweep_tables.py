"""What the trainings of Tables 4 and 5 say: means, their spread over seeds, and which differences are significant.

A claim about a setting is a claim about trainings with it, so the replicate is the training: two rows are compared
seed by seed, since those of one seed share order and deformations, and Student's t over the seeds says how far the mean
difference may lie from what more trainings would give. The test pairs are the same throughout: whether other pairs
would say the same is another question, and a test over pairs cannot answer this one. It calls two seeds of one and the
same row significantly different (`notebook.training_answers.seeds_alone` counts how often).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import IMAGE_METRICS, METRICS
from fusionlib.experiments.evaluation import with_all_sets
from fusionlib.experiments.sweep_rows import Row
from fusionlib.experiments.sweeps import SCORED
from fusionlib.metrics.directions import sign
from fusionlib.metrics.statistics import NOT_SIGNIFICANT, holm, paired_t, verdict


def means(table: pd.DataFrame, by: Sequence[str] = ("row",)) -> pd.DataFrame:
    """Means over pairs, and over the seeds unless `by` has them: rows (data, *by), one column a metric.

    Each set stands apart, and if there are several, "all" pairs together.
    """
    return evaluation.means(with_all_sets(table).rename(columns={"dataset": "data"}), ["data", *by], SCORED)


def between_seeds(table: pd.DataFrame, row: str, level: str) -> dict[str, float]:
    """Standard deviation of the mean of each metric of the image over the trainings of a row; empty without several."""
    if table.empty:
        return {}
    rows = table[(table["row"] == row) & (table["level"] == level)]
    return rows.groupby("seed")[IMAGE_METRICS].mean().std().dropna().to_dict()


def differences(table: pd.DataFrame, reference: str, rows: Sequence[str] | None = None) -> pd.DataFrame:
    """Every row compared with one: by how much do they differ, and would other trainings show it, too?

    Args:
        table: long table of `sweeps.run`, with the reference in it.
        reference: name of the row that the others are compared with.
        rows: which others; by default all. Holm's correction is for all of them times the metrics.

    Returns:
        A row for each set, row and metric: seeds, pairs, difference (mean of row - reference), low and high (95 %
        interval of this one difference over seeds, `statistics.paired_t`), p (corrected; NaN of a single seed) and
        verdict: "better", "worse", or "not significantly different" if p is not below 5 %.
    """
    others = [name for name in table["row"].unique() if name != reference and (rows is None or name in rows)]
    lines = []
    for data, set_rows in with_all_sets(table.assign(set=table["dataset"])).groupby("dataset", sort=False):
        means, pairs = set_rows.groupby(["row", "seed"])[METRICS].mean(), len(set_rows.drop_duplicates(["set", "pair"]))
        by_seed = {name: (means.loc[name] - means.loc[reference]).dropna() for name in others}
        tests = {(name, metric): paired_t(by_seed[name][metric]) for name, metric in product(others, METRICS)}
        corrected = holm({key: p for key, (_, _, p) in tests.items()})
        for (name, metric), (low, high, _) in tests.items():
            difference, p = by_seed[name][metric].mean(), corrected[name, metric]
            line = (data, name, metric, len(by_seed[name]), pairs, difference, low, high, p)
            lines.append((*line, verdict(difference, p, metric)))
    names = ["data", "row", "metric", "seeds", "pairs", "difference", "low", "high", "p", "verdict"]
    return pd.DataFrame(lines, columns=names)


def at_levels(tests: Mapping[str, pd.DataFrame], data: str) -> pd.DataFrame:
    """The differences of one set at several levels of deformation side by side.

    Args:
        tests: level to its `differences`.
        data: the set, or "all".

    Returns:
        Rows (row, metric), columns (level, number): difference, low, high and verdict.
    """
    columns = ["difference", "low", "high", "verdict"]
    of_set = {level: table[table["data"] == data].set_index(["row", "metric"]) for level, table in tests.items()}
    return pd.concat({level: table[columns] for level, table in of_set.items()}, axis=1)


def effects(tests: pd.DataFrame, number: int, rows: Sequence[Row], reference: str) -> pd.DataFrame:
    """The effect of each change (row - reference) as measured here, beside the effect that the paper prints.

    Args:
        tests: `differences` of one set.
        number: of the paper's table.
        rows: of the table; those that the paper has not are left out.
        reference: the paper's name of the row that the others are compared with.

    Returns:
        Rows (row, metric): here, low and high (its interval), paper, verdict here, and whether both go the same way.
    """
    printed = paper_table(number).droplevel("dataset")
    names = {row.name: row.printed for row in rows if row.printed and row.printed != reference}
    numbers, lines = tests.set_index(["row", "metric"]), {}
    for name, title in names.items():
        for metric in printed.columns:
            line = numbers.loc[(name, metric)]
            effect = printed.at[title, metric] - printed.at[reference, metric]
            same = "–" if line["verdict"] == NOT_SIGNIFICANT else "yes" if effect * line["difference"] > 0 else "no"
            lines[name, metric] = {
                "here": line["difference"],
                "low": line["low"],
                "high": line["high"],
                "paper": effect,
                "verdict here": line["verdict"],
                "same way": same,
            }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["row", "metric"])


def agreement(short: pd.DataFrame, long: pd.DataFrame) -> pd.DataFrame:
    """Do a few rows come in the same order after a short training as after a longer one?

    Args:
        short, long: long tables of the same rows and seeds.

    Returns:
        Rows metric: Spearman's correlation of the two orders over all pairs, the best row of each, and the share of
        pairs of rows that stand in the same order.
    """
    lines, names = [], list(long["row"].unique())
    averages = [each[each["row"].isin(names)].groupby("row")[METRICS].mean().loc[names] for each in (short, long)]
    first, second = np.triu_indices(len(names), 1)
    for metric in METRICS:
        a, b = (each[metric] for each in averages)
        tops = [(sign(metric) * each).idxmax() for each in (a, b)]
        same = (
            np.sign(a.to_numpy()[first] - a.to_numpy()[second]) == np.sign(b.to_numpy()[first] - b.to_numpy()[second])
        ).mean()
        lines.append((metric, a.corr(b, method="spearman"), same, *tops))
    names = ["metric", "rank correlation", "pairs of rows in the same order", "best, short", "best, long"]
    return pd.DataFrame(lines, columns=names).set_index("metric")
