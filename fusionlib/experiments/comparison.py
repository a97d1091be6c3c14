"""Tables of methods: Tables 1, 2 and 7 of the paper measured here, row by row, and compared with Ours.

A row of the long table is one method on one deformed pair. Columns: dataset, level, method, pair, `weights` (where they
come from, see `methods.Origin`), then every number of `evaluation.score`. The file
that keeps it grows part by part (`fusionlib.experiments.runner`).

PAPER-GAP: the paper names neither the registration settings nor the weights of its compared systems. Each row says
which weights it was measured with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from torch import Tensor

from fusionlib import methods, metrics
from fusionlib.data import PairSet, open_set
from fusionlib.data.paper_tables import systems_in
from fusionlib.data.scenes import scenes_of
from fusionlib.deformation import Misaligned
from fusionlib.experiments import evaluation, runner
from fusionlib.experiments.evaluation import BOUND, with_all_sets
from fusionlib.methods.checkpoints import IN_PART
from fusionlib.methods.registry import SAME_BUDGET
from fusionlib.methods.retraining import SHARE
from fusionlib.metrics.statistics import LEAST_SCENES, holm, interval, sign_flips, verdict
from fusionlib.presets import Preset
from fusionlib.support import result_tables
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key

IMAGE_METRICS = ["Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM"]  # of the fused image: those of the paper
METRICS = [*IMAGE_METRICS, "EPE"]
ABSENT = "paper only"  # the weights of a row that could not be measured
CHAINS = {1: "crossraft+{}", 2: "{}", 7: "corrmlp+{}"}  # how the systems of a table register
# Further rows, which separate registration from fusion: the same fusion networks behind another registration.
BEHIND = {
    1: {"not registered": "{}", "by SimpleITK": "simpleitk+{}", "by the field of Ours": "ours+{}"},
    7: {"by SimpleITK": "simpleitk+{}"},
}
SHORT_TRAINING = f"Ours in {100 * SHARE:.0f} % of its epochs"


@dataclass(frozen=True)
class Row:
    """One row of a table of methods.

    Attributes:
        method: as `methods.load` knows it, or `evaluation.BOUND`.
        heading: under which it stands in the table; the best are looked for among the rows of one heading.
        printed: the row of the paper's table that it is; None for one that the paper does not have.
        options: of the method, as `methods.load` takes them.
    """

    method: str
    heading: str
    printed: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


def rows_of(table: int, options: Mapping[str, Mapping[str, object]] | None = None) -> list[Row]:
    """The rows of the paper's Table 1, 2 or 7, and others beside which they can be understood.

    Args:
        table: 1, 2 or 7.
        options: method to its options.
    """
    printed_under, compared = f"Table {table}", systems_in(table)
    rows = [Row(CHAINS[table].format(name), printed_under, title) for name, title in compared.items()]
    rows.append(Row("ours", printed_under, "Ours"))
    rows += [Row(SAME_BUDGET, SHORT_TRAINING)] if table != 7 else []
    for heading, chain in BEHIND.get(table, {}).items():
        rows += [Row(chain.format(name), heading) for name in compared]
    rows += [Row(name, "no network") for name in (*methods.RULES, BOUND)]
    return [replace(row, options=(options or {}).get(row.method, {})) for row in rows]


@dataclass(frozen=True)
class Measured:
    """What `run` gives.

    Attributes:
        rows: which rows were asked for, in their order.
        table: the long table, of those that could be measured.
        missing: method to the sentence that says why it could not, and how it can.
    """

    rows: Sequence[Row]
    table: pd.DataFrame = field(repr=False)
    missing: Mapping[str, str]


def run(
    rows: Sequence[Row],
    preset: Preset,
    path: Path,
    weights: Path | None = None,
    score: Callable[[methods.Method, Tensor, Tensor, Misaligned], dict[str, float]] = evaluation.score,
) -> Measured:
    """Measure every row on the test pairs of a preset, or read what was measured by the same method before.

    Args:
        rows: what to measure. Without all its weights, a row is read from the file and marked "not here". If the file
            lacks it, it is measured with the part that is published, or else listed in `missing`.
        preset: sets, size and levels of the test pairs; as many of each set as its bench takes.
        path: CSV file in which the rows are kept.
        weights: folder whose NAME.safetensors are taken before any others.
        score: gives the numbers of one pair, as `evaluation.score` does.
    """
    components = ["deformation", "scores", *([] if score is evaluation.score else ["head-scores"])]
    origins = {row.method: _origin(row, weights) for row in rows}
    kept, parts, missing = result_tables.read(path), [], {}
    for name in preset.test_sets:
        pairs = open_set(name, "test", preset.test_size, count=preset.bench.count)
        key = runner.key_of(pairs, *components)
        for level, row in product(preset.levels, rows):
            where, origin = {"dataset": name, "level": level, "method": row.method}, origins[row.method]
            if _can_be_measured(origin, result_tables.rows_in(kept, where)):
                measure = partial(_measure, row, origin, pairs, level, weights, score)
                parts.append(runner.Part(where, key | origin.key, measure))
            else:
                parts.append(runner.Part(where, None))
    table = runner.run(path, parts)
    for part in parts:
        if part.key is None:
            kept_rows, method = result_tables.rows_in(table, part.where), part.where["method"]
            if len(kept_rows):
                table.loc[kept_rows.index, "weights"] += ", not here"
            else:
                missing[method] = str(origins[method])
    return Measured(rows, table, missing)


def read(table: int, path: Path) -> Measured:
    """What `run` has kept of the paper's Table 1, 2 or 7; a row that the file lacks is `missing`.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    rows, measurements = rows_of(table), result_tables.read(path)
    if measurements.empty:
        raise InputError(f"{path} holds no measurements yet: run the notebook that makes it.")
    absent = {row.method: "not measured" for row in rows if row.method not in set(measurements["method"])}
    return Measured(rows, measurements, absent)


