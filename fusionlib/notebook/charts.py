"""Charts of tables and logs, with lines and dots; conventions and look as in `fusionlib.notebook.plotting`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fusionlib.notebook.plotting import COLOURS, WIDTH, style


@style()
def curves(log: pd.DataFrame, columns: Sequence[str], x: str = "epoch", logarithmic: bool = False) -> Figure:
    """One small panel for each column of a log over its column `x`; rows without a value are left out."""
    across = min(4, len(columns))
    rows = ceil(len(columns) / across)
    figure, axes = plt.subplots(rows, across, figsize=(WIDTH, 2 * rows), squeeze=False)
    for axis, column, colour in zip(axes.flat, columns, cycle(COLOURS), strict=False):
        values = log[[x, column]].dropna()
        axis.plot(values[x], values[column], color=colour, marker="o" if len(values) < 20 else "", ms=3)
        axis.set(title=column, xlabel=x, yscale="log" if logarithmic else "linear")
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    return figure


@style()
def lines(
    series: Mapping[str, pd.Series],
    x: str,
    y: str,
    logarithmic: bool = False,
    reference: Mapping[str, float | pd.Series] | None = None,
) -> Figure:
    """Lines in one panel, each a series over its index; `reference` adds dashed grey levels or lines by name."""
    figure, axis = plt.subplots(figsize=(0.65 * WIDTH, 3.4))
    for place, (name, values) in enumerate(series.items()):
        values = values.dropna()
        marker, dash = "o" if len(values) < 20 else "", ":" if place >= len(COLOURS) else "-"
        colour = COLOURS[place % len(COLOURS)]
        axis.plot(values.index, values, color=colour, ls=dash, marker=marker, ms=4, label=name)
    for name, level in (reference or {}).items():
        look = {"color": "0.4", "ls": "--", "lw": 1, "label": name}
        axis.plot(level, **look) if isinstance(level, pd.Series) else axis.axhline(level, **look)
    scale = "log" if logarithmic else "linear"
    axis.set(xlabel=x, ylabel=y, xscale=scale, yscale=scale)
    for ticks in (axis.xaxis, axis.yaxis) if logarithmic else ():
        plain_ticks(ticks)
    figure.legend(loc="outside right upper")
    return figure


@style()
def dots(values: pd.Series, low: pd.Series, high: pd.Series, title: str) -> Figure:
    """A line and a dot for each entry of `values`, on a logarithmic scale, with whiskers from `low` to `high`."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.7, 0.8 + 0.3 * len(values)))
    off = np.abs([values - low, high - values])
    axis.errorbar(values, range(len(values)), xerr=off, fmt="o", ecolor=COLOURS[1], capsize=3)
    axis.set_yticks(range(len(values)), values.index)
    axis.set(xscale="log", xlabel=title)
    plain_ticks(axis.xaxis)
    axis.invert_yaxis()
    return figure


def plain_ticks(ticks: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 of each decade, as plain numbers, so that none lies on another."""
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_formatter(NullFormatter())
