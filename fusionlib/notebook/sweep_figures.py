"""Figures of Tables 4 and 5: heat map, lines along each setting, and the pictures of the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fusionlib.data import open_set
from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import METRICS
from fusionlib.experiments.sweep_rows import Row, line_of, settings_in
from fusionlib.experiments.sweeps import SCORED
from fusionlib.methods import Ours
from fusionlib.metrics.directions import sign, with_arrow
from fusionlib.metrics.statistics import NOT_SIGNIFICANT
from fusionlib.network import FusionNetwork
from fusionlib.notebook import plotting
from fusionlib.presets import Preset
from fusionlib.training.shared_weights import read_log


@plotting.style()
def heat_map(differences: pd.DataFrame, values: pd.DataFrame) -> Figure:
    """Rows down, metrics across: colour is how much better than the reference, text the value itself.

    Args:
        differences: those of `sweep_tables.differences`, of one set.
        values: means by row, with the reference as the first.
    """
    wide = differences.pivot(index="row", columns="metric", values="difference").reindex(values.index[1:])[METRICS]
    verdicts = differences.pivot(index="row", columns="metric", values="verdict").reindex(values.index[1:])[METRICS]
    share = 100 * wide / values.iloc[0][METRICS].abs()
    better = share * list(map(sign, METRICS))
    grid = np.vstack([np.zeros(len(METRICS)), better.to_numpy()])
    limit = max(1.0, float(np.nanpercentile(np.abs(grid), 95)))
    figure, axis = plt.subplots(figsize=(plotting.WIDTH, 0.8 + 0.28 * len(grid)))
    drawn = axis.imshow(grid, "PuOr", vmin=-limit, vmax=limit, aspect="auto")
    for (y, x), colour in np.ndenumerate(grid):
        mark = "*" if y and verdicts.iloc[y - 1, x] != NOT_SIGNIFICANT else ""
        dark = abs(colour) > 0.7 * limit
        text = f"{values[METRICS].iloc[y, x]:.4g}{mark}"
        axis.text(x, y, text, ha="center", va="center", fontsize="small", color="white" if dark else "black")
    axis.set_xticks(range(len(METRICS)), list(map(with_arrow, METRICS)))
    axis.set_yticks(range(len(grid)), values.index, fontsize="small")
    axis.grid(False)
    figure.colorbar(drawn, ax=axis, label="better than row 1, %", aspect=30, pad=0.01)
    return figure


@plotting.style()
def paired_lines(found: pd.DataFrame, column: str, rows: Sequence[str]) -> Figure:
    """A panel for each set, in it a line for each seed from one row to the next, in %, and the mean of all seeds.

    Args:
        found: one line for each row, seed and dataset.
        column: a share, such as "mAP50:90".
        rows: names, in the order in which the lines join them.
    """
    panels = dict(list(found.groupby("dataset", sort=False)))
    figure, axes = plt.subplots(1, len(panels), figsize=(plotting.WIDTH, 2.6), layout="constrained", squeeze=False)
    for axis, (dataset, panel) in zip(axes[0], panels.items(), strict=True):
        values = 100 * panel.pivot(index="row", columns="seed", values=column).loc[list(rows)]
        axis.plot(values.to_numpy(), "o-", color="C0", alpha=0.5, ms=3, lw=1)
        axis.plot(values.mean(axis=1).to_numpy(), color="C1", lw=3)
        axis.set_title(dataset)
        axis.set_xticks(range(len(rows)), rows)
        axis.margins(x=0.2)
    axes[0, 0].set_ylabel(f"{column}, %")
    return figure


@plotting.style()
def setting_map(differences: pd.DataFrame, values: pd.DataFrame, rows: Sequence[Row], best: str, metric: str) -> Figure:
    """One metric over the grid: a line a setting, a square a value, colour how much better than the optimum.

    For `fusionlib.notebook.widgets`, so laid out by hand, which is faster; `heat_map` shows all metrics at once.

    Args:
        differences: those of `sweep_tables.differences`, of one set.
        values: means by row.
        rows: of Table 5 and between.
        best: name of the optimum's row, framed.
        metric: a column of `values`.
    """
    by_setting = {setting: line_of(rows, best, setting) for setting in settings_in(best)}
    verdicts = differences[differences["metric"] == metric].set_index("row")["verdict"]
    middle = values.at[best, metric]
    width = max(map(len, by_setting.values()))
    figure = Figure(figsize=(0.85 * plotting.WIDTH, 0.75 + 0.55 * len(by_setting)))
    low, high = 0.22 / figure.get_figheight(), 1 - 0.42 / figure.get_figheight()
    axis = figure.add_axes((0.1, low, 0.77, high - low))
    grid = np.full((len(by_setting), width), np.nan)
    for y, line in enumerate(by_setting.values()):
        for x, row in enumerate(line.values()):
            grid[y, x] = 100 * sign(metric) * (values.at[row.name, metric] - middle) / abs(middle)
    limit = max(0.1, float(np.nanmax(np.abs(grid))))
    drawn = axis.imshow(grid, "PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for y, line in enumerate(by_setting.values()):
        for x, (value, row) in enumerate(line.items()):
            mark = "*" if verdicts.get(row.name, NOT_SIGNIFICANT) != NOT_SIGNIFICANT else ""
            text = "\n".join([f"{value:g}", f"{values.at[row.name, metric]:.4g}{mark}"])
            white = abs(grid[y, x]) > 0.55 * limit
            axis.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if white else "black")
            if row.name == best:
                axis.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, lw=2))
    axis.set_yticks(range(len(by_setting)), by_setting, fontsize=9)
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(f"{with_arrow(metric)}: value of the setting, and the mean it gives", fontsize=9)
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.89, low, 0.015, high - low)))
    bar.set_label("better than the optimum by, %", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


@plotting.style()
def lines(table: pd.DataFrame, rows: Sequence[Row], best: str, metrics: Sequence[str] = METRICS) -> Figure:
    """A column a setting, a line of panels a metric: change against the optimum in %, the spread of seeds, the paper's.

    Args:
        table: long table of one set, or of all pairs.
        rows: of Table 5 and between.
        best: name of the optimum's row.
    """
    by_seed = table.groupby(["row", "seed"])[SCORED].mean()
    middle = by_seed.xs(best, level="row")
    change = 100 * by_seed.sub(middle, level="seed") / middle.mean().abs()
    printed = paper_table(5).droplevel("dataset")
    settings = settings_in(best)
    size = (plotting.WIDTH, 1.5 * len(metrics) + 0.5)
    figure, axes = plt.subplots(len(metrics), len(settings), figsize=size, sharex="col", sharey="row", squeeze=False)
    for column, (setting, value) in enumerate(settings.items()):
        line = line_of(rows, best, setting)
        printed_rows = {values: row.printed for values, row in line.items() if row.printed}
        for axis, metric in zip(axes[:, column], metrics, strict=True):
            seeds = [change[metric].loc[row.name] for row in line.values()]
            axis.fill_between(
                list(line), [values.min() for values in seeds], [values.max() for values in seeds], alpha=0.25
            )
            axis.plot(list(line), [values.mean() for values in seeds], marker="o", ms=3, label="here, band: seeds")
            if metric in printed:
                printed_change = [
                    100 * (printed.at[name, metric] / printed.at[best, metric] - 1) for name in printed_rows.values()
                ]
                axis.plot(
                    list(printed_rows), printed_change, "--", marker="s", ms=3, color=plotting.COLOURS[1], label="paper"
                )
            axis.axvline(value, color="0.6", lw=0.8)
        axes[-1, column].set(xlabel=setting)
    for axis, metric in zip(axes[:, 0], metrics, strict=True):
        axis.set(ylabel=f"{with_arrow(metric)}, %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@plotting.style()
def pictures(table: pd.DataFrame, scene: tuple[str, str], preset: Preset, weights: Path) -> Figure:
    """What each row makes of one test pair: above the fused image, below the error that its field leaves, in pixels.

    Args:
        table: long table; of each row the first seed is shown, if its weights are there (`weights_of`).
        scene: (set, name of the pair).
        preset, weights: as in `sweeps.run`.
    """
    pairs = open_set(scene[0], "test", preset.test_size)
    ir, vi = pairs.stack([pairs.names.index(scene[1])])
    moved = evaluation.deform(ir, scene[1], preset.levels[0])
    results = {"before": (moved.ir, torch.zeros_like(moved.phi_gt))}
    for name, path in weights_of(table, weights).items():
        fused = Ours(FusionNetwork.load(path)).fuse(moved.ir, vi)
        results[name] = (fused.image, fused.field)
    size = (plotting.WIDTH, 2 * plotting.WIDTH / len(results) + 0.9)
    figure, axes = plt.subplots(2, len(results), figsize=size)
    limit = (moved.phi_gt.norm(dim=1) * moved.valid[:, 0]).max().item()
    for (name, (image, field)), column in zip(results.items(), axes.T, strict=True):
        column[0].set_title(name.replace("w/o concat of", "w/o concat of\n"), fontsize="x-small")
        for axis in column:
            axis.set_axis_off()
        error = (field - moved.phi_gt).norm(dim=1)[0].where(moved.valid[0, 0], torch.tensor(float("nan")))
        column[0].imshow(image[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        drawn = column[1].imshow(error.numpy(), vmin=0, vmax=limit)
        column[1].set_title(f"EPE {error.nanmean().item():.2f} px", fontsize="x-small")
    figure.colorbar(drawn, ax=axes[1], label="px", aspect=12, pad=0.01)
    return figure


def weights_of(table: pd.DataFrame, weights: Path) -> dict[str, Path]:
    """The weights of each row's first seed, of those rows of a long table whose weights are in `weights`/sweeps."""
    files = table.groupby("row", sort=False)["weights"].first()
    paths = {name: Path(weights) / "sweeps" / f"{file}.safetensors" for name, file in files.items()}
    return {name: path for name, path in paths.items() if path.exists()}


def trainings(table: pd.DataFrame, weights: Path) -> pd.DataFrame:
    """How long the trainings of a long table took, if there is a log: rows (row, seed), columns epochs and seconds."""
    lines = {}
    for (row, seed, file), rows in table.groupby(["row", "seed", "weights"], sort=False):
        log = Path(weights) / "sweeps" / f"{file}.csv"
        if log.exists():
            lines[row, str(seed)] = {
                "epochs": str(rows["epochs"].iloc[0]),
                "seconds": read_log(log)["seconds"].sum(),
            }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["row", "seed"] if lines else None)
