"""Figures of the whole reproduction: how many values came out, and every value against the paper's."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusionlib.metrics.directions import ARROW, direction
from fusionlib.notebook import charts, plotting
from fusionlib.report.verdicts import VERDICTS, by_chance, summary

SHADES = dict(zip(VERDICTS, ("#009E73", "#56B4E9", "#D55E00", "#d9d9d9"), strict=True))
MARKERS = "os^Dv*P"


@plotting.style()
def bars(compared: pd.DataFrame) -> Figure:
    """A bar for each table of the paper, divided by verdict, with the counts in it.

    A black line says where the first two parts, agrees and same ranking, would end by chance (`verdicts.by_chance`).
    """
    counts = summary(compared).drop(index="all")[list(VERDICTS)]
    figure, axis = plt.subplots(figsize=(0.8 * plotting.WIDTH, 0.9 + 0.32 * len(counts)))
    left_ends = np.zeros(len(counts))
    for verdict in VERDICTS:
        drawn_bars = axis.barh(counts.index, counts[verdict], left=left_ends, color=SHADES[verdict], label=verdict)
        labels = [str(count) if count else "" for count in counts[verdict]]
        axis.bar_label(drawn_bars, labels, label_type="center", fontsize="small")
        left_ends += counts[verdict].to_numpy()
    chance = by_chance(compared).drop(index="all")["by chance"]
    axis.plot(chance, chance.index, "|", color="black", ms=14, mew=2, label="by chance")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="values of the table")
    figure.legend(loc="outside upper center", ncols=len(VERDICTS) + 1)
    return figure


@plotting.style()
def scatter(compared: pd.DataFrame) -> Figure:
    """A panel a metric: the paper's value across, ours up with its interval; on the dashed line they are equal.

    The paper's values lie close together, so the two axes have scales of their own.
    """
    tables = list(compared["table"].unique())
    metrics = list(compared["metric"].unique())
    across = 4
    down = -(-len(metrics) // across)
    figure, axes = plt.subplots(down, across, figsize=(plotting.WIDTH, 2.5 * down), squeeze=False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        rows = compared[compared["metric"] == metric]
        better = ARROW[direction(metric)]
        axis.set_title(f"{metric} {better}")
        _panel(axis, rows.dropna(subset="ours"), tables)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("here")
    for axis in axes[-1]:
        axis.set_xlabel("in the paper")
    lines = [
        plt.Line2D([], [], ls="", marker=MARKERS[place], color=plotting.COLOURS[place], label=f"Table {table}")
        for place, table in enumerate(tables)
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(tables))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, tables: list[int]) -> None:
    if rows.empty:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, color="0.5")
        axis.set(xticks=[], yticks=[])
        return
    for table, table_rows in rows.groupby("table"):
        place = tables.index(table)
        error_bars = np.abs([table_rows["ours"] - table_rows["low"], table_rows["high"] - table_rows["ours"]])
        style = {"marker": MARKERS[place], "color": plotting.COLOURS[place], "ms": 4, "elinewidth": 0.8}
        axis.errorbar(table_rows["paper"], table_rows["ours"], yerr=error_bars, ls="", alpha=0.8, **style)
    paper_and_ours = rows[["paper", "ours"]]
    for axis_name, values in (("x", rows["paper"]), ("y", paper_and_ours.stack())):
        if values.min() > 0 and values.max() > 5 * values.min():
            axis.set(**{f"{axis_name}scale": "log"})
            charts.plain_ticks(getattr(axis, f"{axis_name}axis"))
    ends = np.linspace(rows["paper"].min(), rows["paper"].max(), 50)
    axis.plot(ends, ends, "--", color="0.4", lw=1.2, zorder=0)
