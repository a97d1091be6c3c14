"""Every value of the paper gets one verdict by one rule, from whatever tables there are, and the pages say the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import data, presets
from fusionlib.__main__ import main
from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments.comparison import METRICS
from fusionlib.notebook import reporting
from fusionlib.report import model_cards, our_numbers, pages, publish, verdict_figures, verdicts
from fusionlib.report.claims import in_print
from fusionlib.report.verdicts import ABSENT, AGREES, DIFFERS, RANKED
from fusionlib.reproduce import provenance
from fusionlib.support import machine
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.paths import FACTS, Results
from fusionlib.support.weights import save_weights

FUSION = ["Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM"]


def joint(values: dict[str, list[float]], **columns: object) -> pd.DataFrame:
    """A table of Table 2's kind: Q_CC of each method on a few pairs, the other metrics as printed."""
    printed = paper_table(2).droplevel("dataset")
    titles = {"imf": "IMF", "ivfwsr": "IVFWSR", "murf": "MURF", "superfusion": "SuperFusion", "ours": "Ours"}
    rows = []
    for method, numbers in values.items():
        others = printed.loc[titles[method], FUSION[1:]].to_dict() if method in titles else {}
        for pair, number in enumerate(numbers):
            rows.append({"method": method, "pair": f"pair {pair}", "weights": "retrained", "Q_CC": number, **others})
    level = {"dataset": "RoadScene", "level": "medium", "fingerprint": "f", "EPE": 1.0, "made_by": "m"}
    return pd.DataFrame(rows).assign(**level | columns)


def value(compared: pd.DataFrame, table: int, row: str, metric: str) -> pd.Series:
    (found,) = [
        each for _, each in compared.iterrows() if (each["table"], each["row"], each["metric"]) == (table, row, metric)
    ]
    return found


# --- the rule


def test_all_values_of_the_paper_are_there_even_without_results(tmp_path):
    compared = verdicts.compare(tmp_path / "mini")
    printed = pd.read_csv(Path(FACTS) / "paper_tables.csv")
    assert list(compared.columns) == verdicts.COLUMNS and len(compared) == 140
    assert compared["paper"].tolist() == printed["value"].tolist()
    assert compared[["table", "dataset", "row", "metric"]].equals(printed[["table", "dataset", "row", "metric"]])
    assert set(compared["verdict"]) == {ABSENT} and compared["ours"].isna().all()
    for number, notebook in our_numbers.NOTEBOOKS.items():
        why = compared.loc[compared["table"] == number, "why"]
        assert why.str.contains(f"`reproduce {notebook} --preset mini`").all()
    assert verdicts.summary(compared).loc["all"].tolist() == [0, 0, 0, 140, 140]
    assert verdicts.order(compared).empty


def test_the_rule_is_interval_first_then_rank(tmp_path):
    values = {  # the paper has IMF .8221, IVFWSR .8269, MURF .8315, SuperFusion .8320, Ours .8325
        "imf": [0.5, 0.52],  # best here, last in print
        "ivfwsr": [0.3, 0.31],  # fourth in both
        "murf": [0.8, 0.86],  # its interval holds .8315
        "ours": [0.4, 0.41],
        "bound": [0.6, 0.7],
    }
    reporting.write_table(joint(values), Results(tmp_path, "mini"), "table2")
    compared = verdicts.compare(tmp_path / "mini")
    imf, ivfwsr, murf, missing = (value(compared, 2, row, "Q_CC") for row in ("IMF", "IVFWSR", "MURF", "SuperFusion"))
    assert murf["verdict"] == AGREES and murf["low"] <= 0.8315 <= murf["high"] and "over 2 pairs" in murf["why"]
    assert imf["verdict"] == DIFFERS and "rank 2 of 4 here, 4 in print" in imf["why"]
    assert "no image fused of these pairs can reach more than 0.650" in imf["why"]
    assert missing["verdict"] == ABSENT and "no weights" in missing["why"]
    assert ivfwsr["verdict"] == DIFFERS and "rank 4 of 4 here, 3 in print" in ivfwsr["why"]
    assert imf["ours"] == pytest.approx(0.51) and imf["difference"] == pytest.approx(0.51 - 0.8221)

    # Without IMF the order of what is left is IVFWSR last in both: a rank counts among the measured rows alone.
    reporting.write_table(joint({k: v for k, v in values.items() if k != "imf"}), Results(tmp_path, "mini"), "table2")
    again = value(verdicts.compare(tmp_path / "mini"), 2, "IVFWSR", "Q_CC")
    assert again["verdict"] == RANKED and "rank 3 of 3 in both" in again["why"]
    # What is equal as far as it is printed agrees, though the interval of two equal pairs has no width.
    exact = verdicts.compare(tmp_path / "mini").query("table == 2 and row == 'MURF' and metric in ('Q_AB/F', 'Q_SSIM')")
    assert set(exact["verdict"]) == {AGREES}


