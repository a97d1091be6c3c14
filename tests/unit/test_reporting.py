"""Checks, tables and pages say what the numbers say, each metric in its direction, and nothing that no file holds."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib.data import paper_tables
from fusionlib.experiments.evaluation import COLUMNS, summary
from fusionlib.notebook import reporting
from fusionlib.notebook.paper_gaps import paper_gaps
from fusionlib.notebook.reporting import ranks
from fusionlib.report import pages
from fusionlib.support.files import InputError
from fusionlib.support.paths import ROOT, SHIPPED, Results

OURS = {"Q_CC": 0.8325, "Q_AB/F": 0.3420, "Q_CV": 1375.5238, "Q_SSIM": 1.2271}  # as printed in Tables 1 and 2


@pytest.fixture
def pairs() -> pd.DataFrame:
    """A long table as `evaluation.evaluate` makes it, of two sets and two levels."""
    values = {
        "ours": OURS | {"EPE": 1.5},
        "average": {"Q_CC": 0.7, "Q_AB/F": 0.3, "Q_CV": 1300.0, "Q_SSIM": 1.1, "EPE": 6.7},
        "bound": {"Q_CC": 0.9},
    }
    rows = [
        (method, dataset, level, pair, metric, value)
        for dataset, names in (("RoadScene", ("a", "b")), ("M3FD", ("c",)))
        for level in ("medium", "light")
        for pair in names
        for method, metrics in values.items()
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


# --- checks


def test_check_prints_the_same_on_every_machine(capsys):
    reporting.check("Q_CC", torch.tensor(0.7312), expect=0.731, atol=0.005)
    reporting.check_that("no field folds", np.bool_(True))
    assert capsys.readouterr().out == "ok  Q_CC = 0.731 within 0.005\nok  no field folds\n"


@pytest.mark.parametrize("value", [0.74, float("nan")])
def test_check_raises_with_the_value_found(value, capsys):
    with pytest.raises(AssertionError, match=f"Q_CC = {value:.6g}, expected 0.731 within 0.005"):
        reporting.check("Q_CC", value, expect=0.731, atol=0.005)
    with pytest.raises(AssertionError, match="no field folds"):
        reporting.check_that("no field folds", value < 0)
    assert capsys.readouterr().out == ""


# --- tables


def test_show_marks_the_best_of_each_group_and_no_bound(pairs):
    means = summary(pairs, ["Q_CC", "Q_CV"])
    html = reporting.show(means, "Means").data
    assert html == reporting.show(means, "Means").data
    assert "Q_CC ↑" in html and "Q_CV ↓" in html and "<caption>Means</caption>" in html and "1376" in html
    best = ranks(means) == 1
    assert {key[2] for key in best.index[best["Q_CC"]]} == {"ours"}
    assert {key[2] for key in best.index[best["Q_CV"]]} == {"average"}
    assert best.sum().to_list() == [6, 6]  # RoadScene, M3FD and all, at two levels
    assert "bold" in html and "bold" not in reporting.show(means, best=False).data


def test_what_nobody_wins_is_not_bold():
    rows = {"identity": [0.0, 1.0], "ours": [0.0, 0.4], "theirs": [0.0, 0.7], "nobody": [1e-3, 0.9]}
    means = pd.DataFrame.from_dict(rows, orient="index", columns=["folds", "EPE_share"])
    best = ranks(means) == 1
    assert not best["folds"].any()  # two of the three that compete share it
    assert best.index[best["EPE_share"]].to_list() == ["ours"]
    means["EPE_share"] = [0.1, 0.4, 0.7, 0.9]  # the identity may be the best, and wins nothing
    assert ranks(means)["EPE_share"].to_list() == [0, 1, 2, 0]


def test_show_leaves_out_a_column_without_a_number_and_writes_few_digits():
    frame = pd.DataFrame({"EPE": [np.nan, np.nan], "what": [95.71300550000001, "text"]})
    html = reporting.show(frame).data
    assert "EPE" not in html and "–" not in html
    assert ">95.71<" in html and ">text<" in html


def test_long_tables_open_under_a_line():
    html = reporting.folded({"a < b": reporting.show(pd.DataFrame({"n": [3]}))}).data
    assert html.startswith("<details><summary>a &lt; b</summary>") and ">3<" in html and html.endswith("</details>")


def test_kept_numbers_say_where_they_were_measured():
    own = reporting.measured_in(Results("results", "mini"), "mini").data
    assert "results/mini" in own and "has no" not in own
    assert "`smoke` has no real pairs" in reporting.measured_in(Results("results", "mini"), "smoke").data


def test_show_escapes_what_is_not_html():
    html = reporting.show(pd.DataFrame({"a<b": ["<i>x</i>"], "n": [3]})).data
    assert "<i>" not in html and "a&lt;b" in html and ">3<" in html


def test_numbers_have_four_digits():
    frame = pd.DataFrame(
        {"Q_CC": [0.83251, 0.7], "Q_CV": [1375.5238, 900.0], "x": [12.345678, np.nan], "n": [7, 123456]}
    )
    rows = [line.strip("| ").split(" | ") for line in reporting.markdown(frame).splitlines()]
    assert rows[0] == ["Q_CC ↑", "Q_CV ↓", "x", "n"]
    assert rows[2:] == [["**0.8325**", "1376", "12.35", "7"], ["0.7000", "**900**", "–", "123456"]]


def test_write_table_keeps_names_and_numbers(tmp_path):
    frame = pd.DataFrame({"Q_CC": [1 / 3]}, index=pd.Index(["ours"], name="method"))
    path = reporting.write_table(frame, Results(tmp_path, "smoke"), "table1")
    assert path == tmp_path / "smoke" / "tables" / "table1.csv"
    assert path.read_text() == "method,Q_CC\nours,0.333333\n"


# --- the paper


def test_paper_tables_are_the_printed_ones():
    assert paper_row(1, "Ours") == paper_row(2, "Ours") == paper_row(4, "Ours") == OURS
    assert paper_row(6, "Ours") == {"FLOPs(G)": 60.12, "Size(M)": 0.97, "Time(s)": 0.4}
    table = paper_tables.paper_table(1).droplevel("dataset")
    assert list(table.index) == ["DATFuse", "TarDAL", "YDTR", "EMMA", "Ours"]
    assert [len(paper_tables.paper_table(number)) for number in range(1, 8)] == [5, 5, 9, 4, 9, 5, 6]
    with pytest.raises(InputError, match="no table 8"):
        paper_tables.paper_table(8)


def test_systems_are_found_by_the_titles_that_the_paper_prints():
    assert paper_tables.systems_in(1) == {"datfuse": "DATFuse", "tardal": "TarDAL", "ydtr": "YDTR", "emma": "EMMA"}
    assert list(paper_tables.systems_in(7)) == ["matr", "almfnet", "emma", "bsafusion", "rmrfus"]
    for number in (1, 2, 3, 6, 7):  # every row but Ours is a system that can be run
        titles = list(paper_tables.paper_table(number).index.get_level_values("row"))
        assert [*paper_tables.systems_in(number).values(), "Ours"] == titles


def paper_row(number: int, row: str) -> dict[str, float]:
    return paper_tables.paper_table(number).droplevel("dataset").loc[row].to_dict()


def test_gaps_are_found_where_they_are_marked(tmp_path):
    mark = "PAPER" + "-GAP:"
    (tmp_path / "one.py").write_text(
        f'"""Module.\n\n{mark} the module\'s gap,\non two lines.\n\nNo longer part of it.\n"""\n'
        f'class Config:\n    """Settings.\n\n    Attributes:\n        width: channels. {mark} not given;\n'
        f'            three.\n        depth, height: layers. {mark} nor this.\n    """\n\n    width: int = 3\n\n'
        f"    def go(self):\n        # {mark} a comment's\n        # gap.\n        return 1  # no part of it\n"
    )
    gaps = paper_gaps(tmp_path)
    assert [*gaps.itertuples(index=False, name=None)] == [
        ("one", "the module's gap, on two lines."),
        ("one.Config.width", "not given; three."),
        ("one.Config.depth, height", "nor this."),
        ("one.Config.go", "a comment's gap."),
    ]


