"""Tables 4 and 5: the rows are the paper's, each is trained once, and a kill at any moment changes nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import small_sweep
import torch

from fusionlib import data, presets
from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import sweep_rows, sweep_tables, sweeps
from fusionlib.experiments.comparison import METRICS
from fusionlib.experiments.sweep_rows import Row, neighbours, optimum, recipe_of, table4, table5
from fusionlib.metrics.directions import direction
from fusionlib.metrics.statistics import NOT_SIGNIFICANT
from fusionlib.network import FusionNetwork
from fusionlib.notebook import sweep_figures
from fusionlib.report import pages
from fusionlib.support.behaviour import record
from fusionlib.support.files import InputError
from fusionlib.training.batches import batches
from fusionlib.training.warm_start import calibrate, warm_start

KILLS = int(os.environ.get("FUSIONLIB_KILLS", "2"))  # of the driver, in a row; ten on request
WITHOUT = "w/o concat of F_i^r and F_v"


# --- the rows


@pytest.mark.parametrize("name", presets.PRESETS)
def test_rows_are_those_of_the_paper(name: str) -> None:
    preset = presets.load(name)
    for number, rows in ((4, table4()), (5, table5(preset))):
        printed = list(paper_table(number).index.get_level_values("row"))
        assert [row.printed for row in rows if row.printed] == printed
        assert len({row.name for row in rows}) == len(rows)


def test_an_ablation_takes_one_thing_away() -> None:
    preset = presets.load("mini")
    full = recipe_of(Row("full"), preset, 0, 4)
    recipes = {row.name: recipe_of(row, preset, 0, 4) for row in table4()}
    assert recipes["Ours"] == full and (full.losses.common, full.losses.specific) == (1, 1)
    for name, losses in (("w/o l_c", {"common": 0.0}), ("w/o l_s", {"specific": 0.0})):
        assert recipes[name] == replace(full, losses=replace(full.losses, **losses))
    network = replace(full.network, common_in_fusion=False)
    assert recipes[WITHOUT] == replace(full, network=network, start=replace(full.start, network=network))
    assert FusionNetwork(network).fused_channels * 2 == FusionNetwork(full.network).fused_channels


def test_rows_of_table_5_hold_the_printed_values() -> None:
    preset = presets.load("mini")
    for row in table5(preset):
        losses = recipe_of(row, preset, 0, 4).losses
        values = (losses.gamma, losses.lambda_reg, losses.lambda_fusion, losses.lambda_detection)
        assert row.name == "gamma={:g};lambda1={:g};lambda2={:g};lambda3={:g}".format(*values)
        assert recipe_of(row, preset, 0, 4) == replace(recipe_of(Row("full"), preset, 0, 4), losses=losses)


def test_between_the_rows_of_table_5_lie_others() -> None:
    preset = presets.load("mini", sweep_between=3)
    rows, best = table5(preset), optimum(preset)
    line = sweep_rows.line_of(rows, best, "lambda1")
    assert list(line) == [1, 3.25, 5.5, 7.75, 10, 12.5, 15, 17.5, 20]
    assert [value for value, row in line.items() if row.printed] == [1, 10, 20]
    near = [sweep_rows.settings_in(name)["lambda1"] for name in neighbours(rows, best)]
    assert near == [10, 10, 7.75, 12.5, 10, 10, 10, 10]
    with pytest.raises(InputError, match="leave gamma and the lambdas"):
        optimum(presets.load("mini", recipe__losses__gamma=3.0))


def test_the_budget_is_the_same_for_all_rows_and_the_start_for_all_seeds() -> None:
    preset = presets.load("mini", seed=3)
    recipes = [recipe_of(row, preset, seed, 4) for row in table4() + table5(preset) for seed in (3, 4)]
    assert len({recipe.training for recipe in recipes}) == 1 and {recipe.seed for recipe in recipes} == {3, 4}
    assert {recipe.start.seed for recipe in recipes} == {3}
    assert recipes[0].training.epochs == recipes[0].training.validate_every == 4


# --- the start


@torch.no_grad()
def test_what_is_left_of_a_start_is_taken() -> None:
    preset = small_sweep.preset()
    start = FusionNetwork(small_sweep.NETWORK).state_dict()
    recipe = recipe_of(Row("without", sweep_rows.ABLATIONS[WITHOUT]), preset, 7, 1)
    network, cut = warm_start(recipe, start)
    assert cut == ["head.0.0.weight"]
    found = network.state_dict()
    assert all(torch.equal(found[name], start[name]) for name in found if name not in cut)
    assert warm_start(recipe_of(Row("full"), preset, 7, 1), start)[1] == []

    # The head without the common features is the whole head where those are zero.
    whole = FusionNetwork(small_sweep.NETWORK)
    whole.load_state_dict(start)
    network.eval(), whole.eval()
    ir, vi = torch.rand(2, 1, 1, 64, 64)
    features = whole(ir, vi).fused
    common_ir, _, common_vi, _ = features.chunk(4, 1)
    common_ir.zero_(), common_vi.zero_()
    short = network(ir, vi)
    expected = whole.head(features)
    assert torch.allclose(network.head(short.fused), expected, atol=1e-6)


@torch.no_grad()
def test_behind_a_cut_layer_statistics_are_measured_and_nowhere_else() -> None:
    preset = small_sweep.preset()
    recipe = recipe_of(Row("without", sweep_rows.ABLATIONS[WITHOUT]), preset, 0, 1)
    network, cut = warm_start(recipe, FusionNetwork(small_sweep.NETWORK).state_dict())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, cut, recipe)
    after = network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert moved == {name for name in statistics if name.startswith("head")}
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert (
        not network.training and not any(norm.training for norm in norms) and {norm.momentum for norm in norms} == {0.1}
    )

    seen, norm = [], network.head[0][1]
    norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    pairs = data.open_set(recipe.dataset, "train", recipe.size, count=4)
    for batch in batches(pairs, recipe, 0):
        network(batch.moved, batch.vi)
    assert len(seen) > 1  # plain means over the batches
    means, variances = ([getattr(each, of)((0, 2, 3)) for each in seen] for of in ("mean", "var"))
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), rtol=1e-4)
    assert torch.allclose(norm.running_var, torch.stack(variances).mean(0), rtol=1e-4)


# --- what is kept


def trained_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that are done from now on."""
    names, spread = [], sweeps.spread
    monkeypatch.setattr(sweeps, "spread", lambda work, jobs, cluster: names.extend(jobs) or spread(work, jobs, cluster))
    return names


