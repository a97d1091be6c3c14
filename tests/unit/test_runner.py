"""Tables kept part by part: a part is made once, made again when its maker changes, and keeps its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fusionlib.experiments import runner
from fusionlib.experiments.runner import Part
from fusionlib.support import long_training, result_tables
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key


def made(settings: str, **parts: str) -> Key:
    """A key."""
    return Key({"settings": settings, **parts})


class Maker:
    """Makes two rows and counts how often it was asked."""

    def __init__(self, value: float) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> pd.DataFrame:
        self.calls += 1
        return pd.DataFrame({"pair": ["a", "b"], "EPE": [self.value, self.value + 1]})


def part(path: Path, where: dict, key: Key, make: Maker) -> pd.DataFrame:
    """A run of one part."""
    return runner.run(path, [Part(where, key, make)])


def test_a_part_is_made_once_and_again_when_its_maker_changes(tmp_path: Path) -> None:
    path, first, second = tmp_path / "folder" / "table.csv", Maker(1.0), Maker(5.0)
    where = {"method": "ours", "size": 256}
    rows = part(path, where, made("mark-1"), first)
    assert list(rows.columns) == ["method", "size", "pair", "EPE"] and list(rows["EPE"]) == [1, 2]
    assert part(path, where, made("mark-1"), first).equals(rows) and first.calls == 1
    assert list(part(path, where, made("mark-2"), second)["EPE"]) == [5, 6] and second.calls == 1
    assert list(pd.read_csv(path)["made_by"]) == ["settings=mark-2"] * 2


def test_parts_lie_side_by_side_and_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for value, method in enumerate(("identity", "ecc", "ours")):
        part(path, {"method": method, "size": 256}, made("old"), Maker(value))
    part(path, {"method": "ecc", "size": 512}, made("old"), Maker(9.0))
    part(path, {"method": "ecc", "size": 256}, made("new"), Maker(7.0))
    table = pd.read_csv(path)
    assert list(table["method"]) == ["identity"] * 2 + ["ecc"] * 2 + ["ours"] * 2 + ["ecc"] * 2
    assert list(table["EPE"]) == [0, 1, 7, 8, 2, 3, 9, 10]
    assert list(table["made_by"]) == ["settings=old"] * 2 + ["settings=new"] * 2 + ["settings=old"] * 4


def test_a_part_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    part(path, {"method": "ours"}, made("mark"), Maker(1.0))
    before = path.read_bytes()

    def broken() -> pd.DataFrame:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part(path, {"method": "ecc"}, made("mark"), broken)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".lock"] == ["table.csv"]


def test_what_is_there_can_be_read_whatever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert result_tables.read_part(path, {"method": "ours"}).empty
    part(path, {"method": "ours"}, made("an-old-mark"), Maker(1.0))
    assert result_tables.read_part(path, {"method": "other"}).empty
    rows = result_tables.read_part(path, {"method": "ours"})
    assert list(rows.columns) == ["method", "pair", "EPE"] and list(rows["EPE"]) == [1.0, 2.0]


def test_parts_are_put_in_order_and_know_their_maker(tmp_path: Path) -> None:
    path, places = tmp_path / "table.csv", [{"method": name} for name in ("a", "b", "c")]
    known, unknown = ([Part(places[0], made(name))] for name in ("mark", "another"))
    assert runner.outdated(path, known) == known
    for place in (places[2], {"method": "other"}, places[0], places[1]):
        result_tables.replace_part(path, place, made("mark"), Maker(1.0)())
    assert runner.outdated(path, known) == [] and runner.outdated(path, unknown) == unknown
    result_tables.in_order(path, places)
    assert list(pd.read_csv(path)["method"]) == ["a", "a", "b", "b", "c", "c", "other", "other"]
    before = path.stat().st_mtime_ns
    result_tables.in_order(path, places)
    assert path.stat().st_mtime_ns == before  # nothing to do, nothing written


def test_two_processes_may_write_to_one_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    script = (
        "import sys; import pandas as pd; from pathlib import Path; from fusionlib.support import keys, result_tables\n"
        "for number in range(20):\n"
        "    rows = pd.DataFrame({'EPE': [1.0]})\n"
        "    result_tables.replace_part(Path(sys.argv[1]), {'method': f'{sys.argv[2]}{number}'}, keys.Key(), rows)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert set(result_tables.read(path)["method"]) == {f"{name}{number}" for name in "ab" for number in range(20)}


MERGED = b"a,b\n1,2\n<<<<<<< HEAD\n1,3\n=======\n1,4\n>>>>>>> other\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "No columns"),
        (b"\xff\xfe\x00", "utf-8"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, where the first line has 2"),
        (b"a,b\n1,2\n1", "line 3 has 1 fields"),
        (b"a,b\n1,2,3\n4,5,6\n", "line 2 has 3 fields"),
        (MERGED, "line 3 is a mark of a merge conflict, <<<<<<<"),
        (b"<<<<<<< HEAD\n" + MERGED, "line 1 is a mark of a merge conflict"),
    ],
)
def test_a_file_that_is_no_table_is_named(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"table\.csv is no table \(.*{why}.*\): restore it, .* made again"):
        result_tables.read(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("method,Q_CC\nours,0.5\n", "lacks the column pair"),
        ("name,Q\nours,0.5\n", "lacks the columns method, pair, Q_CC"),
        ("method,pair,Q_CC\n", "has no rows"),
        ("method,pair,Q_CC\nours,,0.5\n", "has a gap in the column pair"),
        ("method,pair,Q_CC\nours,00000,good\n", "has text in the column Q_CC"),
        ("method,pair,Q_CC\nours,00000,inf\n", "has an infinite number in the column Q_CC"),
    ],
)
def test_a_table_without_what_its_reader_needs_is_refused(content: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"table\.csv {why}.*: restore it"):
        result_tables.check_columns(result_tables.read(path), path, ["method", "pair"], ["Q_CC"])
    path.write_text("method,pair,Q_CC\nours,00000,\naverage,00000,0.5\n", encoding="utf-8")
    result_tables.check_columns(result_tables.read(path), path, ["method", "pair"], ["Q_CC"])


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    """M3FD's pairs are called 00000, and a table may hold nothing else."""
    path = tmp_path / "table.csv"
    for method in ("average", "ours"):
        rows = pd.DataFrame({"pair": ["00000", "01670"], "EPE": [1.0, 2.0]})
        found = part(path, {"method": method}, made("mark"), lambda rows=rows: rows)
        assert found["pair"].tolist() == ["00000", "01670"]
    assert result_tables.read_part(path, {"method": "average"})["pair"].tolist() == ["00000", "01670"]
    assert result_tables.read(path)["pair"].nunique() == 2


