"""The paper's statements are supported, contradicted or undecided, by one rule, on whatever tables there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments.comparison import rows_of
from fusionlib.experiments.sweep_rows import WITHOUT_DETECTION
from fusionlib.report.claims import tested
from fusionlib.report.claims.evidence import Compared
from fusionlib.report.claims.tested import CHOSEN, CONTRADICTED, OPEN, SUPPORTED, verdict
from fusionlib.support.paths import SHIPPED

PRINTED = [row.method for table in (1, 2) for row in rows_of(table) if row.printed and row.method != "ours"]
FUSION = ["Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM"]


def better(metric: str) -> int:
    return -1 if metric in ("Q_CV", "EPE") else 1


def one(gain: float, p: float) -> Compared:
    return Compared("row", "Q_CC", gain, gain - 1, gain + 1, p)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([one(1, 0.001), one(2, 0.01)], SUPPORTED),
        ([one(1, 0.001), one(2, 0.04)], SUPPORTED),
        ([one(1, 0.03), one(2, 0.04)], SUPPORTED),  # each has to be significant, so none is corrected
        ([one(1, 0.03), one(2, 0.06)], OPEN),
        ([one(1, 0.001), one(-2, 0.01)], CONTRADICTED),
        ([one(1, 0.5), one(-2, 0.03)], OPEN),  # one of two is enough: by Holm, it is 0.06
        ([one(1, 0.001), one(-2, 0.4)], OPEN),
        ([one(1, float("nan"))], OPEN),
        ([], OPEN),
    ],
)
def test_the_rule(found: list[Compared], says: str) -> None:
    assert verdict(found) == says


def test_comparisons_on_one_table_are_corrected_together() -> None:
    assert verdict([one(-1, 0.03)]) == CONTRADICTED
    assert verdict([one(-1, 0.03)], family=[one(1, 0.4)]) == OPEN
    assert verdict([one(1, 0.03)], family=[one(1, 0.4)]) == SUPPORTED
    assert tested.contradicting([one(-1, 0.01)], family=[one(-1, 0.001)]) == [one(-1, 0.01)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped tables, which a test may change."""
    shutil.copytree(SHIPPED.tables, tmp_path / "mini" / "tables")
    return tmp_path / "mini"


def line(folder: Path, says: str) -> pd.Series:
    """The line of a statement, tested with those alone that share a correction with it: the others take long."""
    (file,) = {each.files[0] for each in tested.STATEMENTS if says in each.says}
    with mock.patch.object(tested, "STATEMENTS", [each for each in tested.STATEMENTS if each.files[0] == file]):
        found = tested.statements(folder).set_index("the paper says")
    return found.loc[next(name for name in found.index if says in name)]


def test_every_statement_of_the_shipped_tables_has_a_verdict_an_effect_and_what_would_change_it() -> None:
    found = tested.statements(SHIPPED.folder)
    assert len(found) == len(tested.STATEMENTS) and set(found["verdict"]) <= set(tested.VERDICTS)
    assert (
        found["effect"].str.contains(r" \(.* to .*\) against ").all()
        and found["what would change it"].str.len().gt(5).all()
    )
    assert sum(tested.counted(found).values()) == len(found)
    text = tested.in_short(SHIPPED.folder)
    assert text.startswith(f"{len(found)} were tested at `medium`. ") and "undecided. In *Figure 7: l_s helps" in text
    assert "before the correction only. At `light`, " in text


def test_what_only_the_correction_makes_undecided_has_both_p_values() -> None:
    alone, other = Compared("row", "EPE", -1.0, -1.5, -0.5, 0.03), Compared("row", "Q_CC", 0.1, -0.1, 0.3, 0.6)
    assert tested.verdict([alone], [other]) == OPEN and tested.verdict([alone]) == CONTRADICTED
    assert tested._alone(alone, tested.corrected([alone], [other])[alone]) == " (p alone 0.030, corrected 0.060)"
    assert not tested._alone(other, 1.0) and not tested._alone(alone, tested.corrected([alone])[alone])


