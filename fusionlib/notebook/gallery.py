"""What readers see of a comparison of methods: the table with its intervals, box plots, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fusionlib import methods
from fusionlib.data import open_set
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import METRICS, Measured, Row, intervals, means
from fusionlib.metrics.directions import ARROW, direction
from fusionlib.notebook import plotting
from fusionlib.notebook.ranks import ranks
from fusionlib.presets import Preset
from fusionlib.support.files import InputError, fingerprint

STYLES = {1: "font-weight: bold", 2: "text-decoration: underline"}


def table(measured: Measured, level: str, caption: str, columns: Sequence[str] = METRICS, **only: str) -> HTML:
    """Means and, below them, 95 % intervals; best bold and second underlined among the rows of one part and set.

    Args:
        measured, level, columns: as those of `comparison.means`.
        caption: a line above it.
        only: `data` or `part`: show the rows of one set, or under one heading.
    """
    found, spread = means(measured, level, columns), intervals(measured, level, columns)
    for name, value in only.items():
        found, spread = (each[each.index.get_level_values(name) == value] for each in (found, spread))
    text = pd.DataFrame({"weights": found["weights"]})
    for column in columns:
        cells = zip(found[column], spread[column], strict=True)
        text[_arrowed(column)] = [_cell(mean, ends) for mean, ends in cells]
    marks = ranks(found[list(columns)]).map(lambda rank: STYLES.get(rank, "")).set_axis(text.columns[1:], axis=1)
    styler = text.style.set_uuid(fingerprint(caption, text.to_csv())).set_caption(caption)
    styler.apply(lambda _: marks.reindex(columns=text.columns, fill_value=""), axis=None)
    return HTML(styler.format_index(escape="html", axis=0).to_html())


@plotting.style()
def boxes(measured: Measured, level: str, columns: Sequence[str] = METRICS) -> Figure:
    """A panel a metric: the box of each of the table's own rows over all pairs, and every pair as a dot."""
    here = measured.table[measured.table["level"] == level]
    shown = [row for row in measured.rows if row.part == measured.rows[0].part and row.method not in measured.missing]
    figure, axes = plt.subplots(1, len(columns), figsize=(plotting.WIDTH, 0.8 + 0.35 * len(shown)), sharey=True)
    for axis, column in zip(axes, columns, strict=True):
        values = [here.loc[here["method"] == row.method, column].dropna() for row in shown]
        axis.boxplot(values, orientation="horizontal", showfliers=False, medianprops={"color": plotting.COLOURS[1]})
        for place, dots in enumerate(values, start=1):
            axis.plot(dots, [place] * len(dots), ".", ms=3, color=plotting.COLOURS[0], alpha=0.6)
        axis.set(title=_arrowed(column))
        axis.tick_params(axis="x", labelrotation=45)
    axes[0].set_yticks(range(1, len(shown) + 1), [row.method for row in shown])
    axes[0].invert_yaxis()
    return figure


@plotting.style()
def pictures(
    rows: Sequence[Row],
    scenes: Sequence[tuple[str, str]],
    preset: Preset,
    level: str,
    weights: Path | None = None,
    modalities: tuple[str, str] = ("visible", "infrared"),
) -> Figure:
    """One line a scene: the visible image, the infrared as given under its deformation grid, what each method made.

    Args:
        rows: the methods; one without weights leaves its panel empty and says so.
        scenes: (set, name of the pair).
        preset, level, weights: as in `comparison.run`.
        modalities: what the visible and the infrared image are called.
    """
    titles = [modalities[0], f"{modalities[1]}, as given", *(row.printed or row.method for row in rows)]
    panel = plotting.WIDTH / len(titles)
    size = (plotting.WIDTH, panel * len(scenes) + 0.4)
    figure, axes = plt.subplots(len(scenes), len(titles), figsize=size, squeeze=False)
    for place, line in zip(scenes, axes, strict=True):
        vi, given = _scene(*place, preset, level)
        shown = [vi[0], given.ir[0], *(_fused(row, given.ir, vi, weights) for row in rows)]
        for axis, image in zip(line, shown, strict=True):
            _show(axis, image)
        plotting.draw_grid(line[1], given.phi_gt[0], lines=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize="small")
    return figure


def _scene(name: str, pair: str, preset: Preset, level: str) -> tuple[Tensor, Misaligned]:
    """The visible image (1, 1, H, W) of a test pair and its infrared, deformed as in the table."""
    pairs = open_set(name, "test", preset.test_size, count=preset.bench.count)
    ir, vi = pairs.stack([pairs.names.index(pair)])
    return vi, evaluation.deform(ir, pair, level)


def _fused(row: Row, ir: Tensor, vi: Tensor, weights: Path | None) -> Tensor | None:
    try:
        return methods.load(row.method, weights, **row.options).fuse(ir, vi).image[0]
    except InputError:
        return None


def _show(axis: Axes, image: Tensor | None) -> None:
    axis.set_axis_off()
    if image is None:
        axis.set_box_aspect(1)
        axis.text(0.5, 0.5, "no weights", ha="center", transform=axis.transAxes)
    else:
        axis.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)


def _arrowed(column: str) -> str:
    return f"{column} {ARROW[way]}" if (way := direction(column)) else column


def _cell(mean: float, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "–"
    return f"{_number(mean, 4)}<br><small>{_number(ends[0], 3)} to {_number(ends[1], 3)}</small>"


def _number(value: float, digits: int) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
