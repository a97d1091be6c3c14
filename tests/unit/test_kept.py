"""Tables kept part by part: a part is made once, made again when its maker changes, and keeps its place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fusionlib import kept


class Maker:
    """Makes two rows and counts how often it was asked."""

    def __init__(self, value: float) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> pd.DataFrame:
        self.calls += 1
        return pd.DataFrame({"pair": ["a", "b"], "EPE": [self.value, self.value + 1]})


def test_a_part_is_made_once_and_again_when_its_maker_changes(tmp_path: Path) -> None:
    path, first, second = tmp_path / "folder" / "table.csv", Maker(1.0), Maker(5.0)
    where = {"method": "ours", "size": 256}
    rows = kept.part(path, where, "mark 1", first)
    assert list(rows.columns) == ["method", "size", "pair", "EPE"] and list(rows["EPE"]) == [1, 2]
    assert kept.part(path, where, "mark 1", first).equals(rows) and first.calls == 1
    assert list(kept.part(path, where, "mark 2", second)["EPE"]) == [5, 6] and second.calls == 1
    assert list(pd.read_csv(path)["made_by"]) == ["mark 2"] * 2


def test_parts_lie_side_by_side_and_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for value, method in enumerate(("identity", "ecc", "ours")):
        kept.part(path, {"method": method, "size": 256}, "old", Maker(value))
    kept.part(path, {"method": "ecc", "size": 512}, "old", Maker(9.0))
    kept.part(path, {"method": "ecc", "size": 256}, "new", Maker(7.0))
    table = pd.read_csv(path)
    assert list(table["method"]) == ["identity"] * 2 + ["ecc"] * 2 + ["ours"] * 2 + ["ecc"] * 2
    assert list(table["EPE"]) == [0, 1, 7, 8, 2, 3, 9, 10]
    assert list(table["made_by"]) == ["old"] * 2 + ["new"] * 2 + ["old"] * 4


def test_a_part_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    kept.part(path, {"method": "ours"}, "mark", Maker(1.0))
    before = path.read_bytes()

    def broken() -> pd.DataFrame:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.part(path, {"method": "ecc"}, "mark", broken)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_is_there_can_be_read_whatever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert kept.there(path, {"method": "ours"}).empty
    kept.part(path, {"method": "ours"}, "an old mark", Maker(1.0))
    assert kept.there(path, {"method": "other"}).empty
    rows = kept.there(path, {"method": "ours"})
    assert list(rows.columns) == ["method", "pair", "EPE"] and list(rows["EPE"]) == [1.0, 2.0]


def test_parts_are_put_in_order_and_know_their_maker(tmp_path: Path) -> None:
    path, places = tmp_path / "table.csv", [{"method": name} for name in ("a", "b", "c")]
    assert not kept.is_made_by(path, places[0], "mark")
    for place in (places[2], {"method": "other"}, places[0], places[1]):
        kept.put(path, place, "mark", Maker(1.0)())
    assert kept.is_made_by(path, places[0], "mark") and not kept.is_made_by(path, places[0], "another")
    kept.in_order(path, places)
    assert list(pd.read_csv(path)["method"]) == ["a", "a", "b", "b", "c", "c", "other", "other"]
    before = path.stat().st_mtime_ns
    kept.in_order(path, places)
    assert path.stat().st_mtime_ns == before  # nothing to do, nothing written


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    """M3FD's pairs are called 00000, and a table may hold nothing else."""
    path = tmp_path / "table.csv"
    for method in ("average", "ours"):
        made = pd.DataFrame({"pair": ["00000", "01670"], "EPE": [1.0, 2.0]})
        found = kept.part(path, {"method": method}, "mark", lambda made=made: made)
        assert found["pair"].tolist() == ["00000", "01670"]
    assert kept.there(path, {"method": "average"})["pair"].tolist() == ["00000", "01670"]
    assert kept.read(path)["pair"].nunique() == 2


def test_a_file_of_another_form_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    kept.part(path, {"dataset": "RoadScene", "method": "ours"}, "mark", Maker(1.0))
    assert kept.there(path, {"set": "RoadScene", "method": "ours"}).empty
    found = kept.part(path, {"set": "RoadScene", "method": "ours"}, "mark", Maker(5.0))
    assert found["EPE"].tolist() == [5, 6] and "dataset" not in kept.read(path)