def test_other_readings_and_logs_are_told(tmp_path):
    light = joint({"imf": [0.82, 0.83]}, level="light")
    table = pd.concat([joint({"imf": [0.5, 0.52], "ours": [0.6, 0.6]}), light])
    table["Q_CC@given"] = 0.8221
    reporting.write_table(table, Results(tmp_path, "mini"), "table2")
    log = pd.DataFrame({"step": [1, 2], "loss": 1.0, "seconds": [300.0, 300.0]})
    (tmp_path / "mini" / "weights").mkdir()
    log.to_csv(tmp_path / "mini" / "weights" / "imf.csv", index=False)
    why = value(verdicts.compare(tmp_path / "mini"), 2, "IMF", "Q_CC")["why"]
    assert "at level light it would agree" in why and "against the deformed image it would agree" in why
    assert "imf retrained for 10 min" in why and "deformed at level medium" in why


def test_a_value_that_is_no_number_is_not_measured(tmp_path):
    reporting.write_table(joint({"imf": [np.nan, np.nan], "ours": [0.6, 0.7]}), Results(tmp_path, "mini"), "table2")
    compared = verdicts.compare(tmp_path / "mini")
    found = value(compared, 2, "IMF", "Q_CC")
    assert found["verdict"] == ABSENT and "without any contrast" in found["why"]
    assert "no other row" in value(compared, 2, "Ours", "Q_CC")["why"]


def test_sweeps_average_seeds_before_pairs_and_take_the_printed_set(tmp_path):
    rows = [
        {"row": row, "epochs": epochs, "seed": seed, "dataset": dataset, "pair": pair, "Q_CC": base + seed / 10}
        for row, base in (("Ours", 0.5), ("w/o l_c", 0.6))
        for epochs, seeds in ((4, (0, 1)), (12, (0,)))
        for seed in seeds
        for dataset, pair in (("RoadScene", "a"), ("M3FD", "00001"), ("M3FD", "00002"))
    ]
    table = pd.DataFrame(rows).assign(level="medium", made_by="m", **dict.fromkeys(METRICS[1:], 1.0))
    table.loc[table["dataset"] == "RoadScene", "Q_CC"] = 9.0
    reporting.write_table(table, Results(tmp_path, "mini"), "table4")
    compared = verdicts.compare(tmp_path / "mini")
    found = value(compared, 4, "Ours", "Q_CC")
    assert found["ours"] == pytest.approx(0.55) and found["low"] == found["high"] == pytest.approx(0.55)
    assert "epochs a row: 4, seeds: 2" in found["why"]
    absent = value(compared, 4, "w/o l_s", "Q_CC")
    assert absent["verdict"] == ABSENT and "not in the table yet" in absent["why"]


def test_costs_are_counted_exactly_and_a_part_is_recognised(tmp_path):
    counts = pd.DataFrame(
        [
            ("ours", 512, 60.124, 0.72),  # as printed, 60.12
            ("ivfwsr", 252, 859.44, 14.09),  # not quite as printed, 859.43
            ("superfusion", 512, 65.43, 1.96243),
        ],
        columns=["method", "side", "thop", "parameters"],
    ).assign(fvcore=1.0, executed=1.0, made_by="m")
    reporting.write_table(counts, Results(tmp_path, "mini"), "cost_counts")
    compared = verdicts.compare(tmp_path / "mini")
    assert value(compared, 6, "Ours", "FLOPs(G)")["verdict"] == AGREES
    near = value(compared, 6, "IVFWSR", "FLOPs(G)")
    assert near["verdict"] == RANKED and "counted by thop at 252 px" in near["why"]
    assert "0.14 M are those of its part FN alone" in value(compared, 6, "SuperFusion", "Size(M)")["why"]
    assert "cost_times.csv" in value(compared, 6, "Ours", "Time(s)")["why"]
    assert value(compared, 6, "MURF", "Size(M)")["why"] == "not counted"

    times = pd.DataFrame({"side": [256, 512, 512], "threads": [2, 2, 2], "method": ["ivfwsr", "ours", "superfusion"]})
    times = times.assign(
        median=[9.0, 0.39, 0.5], low=[8.0, 0.38, 0.4], high=[9.5, 0.41, 0.6], runs=7, cpu="a cpu", made_by="m"
    )
    reporting.write_table(times, Results(tmp_path, "mini"), "cost_times")
    compared = verdicts.compare(tmp_path / "mini")
    assert value(compared, 6, "Ours", "Time(s)")["verdict"] == AGREES
    assert "too slow" in value(compared, 6, "IVFWSR", "Time(s)")["why"]


