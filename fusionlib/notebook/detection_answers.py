"""Sentences made from the tables of notebook 06: what the detection loss does, and how well objects are found.

As in `fusionlib.notebook.answers`: every number is taken from a table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import Markdown

from fusionlib.data.scenes import scenes_of
from fusionlib.experiments.comparison import IMAGE_METRICS
from fusionlib.metrics.statistics import SIGNIFICANCE, holm, interval, sign_flips
from fusionlib.notebook.answers import signed
from fusionlib.notebook.sentences import listed


def difference_by_level(rows: pd.DataFrame, one: str, two: str) -> pd.DataFrame:
    """The errors of two methods of a registration bench, level by level, paired over pairs (mean over draws).

    Args:
        rows: of `registration_bench.run`.
        one, two: names of methods; the difference is that of one - two.

    Returns:
        Rows level: pairs, share of the identity's error that each leaves, difference in pixels, its 95 % bootstrap
        interval (low, high), and p of the paired test, corrected by Holm for the number of levels.
    """
    paired = {}
    for level, level_rows in rows.groupby("level", sort=False):
        means = level_rows.groupby(["method", "set", "pair"])[["EPE", "EPE_identity"]].mean()
        tables = {name: means.loc[name] for name in (one, two)}
        share = {name: table["EPE"].mean() / table["EPE_identity"].mean() for name, table in tables.items()}
        paired[level] = share, tables[one]["EPE"] - tables[two]["EPE"]
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


def does_it_harm(differences: pd.DataFrame, what: str, effects: pd.DataFrame) -> Markdown:
    """Whether `what` makes the registration, or the fused images, worse.

    Args:
        differences: of `difference_by_level`, whose first method has it.
        what: such as "l_ob".
        effects: of `target_awareness.effects`.
    """
    parts = []
    for level, line in differences.iterrows():
        one, two = (line.iloc[place] for place in (1, 2))
        size = f"{signed(line['difference'])} px; {signed(line['low'])} to {signed(line['high'])}"
        sure = "significant" if line["p"] < SIGNIFICANCE else "not significant"
        parts.append(f"at `{level}` it leaves {one:.3f} of the identity's error, without it {two:.3f} ({size}, {sure})")
    worse = [level for level, line in differences.iterrows() if line["p"] < SIGNIFICANCE and line["difference"] > 0]
    gain = [level for level, line in differences.iterrows() if line["p"] < SIGNIFICANCE and line["difference"] < 0]
    verdict = (
        "No significant harm to the registration at any level"
        if not worse
        else f"Harm to the registration at {listed(f'`{level}`' for level in worse)}"
    )
    verdict += f", and a significant gain at {listed(f'`{level}`' for level in gain)}" if gain else ""
    pooled = _pooled(effects)
    changed = pooled.index[(pooled["verdict"] == "worse") & (pooled["seeds"] > 1)]
    in_images = listed(changed.drop("EPE", errors="ignore"))
    fused = f"Harm to the fused images in {in_images}. " if in_images else ""
    verdict += ", but over several short trainings there is" if "EPE" in changed and not worse else ""
    text = f"**{fused}{verdict}.** With {what}: {'; '.join(parts)}."
    end = "In brackets: difference and its 95 % interval, over the pairs; there is one training of each."
    return Markdown(f"{text} {end}{_over_trainings(effects, what)}")


def _over_trainings(effects: pd.DataFrame, what: str) -> str:
    """What several trainings of each say, all pairs together; nothing, if there is one of each."""
    pooled = _pooled(effects)
    if pooled["seeds"].max() < 2:
        return ""
    error = pooled.loc["EPE"]
    return (
        f" **Over {error['seeds']:.0f} short trainings of each**, on all pairs together, those with {what} are "
        f"{_changed(pooled)}; their end-point error differs by {signed(error['difference'])} px "
        f"({signed(error['low'])} to {signed(error['high'])})."
    )


def _pooled(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of all pairs together, which are the last, by metric."""
    return effects[effects["data"] == effects["data"].iloc[-1]].set_index("metric")


def _changed(pooled: pd.DataFrame) -> str:
    """In which metrics a row is significantly better, and in which worse."""
    parts = [
        f"significantly {verdict} in {listed(pooled.index[pooled['verdict'] == verdict])}"
        for verdict in ("better", "worse")
        if (pooled["verdict"] == verdict).any()
    ]
    return " and ".join(parts) or "significantly better or worse in no metric"


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