def test_a_second_run_trains_nothing_and_a_changed_value_its_own_row(tmp_path, monkeypatch) -> None:
    preset, path, weights = small_sweep.preset(sweep_seeds=1), tmp_path / "table.csv", tmp_path / "weights"
    preset = replace(preset, sweep_epochs=1)
    rows = [Row("low", {"losses.lambda_reg": 1.0}), Row("high", {"losses.lambda_reg": 20.0})]
    done = trained_in(monkeypatch)
    first = sweeps.run(rows, preset, path, weights)
    assert done == ["row low, epochs 1, seed 0", "row high, epochs 1, seed 0"]
    before = path.read_bytes()
    done.clear()
    assert sweeps.run(rows, preset, path, weights).equals(first) and done == []
    assert path.read_bytes() == before

    rows[0] = Row("low", {"losses.lambda_reg": 2.0})
    second = sweeps.run(rows, preset, path, weights)
    assert done == ["row low, epochs 1, seed 0"]
    same = second["row"] == "high"
    assert second[same].equals(first[same]) and not second[~same].equals(first[~same])

    # Longer or other trainings of the same rows stand beside them, and what is scored on other pairs is scored anew.
    done.clear()
    longer = sweeps.run(rows[:1], preset, path, weights, epochs=2)
    assert done == ["row low, epochs 2, seed 0"] and len(pd.read_csv(path)) == len(second) + len(longer)
    done.clear()
    trainings = sorted((weights / "sweeps").glob("*.safetensors"))
    more = replace(preset, bench=replace(preset.bench, count=3))
    assert len(sweeps.run(rows, more, path, weights)) == 6 and len(done) == 2
    assert sorted((weights / "sweeps").glob("*.safetensors")) == trainings  # the weights are those there are
    done.clear()
    assert len(sweeps.run(rows, more, path, weights, again=True)) == 6 and len(done) == 2