def test_ranks_follow_the_direction_and_orders_their_chance(tmp_path):
    values = {"imf": [0.1], "ivfwsr": [0.2], "murf": [0.3], "superfusion": [0.4], "ours": [0.5]}
    reporting.write_table(joint(values), Results(tmp_path, "mini"), "table2")
    compared = verdicts.compare(tmp_path / "mini")
    own = compared[(compared["table"] == 2) & (compared["metric"] == "Q_CC")]
    assert set(own["verdict"]) == {RANKED}
    orders = verdicts.order(compared)
    assert orders.loc[("Table 2", "Q_CC")].tolist() == pytest.approx([5, 1, 1 / 120])
    assert "rank 1 of 5" in value(compared, 2, "Ours", "Q_CC")["why"]

    reporting.write_table(
        joint({name: [-each[0]] for name, each in values.items()}), Results(tmp_path, "mini"), "table2"
    )
    assert verdicts.order(verdicts.compare(tmp_path / "mini")).loc[("Table 2", "Q_CC")].tolist() == pytest.approx(
        [5, -1, 1]
    )


# --- the paper alone


def test_claims_are_found_in_the_tables_and_not_typed_in(monkeypatch):
    found = in_print.claims().set_index("the paper says")["verdict"]
    assert found["Table 1: best in all four metrics"] == "holds" and "contradicted" in set(found)
    printed = paper_table

    def other(number: int) -> pd.DataFrame:
        """The tables as the text describes them."""
        table = printed(number).copy()
        if number in (4, 7):
            table.loc[table.index[-1], "Q_CV"] = 0.0
            table.loc[table.index[-1], "Q_AB/F"] = 1.0
        if number == 5:
            table["mAP50:90"] = range(len(table))
        if number == 6:
            table.loc[table.index[-1], "Time(s)"] = 0.28
        return table

    monkeypatch.setattr(in_print, "paper_table", other)
    found = in_print.claims()["verdict"]
    assert set(found) == {"holds"}  # Table 4's row is then no longer that of the others


# --- the pages


def test_pages_of_the_checkout_are_those_of_its_tables(root):
    """`python -m fusionlib publish` writes them anew."""
    page = (root / "results" / "README.md").read_text(encoding="utf-8")
    assert page == pages.results_page(root / "results")
    block = (root / "README.md").read_text(encoding="utf-8").split("<!-- findings:begin -->")[1]
    assert block.split("<!-- findings:end -->")[0].strip() == pages.findings_text(root / "results" / "mini", root)
    for preset in pages.ON_REAL_PAIRS:
        card = model_cards.card(root / "results" / preset)
        path = root / "results" / preset / "weights" / "README.md"
        assert card == (path.read_text(encoding="utf-8") if path.exists() else "")


def test_every_value_stands_in_the_page_as_printed(root):
    page = (root / "results" / "README.md").read_text(encoding="utf-8")
    printed = pd.read_csv(root / "data" / "paper_tables.csv", dtype=str)
    folds = page.split("<details>")[1:8]
    assert len(folds) == 7
    for number, fold in enumerate(folds, start=1):
        own = printed[printed["table"] == str(number)]
        lines = fold.split("</details>")[0].splitlines()
        for row, metric, text in own[["row", "metric", "value"]].to_numpy():
            assert any(line.startswith(f"| {row} | {metric} | {text} |") for line in lines)
        assert f"<summary>Table {number}: {len(own)} values" in fold


