"""Sentences made from tables of trainings: what a setting or another seed changes, and what the detection loss does.

As in `fusionlib.notebook.answers`: every number is taken from a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd
from IPython.display import Markdown

from fusionlib.data.paper_tables import paper_table
from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import sweep_rows, sweep_tables
from fusionlib.experiments.comparison import IMAGE_METRICS, METRICS
from fusionlib.metrics.statistics import NOT_SIGNIFICANT, holm, interval, sign_flips
from fusionlib.notebook.answers import LEVEL, counted, signed
from fusionlib.notebook.sentences import listed, percent

# --- trainings with several seeds


def seeds_alone(table: pd.DataFrame) -> pd.DataFrame:
    """How much another seed changes rows that are otherwise the same, and what a test over pairs finds.

    Args:
        table: long table of `sweeps.run`; each row trained with at least two seeds.

    Returns:
        Rows metric: the mean absolute difference between two seeds of a row, the number of such comparisons, in how
        many of them a paired test over the test pairs finds a difference at 5 %, and in how many it would by chance.
        It is the usual test of the field, each comparison by itself, and here it is wrong each time: the two trainings
        differ in nothing but their seed.
    """
    lines = {}
    for metric in METRICS:
        p_values, sizes = [], []
        for _, rows in table.groupby("row", sort=False):
            wide = rows.pivot(index=["dataset", "pair"], columns="seed", values=metric)
            scenes = scenes_of(wide.index.get_level_values("pair"))
            for first, second in combinations(wide.columns, 2):
                difference = wide[first] - wide[second]
                p_values.append(sign_flips(difference, scenes))
                sizes.append(abs(difference.mean()))
        lines[metric] = {
            "difference between two seeds, mean": sum(sizes) / len(sizes) if sizes else float("nan"),
            "comparisons": len(sizes),
            "significant": sum(p < LEVEL for p in p_values),
            "by chance": LEVEL * len(sizes),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def rows_and_seeds(table: pd.DataFrame, reference: str, alone: pd.DataFrame) -> pd.DataFrame:
    """What a row changes beside what the seed alone changes, metric by metric, both between two single trainings.

    Args:
        table: long table of `sweeps.run`.
        reference: the row that the others are compared with, seed by seed.
        alone: `seeds_alone` of this table.
    """
    means = table.groupby(["row", "seed"])[METRICS].mean()
    others = means.drop(index=reference, level="row")
    changes = (others - means.loc[reference].reindex(others.index, level="seed")).abs().mean()
    change = "difference between a row and the full method, mean"
    return alone.assign(**{change: changes})[[change, *alone.columns]]


def effects(differences: pd.DataFrame, rows: str, reference: str, alone: pd.DataFrame) -> str:
    """A sweep in two sentences: the number of each verdict, and why the tests are over trainings and not over pairs.

    Args:
        differences: lines of `sweep_tables.differences` in the metrics asked about, of one set.
        rows: what the reference is compared with, such as "a network without one of the parts".
        reference: what the sentence is about, such as "the full method".
        alone: of `seeds_alone`, of the same pairs.
    """
    alone = alone.loc[differences["metric"].unique()]
    text = counted(differences, rows, reference).replace("c", "C", 1)
    return (
        f"{text}. That is tested over {differences['seeds'].max()} trainings a row. A test over the pairs at "
        f"{percent(LEVEL)} finds a difference between two seeds of one row in {alone['significant'].sum()} of "
        f"{alone['comparisons'].sum()} comparisons, where chance would give {alone['by chance'].sum():.0f}."
    )


def beside_start(table: pd.DataFrame, test_pairs: pd.DataFrame, level: str) -> Markdown:
    """What the short trainings of a sweep do to the registration of the start that they share.

    Args:
        table: long table of `sweeps.run`.
        test_pairs: of `evaluation.run` on the same pairs, with the start as "first stage".
        level: of the deformation.
    """
    start = test_pairs.query("method == 'first stage' and metric == 'EPE' and level == @level")["value"].mean()
    rows = table.groupby("row")["EPE"].mean()
    lost = " So the registration is worse after them in every row, and the rows compare how much is lost."
    return Markdown(
        f"The start itself has an EPE of {start:.2f} px on these pairs; after {table['epochs'].iloc[0]} epochs, "
        f"the rows have {rows.min():.2f} to {rows.max():.2f} px.{lost if rows.min() > start else ''} The full method "
        "here is not the Ours of Tables 1 and 2, which was trained for longer and on whole images."
    )


def do_levels_agree(at_levels: pd.DataFrame) -> Markdown:
    """In how many comparisons of `sweep_tables.at_levels` all levels give the same verdict, and where they do not."""
    verdicts = at_levels.xs("verdict", axis=1, level=1)
    differing = verdicts[verdicts.nunique(axis=1) > 1].index
    names = [f"`{row}` in {metric}" for row, metric in differing]
    return Markdown(
        f"The levels give the same verdict in {len(verdicts) - len(differing)} of {len(verdicts)} comparisons"
        + (f" and differ for {listed(names)}." if names else ".")
    )


def in_short(number: int, at_medium: pd.DataFrame, *at_others: pd.DataFrame) -> str:
    """Table 4 or 5 in a sentence: what is significant, level by level, and how large the differences are."""
    printed, epochs, texts = paper_table(number).index.get_level_values("row"), at_medium["epochs"].mode()[0], []
    tests = [
        sweep_tables.differences(
            table[table["row"].isin(printed) & (table["epochs"] == epochs)], sweep_rows.reference(number)
        ).assign(level=table["level"].iloc[0])
        for table in (at_medium, *at_others)
    ]
    sets = list(tests[0]["data"].unique())  # "all" is the last, if there are several
    for differences in tests:
        pooled = differences["data"] == sets[-1]
        significant = differences[differences["verdict"] != NOT_SIGNIFICANT]
        which = [
            f"`{row}` {verdict} in {', '.join(lines['metric'])}" + (f" on {data} alone" if data != sets[-1] else "")
            for (row, verdict, data), lines in significant.groupby(["row", "verdict", "data"], sort=False)
        ]
        count = str((significant["data"] == sets[-1]).sum() or "none")
        verb = "" if texts else " is significant" if count in ("1", "none") else " are significant"
        texts.append(f"{count}{verb} at `{differences['level'].iloc[0]}`{f' ({listed(which)})' if which else ''}")
    of_metric = tests[0][tests[0]["metric"] == "Q_CC"]
    largest = of_metric["difference"].abs().groupby(of_metric["data"]).max().reindex(sets)
    sizes = listed(f"{size:.3f} on {'all pairs' if name == 'all' else name}" for name, size in largest.items())
    half = ((of_metric["high"] - of_metric["low"]) / 2)[of_metric["data"] == sets[-1]]
    return (
        f"of Table {number}'s {pooled.sum()} comparisons with Ours, over {of_metric['seeds'].max()} trainings of "
        f"{epochs} epochs a row, {listed(texts)}: in Q_CC the rows differ from Ours by up to {sizes}, where the 95 % "
        f"interval of such a difference reaches {half.min():.3f} to {half.max():.3f} to each side"
    )


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
    paired = {}
    for level, level_rows in rows.groupby("level", sort=False):
        means = level_rows.groupby(["method", "set", "pair"])[[value, f"{value}_identity"]].mean()
        tables = {name: means.loc[name] for name in (one, two)}
        share = {name: table[value].mean() / table[f"{value}_identity"].mean() for name, table in tables.items()}
        paired[level] = share, tables[one][value] - tables[two][value]
    return _differences(paired, "level")


def _differences(paired: Mapping[str, tuple[dict[str, float], pd.Series]], index_name: str) -> pd.DataFrame:
    """A row for each name: pairs, the numbers beside them, and the differences, which have a level `pair` in the index,
    as their mean, its interval over scenes, and p of the paired test, corrected by Holm for the number of rows.
    """
    lines, p_values = {}, {}
    for name, (numbers, difference) in paired.items():
        scenes = scenes_of(difference.index.get_level_values("pair"))
        low, high = interval(difference, scenes)
        lines[name] = {"pairs": len(difference), **numbers, "difference": difference.mean(), "low": low, "high": high}
        p_values[name] = sign_flips(difference, scenes)
    return pd.DataFrame.from_dict(lines, orient="index").assign(p=pd.Series(holm(p_values))).rename_axis(index_name)


def does_it_harm(differences: pd.DataFrame, what: str) -> Markdown:
    """The answer of `difference_by_level`: whether `what` (the first of its two methods) registers worse, by level."""
    parts = []
    for level, line in differences.iterrows():
        one, two = (line.iloc[place] for place in (1, 2))
        size = f"{signed(line['difference'])} px; {signed(line['low'])} to {signed(line['high'])}"
        sure = "significant" if line["p"] < LEVEL else "not significant"
        parts.append(f"at `{level}` it leaves {one:.3f} of the identity's error, without it {two:.3f} ({size}, {sure})")
    worse = [level for level, line in differences.iterrows() if line["p"] < LEVEL and line["difference"] > 0]
    gain = [level for level, line in differences.iterrows() if line["p"] < LEVEL and line["difference"] < 0]
    verdict = "No significant harm at any level" if not worse else f"Yes, at {listed(f'`{level}`' for level in worse)}"
    verdict += f", and a significant gain at {listed(f'`{level}`' for level in gain)}" if gain else ""
    text = f"**{verdict}.** With {what}: {'; '.join(parts)}."
    end = "In brackets: difference and its 95 % interval. There is one training of each; another seed was not tried."
    return Markdown(f"{text} {end}")


def difference_by_metric(table: pd.DataFrame, one: str, two: str) -> pd.DataFrame:
    """The fused images of two methods against each other, metric by metric, paired over pairs.

    Args:
        table: of `evaluation.run`, of one set and level.
        one, two: names of methods; the difference is that of one - two.

    Returns:
        Rows metric: pairs, the mean of each, the difference, its 95 % bootstrap interval (low, high), and p of the
        paired test, corrected by Holm for the number of metrics.
    """
    paired = {}
    for metric in IMAGE_METRICS:
        values = table[table["metric"] == metric].pivot(index="pair", columns="method", values="value")
        paired[metric] = {name: values[name].mean() for name in (one, two)}, values[one] - values[two]
    return _differences(paired, "metric")


def does_it_help(differences: pd.DataFrame, by_metric: pd.DataFrame, without: str = "ours, without l_ob") -> Markdown:
    """Whether detectors find more on images of the network that was trained with the detection loss.

    Args:
        differences: of `detection_bench.against`, Ours as the reference.
        by_metric: of `difference_by_metric`, with l_ob - without.
        without: the method without the loss.
    """
    parts, signs = [], set()
    for dataset, set_rows in differences[differences["method"] == without].groupby("dataset", sort=False):
        texts = []
        for _, line in set_rows.iterrows():
            size, low, high = (signed(100 * line[name]) for name in ("difference", "low", "high"))
            sign = 0 if line["p"] >= LEVEL else 1 if line["difference"] > 0 else -1
            signs.add(sign)
            texts.append(f"{size} points of {line['mean']} ({low} to {high}, p = {line['p']:.2f})")
        parts.append(f"on {dataset} {listed(texts)}, over {set_rows['seeds'].iloc[0]} seeds")
    if not parts:
        return Markdown("**Undecided here**: no detectors of several seeds saw both networks' images.")
    verdict = {frozenset({1}): "Yes", frozenset({0}): "Undecided", frozenset({-1}): "No"}.get(
        frozenset(signs), "In part" if 1 in signs and -1 not in signs else "No"
    )
    changed = [name for name, line in by_metric.iterrows() if line["p"] < LEVEL]
    fused = (
        f"The fused images differ significantly in {listed(changed)}"
        if changed
        else "In no metric is the difference of the fused images significant after correction"
    )
    return Markdown(
        f"**{verdict}.** With $\\ell_{{ob}}$ minus without, detectors find {'; '.join(parts)}. {fused}. In brackets: "
        "95 % interval and p over trainings of the detector, corrected for all rows of the table. Each of the two "
        "networks was trained once; another seed of theirs was not tried."
    )


def precision(scores: pd.DataFrame, differences: pd.DataFrame, marked: str = "ours") -> str:
    """One set of Table 3 in sentences: the best method besides Ours, and whether the order is certain.

    Args:
        scores: rows method; columns value, low, high, in %, intervals over images.
        differences: rows method; columns difference, low, high and p over seeds, in points; may lack rows.
        marked: the method that is compared with the best of the others, its own variants aside.
    """
    others = scores[~scores.index.str.startswith(marked)]
    name = others["value"].idxmax()
    one, two = scores.loc[marked], others.loc[name]
    ends = [f"{line['value']:.1f} % ({line['low']:.1f} to {line['high']:.1f})" for line in (one, two)]
    place = "above" if one["value"] > two["value"] else "below"
    text = f"Ours reaches {ends[0]}, {place} the best other method, `{name}`, with {ends[1]}"
    if name not in differences.index:
        return f"{text}."
    line = differences.loc[name]
    more = "more" if line["p"] < LEVEL else "no more"
    size, low, high = (signed(line[column]) for column in ("difference", "low", "high"))
    change = f"the difference of {size} points ({low} to {high} over seeds)"
    return f"{text}; {change} is {more} than another training of the detector changes."


def highest(average: pd.DataFrame, printed: pd.Series) -> str:
    """The best rows of Table 3 beside the printed range.

    Args:
        average: rows (dataset, method); columns mAP50 and mAP50:90, in %.
        printed: the paper's mAP50:90, by row.
    """
    parts = []
    for dataset in average.index.unique(0):
        set_rows = average.loc[dataset]
        best = set_rows["mAP50:90"].idxmax()
        parts.append(
            f"on {dataset} `{best}` with {set_rows.at[best, 'mAP50:90']:.1f} % "
            f"({set_rows.at[best, 'mAP50']:.1f} % mAP50)"
        )
    return (
        f"The best rows are {listed(parts)}, where the paper prints mAP50:90 from {printed.min():.1f} to "
        f"{printed.max():.1f} % for images and detectors that it does not name."
    )