def test_keys_follow_settings_data_behaviour_and_start(monkeypatch) -> None:
    preset = small_sweep.preset()
    tests = (preset.test_sets, 64, "medium", 2, "nowhere")

    def key(row: Row = Row("full"), chosen: presets.Preset = preset, seed: int = 0) -> str:  # noqa: B008
        return str(sweeps.Job(recipe_of(row, chosen, seed, 1), None, *tests).key())

    own = key()
    start = replace(preset.recipe.start, seed=5)
    others = [
        key(Row("other", {"losses.gamma": 3.0})),
        key(seed=1),
        key(chosen=replace(preset, recipe=replace(preset.recipe, start=start))),
    ]
    assert key(Row("of another name")) == own and len({own, *others}) == 4
    versions = record.versions
    for component in ("training", "warm-start", "drawn-scenes", "network", "scores", "deformation"):
        with monkeypatch.context() as patch:
            patch.setattr(record, "versions", lambda names, other=component: {**versions(names), other: "2"})
            assert key() != own
    with monkeypatch.context() as patch:
        patch.setattr("fusionlib.data.splits", lambda name: {"train": ["another"], "test": [], "val": []})
        assert key() != own


def test_the_long_table_says_all(straight: tuple[Path, pd.DataFrame, float]) -> None:
    folder, table, _ = straight
    assert list(table) == ["row", "epochs", "seed", "dataset", "level", "pair", "weights", *sweeps.SCORED]
    assert table.groupby(["row", "seed"]).size().eq(2).all() and len(table) == 8
    assert table[sweeps.SCORED].notna().all(axis=None) and set(table["level"]) == {"medium"}
    left = {path.stem for path in (folder / "weights" / "sweeps").iterdir() if path.suffix != ".lock"}
    assert left == set(table["weights"])


def test_a_worker_with_a_disk_of_its_own_hands_over_what_it_has_made(straight, tmp_path, monkeypatch) -> None:
    folder, table, _ = straight
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    preset = small_sweep.preset()
    recipe = recipe_of(small_sweep.rows()[0], preset, 0, 2)
    start = (folder / "weights" / "registration.safetensors").read_bytes()
    job = sweeps.Job(recipe, start, preset.test_sets, 64, "medium", 2, str(tmp_path / "of the driver"))
    outcome = sweeps.train_and_score(job)
    assert outcome.rows[sweeps.SCORED].to_numpy() == pytest.approx(table[sweeps.SCORED][:2].to_numpy(), rel=1e-5)
    assert outcome.files.keys() == {".csv", ".safetensors"} and all(outcome.files.values())
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


# --- a kill


