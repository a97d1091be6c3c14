"""Sentences made from tables of methods: in what one is significantly better or worse than Ours, and by how much.

Those about trainings (seeds, the detection loss) are in `training_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import comparison
from fusionlib.experiments.comparison import METRICS, Measured
from fusionlib.metrics.directions import sign
from fusionlib.metrics.statistics import interval
from fusionlib.notebook.sentences import listed

LEVEL = 0.05  # of significance


# --- one table of methods


def against(measured: Measured, level: str, reference: str = "ours") -> pd.DataFrame:
    """`comparison.against` of all pairs together, and the 95 % bootstrap interval of each difference: `low`, `high`.

    The intervals are those of single differences; p is corrected for the number of rows and metrics. So an interval may
    lie on one side of 0 where the verdict is that there is no significant difference.
    """
    table = measured.table[measured.table["level"] == level].assign(dataset="all")
    found = comparison.against(replace(measured, table=table), level, reference)
    wide = table.pivot(index="pair", columns="method", values=METRICS)
    pairs = zip(found["metric"], found["method"], strict=True)
    apart = [(wide[metric][method] - wide[metric][reference]).dropna() for metric, method in pairs]
    ends = [interval(each, scenes_of(each.index)) for each in apart]
    return found.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


def better(found: pd.DataFrame) -> pd.Series:
    """1 where a row is significantly better than what it is compared with, -1 where worse, 0 where neither.

    Args:
        found: lines with metric, difference and p.
    """
    gain = found["metric"].map(sign) * found["difference"]
    return ((gain > 0).astype(int) - (gain < 0).astype(int)).where(found["p"] < LEVEL, 0)


def versus(found: pd.DataFrame, name: str, other: str = "Ours", amounts: bool = True) -> str:
    """One method against another in a sentence: the metrics in which it is better, worse, or neither.

    Args:
        found: its lines of `against` or of `sweep_tables.differences`, one a metric.
        name: what the sentence calls it, such as "the average of both images".
        other: what it is compared with.
        amounts: say by how much, with the interval; if not, metrics without a significant difference are left out.
    """
    mark, parts = better(found), []
    words = {1: ("significantly better", "than"), -1: ("significantly worse", "than")}
    for value, (word, link) in (words | {0: ("not significantly different", "from")}).items():
        if (mark == value).any() and (value or amounts or not mark.any()):
            lines = found[mark == value].itertuples()
            told = [_amount(line.metric, line) if value and amounts else line.metric for line in lines]
            parts.append(f"{word} {'' if parts else f'{link} {other} '}in {listed(told)}")
    *first, last = parts
    return f"{name[0].upper()}{name[1:]} is {', and '.join([', '.join(first), last] if first else [last])}."


def counted(found: pd.DataFrame, rows: str, other: str = "Ours") -> str:
    """How often a method is significantly better or worse than all the rows of `found`, counted over the metrics."""
    mark, metrics = better(found), found["metric"].nunique()
    return (
        f"compared with {rows} in {metrics} metrics, {len(found)} comparisons, {other} is significantly better in "
        f"{(mark < 0).sum()} and significantly worse in {(mark > 0).sum()}; in {(mark == 0).sum()} there is no "
        "significant difference"
    )


def by_metric(found: pd.DataFrame) -> pd.DataFrame:
    """Metric by metric: what Ours is significantly better than, worse than, and neither; method - Ours with interval.

    Args:
        found: lines of `against`.
    """
    lines = {}
    for metric, each in found.groupby("metric", sort=False):
        mark = better(each)
        lines[metric] = {
            title: "; ".join(_amount(line.method, line) for line in part.itertuples()) or "none"
            for title, part in (
                ("Ours is significantly better than", each[mark < 0]),
                ("Ours is significantly worse than", each[mark > 0]),
                ("no significant difference from", each[mark == 0]),
            )
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def is_ours_better(found: pd.DataFrame, own: Sequence[str], rows: str, others: Mapping[str, str]) -> str:
    """The answer of a table of methods at one level of deformation, in sentences.

    Args:
        found: lines of `against`.
        own: the methods of the table's own rows.
        rows: what these are called, such as "the rows of Table 1".
        others: methods that get a sentence each, to what it calls them; those not measured are left out.
    """
    if found.empty:
        return "there are no numbers of Ours here."
    parts = [f"{counted(found[found['method'].isin(own)], rows)}."]
    for method, name in others.items():
        lines = found[found["method"] == method]
        parts += [] if lines.empty else [versus(lines, name)]
    return " ".join(parts)


# --- words


def _amount(name: str, line: object) -> str:
    """ "name (+0.012; +0.008 to +0.016)": a difference and its interval."""
    return f"{name} ({signed(line.difference)}; {signed(line.low)} to {signed(line.high)})"


def signed(value: float) -> str:
    """A difference with its sign: two digits, whole numbers from 10 on, and never more than four decimals."""
    size = abs(value)
    if size < 0.001:
        return f"{value:+.4f}"
    return f"{value:+.0f}" if size >= 10 else f"{value:+.1f}" if size >= 1 else f"{value:+#.2g}"