def test_what_is_better_in_everything_is_supported_and_worse_in_one_number_contradicted(folder: Path) -> None:
    path = folder / "tables" / "table1.csv"
    table, up = pd.read_csv(path, dtype={"pair": str}), {"Q_CC": 1, "Q_AB/F": 1, "Q_CV": -1, "Q_SSIM": 1}
    ours = table["method"] == "ours"
    noise = np.random.default_rng(0).normal(0, 0.01, len(table))
    for metric, sign in up.items():
        table[metric] = (1 + noise + 0.5 * sign * ours) * (1000 if metric == "Q_CV" else 1)
    table.to_csv(path, index=False)
    assert line(folder, "Table 1")["verdict"] == line(folder, "Table 1")["at light"] == SUPPORTED
    table.loc[ours & (table["level"] == "medium"), "Q_SSIM"] -= 1
    table.to_csv(path, index=False)
    assert line(folder, "Table 1")["verdict"] == CONTRADICTED and line(folder, "Table 1")["at light"] == SUPPORTED
    assert "Q_SSIM -0.5" in line(folder, "Table 1")["effect"]


def test_a_difference_that_another_training_may_undo_says_nothing(folder: Path) -> None:
    path = folder / "tables" / "table1.csv"
    table = pd.read_csv(path, dtype={"pair": str})
    ours, noise = table["method"] == "ours", np.random.default_rng(0).normal(0, 1e-4, len(table))
    for metric, gain in {"Q_CC": 0.02, "Q_AB/F": 0.02, "Q_CV": -100, "Q_SSIM": 0.05}.items():
        table[metric] = 1 + noise + gain * ours
    table.to_csv(path, index=False)
    assert line(folder, "Table 1")["verdict"] == OPEN  # trainings differ by 0.02 in Q_CC
    for name in ("table4.csv", "table4_light.csv"):
        (folder / "tables" / name).unlink()
    assert line(folder, "Table 1")["verdict"] == SUPPORTED


def scenes_change(folder: Path, name: str, methods: list[str], deviation: float) -> None:
    """Write how much scenes change the differences of detectors, the same for all."""
    rows = [(method, title, "mAP50:90", deviation) for method in methods for title in ("RoadScene", "M3FD")]
    table = pd.DataFrame(rows, columns=["method", "dataset", "mean", "deviation"])
    table.to_csv(folder / "tables" / name, index=False)


def test_a_row_that_was_not_measured_keeps_a_statement_open(folder: Path) -> None:
    path = folder / "tables" / "detection.csv"
    table = pd.read_csv(path)
    scenes_change(folder, "detection_scenes.csv", PRINTED, 0.001)
    missing = [name for name in PRINTED if name != "superfusion"]
    table = table[~table["method"].isin(missing)]
    others = (table["method"] != "ours") & ~table["method"].str.startswith("ours,")
    table.loc[others, "mAP50:90"] = 0.01 + 1e-4 * table["seed"]
    table.to_csv(path, index=False)
    found = line(folder, "Table 3")
    assert found["verdict"] == OPEN and found["tested on"].startswith("1 of the paper's 8 rows")
    assert "nan" not in found["effect"]
    more = [table[table["method"] == "superfusion"].assign(method=name) for name in missing]
    pd.concat([table, *more]).to_csv(path, index=False)
    assert line(folder, "Table 3")["verdict"] == SUPPORTED
    scenes_change(folder, "detection_scenes.csv", PRINTED, 0.2)
    assert line(folder, "Table 3")["verdict"] == OPEN  # other scenes may undo it


def test_what_a_choice_of_ours_makes_true_is_not_called_supported(folder: Path) -> None:
    assert line(folder, "fewest operations")["verdict"] == CHOSEN
    assert "2 hold by our choice alone: *Table 6: the fewest operations* and *Table 6: hardly" in tested.in_short(
        folder
    )
    path = folder / "tables" / "cost_counts.csv"
    table = pd.read_csv(path)
    table.loc[table["method"] == "ours", "thop"] = 1e6
    table.to_csv(path, index=False)
    assert line(folder, "fewest operations")["verdict"] == CONTRADICTED
    assert "1 holds by our choice alone: *Table 6: hardly slower" in tested.in_short(folder)


