"""Our own rows: trained in pieces they are the same as at once, whatever ends a piece; seeds stand side by side."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import small_sweep
from safetensors.torch import load_file
from test_training import TINY, same

from fusionlib import presets
from fusionlib.__main__ import main
from fusionlib.experiments import own_rows, runner, sweep_rows, sweeps
from fusionlib.report import pages
from fusionlib.reproduce import trainings
from fusionlib.support import long_training
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.long_training import OutOfTimeError, allowed
from fusionlib.support.paths import SHIPPED
from fusionlib.training import loop

NO_TIME = 1e-9  # minutes: every piece is as short as can be


# Its own training is as long as a row of the sweep, and its plain reading has two epochs.
SMALL = replace(small_sweep.preset(), sweep_epochs=1, plain_epochs=2, levels=("medium",))


@pytest.fixture
def handler() -> Iterator[None]:
    """The command sets one of its own for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, trained and scored at once."""
    folder, chosen = tmp_path_factory.mktemp("straight"), SMALL
    kept = chosen.results(folder)
    wanted = own_rows.trainings(chosen, 2, kept.weights)
    with allowed():
        own_rows.train(wanted, chosen)
        own_rows.score(wanted, chosen, kept.table("own_rows"))
    return kept.folder


def weights_of(folder: Path) -> dict[str, dict]:
    return {str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("*.safetensors"))}


def equal(one: Path, other: Path) -> bool:
    """Whether two results hold the same weights, bit for bit, and the same rows."""
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys() and len(left) > 4
    tensors = [(left[name][key], right[name][key]) for name in left for key in left[name]]
    tables = [(folder / "tables" / "own_rows.csv").read_bytes() for folder in (one, other)]
    return all(a.equal(b) for a, b in tensors) and tables[0] == tables[1]


def test_out_of_time_a_training_ends_after_an_epoch_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, _, log = loop.train(TINY, tmp_path / "straight.safetensors", "cpu")
    path, told = tmp_path / "cut.safetensors", []
    for _ in range(2):
        with pytest.raises(OutOfTimeError) as stopped, allowed(NO_TIME):
            loop.train(TINY, path, "cpu")
        told.append(str(stopped.value))
        assert path.with_suffix(".checkpoint").exists() and not path.exists()
    with allowed(NO_TIME):  # the last epoch has none after it
        resumed, _, resumed_log = loop.train(TINY, path, "cpu")
    assert told == ["cut is trained to epoch 1 of 3", "cut is trained to epoch 2 of 3"]
    assert same(whole, resumed) and resumed_log["l_t"].tolist() == log["l_t"].tolist()


def test_a_limit_counts_the_next_piece_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(long_training.ASKED, raising=False)
    monkeypatch.setattr(long_training.time, "monotonic", lambda: 100.0)
    with allowed(1):
        assert long_training.is_allowed()
        long_training.check_time("one", 60)
        with pytest.raises(OutOfTimeError, match="two"):
            long_training.check_time("two", 60.1)
    assert not long_training.is_allowed()
    long_training.check_time("three", math.inf)
    with allowed():
        long_training.check_time("four", 1e9)


def test_out_of_time_a_table_keeps_its_parts(tmp_path: Path) -> None:
    key, rows = Key({"settings": "1"}), pd.DataFrame({"value": [1.0]})
    parts = [runner.Part({"part": name}, key, lambda: rows) for name in "abc"]
    path = tmp_path / "table.csv"
    for done in (1, 2):
        told = f"part {'abc'[done - 1]} is measured, 1 of {4 - done}"
        with pytest.raises(OutOfTimeError, match=told), allowed(NO_TIME):
            runner.run(path, parts)
        assert len(pd.read_csv(path)) == done
    with allowed(NO_TIME):
        assert runner.run(path, parts)["part"].to_list() == ["a", "b", "c"]


@pytest.mark.usefixtures("handler")
def test_piece_by_piece_it_is_the_same(straight: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(presets, "load", lambda name: SMALL)
    order = ["train", "--preset", "smoke", "--seeds", "2", "--minutes", str(NO_TIME), "--results", str(tmp_path)]
    told = []
    while (status := main(order)) == trainings.NOT_DONE:
        told.append(capsys.readouterr().out)
        assert len(told) < 40
    assert status == 0 and equal(straight, tmp_path / "smoke")
    assert "as_in_the_paper is trained to epoch 1 of 2" in "".join(told)
    assert all(
        f"python -m fusionlib train --preset smoke --seeds 2 --minutes 1e-09 --results {tmp_path}" in each
        for each in told
    )
    trained, measured = (sum(word in each for each in told) for word in (" trained", " measured"))
    assert (trained, measured) == (3, 4)  # of three trainings, four parts of one table, two of another, and one
    said = capsys.readouterr().out
    assert "ours, seed 1" in said and "largest - smallest" in said and "as_in_the_paper" in said and "thop" in said
    noted = json.loads((tmp_path / "smoke" / "provenance.json").read_text())["notebooks"]["train"]
    assert noted["left"] == "nothing" and noted["parameters"]["seeds"] == 2 and noted["cores"]
    assert not list(tmp_path.rglob("*.checkpoint")) and not list(tmp_path.rglob("*.part*"))

    monkeypatch.setattr(loop, "one_epoch", None)  # all is there: nothing is trained again
    assert main(order) == 0


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import test_own_rows
from fusionlib import presets
from fusionlib.__main__ import main
presets.load = lambda name: test_own_rows.SMALL
sys.exit(main(["train", "--preset", "smoke", "--seeds", "2", "--results", sys.argv[2]]))
"""


