"""Our number for each value that the paper prints: its mean and interval, from the csv files of a preset.

Each paper table has its own source (`FILES`), its own pairs and its own interval:

    1, 2    all test pairs at the first level of the preset; bootstrap over scenes
    3       the set the paper names, mean over the detectors of several seeds; bootstrap over scenes
    4, 5    as printed: M3FD and all pairs; mean over seeds, then bootstrap over scenes
    6       counts, which are exact, and the median of several calls with its quartiles
    7       mean over heads, each the mean over its slices; from the lowest head to the highest

Where a table has no csv, or its csv lacks a row, there is no number here, and `absent` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from fusionlib import data
from fusionlib.data import systems
from fusionlib.data.paper_tables import paper_table, systems_in
from fusionlib.data.scenes import scenes_of
from fusionlib.experiments import comparison, mri_study, profiling
from fusionlib.experiments.evaluation import BOUND, with_all_sets
from fusionlib.methods.registry import SAME_BUDGET, weights_name
from fusionlib.metrics.statistics import interval
from fusionlib.support import result_tables
from fusionlib.training.recipe import Recipe
from fusionlib.training.shared_weights import START, read_log

TEST_PAIRS = "test_pairs.csv"  # the long table of `evaluation.run` on the test pairs of a preset
BENCH, BRAINS = "registration_bench.csv", "mri_registration.csv"  # the rows of `registration_bench.run`
DETECTION = "detection.csv"  # the rows of `detection_bench`
DETECTION_SCENES = "detection_scenes.csv"  # how much their differences to Ours change from scenes to scenes
COMPARED = {1: "table1.csv", 2: "table2.csv", 7: "table7.csv"}  # what `comparison.run` keeps of the paper's tables
SWEPT = {4: "table4.csv", 5: "table5.csv"}  # what `sweeps.run` keeps of them
SWEPT_AT_LIGHT = {4: "table4_light.csv", 5: "table5_light.csv"}  # the same rows and seeds, scored at `light`
WITH_AND_WITHOUT = "target_awareness.csv"  # what `sweeps.run` keeps of Ours with and without the detection loss
AWARENESS = "target_awareness_found.csv"  # what COCO's detector finds on what those trainings make
AWARENESS_SCENES = "target_awareness_scenes.csv"  # how much that difference changes from scenes to scenes
BRATS = "table7_brats2020.csv"  # Table 7 on the paper's own set, for those who have it
COUNTS, TIMES, GAIN = "cost_counts.csv", "cost_times.csv", "cost_gain.csv"  # what `cost` keeps
COST = {"FLOPs(G)": "thop", "Size(M)": "parameters"}  # what Table 6 calls two columns of COUNTS
FILES = COMPARED | SWEPT | {3: DETECTION, 6: COUNTS}
NOTEBOOKS = {1: "04", 2: "05", 3: "06", 4: "07", 5: "08", 6: "09", 7: "10"}  # which makes which table
PrintedKey = tuple[str, str]  # row and metric, as the paper prints them


@dataclass(frozen=True)
class Number:
    """One number of ours.

    Attributes:
        value: the mean, the median of times, or the count.
        low, high: ends of its interval; of a count, itself.
        over: what the interval is over, such as "35 pairs"; empty for a count.
        facts: what sets it apart from the paper's.
        readings: another way to measure the same, to the ends of its interval.
        cap: the largest value that any method could have reached on these pairs; None where none is known.
    """

    value: float
    low: float
    high: float
    over: str
    facts: tuple[str, ...] = ()
    readings: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cap: float | None = None


def numbers(folder: Path, table: int) -> dict[PrintedKey, Number]:
    """What the csv files in `folder`, that of a preset, hold of a table of the paper; empty if they hold nothing."""
    path = folder / "tables" / FILES[table]
    if table == 7 and (folder / "tables" / BRATS).exists():
        path = folder / "tables" / BRATS
    if table == 6:
        return dict(_counted(path)) | dict(_timed(path.with_name(TIMES)))
    if not path.exists():
        return {}
    if table == 3:
        return dict(_detected(result_tables.read(path)))
    if table in SWEPT:
        return dict(_swept(result_tables.read(path), table))
    return dict(_compared(comparison.read(table, path), table, folder / "weights"))


def absent(folder: Path, table: int, metric: str) -> str:
    """Why a value of the paper's table has no number of ours."""
    name = TIMES if table == 6 and metric not in COST else FILES[table]
    if not (folder / "tables" / name).exists():
        return f"there is no {name} yet: `reproduce {NOTEBOOKS[table]} --preset {folder.name}` makes it"
    return {
        3: "no detector was trained on its images: its weights are not here, `retrain` makes them",
        4: "its trainings are not in the table yet",
        5: "its trainings are not in the table yet",
        6: "too slow to be timed at this size" if name == TIMES else "not counted",
    }.get(table, "there were no weights of it to measure it with")