def test_pairs_of_one_scene_do_not_support_a_statement(folder: Path) -> None:
    path = folder / "tables" / "table2.csv"
    table = pd.read_csv(path, dtype={"pair": str})
    table = table[(table["dataset"] == "M3FD") & table["pair"].between("00000", "00005")]
    for metric, sign in {"Q_CC": 1, "Q_AB/F": 1, "Q_CV": -1, "Q_SSIM": 1}.items():
        table[metric] = 1 + 0.5 * sign * (table["method"] == "ours")
    table.to_csv(path, index=False)
    found = line(folder, "Table 2")
    assert found["verdict"] == OPEN and "6 pairs of 1 scene" in found["tested on"]


def test_settings_are_compared_over_trainings(folder: Path) -> None:
    rows = [name for name in paper_table(4).index.get_level_values("row")]
    lines = [
        {"row": row, "epochs": 3, "seed": seed, "dataset": "RoadScene", "level": "medium", "pair": f"p{pair}"}
        | {metric: 1 + seed / 100 + 0.2 * better(metric) * (row == "Ours") + pair for metric in [*FUSION, "EPE"]}
        for row in rows for seed in range(8) for pair in range(2)
    ]  # fmt: skip
    (folder / "tables" / "table4_light.csv").unlink()
    pd.DataFrame(lines).to_csv(folder / "tables" / "table4.csv", index=False)
    assert line(folder, "l_c")["verdict"] == SUPPORTED and "8 seeds" in line(folder, "l_c")["tested on"]
    jumping = pd.DataFrame(lines)
    jumping.loc[jumping["row"] == "w/o l_c", "EPE"] -= 0.5 * (jumping["seed"] % 2)
    jumping.to_csv(folder / "tables" / "table4.csv", index=False)
    assert line(folder, "l_c")["verdict"] == OPEN and line(folder, "l_s")["verdict"] == SUPPORTED
    assert line(folder, "l_s")["at light"] == "-"
    jumping.assign(level="light").to_csv(folder / "tables" / "table4_light.csv", index=False)
    assert line(folder, "l_c")["at light"] == OPEN and line(folder, "l_s")["at light"] == SUPPORTED


def test_no_more_is_asked_than_the_papers_own_table_shows(folder: Path) -> None:
    printed = paper_table(4).droplevel("dataset")
    gain = printed.loc["Ours"] - printed.loc["w/o concat of F_i^r and F_v"]
    claimed = {metric for metric in FUSION if better(metric) * gain[metric] > 0}
    effect = line(folder, "concatenation")["effect"]
    assert 0 < len(claimed) < 4 and {metric for metric in FUSION if metric in effect} == claimed
    assert "17 pairs of M3FD" in line(folder, "concatenation")["tested on"]
    assert "EPE" in line(folder, "l_s")["effect"] and "Q_" not in line(folder, "l_s")["effect"]


def test_networks_are_not_told_apart_by_their_trainings_alone(folder: Path) -> None:
    full, short = folder / "tables" / "detection.csv", folder / "tables" / "target_awareness_found.csv"
    table = pd.read_csv(full)
    mean, ours = "mAP50:90", table["method"] == "ours"
    pair = table[ours | (table["method"] == "ours, without l_ob")]
    both = [
        {"row": row, "seed": seed, "dataset": "M3FD", "class": "all"} for row in ("Ours", WITHOUT_DETECTION)
        for seed in range(8)
    ]  # fmt: skip
    scenes_change(folder, "detection_scenes.csv", ["ours, without l_ob"], 0.03)
    scenes_change(folder, "target_awareness_scenes.csv", [WITHOUT_DETECTION], 0.03)
    for points, says in ((0.02, OPEN), (0.5, SUPPORTED), (-0.5, CONTRADICTED)):  # less, and more, than scenes change
        pair = pair.assign(**{mean: 0.2 + points * (pair["method"] == "ours") + pair["seed"] / 100})
        pair.to_csv(full, index=False)
        rows = pd.DataFrame(both)
        rows[mean] = 0.2 + points * (rows["row"] == "Ours") + rows["seed"] / 100
        rows.assign(mAP50=0.5).to_csv(short, index=False)
        found = line(folder, "target-aware")
        assert found["verdict"] == says and "8 short trainings" in found["tested on"]
    short.unlink()
    assert not tested.statements(folder)["the paper says"].str.contains("target-aware").any()