@pytest.mark.usefixtures("handler")
def test_ended_by_sigterm_it_goes_on_to_the_same(straight: Path, tmp_path: Path, monkeypatch) -> None:
    """As `timeout 8m` ends it, here behind the first checkpoint."""
    order = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(order, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.rglob("*.checkpoint")):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 130 and "This goes on from there:\n  python -m fusionlib train" in said
    assert not list(tmp_path.rglob("*.part*")) and not (tmp_path / "smoke" / "tables").exists()
    monkeypatch.setattr(presets, "load", lambda name: SMALL)
    assert main(["train", "--preset", "smoke", "--seeds", "2", "--results", str(tmp_path)]) == 0
    assert equal(straight, tmp_path / "smoke")


def test_another_seed_trains_everything_anew_in_a_folder_of_its_own(straight: Path) -> None:
    first, plain, other = own_rows.trainings(presets.load("mini"), 2, Path("weights"))
    assert (first.recipe, other.recipe) == (presets.load("mini").recipe, presets.load("mini", 1).recipe)
    assert (plain.method, plain.recipe.start, plain.recipe.seed) == ("as_in_the_paper", None, 0)
    assert (first.folder, other.folder) == (Path("weights"), Path("weights/seed_1"))
    found = weights_of(straight / "weights")
    one, two = found["registration.safetensors"], found["seed_1/registration.safetensors"]
    assert not all(one[name].equal(two[name]) for name in one)


def test_tables_4_and_5_do_not_train_the_full_method_again(straight: Path, tmp_path: Path, monkeypatch) -> None:
    paper, (row,) = presets.load("paper"), [row for row in sweep_rows.table4() if not row.changes]
    for seed in range(paper.sweep_seeds):
        assert sweep_rows.recipe_of(row, paper, seed, paper.sweep_epochs) == presets.load("paper", seed).recipe
    monkeypatch.setattr(sweeps, "train", None)
    rows = sweeps.run([row], SMALL, tmp_path / "table4.csv", straight / "weights", seeds=[0])
    own = pd.read_csv(straight / "tables" / "own_rows.csv")
    own = own[(own["method"] == "ours") & (own["seed"] == 0)]
    assert rows["Q_CC"].to_list() == own["Q_CC"].to_list()


def test_the_summary_is_the_mean_over_pairs_and_the_range_over_seeds() -> None:
    cells = {("ours", 0): (1.0, 3.0), ("ours", 1): (2.0, 6.0), ("as_in_the_paper", 0): (5.0, 7.0)}
    rows = [
        {"method": method, "seed": seed, "dataset": f"set {pair}", "level": level, "pair": str(pair)}
        | dict.fromkeys(["EPE", *own_rows.COLUMNS], value + (level == "light"))  # the error of the identity is 1 px
        for (method, seed), values in cells.items()
        for pair, value in enumerate(values)
        for level in ("medium", "light")
    ]
    table = pd.DataFrame(rows)
    found = own_rows.summary(table, "medium")["Q_CC"].to_dict()
    assert found == {
        "ours, seed 0": 2, "ours, seed 1": 4, "mean of 2 seeds": 3, "largest - smallest": 2, "as_in_the_paper": 6,
    }  # fmt: skip
    page = pages._own(table, "`own_rows.csv`").splitlines()
    (medium, light) = [line.split() for line in page if "mean of 2 seeds" in line]
    assert [float(cell) for cell in medium[6::2]] == [3] * 5 and [float(cell) for cell in light[6::2]] == [4] * 5


def test_the_shipped_weights_stand_beside_others_and_not_beside_themselves(straight: Path, monkeypatch) -> None:
    table = pd.read_csv(straight / "tables" / "own_rows.csv")
    assert list(table["method"].unique()) == ["ours", "as_in_the_paper", own_rows.KEPT]
    monkeypatch.setattr(own_rows.runner, "run", lambda path, parts: [part.where["method"] for part in parts])
    wanted = own_rows.trainings(SMALL, 1, SHIPPED.weights)
    assert set(own_rows.score(wanted, SMALL, straight / "none.csv")) == {"ours", "as_in_the_paper"}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("own_rows", "method,seed,dataset,level,pair,Q\nours,0,a,medium,b,1\n", "lacks the columns Q_CC"),
        ("own_counts", "method,side,thop\nours,256,1\n", "lacks the column parameters"),
        ("own_times", "device,method,median,low,high\ncpu,ours,fast,1,1\n", "has text in the column median"),
    ],
)
def test_kept_rows_that_lack_what_is_shown_are_refused(
    name: str, content: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_rows.runner, "run", lambda *_: pytest.fail("nothing may be measured"))
    path = tmp_path / f"{name}.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{name}\.csv {why}.*: restore it"):
        own_rows.score([], SMALL, path) if name == "own_rows" else own_rows.costs(SMALL, tmp_path)
    assert path.read_text(encoding="utf-8") == content
