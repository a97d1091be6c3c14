"""Sentences made from tables: in what a method is significantly better or worse than Ours, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd
from IPython.display import Markdown

from fusionlib.experiments import comparison
from fusionlib.experiments.comparison import METRICS, Measured, holm, sign_flips
from fusionlib.experiments.evaluation import interval
from fusionlib.metrics.directions import direction
from fusionlib.presets import Preset
from fusionlib.support.paths import Results

LEVEL = 0.05  # of significance


def made_in(shown: Results, preset: Preset) -> Markdown:
    """The line above a table that is shown: where its numbers were measured."""
    if shown.preset == preset.name:
        return Markdown(f"Measured in the preset `{preset.name}`.")
    return Markdown(
        f"Measured on real pairs in the preset `{shown.preset}` and kept in results/{shown.preset}; "
        f"`{preset.name}` has no real pairs."
    )


# --- one table of methods


def against(measured: Measured, level: str, reference: str = "ours") -> pd.DataFrame:
    """`comparison.against` of all pairs together, and the 95 % bootstrap interval of each difference: `low`, `high`.

    The intervals are those of single differences; p is corrected for the number of rows. So an interval may lie on one
    side of 0 where the verdict is that there is no significant difference.
    """
    table = measured.table[measured.table["level"] == level].assign(dataset="all")
    found = comparison.against(replace(measured, table=table), level, reference)
    wide = table.pivot(index="pair", columns="method", values=METRICS)
    pairs = zip(found["metric"], found["method"], strict=True)
    ends = [interval((wide[metric][method] - wide[metric][reference]).dropna()) for metric, method in pairs]
    return found.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


def better(found: pd.DataFrame) -> pd.Series:
    """1 where a row is significantly better than what it is compared with, -1 where worse, 0 where neither.

    Args:
        found: lines with metric, difference, p and, of trainings with several seeds, the lowest and highest seed: then
            all seeds have to lie on one side.
    """
    sure = found["p"] < LEVEL
    if "lowest seed" in found:
        sure &= found["lowest seed"] * found["highest seed"] > 0
    up = found["metric"].map(lambda metric: 1 if direction(metric) == "higher" else -1)
    return (up * found["difference"].map(lambda value: (value > 0) - (value < 0))).where(sure, 0)


def versus(found: pd.DataFrame, name: str, other: str = "Ours") -> str:
    """One method against another in a sentence: the metrics in which it is better, worse, or neither.

    Args:
        found: its lines of `against`, one a metric.
        name: what the sentence calls it, such as "the average of both images".
    """
    mark = better(found)
    parts = []
    for value, word in ((1, "significantly better than"), (-1, "significantly worse than")):
        if (mark == value).any():
            listed = [_amount(line.metric, line) for line in found[mark == value].itertuples()]
            parts.append(f"{word} {other} in {joined(listed)}")
    if (mark == 0).any():
        parts.append(f"not significantly different from {other} in {joined(found.loc[mark == 0, 'metric'])}")
    return f"{name[0].upper()}{name[1:]} is {'; it is '.join(parts)}."


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


# --- trainings with several seeds


def seeds_alone(table: pd.DataFrame) -> pd.DataFrame:
    """What another seed changes in rows that are otherwise the same: a check of the test between rows.

    Args:
        table: long table of `sweeps.run`; each row trained with at least two seeds.

    Returns:
        Rows metric: the mean absolute difference between two seeds of a row, the number of such comparisons, and in
        how many of them the paired test over pairs, corrected by Holm, finds a significant difference.
    """
    lines = {}
    for metric in METRICS:
        p_values, sizes = {}, []
        for name, each in table.groupby("row", sort=False):
            wide = each.pivot(index=["dataset", "pair"], columns="seed", values=metric)
            for one, two in combinations(wide.columns, 2):
                difference = wide[one] - wide[two]
                p_values[name, one, two] = sign_flips(difference)
                sizes.append(abs(difference.mean()))
        found = sum(p < LEVEL for p in holm(p_values).values())
        lines[metric] = {
            "difference between two seeds, mean": sum(sizes) / len(sizes) if sizes else float("nan"),
            "comparisons": len(sizes),
            "significant": found,
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def rows_and_seeds(found: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """The largest difference between a row and the reference beside what the seed alone changes, metric by metric.

    Args:
        found: lines of `sweep_tables.differences`, of one set.
        alone: of `seeds_alone`, of the same pairs.
    """
    largest = found["difference"].abs().groupby(found["metric"], sort=False).max()
    return alone.assign(**{"largest difference of a row": largest.reindex(alone.index)})[
        ["largest difference of a row", "difference between two seeds, mean", "comparisons", "significant"]
    ]


def effects(found: pd.DataFrame, rows: str, reference: str, alone: pd.DataFrame) -> str:
    """What a sweep says in two sentences: verdicts counted, and whether the seed alone gives as many.

    Args:
        found: lines of `sweep_tables.differences` in the metrics asked about, of one set.
        rows: what is compared, such as "without one of its parts".
        reference: what it is compared with.
        alone: of `seeds_alone`, of the same pairs.
    """
    mark = better(found)
    counts = [(mark == value).sum() for value in (1, -1, 0)]
    alone = alone.loc[found["metric"].unique()]
    chance, asked = alone["significant"].sum(), alone["comparisons"].sum()
    text = (
        f"In {len(found)} comparisons with {reference}, {rows} is significantly better in {counts[0]} and "
        f"significantly worse in {counts[1]}; in {counts[2]} there is no significant difference."
    )
    return f"{text} The same test finds a significant difference between two seeds of one row in {chance} of {asked}."


# --- with and without the detection loss


def difference_by_level(rows: pd.DataFrame, one: str, two: str, value: str = "EPE") -> pd.DataFrame:
    """Two methods of a registration bench against each other, level by level, paired over pairs (mean over draws).

    Args:
        rows: of `registration_bench.run`.
        one, two: names of methods; the difference is that of one - two.
        value: column that is compared.

    Returns:
        Rows level: pairs, share of the identity's error that each leaves, difference in pixels, its 95 % bootstrap
        interval (low, high), and p of the paired test, corrected by Holm for the number of levels.
    """
    lines, p_values = {}, {}
    for level, here in rows.groupby("level", sort=False):
        means = here.groupby(["method", "set", "pair"])[[value, f"{value}_identity"]].mean()
        first, second = means.loc[one], means.loc[two]
        difference = first[value] - second[value]
        both = {one: first, two: second}
        share = {name: each[value].mean() / each[f"{value}_identity"].mean() for name, each in both.items()}
        low, high = interval(difference)
        lines[level] = {"pairs": len(difference), **share, "difference": difference.mean(), "low": low, "high": high}
        p_values[level] = sign_flips(difference)
    return pd.DataFrame.from_dict(lines, orient="index").assign(p=pd.Series(holm(p_values))).rename_axis("level")


def does_it_harm(found: pd.DataFrame, what: str) -> Markdown:
    """The answer of `difference_by_level`: whether `what` (the first of its two methods) registers worse, by level."""
    parts = []
    for level, line in found.iterrows():
        one, two = (line.iloc[place] for place in (1, 2))
        size = f"{line['difference']:+.2f} px, 95 % interval {line['low']:+.2f} to {line['high']:+.2f}"
        sure = "significant" if line["p"] < LEVEL else "not significant"
        parts.append(f"at `{level}` it leaves {one:.2f} of the identity's error, without it {two:.2f} ({size}, {sure})")
    worse = [level for level, line in found.iterrows() if line["p"] < LEVEL and line["difference"] > 0]
    gain = [level for level, line in found.iterrows() if line["p"] < LEVEL and line["difference"] < 0]
    verdict = "No significant harm at any level" if not worse else f"Yes, at {joined(f'`{level}`' for level in worse)}"
    verdict += f", and a significant gain at {joined(f'`{level}`' for level in gain)}" if gain else ""
    text = f"**{verdict}.** With {what}: {'; '.join(parts)}."
    return Markdown(f"{text} There is one training of each: another seed was not tried.")


# --- words


def joined(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else str(last)


def _amount(name: str, line: object) -> str:
    """ "name (+0.012; +0.008 to +0.016)": a difference and its interval."""
    return f"{name} ({_short(line.difference)}; {_short(line.low)} to {_short(line.high)})"


def _short(value: float) -> str:
    size = abs(value)
    return f"{value:+.0f}" if size >= 10 else f"{value:+.1f}" if size >= 1 else f"{value:+#.2g}"
