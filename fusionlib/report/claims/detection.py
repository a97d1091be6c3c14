"""What was measured about detection: Table 3's statements, as `fusionlib.report.claims.evidence` has those of others.

Detectors are compared over their trainings, and the detection loss also over short trainings of the network, by a
detector that is not trained here. The spread of the scenes is added, which are drawn for both methods at once, and in
Table 3 that of short trainings of Ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fusionlib.experiments import detection_bench, evaluation, sweep_rows
from fusionlib.metrics.statistics import SIGNIFICANCE, with_more_spread
from fusionlib.notebook.sentences import listed, percent
from fusionlib.report.claims.evidence import NOT_MEASURED, Compared, many, printed_rows
from fusionlib.report.our_numbers import AWARENESS, AWARENESS_SCENES, COMPARED, DETECTION, DETECTION_SCENES
from fusionlib.support import result_tables


def over_detectors(folder: Path, level: str) -> tuple[list[Compared], str]:
    """The detectors of Table 3 on the images of Ours against those on the images of the paper's other rows."""
    table, scenes = _tables(folder, DETECTION, DETECTION_SCENES)
    rows = {}
    for number in (1, 2):
        rows |= printed_rows(number, result_tables.read(folder / "tables" / COMPARED[number]))
    differences = detection_bench.pairwise(table, scenes)
    others = _between_trainings(folder)
    comparisons = _of_detectors(differences, rows, others)
    visible = [each for each in _of_detectors(differences, {"visible": "visible"}, others) if each.gain == each.gain]
    seeds, measured = table["seed"].nunique(), set(rows) & set(table["method"])
    of_rows = f"{len(measured)} of the paper's {len(rows)} rows, one training of each system"
    basis = f"{of_rows}, {many(seeds, 'seed')} of the detectors and their scenes, in points"
    basis += "; to the spread of Ours that of short trainings is added, by COCO's detector" if others else ""
    alone = listed(f"{each}".removesuffix(f" against {each.row}") for each in visible)
    alone = f"; against the visible images alone, which are no row of the paper, {alone}" if alone else ""
    return comparisons if measured else [], basis + alone


def _between_trainings(folder: Path) -> dict[str, float]:
    """Dataset to the standard deviation of what is found on the images of short trainings of Ours, in [0, 1]."""
    found = result_tables.read(folder / "tables" / AWARENESS).query("`class` == 'all' and row == @sweep_rows.OURS")
    return found.groupby("dataset")["mAP50:90"].std().dropna().to_dict()


def beside_detectors(folder: Path) -> str:
    """What goes with Table 3's rows, to end a sentence: how well they register, and what the visible images give."""
    shares, texts = [], []
    for number in (1, 2):
        table = result_tables.read(folder / "tables" / COMPARED[number])
        table = table[(table["level"] == "medium") & table["method"].isin(printed_rows(number, table))]
        left = evaluation.means(table, ["method"], ["EPE_share"])["EPE_share"]
        shares += left[left != 1].to_list()  # 1 stands for no field
    if shares:
        texts.append(
            f"against rows that leave {percent(min(shares))} to {percent(max(shares))} of a `medium` deformation"
        )
    differences = detection_bench.pairwise(*_tables(folder, DETECTION, DETECTION_SCENES))
    lines = _of_detectors(differences, {"visible": "visible"}, _between_trainings(folder))
    if lines := [each for each in lines if each.gain == each.gain]:
        more = all(each.gain > 0 and each.p < SIGNIFICANCE for each in lines)
        texts.append(f"{'' if more else 'not '}significantly above the visible images alone")
    return f", {' and '.join(texts)}" if texts else ""


def with_and_without_detection(folder: Path, level: str) -> tuple[list[Compared], str]:
    """Ours against Ours without the detection loss: the networks of Table 3 by their detectors, and short trainings of
    both by COCO's detector as published.
    """
    table, scenes = _tables(folder, DETECTION, DETECTION_SCENES)
    comparisons = _of_detectors(detection_bench.pairwise(table, scenes), {"ours, without l_ob": "without l_ob in full"})
    found, found_scenes = _tables(folder, AWARENESS, AWARENESS_SCENES)
    differences = detection_bench.pairwise(found.rename(columns={"row": "method"}), found_scenes, sweep_rows.OURS)
    without = sweep_rows.WITHOUT_DETECTION
    comparisons += _of_detectors(differences, {without: f"{without} in short trainings"})
    basis = (
        f"one network of each in full, {many(table['seed'].nunique(), 'seed')} of its detectors, and "
        f"{many(found['seed'].nunique(), 'short training')} of each with COCO's detector as published"
    )
    return comparisons, f"{basis}; and their scenes; in points"


def _tables(folder: Path, *names: str) -> list[pd.DataFrame]:
    return [result_tables.read(folder / "tables" / name) for name in names]


def _of_detectors(
    differences: pd.DataFrame, rows: Mapping[str, str], others: Mapping[str, float] | None = None
) -> list[Compared]:
    """What is found on the images of Ours against those of other methods, on each set, in points.

    Args:
        differences: of `detection_bench.pairwise`.
        rows: the other methods, and what they are called; those that are not in it have not been measured.
        others: dataset to the standard deviation between trainings of Ours, in [0, 1], if that is to be added.
    """
    metric = "mAP50:90"
    lines = differences[differences["mean"] == metric].set_index(["dataset", "method"])
    comparisons = []
    for dataset in lines.index.unique("dataset"):
        for method, name in rows.items():
            numbers = NOT_MEASURED
            if (dataset, method) in lines.index:
                line = lines.loc[(dataset, method)]
                numbers = (*100 * line[["difference", "low", "high"]], line["p"])
            more = 100 * (others or {}).get(dataset, 0.0)
            comparisons.append(Compared(name, f"{metric} on {dataset}", *with_more_spread(*numbers, more)))
    return comparisons