def test_one_table_is_shown_with_the_words_of_the_verdicts(tmp_path):
    reporting.write_table(joint({"imf": [0.5, 0.52], "ours": [0.4, 0.41]}), Results(tmp_path, "mini"), "table2")
    shown = verdicts.table(verdicts.compare(tmp_path / "mini"), 2).set_index(["row", "metric"])
    assert len(shown) == 20 and set(shown["verdict"]) <= set(verdicts.VERDICTS)
    line = shown.loc[("IMF", "Q_CC")]
    assert (line["paper"], line["ours"], line["interval"]) == ("0.8221", "0.5100", "0.5000 to 0.5200")
    assert line["difference"] == "-0.3121" and shown.loc[("MURF", "Q_CC"), "ours"] == "–"


def test_publish_writes_all_presets_and_says_what_is_in_the_way(tmp_path, capsys, monkeypatch):
    for preset in ("mini", "smoke"):
        table = joint({"imf": [0.5], "ours": [0.6]}).assign(EPE_share=1.0)
        reporting.write_table(table, Results(tmp_path, preset), "table2")
    assert main(["publish", "--results", str(tmp_path)]) == 0
    wrote = {Path(line.removeprefix("wrote ")) for line in capsys.readouterr().out.splitlines()}
    names = ("README.md", "mini/index.html", "smoke/README.md", "smoke/index.html")
    assert wrote == {tmp_path / name for name in names} and all(path.exists() for path in wrote)
    assert not (tmp_path / "mini" / "weights").exists()  # no weights, no card

    before = (tmp_path / "README.md").read_bytes()
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(InputError, match=r"README.md cannot be written \(No space left on device\): free some space"):
        publish.publish(tmp_path, "mini")
    assert (tmp_path / "README.md").read_bytes() == before and list(tmp_path.glob(".*")) == []


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_steps_of_every_training_behind_a_row_are_told(tmp_path: Path) -> None:
    recipe = presets.load("mini").recipe
    each = len(data.splits(recipe.dataset)["train"]) // recipe.training.batch
    for name, unit, last in (("ours", "epoch", 4), ("registration", "epoch", 7), ("imf", "step", 5)):
        log = pd.DataFrame({unit: [1, last], "seconds": [60.0, 90.0]})
        log.to_csv(tmp_path / f"{name}.csv", index=False)
    steps = {name: our_numbers.steps_here(name, tmp_path, recipe) for name in ("ours", "imf", "imf+ydtr", "average")}
    assert steps == {"ours": f"{11 * each}", "imf": "5", "imf+ydtr": "5", "average": "–"}
    assert our_numbers.steps_here("ours+imf", tmp_path, recipe) == f"{11 * each} + 5"
    assert our_numbers.steps_of(tmp_path / "nothing.csv", recipe) == 0


# --- the model card


def test_a_card_says_what_headers_logs_and_tables_say(tmp_path, monkeypatch):
    folder, state = tmp_path / "mini", {"layer": torch.zeros(1000, 2)}
    start = {"dataset": "RoadScene", "size": 256, "seed": 0, "training": {"epochs": 325, "batch": 8}}
    own = start | {"start": start, "training": {"epochs": 16, "batch": 8, "levels": ["light", "medium"]}}
    save_weights(folder / "weights" / "ours.safetensors", state, own, Key({"settings": "01234567"}))
    budget = {"steps": 460, "batch": 4, "crop": 128}
    other = {"system": "imf", "dataset": "RoadScene", "size": 256, "seed": 3, "budget": budget}
    large = {"layer": torch.zeros(2000, 2)}
    save_weights(folder / "weights" / "imf.safetensors", large, other, Key({"settings": "76543210"}))
    save_weights(folder / "weights" / "sweeps" / "a.safetensors", state, own, Key())
    save_weights(folder / "weights" / "same_budget" / "ours.safetensors", state, own, Key())
    logs = {"ours": "epoch", "same_budget/ours": "epoch", "imf": "step", "crossraft": "step"}
    for name, unit in logs.items():
        pd.DataFrame({unit: [1, 2], "seconds": [60.0, 90.0]}).to_csv(folder / "weights" / f"{name}.csv", index=False)
    measured = {"imf": [0.5, 0.7], "ours": [0.6, 0.8], "ours_same_budget": [0.3, 0.5]}
    reporting.write_table(joint(measured), Results(tmp_path, "mini"), "table2")

    card = model_cards.card(folder)
    row = next(line for line in card.splitlines() if line.startswith("| `ours` |"))
    assert "RoadScene, 256 px | 0 | 16 epochs after 325 of its start, batch 8 | 2.5 | 0.002" in row
    assert f"`{Key({'settings': '01234567'}).digest}`" in row and "AGPL-3.0-or-later" in row
    row = next(line for line in card.splitlines() if line.startswith("| `imf` |"))
    assert "IMF, retrained" in row and "460 steps, batch 4, crops of 128 px" in row and "| 3 |" in row
    assert "| `imf` | `table2.csv` | imf | 2 pairs, medium | 0.6000 |" in card
    assert "| `ours` | `table2.csv` | ours | 2 pairs, medium | 0.7000 |" in card
    (short,) = [line for line in card.splitlines() if line.startswith("| `same_budget/ours` | `table2.csv` |")]
    assert "| ours_same_budget | 2 pairs, medium | 0.4000 |" in short
    assert "| `crossraft` | 2 steps | 2.5 | `python -m fusionlib retrain crossraft --preset mini` |" in card
    assert "not shown" not in card and "levels light, medium" in card
    for heading in ("Intended use", "Limits", "Licence"):
        assert f"## {heading}" in card

    # What is too large to be shipped makes no difference, whether it is here or not.
    monkeypatch.setattr(model_cards, "LARGEST_SHIPPED", 12_000)
    card = model_cards.card(folder)
    assert "| `imf` | 2 steps | 2.5 | `python -m fusionlib retrain imf --preset mini` |" in card
    (folder / "weights" / "imf.safetensors").unlink()
    assert model_cards.card(folder) == card