def _origin(row: Row, weights: Path | None) -> methods.Origin | InputError:
    """Where the weights of a row come from, or the error that says why there are none."""
    try:
        return methods.Origin("", Key()) if row.method == BOUND else methods.origin(row.method, weights, **row.options)
    except InputError as error:
        return error


def _can_be_measured(origin: methods.Origin | InputError, kept_rows: pd.DataFrame) -> bool:
    """Whether there are weights. Rows kept from all weights are not replaced by rows from only a part of them."""
    if isinstance(origin, InputError):
        return False
    return IN_PART not in origin.weights or kept_rows.empty or kept_rows["weights"].str.contains(IN_PART).any()


def _measure(
    row: Row, origin: methods.Origin, pairs: PairSet, level: str, weights: Path | None, score: Callable
) -> pd.DataFrame:
    method = None if row.method == BOUND else methods.load(row.method, weights, **row.options)
    rows = []
    for case in evaluation.cases(pairs, level):
        if method is None:
            values = {"Q_CC": metrics.q_cc_bound(case.ir, case.vi).item()}
        else:
            values = score(method, case.ir, case.vi, case.moved)
        rows.append({"pair": case.name, "weights": origin.weights or "-", **values})
    return pd.DataFrame(rows)


def means(measured: Measured, level: str, columns: Sequence[str] = METRICS) -> pd.DataFrame:
    """Means over pairs at a level: rows (data, heading, method), each set apart and, if there are several, "all" pairs.

    Columns are `weights` and the metrics; a row that could not be measured says "paper only" and has no numbers.
    """
    at_level, groups = with_all_sets(measured.table[measured.table["level"] == level]), ["dataset", "method"]
    sets, table = at_level["dataset"].unique(), evaluation.means(at_level, groups, columns)
    table.insert(0, "weights", at_level.groupby(groups, sort=False)["weights"].first())
    index = [(name, row.heading, row.method) for name in sets for row in measured.rows]
    table = table.reindex([(name, method) for name, _, method in index])
    table["weights"] = table["weights"].fillna(ABSENT)
    return table.set_axis(pd.MultiIndex.from_tuples(index, names=["data", "heading", "method"]))


def intervals(measured: Measured, level: str, columns: Sequence[str] = METRICS) -> pd.DataFrame:
    """95 % bootstrap intervals over scenes of `means`, in the same rows and columns: (low, high), or None where there
    is no mean or where there are fewer scenes than `statistics.LEAST_SCENES`.
    """
    at_level = with_all_sets(measured.table[measured.table["level"] == level])
    groups = dict(iter(at_level.groupby(["dataset", "method"], sort=False)))
    table = means(measured, level, columns)[list(columns)].astype(object)
    for (name, heading, method), values in table.iterrows():
        for column, mean in values.items():
            rows, ends = groups.get((name, method)), None
            if pd.notna(mean) and len(set(scenes := scenes_of(rows["pair"]))) >= LEAST_SCENES:
                shared = column == "EPE_share"
                ends = evaluation.share_interval(rows) if shared else interval(rows[column], scenes)
            table.at[(name, heading, method), column] = ends
    return table


def against(measured: Measured, level: str, reference: str = "ours", columns: Sequence[str] = METRICS) -> pd.DataFrame:
    """Every method against one, pair by pair: is the difference more than the choice of scenes can explain?

    EPE is tested once for each registration: methods with the same errors on all pairs are one test, in the line of the
    first of them; `average` stands for all that register nothing, and none is needed behind the field of the reference.

    Returns:
        A row for each set, method and metric: pairs, difference (mean of method - reference), p (of `sign_flips`, then
        Holm's correction over all methods and metrics of the set) and the `verdict` at 5 %: if nothing differs, one
        table in twenty has a row that is called better or worse.
        No rows if the reference could not be measured.
    """
    at_level = with_all_sets(measured.table[measured.table["level"] == level])
    others = [row.method for row in measured.rows if row.method not in (BOUND, reference, *measured.missing)]
    lines = []
    for name, set_rows in at_level.groupby("dataset", sort=False) if reference not in measured.missing else ():
        values = set_rows.pivot(index="pair", columns="method", values=list(columns))
        tested = dict.fromkeys(columns, others)
        if "EPE" in tested:
            average_first = sorted(others, key=lambda method: method != "average")
            tested["EPE"] = values["EPE"][[reference, *average_first]].T.drop_duplicates().index[1:]
        differences = {
            (method, metric): (values[metric, method] - values[metric, reference]).dropna()
            for metric, tested_methods in tested.items()
            for method in tested_methods
        }
        p_values = holm({key: sign_flips(each, scenes_of(each.index)) for key, each in differences.items()})
        for (method, metric), by_pair in differences.items():
            mean, p = by_pair.mean(), p_values[method, metric]
            lines.append((name, method, metric, len(by_pair), mean, p, verdict(mean, p, metric)))
    names = ["data", "method", "metric", "pairs", "difference", "p", "verdict"]
    return pd.DataFrame(lines, columns=names)