def test_a_killed_driver_goes_on_and_ends_in_the_same_table(straight, tmp_path, monkeypatch) -> None:
    folder, _, seconds = straight
    order, seed = (
        [sys.executable, small_sweep.__file__, str(tmp_path)],
        int(os.environ.get("FUSIONLIB_KILLS", random.randrange(10**6))),
    )
    moments = random.Random(seed)
    print(f"moments of the kills are drawn from seed {seed}; FUSIONLIB_KILLS={seed} draws them again")
    hits = 0
    while hits < KILLS:
        with subprocess.Popen(order, stdout=subprocess.PIPE, text=True) as driver:
            driver.stdout.readline()  # it is about to begin
            time.sleep(moments.uniform(0.1, 0.9) * seconds)
            driver.kill()
        assert driver.returncode in (0, -signal.SIGKILL)
        hits += driver.returncode < 0
        if driver.returncode == 0:  # it was done before: another table, which the next kills hit earlier
            seconds /= 2
            assert (tmp_path / "table.csv").read_bytes() == (folder / "table.csv").read_bytes()
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
    table = tmp_path / "table.csv"
    there = len(pd.read_csv(table)) // 2 if table.exists() else 0  # a reader never sees half a table
    (tmp_path / ".table.1.part.csv").touch()  # as a kill within a millisecond leaves it
    done = trained_in(monkeypatch)
    small_sweep.run(tmp_path)
    assert len(done) == 4 - there
    assert table.read_bytes() == (folder / "table.csv").read_bytes()
    left = [path.name for path in tmp_path.rglob("*") if ".part" in path.name or path.suffix == ".checkpoint"]
    assert left == []


def test_two_drivers_at_once_make_one_table(straight, tmp_path) -> None:
    folder, _, _ = straight
    order = [sys.executable, small_sweep.__file__, str(tmp_path)]
    drivers = [subprocess.Popen([*order, name], stderr=subprocess.PIPE) for name in ("one.csv", "two.csv")]
    errors = [driver.communicate()[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], errors
    tables = [(tmp_path / name).read_bytes() for name in ("one.csv", "two.csv")]
    assert tables == [(folder / "table.csv").read_bytes()] * 2
    left = [path.name for path in tmp_path.rglob("*") if ".part" in path.name or path.suffix == ".checkpoint"]
    assert left == []


def test_rows_come_in_their_order_whichever_was_first(straight, tmp_path) -> None:
    folder, table, _ = straight
    preset, path = small_sweep.preset(), tmp_path / "table.csv"
    lines = (folder / "table.csv").read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[5:], *lines[1:5]]))
    assert sweeps.run(small_sweep.rows(), preset, path, folder / "weights").equals(table)
    assert path.read_bytes() == (folder / "table.csv").read_bytes()


# --- what the tables say


def long_table(effect: float, seeds: Sequence[float]) -> pd.DataFrame:
    """Twenty pairs, two rows: the row is better by `effect` and by what each seed adds."""
    lines = []
    for pair in range(20):
        for seed, extra in enumerate(seeds):
            for row, value in (("best", 0.0), ("row", effect + extra + 0.01 * (pair % 3 - 1))):
                lines.append({"row": row, "seed": seed, "dataset": "drawn", "pair": f"p{pair}", "level": "medium"})
                lines[-1] |= dict.fromkeys(sweeps.SCORED, pair + value)
    return pd.DataFrame(lines)


SEEDS = (0.0, 0.01, -0.01, 0.005)


def test_a_verdict_needs_trainings_that_agree() -> None:
    def differences(effect: float, seeds: Sequence[float]) -> pd.DataFrame:
        found = sweep_tables.differences(long_table(effect, seeds), "best").set_index("metric")
        assert (found["seeds"] == len(seeds)).all() and (found["pairs"] == 20).all()
        assert found["difference"].tolist() == pytest.approx([effect + np.mean(seeds)] * len(found), abs=1e-3)
        assert len(seeds) == 1 or ((found["low"] < found["difference"]) & (found["difference"] < found["high"])).all()
        return found

    sure = differences(0.1, SEEDS)
    assert sure.at["Q_CC", "verdict"] == "better" and sure.at["EPE", "verdict"] == "worse"
    assert (differences(0.1, [20 * each for each in SEEDS])["verdict"] == NOT_SIGNIFICANT).all()
    single = differences(0.1, (0.0,))  # all twenty pairs agree, which says nothing of another training
    assert (single["verdict"] == NOT_SIGNIFICANT).all() and single["p"].isna().all()


