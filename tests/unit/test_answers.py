"""Sentences made from tables say what the numbers say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import sweep_rows, sweep_tables
from fusionlib.experiments.comparison import METRICS, Measured, Row
from fusionlib.notebook import answers, training_answers


def measured(shifts: dict[str, float], pairs: int = 20) -> Measured:
    """Ours, and methods whose every metric is higher by their shift on each pair."""
    rng = np.random.default_rng(0)
    base = rng.normal(5, 1, pairs)
    lines = [
        {"dataset": "a" if i < pairs / 2 else "b", "level": "medium", "method": name, "pair": f"p{i}", "weights": "-"}
        | dict.fromkeys(METRICS, base[i] + shift + 0.01 * rng.normal())
        for name, shift in {"ours": 0.0, **shifts}.items()
        for i in range(pairs)
    ]
    rows = [Row(name, "Table", name) for name in (*shifts, "ours")]
    return Measured(rows, pd.DataFrame(lines), {})


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return answers.against(measured({"higher": 0.5, "lower": -0.5, "same": 0.0}), "medium")


def test_an_interval_stands_beside_each_difference_of_all_pairs(found: pd.DataFrame) -> None:
    assert len(found) == 3 * len(METRICS) and (found["pairs"] == 20).all()
    assert (found["low"] <= found["difference"]).all() and (found["difference"] <= found["high"]).all()
    assert found.set_index("method").loc["higher", "low"].between(0.45, 0.5).all()


def test_better_follows_the_direction_of_the_metric_and_the_test(found: pd.DataFrame) -> None:
    marks = found.assign(mark=answers.better(found)).pivot(index="method", columns="metric", values="mark")
    assert (marks.loc["higher", ["Q_CC", "Q_AB/F", "Q_SSIM"]] == 1).all()
    assert (marks.loc["higher", ["Q_CV", "EPE"]] == -1).all()
    assert (marks.loc["lower"] == -marks.loc["higher"]).all() and (marks.loc["same"] == 0).all()


def test_a_sentence_says_better_worse_and_neither_once_each(found: pd.DataFrame) -> None:
    text = answers.versus(found[found["method"] == "higher"], "the other")
    assert text.startswith("The other is significantly better than Ours in Q_CC (+0.5")
    assert ", and significantly worse in Q_CV (+0.5" in text and "not significantly" not in text
    text = answers.versus(found[found["method"] == "same"], "the same")
    assert text == "The same is not significantly different from Ours in Q_CC, Q_AB/F, Q_CV, Q_SSIM and EPE."


def test_the_answer_counts_the_table_s_own_rows_and_leaves_out_what_was_not_measured(found: pd.DataFrame) -> None:
    others = {"same": "the same", "nobody": "nobody"}
    text = answers.is_ours_better(found, ["higher", "lower"], "the rows", others)
    assert "10 comparisons, Ours is significantly better in 5 and significantly worse in 5; in 0 there" in text
    assert "The same is not" in text and "nobody" not in text
    none = Measured([Row("ours", "Table")], measured({}).table, {"ours": "no weights"})
    assert answers.is_ours_better(answers.against(none, "medium"), [], "the rows", {}).startswith(
        "there are no numbers"
    )


def test_a_row_of_a_sweep_has_its_interval_over_seeds() -> None:
    line = {"metric": "Q_CC", "difference": 0.1, "p": 0.001, "low": 0.05, "high": 0.15}
    text = answers.versus(pd.DataFrame([line, line | {"metric": "EPE", "p": 0.5}]), "`row`", "the full method")
    assert text.startswith("`row` is significantly better than the full method in Q_CC (+0.10; +0.050 to +0.15)")
    assert text.endswith(", and not significantly different in EPE.")


def test_a_sentence_without_amounts_says_what_differs_or_that_nothing_does() -> None:
    line = {"metric": "Q_CC", "difference": 0.1, "p": 0.001, "low": 0.05, "high": 0.15}
    lines = pd.DataFrame([line, line | {"metric": "EPE", "p": 0.5}])
    assert answers.versus(lines, "one", amounts=False) == "One is significantly better than Ours in Q_CC."
    assert answers.versus(lines[1:], "one", amounts=False) == "One is not significantly different from Ours in EPE."


def test_a_method_is_counted_against_others_level_by_level() -> None:
    both = measured({"higher": 0.5, "lower": -0.5, "same": 0.0})
    light = both.table.assign(level="light", **{metric: 1.0 for metric in METRICS})  # all methods the same
    both = Measured(both.rows, pd.concat([both.table, light]), {})
    text = answers.counted_at(both, ["higher", "lower"], "same", ["medium", "light"])
    # against "higher", "same" has the lower, better Q_CV and is worse in three metrics; against "lower" the reverse
    assert text == "better in 4 and worse in 4 of 8 at `medium` and better in 0 and worse in 0 of 8 at `light`"


def test_metric_by_metric_each_row_stands_in_one_column(found: pd.DataFrame) -> None:
    table = answers.by_metric(found)
    assert list(table.index) == METRICS
    assert table.loc["Q_CC"].str.startswith(("lower (-", "higher (+", "same (")).all()
    assert table.loc["Q_CV"].str.startswith(("higher (+", "lower (-", "same (")).all()


def long_table(gap: float) -> pd.DataFrame:
    """Two rows, two seeds, twenty pairs: the second seed lies higher by `gap` throughout, the rows are the same."""
    lines = [
        {"row": row, "seed": seed, "dataset": "set", "pair": f"p{pair}"}
        | dict.fromkeys(METRICS, pair + gap * seed + 0.01 * (pair % 3 - 1) * seed)
        for row in ("one", "two")
        for seed in (0, 1)
        for pair in range(20)
    ]
    return pd.DataFrame(lines)


def test_a_test_over_pairs_tells_two_seeds_of_one_row_apart() -> None:
    apart, same = training_answers.seeds_alone(long_table(0.5)), training_answers.seeds_alone(long_table(0.0))
    assert (apart["comparisons"] == 2).all() and (apart["significant"] == 2).all() and (same["significant"] == 0).all()
    assert apart["by chance"].tolist() == pytest.approx([0.1] * len(METRICS))
    assert apart["difference between two seeds, mean"].tolist() == pytest.approx([0.5] * len(METRICS), abs=0.01)
    table = long_table(0.5)
    table.loc[table["row"] == "two", "Q_CC"] += 0.3 * (-1) ** table["seed"]  # up with one seed, down with the other
    beside = training_answers.rows_and_seeds(table, "one", apart)["difference between a row and the full method, mean"]
    assert beside["Q_CC"] == pytest.approx(0.3) and beside["EPE"] == pytest.approx(0, abs=1e-12)


def test_differences_in_print_that_lie_outside_our_intervals_are_counted() -> None:
    printed = paper_table(5).droplevel("dataset")
    rows, best = [row for row in printed.index if row != sweep_rows.reference(5)], sweep_rows.reference(5)
    lines = [
        {"data": data, "row": row, "metric": metric, "low": effect - 1, "high": effect + 1 - 2 * (row == rows[0])}
        for data in ("RoadScene", "all")
        for row in rows
        for metric in ["EPE", *printed.columns]
        for effect in [printed.at[row, metric] - printed.at[best, metric] if metric in printed else 0]
    ]
    tests = pd.DataFrame(lines)
    tests.loc[tests["row"] == rows[0], "high"] -= 0.5  # the first row's intervals end below the printed effect
    assert training_answers.outside(tests, 5) == (4, 4 * len(rows))
    tests.loc[tests["data"] == "RoadScene", "low"] = np.inf  # the paper names no set for Table 5: all pairs count
    assert training_answers.outside(tests, 5) == (4, 4 * len(rows))


def test_short_trainings_stand_beside_the_start_that_they_share() -> None:
    table = long_table(0.0).assign(EPE=3.0, epochs=3)
    pairs = {"method": ["first stage", "first stage", "ours"], "metric": ["EPE"] * 3, "value": [2.0, 9.0, 9.0]}
    start = pd.DataFrame(pairs | {"level": ["medium", "light", "medium"]})
    text = training_answers.beside_start(table, start, "medium").data
    assert "an EPE of 2.00 px" in text and "the rows have 3.00 to 3.00 px" in text and "is worse" in text
    assert "is worse" not in training_answers.beside_start(table.assign(EPE=1.5), start, "medium").data


def test_levels_agree_where_their_verdicts_are_equal() -> None:
    lines = [{"row": "one", "metric": metric, "difference": 1, "low": 0, "high": 2} for metric in ("Q_CC", "EPE")]
    tests = {
        level: pd.DataFrame(lines).assign(data="all", verdict=verdicts)
        for level, verdicts in {"medium": ["better", "worse"], "light": ["better", "better"]}.items()
    }
    both = sweep_tables.at_levels(tests, "all")
    assert list(both.columns.unique(0)) == ["medium", "light"] and len(both) == 2
    text = training_answers.do_levels_agree(both).data
    assert text == "The levels give the same verdict in 1 of 2 comparisons and differ for `one` in EPE."


def test_effects_are_counted_beside_what_a_test_over_pairs_would_find() -> None:
    found = pd.DataFrame([{"metric": "Q_CC", "p": p, "difference": 0.15, "seeds": 8} for p in (0.001, 0.5)])
    text = training_answers.effects(found, "a row", "Ours", training_answers.seeds_alone(long_table(0.5)))
    assert text.startswith("Compared with a row in 1 metrics, 2 comparisons, Ours is significantly better in 0 and ")
    assert (
        "over 8 trainings a row" in text
        and "two seeds of one row in 2 of 2 comparisons, where chance would give 0" in text
    )