def test_a_file_of_another_form_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    part(path, {"dataset": "RoadScene", "method": "ours"}, made("mark"), Maker(1.0))
    assert result_tables.read_part(path, {"set": "RoadScene", "method": "ours"}).empty
    found = part(path, {"set": "RoadScene", "method": "ours"}, made("mark"), Maker(5.0))
    assert found["EPE"].tolist() == [5, 6] and "dataset" not in result_tables.read(path)


def test_long_trainings_start_when_asked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv(long_training.ASKED, raising=False)
    path = tmp_path / "table.csv"
    first = [Part({"row": name}, made("s", training="1"), Maker(1.0)) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"row a and what else is missing of 2 parts.*--train"):
        runner.run(path, first, minutes=30)
    assert runner.outdated(path, first, minutes=0.1) == first
    kept = runner.run(path, first, minutes=0.1)
    assert runner.outdated(path, first, minutes=30) == []

    later = [Part(part.where, made("s", training="2"), Maker(2.0)) for part in first]
    capsys.readouterr()
    assert runner.run(path, later, minutes=30).equals(kept)  # shown as they are
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "2 of 2 parts: made before a change of training" in said[0] and "60 min" in said[0]
    other = [Part(part.where, made("other", training="1")) for part in first]
    with pytest.raises(InputError, match="--train"):  # numbers of other settings are never shown as these
        runner.run(path, other, minutes=30)
    monkeypatch.setenv(long_training.ASKED, "1")
    assert runner.outdated(path, later, minutes=30) == later


def test_what_cannot_be_measured_is_read_if_it_is_there(tmp_path: Path) -> None:
    path, first = tmp_path / "table.csv", Maker(1.0)
    both = [Part({"method": "elsewhere"}, None), Part({"method": "ours"}, made("mark"), first)]
    assert runner.run(path, both[:1]).empty and not path.exists()
    assert runner.run(path, both)["method"].tolist() == ["ours", "ours"]
    result_tables.replace_part(path, {"method": "elsewhere"}, made("another"), Maker(9.0)())
    assert runner.run(path, both)["method"].tolist() == ["elsewhere", "elsewhere", "ours", "ours"]
    runner.run(path, both, again=True)
    assert first.calls == 2


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    path, first = tmp_path / "table.csv", Maker(1.0)

    def broken() -> pd.DataFrame:
        raise KeyboardInterrupt

    both = [Part({"method": "a"}, made("mark"), first), Part({"method": "b"}, made("mark"), broken)]
    with pytest.raises(KeyboardInterrupt):
        runner.run(path, both)
    assert runner.outdated(path, both) == both[1:]


def test_workers_may_measure_in_any_order(tmp_path: Path) -> None:
    both = [Part({"method": name}, made("mark"), Maker(value)) for value, name in enumerate("ab")]
    found = runner.run(tmp_path / "table.csv", both, work=lambda parts: ((p, p.measure()) for p in reversed(parts)))
    assert found["EPE"].tolist() == [0, 1, 1, 2]