# --- one function a kind of table


def _compared(measured: comparison.Measured, table: int, weights: Path) -> Iterator[tuple[PrintedKey, Number]]:
    """Tables 1, 2 and 7; other levels, and metrics of other images, are other readings of the same."""
    level, *others = measured.table["level"].unique()
    pooled = with_all_sets(measured.table)
    pooled = pooled[pooled["dataset"] == pooled["dataset"].iloc[-1]]  # all pairs, or those of the only set
    bounds = pooled.loc[(pooled["method"] == BOUND) & (pooled["level"] == level), "Q_CC"]
    heads = mri_study.by_subject(measured, level) if table == 7 else None
    for row in measured.rows:
        if row.printed is None or row.method in measured.missing:
            continue
        method_rows = pooled[pooled["method"] == row.method]
        at_level = method_rows[method_rows["level"] == level]
        if at_level.empty:
            continue  # the table is being made
        facts = (*_training_facts(row.method, at_level["weights"].iloc[0], weights, "mri" if table == 7 else ""),)
        facts += (f"other pairs, deformed at level {level}: the paper names neither",)
        for metric in paper_table(table).columns:
            values = at_level.set_index("pair")[metric].dropna()
            value, ends, over = values.mean(), _ends(values), _pairs_and_scenes(values)
            if heads is not None:
                line = heads.loc[(row.heading, row.method)]
                value, ends = line[metric], (line[f"{metric}_low"], line[f"{metric}_high"])
                over = f"{line['subjects']:.0f} heads"
            by_pair = {
                name: level_rows.set_index("pair") for name, level_rows in method_rows.groupby("level", sort=False)
            }
            readings = {f"at level {other}": by_pair[other][metric] for other in others if other in by_pair}
            readings["against the deformed image"] = by_pair[level].get(f"{metric}@given")
            readings["over the whole slice"] = by_pair[level].get(f"{metric}@slice")
            readings = {name: _ends(series.dropna()) for name, series in readings.items() if series is not None}
            cap = bounds.mean() if metric == "Q_CC" and len(bounds) else None
            yield (row.printed, metric), Number(value, *ends, over, facts, readings, cap)


def _ends(values: pd.Series) -> tuple[float, float]:
    """The interval of a mean over pairs, which are the index."""
    return interval(values, scenes_of(values.index))


def _pairs_and_scenes(values: pd.Series | pd.DataFrame) -> str:
    return f"{len(values)} pairs of {len(set(scenes_of(values.index)))} scenes"


def _training_facts(method: str, kinds: str, weights: Path, folder: str) -> Iterator[str]:
    """How long the parts of a method were trained here, from the logs beside their weights in a folder."""
    for name in method.split("+"):
        minutes = _minutes_of_part(name, weights, folder)
        kind = "retrained" if name in systems.names() else "trained"
        if minutes and kind in kinds.split(" + "):
            yield f"{name} {kind} for {_minutes_text(minutes)} min"


def minutes_of_method(method: str, weights: Path, folder: str = "") -> float:
    """How long all parts of a method, such as "crossraft+emma", were trained here; starts are included.

    Args:
        method: as in the tables.
        weights: folder of the weights and logs of a preset.
        folder: below it, "mri" for those of brains.
    """
    return sum(_minutes_of_part(name, weights, folder) for name in method.split("+"))


def _minutes_of_part(name: str, weights: Path, folder: str) -> float:
    if name == SAME_BUDGET:
        return minutes_of_same_budget(weights)
    minutes = minutes_of(weights / folder / f"{name}.csv")
    if minutes and name not in systems.names():  # brains begin with the start of roads, and have a stage of their own
        minutes += sum(map(minutes_of, {weights / "registration.csv", weights / folder / "registration.csv"}))
    return minutes


def minutes_of(log: Path) -> float:
    """How long the training took whose log this is; 0 if there is no log, InputError if it is damaged."""
    return read_log(log)["seconds"].sum() / 60 if log.exists() else 0.0