def test_gaps_of_the_library_are_all_found():
    package = ROOT / "fusionlib"
    marked = sum(path.read_text(encoding="utf-8").count("PAPER-GAP: ") for path in package.rglob("*.py"))
    gaps = paper_gaps()
    assert len(gaps) >= marked - 1  # the pattern in `report` itself is no gap
    assert gaps["gap"].str.len().min() > 10 and {"deformation", "metrics.fusion.q_cc"} <= set(gaps["where"])


def test_pages_that_count_the_gaps_count_those_of_the_code():
    counts = []
    for name in ("02_network_and_losses", "12_the_reproduction"):
        text = (SHIPPED.folder / "executed" / f"{name}.ipynb").read_text(encoding="utf-8")
        counts += re.findall(r"(\d+) (?:choices that the paper leaves open|open choices in)", text)
    assert set(counts) == {str(len(paper_gaps()))} and len(counts) == 2


# --- pages


def test_page_shows_what_is_in_the_csv(tmp_path, pairs):
    reporting.write_table(pairs, Results(tmp_path, "mini"), "test_pairs")
    reporting.write_table(pairs, Results(tmp_path, "smoke"), "test_pairs")
    page = pages.results_page(tmp_path)
    assert re.findall(r"^## What came out in the preset `(\w+)`", page, re.MULTILINE) == ["mini"]
    assert "2 pairs of RoadScene, 1 pairs of M3FD" in page
    assert "Deformation `medium`" in page and "Deformation `light`" in page
    assert "<summary>Registration" not in page
    lines = page.splitlines()
    assert lines.count("| all | ours | **0.8325** | **0.3420** | 1376 | **1.227** | **1.500** |") == 2
    assert lines.count("| all | bound | 0.9000 | – | – | – | – |") == 2