def test_p_values_are_corrected_for_all_rows_and_metrics() -> None:
    one = long_table(0.1, [3 * each for each in SEEDS])
    both = pd.concat([one, one[one["row"] == "row"].replace({"row": "second"})])
    p = [sweep_tables.differences(table, "best").set_index(["row", "metric"])["p"] for table in (one, both)]
    assert p[1].tolist() == pytest.approx([2 * p[0].iloc[0]] * len(p[1])) and p[0].iloc[0] < 0.05


def test_rows_that_differ_in_nothing_are_told_apart_in_at_most_one_table_of_twenty() -> None:
    """The A/A check, on 1,000 tables of eight seeds: what a seed does to all rows of it, and noise of each training."""
    rng, names = np.random.default_rng(0), ("best", "a", "b", "c")
    frame = pd.DataFrame([(name, seed, "medium", "p") for name in names for seed in range(8)])
    frame.columns = ["row", "seed", "level", "pair"]
    tables = [frame.assign(dataset=str(number)) for number in range(1000)]
    for table in tables:
        for metric in METRICS:
            table[metric] = np.tile(rng.normal(size=8), len(names)) + rng.normal(0, 0.3, len(table))
    found = pd.concat([sweep_tables.differences(table, "best") for table in tables])
    wrong = (found["verdict"] != NOT_SIGNIFICANT).groupby(found["data"]).any()
    assert len(wrong) == 1000 and 5 <= wrong.sum() <= 50


def test_the_heat_map_is_violet_where_a_row_is_better() -> None:
    table = long_table(1.0, SEEDS)  # higher values throughout
    values = sweep_tables.means(table).loc["drawn"].loc[["best", "row"]]
    figure = sweep_figures.heat_map(sweep_tables.differences(table, "best"), values)
    drawn = figure.axes[0].images[0].get_array()
    assert (drawn[0] == 0).all()
    better = [direction(metric) == "higher" for metric in METRICS]
    assert [value > 0 for value in drawn[1]] == better and True in better and False in better
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sum(text.endswith("*") for text in texts) == len(better)
    plt.close(figure)


def test_a_label_says_what_a_row_changes() -> None:
    rows, best = table5(presets.load("mini")), optimum(presets.load("mini"))
    labels = [sweep_rows.label(row, best) for row in rows]
    assert {"optimum", "λ₁ 10 → 20", "γ 2 → 5"} < set(labels) and len(set(labels)) == len(rows)


def test_the_map_of_one_metric_has_a_square_for_each_value_and_frames_the_optimum() -> None:
    preset = presets.load("paper")
    rows, best = sweep_rows.table5(preset), sweep_rows.optimum(preset)
    values = pd.DataFrame({"Q_CC": 0.5, "Q_CV": 100.0}, index=[row.name for row in rows])
    other = next(row.name for row in rows if sweep_rows.differing(row.name, best) == ["lambda1"])
    values.loc[other] = [0.6, 120.0]  # a better correlation, a worse Q_CV
    found = pd.DataFrame([(other, metric, "better") for metric in values], columns=["row", "metric", "verdict"])
    for metric, better in (("Q_CC", 20), ("Q_CV", -20)):
        axis = sweep_figures.setting_map(found, values, rows, best, metric).axes[0]
        grid, lines = np.asarray(axis.images[0].get_array()), [text.get_text() for text in axis.texts]
        lengths = [len(sweep_rows.line_of(rows, best, setting)) for setting in sweep_rows.settings_in(best)]
        assert np.isfinite(grid).sum() == len(lines) == sum(lengths) and len(axis.patches) == len(lengths)
        assert np.isclose(grid, better).sum() == 1 and np.isclose(grid, 0).sum() == len(lines) - 1
        (row,) = np.argwhere(np.isclose(grid, better))
        assert axis.get_yticklabels()[row[0]].get_text() == "lambda1"
        assert [line.endswith("*") for line in lines].count(True) == 1