def test_times_are_compared_where_all_rows_of_table_6_were_timed(folder: Path) -> None:
    found, path = line(folder, "hardly slower"), folder / "tables" / "cost_times.csv"
    assert found["tested on"].startswith("256 px") and found["verdict"] == CHOSEN
    times = pd.read_csv(path)
    times[times["method"] != "ivfwsr"].to_csv(path, index=False)
    found = line(folder, "hardly slower")
    assert found["tested on"].startswith("512 px") and found["verdict"] == OPEN


@pytest.mark.parametrize(("factor", "says"), [(0.5, CHOSEN), (1.05, CHOSEN), (1.1, OPEN), (1.2, CONTRADICTED)])
def test_a_tenth_slower_is_hardly_slower(folder: Path, factor: float, says: str) -> None:
    path = folder / "tables" / "cost_times.csv"
    times = pd.read_csv(path)
    for name, seconds in {"low": 0.99, "median": 1.0, "high": 1.01}.items():
        times[name] = seconds * np.where(times["method"] == "ours", factor, 1.0)
    times.to_csv(path, index=False)
    assert line(folder, "hardly slower")["verdict"] == says


def test_the_plainest_reading_is_named_beside_the_count_of_operations(folder: Path) -> None:
    assert re.search(
        r"plainest reading of the paper takes [\d.]+ G, more than murf", line(folder, "fewest")["tested on"]
    )
    path = folder / "tables" / "cost_counts.csv"
    table = pd.read_csv(path)
    table.loc[table["method"] == "as_in_the_paper", "thop"] = 1.0
    table.to_csv(path, index=False)
    assert "also the fewest" in line(folder, "fewest")["tested on"] and line(folder, "fewest")["verdict"] == CHOSEN


def test_what_goes_with_a_supported_statement_is_said(folder: Path) -> None:
    beside = (
        r"accuracy of detection\*, against rows that leave \d+ % to \d+ % .* not significantly above the visible images"
    )
    assert re.search(beside, tested.in_short(folder))
    path = folder / "tables" / "detection.csv"
    table = pd.read_csv(path)
    table.loc[table["method"] == "superfusion", "mAP50:90"] = 0.9
    table.to_csv(path, index=False)
    assert line(folder, "Table 3")["verdict"] == CONTRADICTED and "against rows" not in tested.in_short(folder)


def test_statements_are_told_without_the_tables_of_one(folder: Path) -> None:
    for name in ("detection.csv", "target_awareness_found.csv"):
        (folder / "tables" / name).unlink()
        assert "were tested" in tested.in_short(folder)


def test_one_training_adds_no_spread_and_none_is_said(folder: Path) -> None:
    path = folder / "tables" / "target_awareness_found.csv"
    table = pd.read_csv(path)
    table[table["seed"] == 0].to_csv(path, index=False)
    found = line(folder, "Table 3")
    assert "nan" not in found["effect"] and "is added" not in found["tested on"]


def test_trainings_that_differ_make_detection_undecided(folder: Path) -> None:
    assert line(folder, "Table 3")["verdict"] == SUPPORTED
    path = folder / "tables" / "target_awareness_found.csv"
    table = pd.read_csv(path)
    table["mAP50:90"] = 0.2 + 0.05 * table["seed"]
    table.to_csv(path, index=False)
    assert line(folder, "Table 3")["verdict"] == OPEN


def test_what_was_not_measured_is_left_out(folder: Path) -> None:
    (folder / "tables" / "table7.csv").unlink()
    assert not tested.statements(folder)["the paper says"].str.contains("Table 7").any()
    assert tested.statements(folder.parent / "nothing").empty
