"""A comparison of methods for readers: the table with its intervals, box plots, and the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from torch import Tensor

from fusionlib import methods
from fusionlib.data import open_set, systems
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import METRICS, Measured, Row, intervals, means
from fusionlib.experiments.evaluation import BOUND
from fusionlib.methods.checkpoints import IN_PART
from fusionlib.metrics.directions import with_arrow
from fusionlib.notebook import plotting
from fusionlib.notebook.reporting import ranks
from fusionlib.notebook.sentences import number
from fusionlib.presets import Preset
from fusionlib.support.files import InputError, fingerprint

STYLES = {1: "font-weight: bold", 2: "text-decoration: underline"}


def runnable(rows: Sequence[Row], weights: Path | None = None) -> list[Row]:
    """The rows whose weights are here, all of them; arguments as those of `comparison.run`."""
    return [row for row in rows if not _lacking(row, weights)]


def left_out(rows: Sequence[Row], measured: Measured, weights: Path | None = None) -> str:
    """One line about the rows without numbers whose weights are not here, and how to get them; "" if there are none.

    Args:
        rows: all that could have been measured.
        measured: what was.
        weights: as that of `comparison.run`.
    """
    measured_methods = {row.method for row in measured.rows} - set(measured.missing)
    names = dict.fromkeys(name for row in rows if row.method not in measured_methods for name in _lacking(row, weights))
    absent = [systems.system(name) for name in names if name in systems.names()]
    if not absent:
        return ""
    commands = {
        "data fetch": " ".join(system.name for system in absent if system.published),
        "retrain": " ".join(system.name for system in absent if "" not in system.published),
    }
    how = " and ".join(
        f"`python -m fusionlib {command} {system_names}`" for command, system_names in commands.items() if system_names
    )
    titles = ", ".join(system.title for system in absent)
    return f"Not in this table, since their weights are not here: {titles}. To get them: {how}."


def _lacking(row: Row, weights: Path | None) -> list[str]:
    """The parts of a row's method that have no weights here, or not all."""
    lacking = []
    for name in row.method.split("+") if row.method != BOUND else ():
        try:
            origin = methods.origin(name, weights)
        except InputError:
            lacking.append(name)
        else:
            lacking += [name] if IN_PART in origin.weights else []
    return lacking


def table(
    measured: Measured,
    level: str,
    caption: str,
    columns: Sequence[str] = METRICS,
    steps: Callable[[str], str] | None = None,
    **only: str,
) -> HTML:
    """Means and, below them, 95 % intervals; best bold and second underlined among the rows of one heading and set.

    Where there are too few scenes for an interval, the mean stands alone. Rows without numbers are left out: `left_out`
    names them.

    Args:
        measured, level, columns: as those of `comparison.means`.
        caption: a line above it.
        steps: of a method: in how many steps it was trained here; shown beside the origin of its weights.
        only: `data` or `heading`: show the rows of one set, or under one heading.
    """
    table_means, spread = means(measured, level, columns), intervals(measured, level, columns)
    for name, value in only.items():
        table_means, spread = (frame[frame.index.get_level_values(name) == value] for frame in (table_means, spread))
    measurable = table_means[list(columns)].notna().any(axis=1)
    table_means, spread = table_means[measurable], spread[measurable]
    text = pd.DataFrame({"weights": table_means["weights"]})
    if steps:
        text["steps here"] = [steps(method) for method in text.index.get_level_values("method")]
    for column in columns:
        cells = zip(table_means[column], spread[column], strict=True)
        text[with_arrow(column)] = [_cell(mean, ends) for mean, ends in cells]
    marks = ranks(table_means[list(columns)]).map(lambda rank: STYLES.get(rank, "")).rename(columns=with_arrow)
    styler = text.style.set_uuid(fingerprint(caption, text.to_csv())).set_caption(caption)
    styler.apply(lambda _: marks.reindex(columns=text.columns, fill_value=""), axis=None)
    return HTML(styler.format_index(escape="html", axis=0).to_html())