def test_a_card_of_a_preset_without_meaning_says_so(tmp_path):
    recipe = {"dataset": "synthetic", "size": 64, "seed": 0, "training": {"epochs": 1, "batch": 1, "levels": ["light"]}}
    save_weights(tmp_path / "smoke" / "weights" / "ours.safetensors", {"a": torch.zeros(1)}, recipe, Key())
    card = model_cards.card(tmp_path / "smoke")
    assert "none of these weights means anything" in card and "No table of this preset has measured" in card
    assert model_cards.card(tmp_path / "mini") == ""


# --- figures, provenance


def test_figures_show_every_table_and_metric(tmp_path):
    reporting.write_table(joint({"imf": [0.5, 0.7], "ours": [0.6, 0.8]}), Results(tmp_path, "mini"), "table2")
    compared = verdicts.compare(tmp_path / "mini")
    (axis,) = verdict_figures.bars(compared).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"Table {number}" for number in range(1, 8)]
    assert sum(patch.get_width() for patch in axis.patches) == 140
    (chance,) = axis.lines
    assert chance.get_xdata().tolist() == verdicts.by_chance(compared).drop(index="all")["by chance"].to_list()
    panels = verdict_figures.scatter(compared).axes
    assert [axis.get_title().split()[0] for axis in panels] == list(compared["metric"].unique())
    assert [text.get_text() for axis in panels for text in axis.texts] == ["not measured"] * 4
    assert len(panels[0].containers) == 1  # one table has Q_CC


def test_provenance_reads_what_was_noted(tmp_path):
    path = tmp_path / "provenance.json"
    facts, runs = provenance.read(path)
    assert facts["python"] == machine.machine()["python"] and runs.empty
    provenance.note(path, "04_table1", {"seconds": 90.0}, {"seed": 7})
    facts, runs = provenance.read(path)
    assert facts["seed"] == "7" and runs.loc["04_table1", "minutes"] == 1.5
    assert facts["revision"] == json.loads(path.read_text())["revision"]
    for damaged in ("{ half", "[]", "3", "null", '{"notebooks": []}', ""):
        path.write_text(damaged)
        assert provenance.read(path)[1].empty
        provenance.note(path, "05_table2", {"seconds": 60.0}, {"seed": 7})
        assert list(provenance.read(path)[1].index) == ["05_table2"]


def test_versions_are_noted_of_pinned_packages_that_are_there(root, monkeypatch):
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "constraints.txt").read_text(encoding="utf-8"), re.M))
    assert set(machine.PACKAGES) <= set(pinned)
    monkeypatch.setattr(machine, "PACKAGES", ("scipy", "a-package-of-no-one"))
    assert list(machine.machine()["packages"]) == ["scipy"]


def test_two_processes_note_what_they_ran(tmp_path):
    script = (
        "import sys; from pathlib import Path; from fusionlib.reproduce import provenance\n"
        "for number in range(5):\n"
        "    provenance.note(Path(sys.argv[1]), f'{sys.argv[2]}{number}', {'seconds': 1.0}, {})"
    )
    path = tmp_path / "provenance.json"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert len(provenance.read(path)[1]) == 10