def test_pictures_show_the_rows_whose_weights_are_here(straight: tuple) -> None:
    folder, table, _ = straight
    found = sweep_figures.weights_of(table, folder / "weights")
    assert list(found) == list(table["row"].unique()) and all(path.exists() for path in found.values())
    assert sweep_figures.weights_of(table, folder) == {}
    scene = ("synthetic", table["pair"].iloc[0])
    figure = sweep_figures.pictures(table, scene, small_sweep.preset(), folder / "weights")
    assert len(figure.axes) == 2 * (1 + len(found)) + 1 and all(axis.images for axis in figure.axes[:-1])
    plt.close(figure)


def test_the_times_of_trainings_are_those_of_their_logs(straight: tuple) -> None:
    folder, table, _ = straight
    found = sweep_figures.trainings(table, folder / "weights")
    assert set(found.index) == {(row, str(seed)) for row, seed in table[["row", "seed"]].drop_duplicates().to_numpy()}
    assert (found["seconds"] > 0).all() and sweep_figures.trainings(table, folder).empty


def test_effects_are_held_against_the_paper_s() -> None:
    table = long_table(0.1, SEEDS).replace({"row": {"best": "Ours", "row": "w/o l_c"}})
    rows = [Row("w/o l_c", printed="w/o l_c"), Row("Ours", printed="Ours"), Row("not in the paper")]
    found = sweep_tables.effects(sweep_tables.differences(table, "Ours"), 4, rows, "Ours")
    own = paper_table(4).droplevel("dataset")
    assert list(found.index) == [("w/o l_c", metric) for metric in own]
    assert found["paper"].tolist() == pytest.approx((own.loc["w/o l_c"] - own.loc["Ours"]).tolist())
    assert found["same way"].tolist() == ["no", "yes", "no", "no"]  # Q_AB/F alone rises in print


def test_the_page_of_results_says_what_differs_from_the_full_method() -> None:
    table = long_table(0.1, SEEDS).replace({"row": {"best": "Ours", "row": "w/o l_c"}}).assign(epochs=4)
    longer = table[table["row"] == "Ours"].assign(epochs=8)
    shown = pages._swept(pd.concat([table, longer]), 4, "`table4.csv`")
    assert "<summary>Table 4" in shown and "4 seeds of 4 epochs" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("| w/o l_c")]
    assert "Q_CC better" in line and "EPE worse" in line
    assert next(line for line in shown.splitlines() if line.startswith("| Ours")).endswith("| – |")
    assert pages._swept(table[table["row"] != "Ours"], 4, "`table4.csv`") == ""  # killed before that row


def test_agreement_is_about_the_order() -> None:
    def table(values: dict[str, float]) -> pd.DataFrame:
        return pd.DataFrame([{"row": row, **dict.fromkeys(METRICS, value)} for row, value in values.items()])

    short = table({"a": 1, "b": 2, "c": 3, "unasked": 9})
    same = sweep_tables.agreement(short, table({"a": 5, "b": 6, "c": 7}))
    assert (same["rank correlation"] == 1).all() and (same["pairs of rows in the same order"] == 1).all()
    assert same.loc["Q_CC", "best, long"] == "c" and same.loc["EPE", "best, long"] == "a"
    turned = sweep_tables.agreement(short, table({"a": 7, "b": 6, "c": 5}))
    assert (turned["rank correlation"] == -1).all() and (turned["pairs of rows in the same order"] == 0).all()


def test_a_few_rows_are_checked_and_the_best_is_one() -> None:
    preset = presets.load("mini")
    names = [row.name for row in sweep_rows.to_train_longer(table5(preset), optimum(preset))]
    assert names[0] == optimum(preset) and len(names) == len(set(names)) == 4
    assert set(names) <= {row.printed for row in table5(preset)}