def does_it_help(replicated: pd.DataFrame, differences: pd.DataFrame, by_metric: pd.DataFrame) -> Markdown:
    """Whether detectors find more on images of networks that were trained with the detection loss.

    The verdict is that of the replicated trainings alone; of the networks trained in full there is one of each.

    Args:
        replicated: of `target_awareness.compared`.
        differences: of `detection_bench.against`, Ours as the reference.
        by_metric: of `difference_by_metric`, with l_ob - without.
    """
    tested = replicated[replicated["seeds"] > 1]
    if tested.empty:
        return Markdown("**Undecided here**: no networks of several seeds were trained with the loss and without it.")
    signs = set((tested["p"] < SIGNIFICANCE) * np.sign(tested["difference"]))
    verdict = "Undecided" if signs == {0} else "No" if -1 in signs else "Yes" if signs == {1} else "In part"
    changed = [name for name, line in by_metric.iterrows() if line["p"] < SIGNIFICANCE]
    fused = (
        f"their fused images differ significantly in {listed(changed)}"
        if changed
        else "in no metric is the difference of their fused images significant after correction"
    )
    in_full = _points(differences[differences["method"] == "ours, without l_ob"])
    return Markdown(
        f"**{verdict}.** With $\\ell_{{ob}}$ minus without, over {tested['seeds'].max()} short trainings of each, "
        f"COCO's detector finds {_points(tested)}. Of the networks trained in full there is one of each: detectors "
        f"trained on their images find {in_full}, and {fused}. In brackets stand the 95 % interval and p, "
        "corrected for the rows of a set. They cover other scenes and, for the short trainings, other trainings of the "
        "network; for the networks trained in full, other trainings of the detector, but not of the network."
    )


def _points(differences: pd.DataFrame) -> str:
    """The differences in mAP of each set, in points, with interval and p."""
    texts = []
    for dataset, lines in differences.groupby("dataset", sort=False):
        numbers = []
        for _, line in lines.iterrows():
            size, low, high = (signed(100 * line[name]) for name in ("difference", "low", "high"))
            numbers.append(f"{size} points of {line['mean']} ({low} to {high}, p = {line['p']:.2f})")
        texts.append(f"{listed(numbers)} on {dataset}")
    return listed(texts) or "nothing that could be compared"


def in_short(replicated: pd.DataFrame, effects: pd.DataFrame) -> str:
    """What several trainings say about the detection loss, in two sentences; the tables of `does_it_help` and
    `does_it_harm`.
    """
    lines = replicated[replicated["mean"] == "mAP50:90"]
    sizes = [
        f"{signed(100 * line['difference'])} points on {line['dataset']} "
        f"({'' if line['p'] < SIGNIFICANCE else 'not '}significant)"
        for _, line in lines.iterrows()
    ]
    return (
        f"The detection loss changes what that detector finds, over {lines['seeds'].max()} short trainings of the "
        f"network with it and as many without, by {listed(sizes)}. With it the fused images are "
        f"{_changed(_pooled(effects))}."
    )


def precision(scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """One set of Table 3 in sentences: the best method besides Ours, and whether the order is certain.

    Args:
        scores: rows method; columns value, low, high, in %, intervals over scenes.
        differences: rows method; columns difference, low, high and p over seeds and scenes, in points; may lack rows.
    """
    others = scores[~scores.index.str.startswith("ours")]  # without its own variants
    name = others["value"].idxmax()
    one, two = scores.loc["ours"], others.loc[name]
    ends = [f"{line['value']:.1f} % ({line['low']:.1f} to {line['high']:.1f})" for line in (one, two)]
    place = "above" if one["value"] > two["value"] else "below"
    text = f"Ours reaches {ends[0]}, {place} the best other method, `{name}`, with {ends[1]}"
    if name not in differences.index:
        return f"{text}."
    line = differences.loc[name]
    more = "more" if line["p"] < SIGNIFICANCE else "no more"
    size, low, high = (signed(line[column]) for column in ("difference", "low", "high"))
    change = f"the difference of {size} points ({low} to {high})"
    return f"{text}; {change} is {more} than other trainings of the detector and other scenes change."


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
