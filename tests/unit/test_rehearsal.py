"""The rehearsal runs the code of `paper`, and nothing that it writes can be taken for a result."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from fusionlib import methods, presets
from fusionlib.data import data_root, splits
from fusionlib.experiments import own_rows
from fusionlib.methods import checkpoints
from fusionlib.report import model_cards, pages
from fusionlib.report.index_page import write_index
from fusionlib.reproduce.ending import ending
from fusionlib.reproduce.execute import execute
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.paths import Results
from fusionlib.support.weights import save_weights

NOTHING = "None of these numbers means anything."
COUNTS = {  # what may differ: how much, never what
    "name", "warning", "always_train", "epochs", "batch", "train_pairs", "count", "draws", "seeds", "runs",
    "plain_epochs", "registration_epochs", "fusion_epochs", "validation_pairs", "switch_epochs", "sweep_epochs",
    "sweep_longer", "sweep_seeds", "test_sets", "methods", "joint", "chains", "timed", "growth", "large",
}  # fmt: skip


def differences(one: object, other: object, name: str = "") -> set[str]:
    if is_dataclass(one) and type(one) is type(other):
        pairs = [(getattr(one, each.name), getattr(other, each.name), each.name) for each in fields(one)]
        return set().union(*(differences(*pair) for pair in pairs))
    return set() if one == other else {name}


def test_it_differs_from_paper_in_counts_alone() -> None:
    paper, rehearsal = presets.load("paper"), presets.load("rehearsal")
    assert differences(paper, rehearsal) == COUNTS
    assert not paper.warning and NOTHING in rehearsal.warning
    for recipe in (rehearsal.recipe, presets.mri(rehearsal).recipe):
        assert recipe.start is None and recipe.training.epochs == 1
        assert recipe.train_pairs == recipe.training.batch < len(splits(recipe.dataset)["train"])  # one step


@pytest.fixture
def results(tmp_path: Path) -> Results:
    made = presets.load("rehearsal").results(tmp_path)
    rows = [("ours", "RoadScene", "medium", "a", metric, 0.5) for metric in ("EPE", "EPE_share", "Q_CC", "Q_AB/F")]
    table = pd.DataFrame(rows, columns=["method", "dataset", "level", "pair", "metric", "value"])
    made.table("test_pairs").parent.mkdir()
    table.to_csv(made.table("test_pairs"), index=False)
    recipe = {"dataset": "RoadScene", "size": 512, "seed": 0, "training": {"epochs": 1, "batch": 4, "levels": []}}
    save_weights(made.weights / "ours.safetensors", {}, recipe, Key())
    return made


def test_every_page_says_it_first(results: Results, tmp_path: Path) -> None:
    page = write_index(results.folder).read_text(encoding="utf-8")
    assert page.index(NOTHING) < page.index("What was run") and "What came out" not in page
    assert NOTHING in pages.results_page(tmp_path, ["rehearsal"])
    assert "none of these weights means anything" in model_cards.card(results.folder)
    said = ending(results, 1, 1, "1 s", str)
    assert NOTHING in said and "What came out" not in said and "drawn scenes" not in said


def test_every_executed_notebook_says_it_first(tmp_path: Path) -> None:
    cells = [v4.new_code_cell('preset = "smoke"', metadata={"tags": ["parameters"]}), v4.new_code_cell("print(preset)")]
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "00_one.ipynb")
    for preset, first in (("rehearsal", presets.load("rehearsal").warning), ("paper", cells[0].source)):
        folder = tmp_path / preset
        folder.mkdir()
        assert execute(tmp_path / "00_one.ipynb", {"preset": preset}, folder) == {"error": None}
        assert nbformat.read(folder / "00_one.ipynb", as_version=4).cells[0].source == first
        page = (folder / "00_one.html").read_text(encoding="utf-8")
        assert (NOTHING in page) == (preset == "rehearsal")


def test_its_weights_and_tables_are_taken_for_no_result(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", results.folder.parent.parent)
    with pytest.raises(InputError, match="There are no weights for 'ours' under results/"):
        methods.load("ours")
    assert pages.best_preset(results.folder.parent) is None


@pytest.mark.skipif(
    not all((data_root() / name).is_dir() for name in ("RoadScene", "M3FD", "FLIR_ADAS_v1")), reason="no real pairs"
)
def test_a_cut_of_it_trains_and_scores_at_the_size_of_the_paper(tmp_path: Path) -> None:
    cut = presets.load("rehearsal", recipe__train_pairs=2, recipe__training__batch=2)
    ours = own_rows.trainings(cut, 1, tmp_path)[:1]
    own_rows.train(ours, cut)
    table = own_rows.score(ours, cut, tmp_path / "own_rows.csv").set_index(["method", "dataset", "level"])
    assert cut.recipe.size == cut.test_size == 512 and cut.recipe.detector is not None
    assert table.index.to_list() == [
        (method, name, level) for method in ("ours", own_rows.KEPT) for name in cut.test_sets for level in cut.levels
    ]
    assert table[["Q_CC", "EPE"]].notna().all(axis=None)