@plotting.style()
def boxes(measured: Measured, level: str) -> Figure:
    """A panel a metric: the box of each of the table's own rows over all pairs, and every pair as a dot."""
    level_rows = measured.table[measured.table["level"] == level]
    shown = [
        row for row in measured.rows if row.heading == measured.rows[0].heading and row.method not in measured.missing
    ]
    figure, axes = plt.subplots(1, len(METRICS), figsize=(plotting.WIDTH, 0.8 + 0.35 * len(shown)), sharey=True)
    for axis, column in zip(axes, METRICS, strict=True):
        values = [level_rows.loc[level_rows["method"] == row.method, column].dropna() for row in shown]
        axis.boxplot(values, orientation="horizontal", showfliers=False, medianprops={"color": plotting.COLOURS[1]})
        for place, dots in enumerate(values, start=1):
            axis.plot(dots, [place] * len(dots), ".", ms=3, color=plotting.COLOURS[0], alpha=0.6)
        axis.set(title=with_arrow(column))
        axis.tick_params(axis="x", labelrotation=45)
    axes[0].set_yticks(range(1, len(shown) + 1), [row.method for row in shown])
    axes[0].invert_yaxis()
    return figure


@plotting.style()
def dots(scores: pd.DataFrame, label: str, marked: str = "ours") -> Figure:
    """A panel a set: methods sorted by their value, the best on top, with whiskers; one method in another colour.

    Args:
        scores: rows (set, method); columns value, low and high.
        label: of the horizontal axis.
        marked: beginning of the name of the method that is marked.
    """
    sets = scores.index.get_level_values(0).unique()
    lines = max(len(scores.loc[name]) for name in sets)
    size = (plotting.WIDTH, 0.9 + 0.24 * lines)
    figure, axes = plt.subplots(1, len(sets), figsize=size, sharex=True, squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        set_rows = scores.loc[name].sort_values("value")
        for place, (method, line) in enumerate(set_rows.iterrows()):
            colour = plotting.COLOURS[1 if method.startswith(marked) else 0]
            axis.plot([line["low"], line["high"]], [place] * 2, color=colour, lw=1)
            axis.plot(line["value"], place, "o", color=colour)
        axis.set_yticks(range(len(set_rows)), set_rows.index)
        axis.set(title=name, xlabel=label)
    return figure


@plotting.style()
def detections_figure(title: str, vi: Tensor, fused: Tensor, truth: Tensor, detections: Tensor) -> Figure:
    """The true boxes on the visible image (3, H, W), beside those of the detections (M, 6) on the fused (1, H, W)."""
    captions = f"{title}: {len(truth)} true", f"fused: {len(detections)} found"
    outlined = dict(zip(captions, (truth, detections), strict=True))
    return plotting.images(dict(zip(captions, (vi, fused), strict=True)), boxes=outlined)


@dataclass(frozen=True)
class Views:
    """A test pair and what the methods make of it.

    Attributes:
        images: title to image (1, H, W) in [0, 1]: the visible image, the infrared as given, and one of each method.
        truth: the field that undoes the deformation of the infrared, (2, H, W) in pixels.
    """

    images: Mapping[str, Tensor]
    truth: Tensor


def views(
    rows: Sequence[Row],
    scene: tuple[str, str],
    preset: Preset,
    level: str,
    weights: Path | None = None,
    modalities: tuple[str, str] = ("visible", "infrared"),
) -> Views:
    """What the methods make of a test pair, deformed as in the tables.

    Args:
        rows: the methods; those without weights are left out.
        scene: set, and name of the pair.
        preset, level, weights: as in `comparison.run`.
        modalities: what the visible and the infrared image are called.
    """
    name, pair = scene
    pairs = open_set(name, "test", preset.test_size)
    ir, vi = pairs.stack([pairs.names.index(pair)])
    moved = evaluation.deform(ir, pair, level)
    images = {modalities[0]: vi[0], f"{modalities[1]}, as given": moved.ir[0]}
    for row in runnable(rows, weights):
        images[row.printed or row.method] = methods.load(row.method, weights, **row.options).fuse(moved.ir, vi).image[0]
    return Views(images, moved.phi_gt[0])


def pictures(scenes: Sequence[Views]) -> Figure:
    """One line a scene: the visible image, the infrared as given under its deformation grid, what each method made."""
    titles = list(scenes[0].images)
    panel = plotting.WIDTH / len(titles)
    size = (plotting.WIDTH, panel * len(scenes) + 0.4)
    figure, axes = plt.subplots(len(scenes), len(titles), figsize=size, squeeze=False)
    for scene, line in zip(scenes, axes, strict=True):
        for axis, image in zip(line, scene.images.values(), strict=True):
            axis.set_axis_off()
            axis.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
        plotting.draw_grid(line[1], scene.truth, lines=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize="small")
    return figure


def _cell(mean: float, ends: tuple[float, float] | None) -> str:
    if pd.isna(mean):
        return "–"
    return number(mean, 4) + (f"<br><small>{number(ends[0])} to {number(ends[1])}</small>" if ends else "")
