"""Sentences from tables of methods: in which metrics one is significantly better or worse than Ours, and by how much.

Those about trainings (seeds, the detection loss) are in `training_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import comparison
from fusionlib.experiments.comparison import IMAGE_METRICS, METRICS, Measured
from fusionlib.metrics.directions import sign
from fusionlib.metrics.statistics import SIGNIFICANCE, interval
from fusionlib.notebook.sentences import listed

# --- one table of methods


def against(measured: Measured, level: str, reference: str = "ours") -> pd.DataFrame:
    """`comparison.against` of all pairs together, and the 95 % bootstrap interval of each difference: `low`, `high`.

    The intervals are those of single differences; p is corrected for the number of rows and metrics. So an interval may
    lie on one side of 0 where the verdict is that there is no significant difference.
    """
    table = measured.table[measured.table["level"] == level].assign(dataset="all")
    differences = comparison.against(replace(measured, table=table), level, reference)
    wide = table.pivot(index="pair", columns="method", values=METRICS)
    pairs = zip(differences["metric"], differences["method"], strict=True)
    paired = [(wide[metric][method] - wide[metric][reference]).dropna() for metric, method in pairs]
    intervals = [interval(difference, scenes_of(difference.index)) for difference in paired]
    return differences.assign(low=[low for low, _ in intervals], high=[high for _, high in intervals])


def better(differences: pd.DataFrame) -> pd.Series:
    """1 where a row is significantly better than what it is compared with, -1 where worse, 0 where neither.

    Args:
        differences: lines with metric, difference and p.
    """
    gain = differences["metric"].map(sign) * differences["difference"]
    return ((gain > 0).astype(int) - (gain < 0).astype(int)).where(differences["p"] < SIGNIFICANCE, 0)


def versus(differences: pd.DataFrame, name: str, other: str = "Ours", amounts: bool = True) -> str:
    """One method against another in a sentence: the metrics in which it is better, worse, or neither.

    Args:
        differences: its lines of `against` or of `sweep_tables.differences`, one a metric.
        name: what the sentence calls it, such as "the average of both images".
        other: what it is compared with.
        amounts: say by how much, with the interval; if not, metrics without a significant difference are left out.
    """
    mark, parts = better(differences), []
    words = {1: ("significantly better", "than"), -1: ("significantly worse", "than")}
    for value, (word, link) in (words | {0: ("not significantly different", "from")}).items():
        if (mark == value).any() and (value or amounts or not mark.any()):
            lines = differences[mark == value].itertuples()
            texts = [_amount(line.metric, line) if value and amounts else line.metric for line in lines]
            parts.append(f"{word} {'' if parts else f'{link} {other} '}in {listed(texts)}")
    *first, last = parts
    return f"{name[0].upper()}{name[1:]} is {', and '.join([', '.join(first), last] if first else [last])}."


def counted(differences: pd.DataFrame, rows: str, other: str = "Ours") -> str:
    """How often a method is significantly better or worse than the rows of `differences`, counted over the metrics."""
    mark, metrics = better(differences), differences["metric"].nunique()
    return (
        f"compared with {rows} in {metrics} metrics, {len(differences)} comparisons, {other} is significantly better "
        f"in {(mark < 0).sum()} and significantly worse in {(mark > 0).sum()}; in {(mark == 0).sum()} there is no "
        "significant difference"
    )


def counted_at(measured: Measured, rows: Sequence[str], reference: str, levels: Sequence[str]) -> str:
    """How often a method is significantly better and worse than others in the metrics of the fused image, by level:
    "better in 3 and worse in 7 of 16 at `medium` and better in 0 ...".

    Args:
        measured: of `comparison.run`.
        rows: the methods it is compared with.
        reference: the method that is better or worse.
        levels: of the deformation.
    """
    counts = []
    for level in levels:
        lines = against(measured, level, reference)
        lines = lines[lines["method"].isin(rows) & lines["metric"].isin(IMAGE_METRICS)]
        mark = better(lines)
        counts.append(f"better in {(mark < 0).sum()} and worse in {(mark > 0).sum()} of {len(lines)} at `{level}`")
    return listed(counts)


def by_metric(differences: pd.DataFrame) -> pd.DataFrame:
    """Metric by metric: what Ours is significantly better than, worse than, and neither; method - Ours with interval.

    Args:
        differences: lines of `against`.
    """
    lines = {}
    for metric, rows in differences.groupby("metric", sort=False):
        mark = better(rows)
        lines[metric] = {
            title: "; ".join(_amount(line.method, line) for line in part.itertuples()) or "none"
            for title, part in (
                ("Ours is significantly better than", rows[mark < 0]),
                ("Ours is significantly worse than", rows[mark > 0]),
                ("no significant difference from", rows[mark == 0]),
            )
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def is_ours_better(differences: pd.DataFrame, own: Sequence[str], rows: str, others: Mapping[str, str]) -> str:
    """The answer of a table of methods at one level of deformation, in sentences.

    Args:
        differences: lines of `against`.
        own: the methods of the table's own rows.
        rows: what these are called, such as "the rows of Table 1".
        others: methods that get a sentence each, to what it calls them; those not measured are left out.
    """
    if differences.empty:
        return "there are no numbers of Ours here."
    parts = [f"{counted(differences[differences['method'].isin(own)], rows)}."]
    for method, name in others.items():
        lines = differences[differences["method"] == method]
        parts += [] if lines.empty else [versus(lines, name)]
    return " ".join(parts)


def in_short(measured: Measured, level: str, titles: Mapping[str, str]) -> str:
    """A sentence for each method, by what it is called: in which metrics of the fused image it differs from Ours.

    The tests are those of `comparison.against`, all pairs together.
    """
    tests = comparison.against(replace(measured, table=measured.table.assign(dataset="all")), level)
    tests = tests[tests["metric"].isin(IMAGE_METRICS)]
    lines = {title: tests[tests["method"] == name] for name, title in titles.items()}
    return " ".join(versus(rows, title, amounts=False) for title, rows in lines.items() if len(rows))


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