def steps_of(log: Path, recipe: Recipe) -> int:
    """How many steps the training took whose log this is, on the pairs of a recipe and in its batches; 0 if none."""
    pairs = data.splits(recipe.dataset).get("train", [])[: recipe.train_pairs]
    return read_log(log)["epoch"].iloc[-1] * max(1, len(pairs) // recipe.training.batch) if log.exists() else 0


def steps_here(method: str, weights: Path, recipe: Recipe) -> str:
    """In how many steps each part of a method was trained here, starts included: "1650 + 520"; "–" if in none.

    Args:
        method: as in Tables 1 and 2.
        weights: folder of the weights and logs of a preset.
        recipe: of Ours in that preset, whose batch is that of all our own networks; those of the others are smaller.
    """
    counts = []
    for name in method.split("+"):
        log = weights / f"{weights_name(name)}.csv"
        if name in systems.names():
            counts += [read_log(log)["step"].iloc[-1]] if log.exists() else []
        elif steps := steps_of(log, recipe):
            counts.append(steps + steps_of(log.with_stem(START), recipe))
    return " + ".join(map(str, counts)) or "–"


def minutes_of_same_budget(weights: Path) -> float:
    """How long `ours_same_budget` was trained, its start included."""
    return sum(minutes_of(weights / "same_budget" / f"{part}.csv") for part in ("registration", "ours"))


def _minutes_text(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 1 else "less than 1"


def _detected(table: pd.DataFrame) -> Iterator[tuple[PrintedKey, Number]]:
    """Table 3, in %."""
    printed = paper_table(3)
    printed_set, metric = printed.index.get_level_values("dataset")[0], printed.columns[0]
    overall = table[table["class"] == "all"]
    data = printed_set if printed_set in set(overall["dataset"]) else overall["dataset"].iloc[-1]
    boxes = table.loc[(table["dataset"] == data) & (table["class"] != "all")]
    count = boxes.drop_duplicates("class")["boxes"].sum()
    titles = {row.method: row.printed for number in (1, 2) for row in comparison.rows_of(number) if row.printed}
    for method, rows in overall[overall["dataset"] == data].groupby("method", sort=False):
        if method in titles:
            value, low, high = (100 * rows[f"{metric}{end}"].mean() for end in ("", "_low", "_high"))
            facts = (
                f"YOLOv5n begun from COCO and trained here for minutes, one for each of {len(rows)} seeds",
                f"scored on {count:.0f} boxes of {data}: the paper names neither detector nor pairs",
            )
            yield (titles[method], metric), Number(value, low, high, "images", facts)


def _swept(table: pd.DataFrame, number: int) -> Iterator[tuple[PrintedKey, Number]]:
    """Tables 4 and 5: the short trainings that all rows share."""
    epochs, printed = int(table["epochs"].mode()[0]), paper_table(number)
    pooled = with_all_sets(table[table["epochs"] == epochs])
    printed_set, sets = printed.index.get_level_values("dataset")[0], pooled["dataset"].unique()
    pooled = pooled[pooled["dataset"] == (printed_set if printed_set in sets else sets[-1])]
    for name, rows in pooled.groupby("row", sort=False):
        if name not in printed.index.get_level_values("row"):
            continue  # one between those of the paper
        pairs = rows.groupby("pair")[list(printed.columns)].mean()
        facts = (
            f"epochs a row: {epochs}, seeds: {rows['seed'].nunique()}",
            f"other pairs, deformed at level {rows['level'].iloc[0]}: the paper names neither",
        )
        for metric in printed.columns:
            yield (name, metric), Number(pairs[metric].mean(), *_ends(pairs[metric]), _pairs_and_scenes(pairs), facts)


def _counted(path: Path) -> Iterator[tuple[PrintedKey, Number]]:
    """The operations and parameters of Table 6."""
    table, printed = result_tables.read(path), paper_table(6).droplevel("dataset")
    for row in table.itertuples():
        title = _titles().get(row.method)
        for metric, column in COST.items() if title else ():
            value = float(getattr(row, column))
            size = metric == "Size(M)"
            facts = (
                _part_facts(row.method, printed.at[title, metric]) if size else (f"counted by thop at {row.side} px",)
            )
            facts += ("the paper gives no widths: these are ours",) if row.method == "ours" else ()
            yield (title, metric), Number(value, value, value, "", facts)


def _timed(path: Path) -> Iterator[tuple[PrintedKey, Number]]:
    """The seconds of Table 6: at the largest size, on the most threads."""
    table = result_tables.read(path)
    for row in table.itertuples():
        if row.method in _titles() and (row.side, row.threads) == (table["side"].max(), table["threads"].max()):
            facts = (
                f"{row.side} px on {row.threads} threads of {row.cpu}: the paper's is a GPU that it does not name",
                *(["Ours in its fast form, the others as published"] if row.method == "ours" else []),
            )
            number = Number(row.median, row.low, row.high, f"{row.runs} calls, quartiles", facts)
            yield (_titles()[row.method], "Time(s)"), number


def _titles() -> dict[str, str]:
    return {"ours": "Ours", **systems_in(6)}


@cache
def _part_facts(name: str, printed: float) -> tuple[str, ...]:
    """Says if the printed number of parameters, in M, is that of one part of a method and not of the whole."""
    parts = profiling.parameters(profiling.fresh(name))
    same_parts = [part for part, count in parts.items() if len(parts) > 1 and abs(count / 1e6 - printed) <= 0.005]
    return tuple(f"the printed {printed:g} M are those of its part {part} alone" for part in same_parts)
