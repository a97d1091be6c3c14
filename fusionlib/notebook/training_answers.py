"""Sentences made from tables of trainings: what a setting changes, and what another seed changes.

As in `fusionlib.notebook.answers`: every number is taken from a table.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd
from IPython.display import Markdown

from fusionlib.data.paper_tables import paper_table
from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import sweep_rows, sweep_tables
from fusionlib.experiments.comparison import METRICS
from fusionlib.metrics.statistics import NOT_SIGNIFICANT, SIGNIFICANCE, sign_flips
from fusionlib.notebook.answers import counted
from fusionlib.notebook.sentences import listed, percent


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
            "significant": sum(p < SIGNIFICANCE for p in p_values),
            "by chance": SIGNIFICANCE * len(sizes),
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
        f"{percent(SIGNIFICANCE)} finds a difference between two seeds of one row in {alone['significant'].sum()} of "
        f"{alone['comparisons'].sum()} comparisons, where chance would give {alone['by chance'].sum():.0f}."
    )


def errors_beside_start(table: pd.DataFrame, test_pairs: pd.DataFrame, level: str) -> tuple[float, float, float]:
    """End-point errors in px: of the start that the short trainings of a sweep share, and of the rows after them.

    Args:
        table: long table of `sweeps.run`.
        test_pairs: of `evaluation.run` on the same pairs, with the start as "first stage".
        level: of the deformation.

    Returns:
        The start, the lowest row and the highest row.
    """
    start = test_pairs.query("method == 'first stage' and metric == 'EPE' and level == @level")["value"].mean()
    rows = table.groupby("row")["EPE"].mean()
    return start, rows.min(), rows.max()


def beside_start(table: pd.DataFrame, test_pairs: pd.DataFrame, level: str) -> Markdown:
    """What the short trainings of a sweep do to the registration of their start; arguments as `errors_beside_start`."""
    start, lowest, highest = errors_beside_start(table, test_pairs, level)
    lost = " So the registration is worse after them in every row, and the rows compare how much is lost."
    return Markdown(
        f"The start itself has an EPE of {start:.2f} px on these pairs; after {table['epochs'].iloc[0]} epochs, "
        f"the rows have {lowest:.2f} to {highest:.2f} px.{lost if lowest > start else ''} The full method "
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


def outside(tests: pd.DataFrame, number: int) -> tuple[int, int]:
    """How many differences between rows that the paper prints lie outside the 95 % intervals here, and of how many.

    Args:
        tests: of `sweep_tables.differences`; taken is the set that the paper names or, without it, all pairs.
        number: of the paper's table.
    """
    named, printed = paper_table(number).index.get_level_values("dataset")[0], paper_table(number).droplevel("dataset")
    effects = (printed - printed.loc[sweep_rows.reference(number)]).stack()
    lines = tests[tests["data"] == (named if named in set(tests["data"]) else tests["data"].iloc[-1])]
    lines = lines.set_index(["row", "metric"])
    lines = lines[lines.index.isin(effects.index)]
    return int((~effects.reindex(lines.index).between(lines["low"], lines["high"])).sum()), len(lines)


def in_short(number: int, at_medium: pd.DataFrame, *at_others: pd.DataFrame) -> str:
    """Table 4 or 5 in a few sentences, on all pairs: what is significant, by level, and how large differences are."""
    printed, epochs = paper_table(number).index.get_level_values("row"), at_medium["epochs"].mode()[0]
    texts, tests, far = [], [], []
    for table in (at_medium, *at_others):
        rows, level = table[table["row"].isin(printed) & (table["epochs"] == epochs)], table["level"].iloc[0]
        lines = sweep_tables.differences(rows, sweep_rows.reference(number))
        tests.append(lines[lines["data"] == lines["data"].iloc[-1]])  # of all pairs, which come last
        far.append("{} of {} at `{}`".format(*outside(lines, number), level))
        significant = tests[-1][tests[-1]["verdict"] != NOT_SIGNIFICANT]
        which = [
            f"`{row}` {verdict} in {', '.join(lines['metric'])}"
            for (row, verdict), lines in significant.groupby(["row", "verdict"], sort=False)
        ]
        verb = "" if texts else " is significant" if len(significant) < 2 else " are significant"
        brackets = f" ({listed(which)})" if which else ""
        texts.append(f"{len(significant) or 'none'}{verb} at `{level}`{brackets}")
    of_metric = tests[0].query("metric == 'Q_CC'")
    half = ((of_metric["high"] - of_metric["low"]) / 2).max()
    return (
        f"Of Table {number}'s {len(tests[0])} comparisons with Ours on all pairs, over {of_metric['seeds'].max()} "
        f"trainings of {epochs} epochs a row, {listed(texts)}. In Q_CC at `{at_medium['level'].iloc[0]}` "
        f"the rows differ from Ours by up to {of_metric['difference'].abs().max():.3f}, with 95 % intervals of up to "
        f"±{half:.3f}. Of the differences that the paper prints, {listed(far)} lie outside our intervals."
    )
