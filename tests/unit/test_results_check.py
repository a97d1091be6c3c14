"""`results check`: every set of weights and every table in a line, with what changed and what it costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fusionlib import presets
from fusionlib.__main__ import main
from fusionlib.data.paper_tables import paper_table
from fusionlib.experiments import sweep_rows
from fusionlib.experiments.own_rows import COLUMNS, KEPT
from fusionlib.methods import registry
from fusionlib.methods.field_refinement import Refinement
from fusionlib.report import publish, results_check, training_plan
from fusionlib.support import result_tables
from fusionlib.support.behaviour import record
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.paths import SHIPPED
from fusionlib.support.weights import key_of, mark_of, read_header, read_state, save_weights

MINI = [
    f"weights/{name}{suffix}"
    for name in ("ours", "registration", "same_budget/ours")
    for suffix in (".safetensors", ".csv")
]


@pytest.fixture
def results(root: Path, tmp_path: Path) -> Path:
    """A copy of three sets of weights and of some tables of mini."""
    for name in (*MINI, "tables/table1.csv", "tables/switches.csv", "tables/table1_tests.csv"):
        target = tmp_path / "mini" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "results" / "mini" / name, target)
    return tmp_path


def test_what_is_shipped_fits(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["results", "check", "--preset", "mini"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out.splitlines()
    found = {line.partition(":")[0] for line in said[:-1]}
    measured = (
        "table1",
        "detection",
        "test_pairs",
        "refinement",
        "what_the_truth_is_worth",
        "what_is_left",
        "raw_frames",
    )
    assert {"weights/ours", "weights/mri/ours", *(f"tables/{name}.csv" for name in measured)} <= found
    assert all(line.endswith(", fits") for line in said[:-1]) and said[-1].startswith("All ")


def test_a_component_that_changed_is_named_with_what_rests_on_it(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    versions = record.versions
    monkeypatch.setattr(record, "versions", lambda names: versions(names) | {"training": "2"})
    assert results_check.command(results, "mini") == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["weights/registration"] == "1 of 1 part outdated by training, about 96 min to make again"
    assert "training" in said["weights/ours"] and "start" in said["weights/ours"]
    assert said["tables/switches.csv"].startswith("9 of 9 parts outdated by training, about ")
    assert said["tables/table1.csv"] == "96 parts, fits"  # of the weights that are there


def test_a_table_is_outdated_row_by_row(results: Path, capsys: pytest.CaptureFixture) -> None:
    path = results / "mini" / "tables" / "table1.csv"
    where = {"dataset": "RoadScene", "level": "medium", "method": "ours"}
    (key,) = result_tables.keys_of(result_tables.read(path), where)
    rows = result_tables.read_part(path, where).drop(columns=list(where))
    result_tables.replace_part(path, where, Key({**key.parts, "scores": "0", "ours:weights": "00000000"}), rows)
    assert results_check.command(results, "mini") == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "table1.csv" in line]
    assert line.startswith("tables/table1.csv: 1 of 96 parts outdated by scores, ours:weights, about 1 min")


def test_other_images_and_other_settings_outdate(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = results / "mini" / "weights" / "ours.safetensors"
    header, state = read_header(path), read_state(path)
    save_weights(path, state, {"recipe": header["recipe"]}, Key({**key_of(path).parts, "settings": "0" * 8}))
    own = results_check.data.checksum
    monkeypatch.setattr(
        results_check.data, "checksum", lambda name, *rest: "0" * 8 if name == "M3FD" else own(name, *rest)
    )
    assert results_check.command(results, "mini") == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert "outdated by settings" in said["weights/ours"] and said["weights/registration"].endswith("fits")
    assert "58 of 96 parts outdated by ours:weights, M3FD" in said["tables/table1.csv"]  # half, and 10 by the weights


def test_other_settings_of_a_refinement_outdate(results: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(root / "results" / "mini" / "tables" / "at_rest.csv", results / "mini" / "tables" / "at_rest.csv")
    shutil.copytree(root / "results" / "mini" / "weights" / "robust", results / "mini" / "weights" / "robust")
    line = {each.name: each for each in results_check.check(results, "mini")}["tables/at_rest.csv"]
    assert line.outdated == 0 < line.parts
    _, calibration = registry.WITH_REFINEMENT[registry.ROBUST]
    monkeypatch.setitem(registry.WITH_REFINEMENT, registry.ROBUST, (Refinement(mirrored=True), calibration))
    line = {each.name: each for each in results_check.check(results, "mini")}["tables/at_rest.csv"]
    assert 0 < line.outdated < line.parts and line.changed == ("settings of ours_robust",)


def test_a_plan_counts_every_training_once() -> None:
    paper = presets.load("paper")
    plan = training_plan.plan(paper).set_index("what")
    assert plan.index.is_unique and (plan["minutes"] > 0).all()
    assert "weights/mri/registration" not in plan.index  # in `paper` that is weights/mri/ours
    rows, seeds = len(paper_table(4)), paper.sweep_seeds
    assert plan.at["table 4: rows", "trainings"] == rows * seeds
    assert plan.at["table 4: rows", "minutes"] == pytest.approx(rows * seeds * plan.at["weights/ours", "minutes"])
    fifth = len(sweep_rows.table5(paper)) - 1  # Ours is there already
    assert plan.at["table 5: rows, without Ours", "trainings"] == fifth * seeds
    assert plan.loc["weights/crossraft", ["trainings", "notebook"]].to_list() == [1, "04 or 05"]
    assert "weights/mri/crossraft" not in plan.index  # no table has it

    assert "table 5: a few rows, longer" not in plan.index  # in `paper` all are long
    assert "table 5: a few rows, longer" in training_plan.plan(presets.load("mini"))["what"].to_list()


def test_a_plan_says_what_its_minutes_rest_on(capsys: pytest.CaptureFixture) -> None:
    mini, paper = (training_plan.plan(presets.load(name)).set_index("what") for name in ("mini", "paper"))
    logs = {name: pd.read_csv(SHIPPED.weights / f"{name}.csv")["seconds"].sum() / 60 for name in ("ours", "emma")}
    for name, minutes in logs.items():
        assert mini.loc[f"weights/{name}", ["minutes", "basis"]].to_list() == [pytest.approx(minutes), "measured"]
    assert paper.loc["weights/emma", ["minutes", "basis"]].to_list() == [pytest.approx(logs["emma"]), "extrapolated"]
    pixels = 150 / 16 * (512 / 256) ** 2  # as often as in `mini`
    found = paper.loc["weights/ours", ["minutes", "basis"]].to_list()
    assert found == [pytest.approx(pixels * logs["ours"]), "extrapolated"]
    assert paper.at["weights/mri/emma", "basis"] == "measured"  # brains are as large in both presets
    assert paper.at["table 3: detectors", "basis"] == "estimated"

    assert main(["results", "plan", "--preset", "mini"]) == 0
    said = capsys.readouterr().out
    assert "weights/registration" in said and "weights/mri/registration" in said and "a GPU has not been timed" in said
    (line,) = [line for line in said.splitlines() if line.startswith("All of mini: about ")]
    assert "measured" in line and "extrapolated" in line and "estimated" in line
    assert main(["results", "plan", "--preset", "tiny"]) == 2


def test_nothing_to_check_and_an_unknown_preset_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["results", "check", "--results", str(tmp_path)]) == 2
    assert "run `reproduce --preset mini` first" in capsys.readouterr().err
    assert main(["results", "check", "--preset", "tiny"]) == 2
    assert main(["results", "accept", "no-such-part"]) == 2
    assert "There is no component 'no-such-part'" in capsys.readouterr().err


def test_a_table_without_keys_is_none_of_its_business(results: Path) -> None:
    assert "made_by" not in pd.read_csv(results / "mini" / "tables" / "table1_tests.csv")
    assert "tables/table1_tests.csv" not in {each.name for each in results_check.check(results, "mini")}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text.replace(",", ";"), "lacks the columns "),  # as a spreadsheet saves it
        (lambda text: text.replace(",made_by", ",maker", 1), "lacks the column made_by"),
        (lambda text: text.replace("Q_CC,", "Q_C,", 1), "lacks the column Q_CC"),
        (lambda text: text.partition("\n")[0] + "\n", "has no rows"),
        (lambda text: "", "is no table"),
        (lambda text: text.replace("\n", "\n<<<<<<< HEAD\n", 1), "line 2 is a mark of a merge conflict"),
        (lambda text: text[: text.rindex(",")], "fields, where the first line has"),
    ],
)
def test_a_damaged_table_does_not_fit_and_the_others_are_checked(
    damage: Callable[[str], str], why: str, results: Path, capsys: pytest.CaptureFixture
) -> None:
    path = results / "mini" / "tables" / "table1.csv"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert main(["results", "check", "--results", str(results)]) == 1
    *lines, end = capsys.readouterr().out.splitlines()
    said = dict(line.split(": ", 1) for line in lines)
    assert said["tables/table1.csv"].startswith("damaged, table1.csv ") and why in said["tables/table1.csv"]
    assert "restore it, for example with git, or remove it" in said["tables/table1.csv"]
    assert said["tables/switches.csv"].endswith("fits") and end.startswith("1 of 5 damaged")


def test_damaged_weights_do_not_fit_and_the_others_are_checked(results: Path, capsys: pytest.CaptureFixture) -> None:
    (results / "mini" / "weights" / "ours.safetensors").write_bytes(b"damaged")
    assert main(["results", "check", "--results", str(results)]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert said["weights/ours"].startswith("damaged, ours.safetensors ")
    assert said["weights/registration"].endswith("fits")


def test_a_damaged_log_does_not_fit(results: Path, capsys: pytest.CaptureFixture) -> None:
    (results / "mini" / "weights" / "registration.csv").write_text("epoch\n1\n", encoding="utf-8")
    assert main(["results", "check", "--results", str(results)]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines()[:-1])
    damage = "damaged, registration.csv lacks the column seconds: restore it"
    assert said["weights/registration"].startswith(damage) and said["weights/ours"].endswith("fits")


DAMAGED = [
    ("tables/table1.csv", "Q_CC,", "Q_C,", "lacks the column Q_CC"),
    ("tables/table1.csv", "\n", "\n=======\n", "line 2 is a mark of a merge conflict"),
    ("tables/switches.csv", ",", "", "fields"),
    ("weights/ours.csv", "seconds,", "second,", "lacks the column seconds"),
]


@pytest.mark.parametrize(("name", "old", "new", "why"), DAMAGED)
def test_nothing_is_published_from_a_damaged_file(
    name: str, old: str, new: str, why: str, results: Path, capsys: pytest.CaptureFixture
) -> None:
    path = results / "mini" / name
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert main(["publish", "--results", str(results)]) == 2
    said = capsys.readouterr().err
    assert path.name in said and why in said and "restore it" in said and "Traceback" not in said
    assert not list(results.rglob("README.md")) and not list(results.rglob("index.html"))


def test_tables_that_hold_something_else_are_told_with_their_folder(results: Path, capsys) -> None:
    """Their form is right, so only the pages can find it: here every pair stands in Table 1 twice."""
    path = results / "mini" / "tables" / "table1.csv"
    table = path.read_text(encoding="utf-8")
    path.write_text(table + table.partition("\n")[2], encoding="utf-8")
    (results / "mini" / "tables" / "test_pairs.csv").write_bytes((SHIPPED.tables / "test_pairs.csv").read_bytes())
    with pytest.raises(InputError, match=r"pages of .*mini cannot be made from the tables in it") as raised:
        publish.publish(results, "mini")
    assert raised.value.__cause__ is not None


def test_own_rows_of_the_shipped_weights_fit_and_train_makes_the_others_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, shipped = tmp_path / "r s" / "smoke" / "tables" / "own_rows.csv", SHIPPED.weights / "ours.safetensors"
    rows = pd.DataFrame({"dataset": "synthetic", "level": "medium", "pair": ["0"], **dict.fromkeys(COLUMNS, 1.0)})
    where = {"method": KEPT, "seed": 0}
    result_tables.replace_part(path, where, Key({"ours:weights": mark_of(shipped)}), rows)
    assert results_check.command(tmp_path / "r s", "smoke") == 0
    result_tables.replace_part(path, where, Key({"ours:weights": "0" * 8}), rows)
    (tmp_path / "r s" / "smoke" / "weights" / "seed_1").mkdir(parents=True)
    assert results_check.command(tmp_path / "r s", "smoke") == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert f"`train --preset smoke --seeds 2 --results '{tmp_path / 'r s'}'` makes them again." in said


def test_the_advice_names_the_results(results: Path, capsys: pytest.CaptureFixture) -> None:
    (results / "mini" / "weights" / "ours.safetensors").unlink()  # that the rows of Table 1 rest on
    assert results_check.command(results, "mini") == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith(f"do not fit: `reproduce --train --preset mini --results {results}` makes them again.")
