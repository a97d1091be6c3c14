"""Tables of methods: measured once, honest about what is missing, and tests that find what there is to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import methods, presets
from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import comparison, evaluation
from fusionlib.experiments.comparison import (
    METRICS,
    Measured,
    Row,
    against,
    intervals,
    means,
    rows_of,
)
from fusionlib.experiments.evaluation import BOUND
from fusionlib.methods.protocol import Fused
from fusionlib.notebook import gallery, sentences
from fusionlib.notebook.reporting import ranks
from fusionlib.support import result_tables
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key

PRESET = presets.load("smoke", test_size=48, levels=("medium",))
ROWS = [
    Row("average", "Table", "Average"),
    Row("ours", "Table", "Ours"),
    Row("ecc", "others"),
    Row(BOUND, "others"),
]


class Brighter:
    """Ours, for these tests: the visible image, a little brighter."""

    name = "ours"

    def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
        return Fused((vi + 0.05).clamp(0, 1), torch.zeros(len(ir), 2, *ir.shape[-2:]), ir)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What takes the place of Ours; `mark` stands for its weights, None for none, of a `kind`; `loads` counts."""
    state = {"mark": "first weights", "kind": "trained", "loads": []}
    origin, load = methods.origin, methods.load

    def origin_of(name: str, *arguments: object, **options: object) -> methods.Origin:
        if name == "ours" and state["mark"] is None:
            raise InputError("There are no weights for 'ours': make them.")
        return (
            methods.Origin(state["kind"], Key.of(weights=state["mark"]))
            if name == "ours"
            else origin(name, *arguments, **options)
        )

    def load_it(name: str, *arguments: object, **options: object) -> methods.Method:
        state["loads"].append(name)
        return Brighter() if name == "ours" else load(name, *arguments, **options)

    monkeypatch.setattr(methods, "origin", origin_of)
    monkeypatch.setattr(methods, "load", load_it)
    return state


def made_up(values: dict[str, list[float]], better: str = "Q_CC", dataset: str = "set") -> Measured:
    """A comparison whose numbers are given: method to the values of one metric on each pair."""
    lines = [
        {
            "dataset": dataset,
            "level": "medium",
            "method": method,
            "pair": f"{dataset} {i}",
            "weights": "-",
            better: value,
        }
        for method, numbers in values.items()
        for i, value in enumerate(numbers)
    ]
    return Measured([Row(method, "Table") for method in values], pd.DataFrame(lines), {})


# --- measuring