def test_page_shows_the_registration_as_a_share_of_doing_nothing(tmp_path, pairs):
    rows = pd.DataFrame({"method": ["identity", "ours"], "EPE": [4.0, 1.0], "EPE_identity": 4.0, "folds": [0.0, 1e-5]})
    rows = rows.assign(set="RoadScene", split="test", size=256, level="light", **dict.fromkeys(("EPE_p95", "NCC"), 1.0))
    rows = rows.assign(MSE=0.1, seconds=1.0, made_by="mark")
    switches = pd.DataFrame(
        {"switch": ["all on"], "parameters": [0.7], "steps": [9], "light": [0.9], "made_by": "mark"}
    )
    for name, table in (("test_pairs", pairs), ("registration_bench", rows), ("switches", switches)):
        reporting.write_table(table, Results(tmp_path, "mini"), name)
    page = pages.results_page(tmp_path)
    assert "| RoadScene | test | 256 | light | 4.000 | 0.2500 |" in page and "of Ours: 1e-05." in page
    assert "| all on | 0.7000 | 0.9000 |" in page and "Trainings of 9 steps" in page and "More tables" not in page


def test_page_shows_the_compared_methods(tmp_path, pairs):
    rows = [("crossraft+emma", "retrained", 0.5, 900.0), ("ours", "trained", 0.6, 800.0), ("bound", "-", 0.7, np.nan)]
    columns = ["method", "weights", "Q_CC", "Q_CV"]
    table = pd.DataFrame(rows, columns=columns).assign(dataset="RoadScene", level="medium", pair="a", made_by="mark")
    table = table.assign(**dict.fromkeys(("Q_AB/F", "Q_SSIM", "EPE"), 1.0))
    for name, frame in (("test_pairs", pairs), ("table1", table)):
        reporting.write_table(frame, Results(tmp_path, "mini"), name)
    log = Results(tmp_path, "mini").weights / "ours.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"epoch": [1, 2], "seconds": [1800.0, 1860.0]}).to_csv(log, index=False)
    page = pages.results_page(tmp_path)
    assert "<summary>Table 1: every row" in page and "<summary>Table 2: every row" not in page and "table1.csv" in page
    assert "| Table 1 | crossraft+emma | retrained | – | 0.5000 | 1.000 | 900.0 |" in page.replace("**", "")
    assert "| Table 1 | ours | trained | 61 | **0.6000** | 1.000 |" in page
    assert "| Table 1 | crossraft+ydtr | paper only | – | – | – | – |" in page

    brains = table.assign(dataset="open_ms", method=["corrmlp+emma", "ours", "bound"])
    reporting.write_table(brains, Results(tmp_path, "mini"), "table7")
    page = pages.results_page(tmp_path)
    assert "<summary>Table 7: every row" in page and "around the head" in page
    assert "| Table 7 | corrmlp+emma | retrained | – | 0.5000 | 1.000 |" in page.replace("**", "")


def test_page_of_a_preset_without_meaning_says_so(tmp_path, pairs):
    for preset in ("smoke", "mini"):
        reporting.write_table(pairs, Results(tmp_path, preset), "test_pairs")
    assert "its own trainings take seconds" in pages.results_page(tmp_path, ["smoke"])
    assert "take seconds" not in pages.results_page(tmp_path)


def test_page_without_csv_has_no_table(tmp_path):
    assert "<details>" not in pages.results_page(tmp_path) and "no results yet" in pages.results_page(tmp_path)


def test_block_is_replaced_and_the_rest_kept(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    for _ in range(2):
        pages.update_block(readme, "results", "new\n")
        assert readme.read_text() == "before\n<!-- results:begin -->\nnew\n<!-- results:end -->\nafter\n"
    with pytest.raises(InputError, match="must hold <!-- other:begin -->"):
        pages.update_block(readme, "other", "new")


def test_page_shows_how_well_objects_are_found(tmp_path, pairs):
    rows = pd.DataFrame({"method": ["visible", "ours", "ours"], "seed": [0, 0, 1], "mAP50": [0.5, 0.6, 0.7]})
    rows = rows.assign(dataset="M3FD", boxes=9, **{"mAP50:90": 0.4, "mAP50:90_low": 0.3, "mAP50:90_high": 0.5})
    rows = rows.assign(**{"mAP50:95": 0.36, "made_by": "mark"})
    table = pd.concat([rows.assign(**{"class": name}) for name in ("car", "all")])
    for name, frame in (("test_pairs", pairs), ("detection", table)):
        reporting.write_table(frame, Results(tmp_path, "mini"), name)
    page = pages.results_page(tmp_path).replace("**", "")
    assert "<summary>Table 3: detection" in page and "detection.csv" in page and "mAP50:90 = 54.5 for Ours" in page
    assert "| M3FD | visible | 50.00 | 40.00 | 36.00 | 30.0 to 50.0 | 1 |" in page
    assert "| M3FD | ours | 65.00 | 40.00 | 36.00 | 30.0 to 50.0 | 2 |" in page  # the mean of its two detectors