def test_every_row_is_measured_once(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    measured = comparison.run(ROWS, PRESET, path)
    assert ours["loads"] == ["average", "ours", "ecc"] and measured.missing == {}
    table = measured.table
    assert set(table["method"]) == {row.method for row in ROWS} and set(table["level"]) == {"medium"}
    assert (table.groupby("method").size() == PRESET.bench.count).all()
    first = str(Key.of(weights="first weights"))
    assert all(first in text for text in result_tables.read(path).query("method == 'ours'")["made_by"])
    again = comparison.run(ROWS, PRESET, path)
    assert len(ours["loads"]) == 3
    pd.testing.assert_frame_equal(again.table, table)
    pd.testing.assert_frame_equal(comparison.run(ROWS[:1], PRESET, path).table, table[table["method"] == "average"])


def test_the_numbers_are_those_of_the_evaluation(ours: dict, tmp_path: Path) -> None:
    measured = comparison.run(ROWS, PRESET, tmp_path / "table.csv")
    pairs = comparison.open_set("synthetic", "test", 48, count=PRESET.bench.count)
    long = evaluation.evaluate([methods.load("average")], pairs, "synthetic", "medium")
    for name in ("average", BOUND):
        expected = long[(long["method"] == name) & (long["metric"] == "Q_CC")]["value"]
        found = measured.table.loc[measured.table["method"] == name, "Q_CC"]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_has_changed_is_measured_again(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    comparison.run(ROWS, PRESET, path)
    ours["loads"].clear()
    ours["mark"] = "other weights"
    comparison.run(ROWS, PRESET, path)
    assert all(
        str(Key.of(weights="other weights")) in text
        for text in result_tables.read(path).query("method == 'ours'")["made_by"]
    )
    assert ours["loads"] == ["ours"]
    comparison.run(ROWS, replace(PRESET, test_size=32), path)
    assert ours["loads"][1:] == ["average", "ours", "ecc"]


def test_a_row_without_weights_says_so(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    ours["mark"] = None
    measured = comparison.run(ROWS, PRESET, path)
    assert measured.missing == {"ours": "There are no weights for 'ours': make them."}
    row = means(measured, "medium").xs("ours", level="method").iloc[0]
    assert row["weights"] == "paper only" and row[METRICS].isna().all()
    assert against(measured, "medium").empty
    html = gallery.table(measured, "medium", "caption").data
    assert "paper only" not in html and "average" in html


def test_a_row_measured_elsewhere_is_shown_as_such(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    before = comparison.run(ROWS, PRESET, path)
    ours["mark"] = None
    after = comparison.run(ROWS, PRESET, path)
    assert after.missing == {}
    row = means(after, "medium").xs("ours", level="method").iloc[0]
    assert row["weights"] == "trained, not here"
    assert row["Q_CC"] == means(before, "medium").xs("ours", level="method").iloc[0]["Q_CC"]


def test_a_row_with_all_weights_is_not_given_up_for_one_with_some(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"

    def weights_of_ours() -> str:
        return means(comparison.run(ROWS, PRESET, path), "medium").xs("ours", level="method")["weights"].iloc[0]

    ours |= {"kind": "published in part", "mark": "a part"}
    assert weights_of_ours() == "published in part"  # better than nothing
    ours |= {"kind": "published + retrained", "mark": "all"}
    assert weights_of_ours() == "published + retrained"
    ours |= {"kind": "published in part", "mark": "a part"}
    assert weights_of_ours() == "published + retrained, not here"
    assert ours["loads"].count("ours") == 2


def test_options_reach_the_method_and_its_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(
        methods, "origin", lambda *arguments, **options: asked.append(options) or methods.Origin("", Key())
    )
    monkeypatch.setattr(methods, "load", lambda *arguments, **options: asked.append(options) or Brighter())
    comparison.run([Row("murf", "Table", "MURF", {"steps": 0})], PRESET, tmp_path / "table.csv")
    assert asked == [{"steps": 0}, {"steps": 0}]


@pytest.mark.parametrize("number", [1, 2, 7])
def test_the_rows_of_the_paper_s_tables(number: int, tmp_path: Path) -> None:
    rows = rows_of(number, {"murf": {"steps": 0}})
    own = [row.printed for row in rows if row.printed]
    assert own == [name for _, name in paper_table(number).index]
    assert rows[-1].method == BOUND and len({row.method for row in rows}) == len(rows)
    assert {row.method: row.options for row in rows if row.options} == ({"murf": {"steps": 0}} if number == 2 else {})
    known = set(methods.names()) | {BOUND}
    assert all(part in known for row in rows for part in row.method.split("+"))


def test_what_was_kept_can_be_read_without_measuring(ours: dict, tmp_path: Path) -> None:
    path = tmp_path / "table1.csv"
    comparison.run([Row("average", "no network")], PRESET, path)
    measured = comparison.read(1, path)
    found = means(measured, "medium")
    assert found.xs("average", level="method")["Q_CC"].notna().all()
    assert found.xs("crossraft+emma", level="method")["weights"].tolist() == ["paper only"]


# --- summing up


def test_all_pairs_together_stand_below_the_sets() -> None:
    parts = [made_up({"ours": [0.0, 1.0]}, dataset="a"), made_up({"ours": [5.0]}, dataset="b")]
    both = replace(parts[0], table=pd.concat([part.table for part in parts]))
    found = means(both, "medium", ["Q_CC"])["Q_CC"]
    assert found.to_dict() == {("a", "Table", "ours"): 0.5, ("b", "Table", "ours"): 5.0, ("all", "Table", "ours"): 2.0}


def test_an_interval_belongs_to_its_mean(ours: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "LEAST_SCENES", 2)
    measured = comparison.run(ROWS, PRESET, tmp_path / "table.csv")
    centre, spread = means(measured, "medium"), intervals(measured, "medium")
    assert centre.index.equals(spread.index)
    for key, ends in spread["Q_SSIM"].items():
        value = centre.at[key, "Q_SSIM"]
        assert (ends is None) == np.isnan(value)
        assert ends is None or ends[0] - 1e-9 <= value <= ends[1] + 1e-9


def test_few_scenes_give_no_interval() -> None:
    for count in (4, 5):
        spread = intervals(made_up({"ours": [0.1 * pair for pair in range(count)]}), "medium", ["Q_CC"])
        assert (spread["Q_CC"].iloc[0] is None) == (count < 5)


# --- testing


@pytest.mark.parametrize(("metric", "verdict"), [("Q_CC", "better"), ("Q_CV", "worse")])
def test_a_verdict_follows_the_direction_of_the_metric(metric: str, verdict: str) -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=12)
    values = {"ours": base, "higher": base + 1, "same": base + rng.normal(0, 0.5, 12)}
    found = against(made_up(values, metric), "medium", columns=[metric]).set_index("method")
    assert found.at["higher", "verdict"] == verdict and found.at["higher", "difference"] == pytest.approx(1)
    assert found.at["same", "verdict"] == "not significantly different" and found.at["same", "p"] > 0.05
    assert found["pairs"].eq(12).all() and "ours" not in found.index


def test_rows_that_differ_in_nothing_are_told_apart_in_at_most_one_table_of_twenty() -> None:
    """The A/A check, on 1,000 tables: pairs differ, as they do, and methods by independent noise alone."""
    rng, wrong = np.random.default_rng(0), 0
    names, pairs = ("ours", "a", "b", "c"), [str(number) for number in range(18)]
    rows = [Row(name, "one") for name in names]
    frame = pd.DataFrame([(name, "set", "medium", pair) for name in names for pair in pairs])
    frame.columns = ["method", "dataset", "level", "pair"]
    for _ in range(1000):
        for metric in ("Q_CC", "Q_CV"):
            frame[metric] = np.tile(rng.normal(size=18), len(names)) + rng.normal(0, 0.3, len(frame))
        found = against(Measured(rows, frame, {}), "medium", columns=["Q_CC", "Q_CV"])
        assert len(found) == 6
        wrong += (found["verdict"] != "not significantly different").any()
    assert 10 <= wrong <= 50


# --- showing


def test_the_error_of_a_registration_is_tested_once() -> None:
    rng = np.random.default_rng(0)
    errors = {name: rng.normal(5, 1, 20) for name in ("ours", "identity", "simpleitk")}
    registers = {"a": "identity", "average": "identity", "simpleitk+a": "simpleitk", "simpleitk+b": "simpleitk"}
    registers |= {"ours+a": "ours", "ours": "ours"}
    frame = pd.DataFrame(
        {
            "dataset": "set",
            "level": "medium",
            "method": name,
            "pair": f"p{i}",
            "EPE": errors[by][i],
            "Q_CC": rng.normal(),
        }
        for name, by in registers.items()
        for i in range(20)
    )
    found = against(Measured([Row(name, "part") for name in registers], frame, {}), "medium", columns=["Q_CC", "EPE"])
    assert set(found.loc[found["metric"] == "EPE", "method"]) == {"average", "simpleitk+a"}
    assert set(found.loc[found["metric"] == "Q_CC", "method"]) == set(registers) - {"ours"}


def test_best_and_second_are_marked_by_the_arrow_among_the_rows_of_a_part() -> None:
    keys = [("d", "Table", name) for name in ("a", "b", "c", "d")] + [("d", "others", "e"), ("d", "others", BOUND)]
    index = pd.MultiIndex.from_tuples(keys, names=["data", "heading", "method"])
    found = pd.DataFrame({"Q_CC": [1, 3, 2, np.nan, 9, 99], "Q_CV": [1, 3, 1, 2, 0, np.nan]}, index=index, dtype=float)
    marks = ranks(found)
    assert marks["Q_CC"].tolist() == [0, 1, 2, 0, 0, 0]
    assert marks["Q_CV"].tolist() == [1, 0, 1, 2, 0, 0]


def test_the_mean_of_too_few_scenes_stands_alone(ours: dict, tmp_path: Path) -> None:
    measured = comparison.run(ROWS, PRESET, tmp_path / "table.csv")
    assert comparison.intervals(measured, "medium")["Q_CC"].isna().all()
    html = gallery.table(measured, "medium", "Means").data
    for mean in comparison.means(measured, "medium")["Q_CC"].dropna():
        assert f">{sentences.number(mean, 4)}<" in html
    assert "<br>" not in html and "steps here" not in html
    html = gallery.table(measured, "medium", "Means", steps=lambda method: f"{len(method)} steps of {method}").data
    assert "steps here" in html and "4 steps of ours" in html and "font-weight: bold" in html


def test_the_table_shows_intervals_and_is_the_same_every_time(
    ours: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "LEAST_SCENES", 2)
    measured = comparison.run(ROWS, PRESET, tmp_path / "table.csv")
    html = gallery.table(measured, "medium", "Means").data
    assert html == gallery.table(measured, "medium", "Means").data
    assert "Q_CC ↑" in html and "Q_CV ↓" in html and " to " in html and "trained" in html and "ecc" in html
    assert "font-weight: bold" in html and "text-decoration: underline" in html
    assert "ecc" not in gallery.table(measured, "medium", "Means", heading="Table").data
    assert "ecc" in gallery.table(measured, "medium", "Means", data="synthetic").data


def test_boxes_and_pictures_show_the_rows_of_the_table(ours: dict, tmp_path: Path) -> None:
    measured = comparison.run(ROWS, PRESET, tmp_path / "table.csv")
    figure = gallery.boxes(measured, "medium")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["average", "ours"]
    assert [axis.get_title() for axis in figure.axes][:2] == ["Q_CC ↑", "Q_AB/F ↑"]
    pairs = measured.table["pair"].unique()
    missing = Row("nobody", "Table", "Nobody")
    scenes = [gallery.views([*ROWS[:2], missing], ("synthetic", name), PRESET, "medium", tmp_path) for name in pairs]
    figure = gallery.pictures(scenes)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["visible", "infrared, as given", "Average", "Ours"]  # and no panel without a picture
    assert len(figure.axes) == 4 * len(pairs)
    grids = [len(each.get_paths()) for each in figure.axes[1].collections]
    assert grids == [18, 18] and not figure.axes[0].collections  # nine lines each way, and where they fold


def test_rows_without_weights_are_left_out_in_one_line_with_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin = methods.origin

    def without(name: str, *arguments: object, **options: object) -> methods.Origin:
        if name in ("crossraft", "datfuse"):
            raise InputError("There are none.")
        if name == "murf":
            return methods.Origin("published in part", Key())
        return origin(name, *arguments, **options)

    monkeypatch.setattr(methods, "origin", without)
    rows = [Row("crossraft+datfuse", "Table", "DATFuse"), Row("murf", "Table", "MURF"), *ROWS[:1], Row(BOUND, "others")]
    here = gallery.runnable(rows)
    assert here == [rows[2], rows[3]]
    measured = comparison.run(here, PRESET, tmp_path / "table.csv")
    line = gallery.left_out(rows, measured)
    assert "\n" not in line and all(title in line for title in ("CrossRAFT", "DATFuse", "MURF"))
    assert "data fetch datfuse murf`" in line and "retrain crossraft murf`" in line
    assert gallery.left_out(here, measured) == ""


def test_dots_are_sorted_and_ours_is_marked() -> None:
    index = pd.MultiIndex.from_product([["a", "b"], ["one", "ours", "two"]])
    found = pd.DataFrame({"value": [1, 3, 2, 5, 4, 6], "low": 0.5, "high": 7.0}, index=index)
    figure = gallery.dots(found, "AP")
    names = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert names == [["one", "two", "ours"], ["ours", "one", "two"]]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in dots] == [1, 2, 3]
    assert dots[0].get_color() == dots[1].get_color() != dots[2].get_color()


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table1\.csv holds no measurements yet: run the notebook that makes it"):
        comparison.read(1, tmp_path / "table1.csv")
