"""Keys of kept results: written, read, compared part by part; settings that change nothing do not count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd
import pytest

from fusionlib import presets
from fusionlib.data import checksum, splits
from fusionlib.support.behaviour import record
from fusionlib.support.files import InputError
from fusionlib.support.keys import NEUTRAL, Key, settings
from fusionlib.support.long_training import PIXELS_PER_SECOND


@dataclass(frozen=True)
class Config:
    width: int = 3
    levels: tuple[str, ...] = ("light",)
    refined: bool = field(default=False, metadata=NEUTRAL)


def test_a_fact_cannot_take_the_name_of_a_component() -> None:
    with pytest.raises(ValueError, match="differ in deformation"):
        Key.of(["deformation"], deformation="mine")


def test_a_key_comes_back_from_its_text() -> None:
    key = Key.of(["deformation"], size=256, settings=Config(), level="medium")
    assert Key.parse(str(key)) == key and key.parts["size"] == "256" and key.parts["level"] == "medium"
    assert len(key.parts["settings"]) == 8
    assert key.parts["deformation"] == record.versions(["deformation"])["deformation"]
    assert Key.parse("0123456789abcdef").parts == {}  # of an earlier form: fits nothing
    assert key.differing(Key.parse("0123456789abcdef")) == list(key.parts)


def test_keys_are_compared_part_by_part() -> None:
    key = Key({"a": "1", "b": "2"})
    assert key.differing(Key({"b": "2", "a": "1"})) == [] and key.digest == Key({"b": "2", "a": "1"}).digest
    assert key.differing(Key({"a": "1"})) == ["b"] and key.differing(Key({"a": "3", "b": "2", "c": "4"})) == ["a", "c"]


def test_one_name_for_two_things_is_refused() -> None:
    """Else the second would hide the first, whose change would go unseen."""
    pairs, training = Key({"size": "256", "RoadScene": "0123"}), Key({"size": "256", "RoadScene": "4567"})
    with pytest.raises(ValueError, match="differ in RoadScene"):
        pairs | training
    both = pairs.renamed("RoadScene", "RoadScene:val") | training
    assert both.parts == {"size": "256", "RoadScene:val": "0123", "RoadScene": "4567"}


def test_a_new_switch_that_is_off_leaves_the_key() -> None:
    assert settings(Config()) == {"width": 3, "levels": ["light"]}
    assert Key.of(settings=Config()) != Key.of(settings=Config(refined=True)) != Key.of(settings=Config(width=4))
    assert Key.of(settings={"of": Config()}) == Key.of(settings={"of": replace(Config(), refined=False)})


def test_a_file_without_a_folder_belongs_to_no_pair() -> None:
    """yolov5n.pt lies in none, and "FLIR_00006" has nothing before a "_z"."""
    assert checksum("yolov5n", ["FLIR_00006"]) == checksum("synthetic", ["FLIR_00006"])
    assert checksum("yolov5n", ["yolov5n"]) != checksum("synthetic", ["yolov5n"])


def test_checksums_follow_the_files_of_the_pairs() -> None:
    names = splits("RoadScene")["test"]
    found = {checksum("RoadScene", names), checksum("RoadScene", names[::-1]), checksum("RoadScene", names[:-1])}
    assert len(found | {checksum("RoadScene", names, labels=True), checksum("M3FD", names)}) == 5
    pairs = splits("M3FD")["test"]
    assert checksum("M3FD", pairs, labels=True) != checksum("M3FD", pairs)  # its boxes are a committed list
    assert checksum("open_ms", splits("open_ms")["test"]) != checksum("open_ms", splits("open_ms")["train"])


def test_a_behaviour_that_changes_needs_a_reason(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record moves on only with a reason, and a refactoring keeps the version."""
    monkeypatch.setattr(record, "FILE", tmp_path / "behaviour.json")
    monkeypatch.setattr(record.source, "digest", lambda entries: "first")
    seen = {"x": [1e-6, 4, 1.0, 0.5, 0.5, 0.5]}
    monkeypatch.setattr(record, "probed", lambda names: dict.fromkeys(names, seen))
    assert record.accept(["deformation"]) == {"deformation": "version 1"}
    monkeypatch.setattr(record.source, "digest", lambda entries: "second")
    assert record.accept(["deformation"]) == {"deformation": "as before"}
    assert record.read()["deformation"]["source"] == "second"
    more = seen | {"y": [1e-6, 1, 2.0, 2.0, 2.0, 2.0]}  # the probe looks at more, and what it saw before is the same
    monkeypatch.setattr(record, "probed", lambda names: dict.fromkeys(names, more))
    monkeypatch.setattr(record.source, "digest", lambda entries: "more")
    assert record.accept(["deformation"]) == {"deformation": "as before"}
    assert record.read()["deformation"]["probe"] == more

    other = more | {"x": [1e-6, 4, 1.0, 0.5, 0.5, 0.50001]}
    monkeypatch.setattr(record, "probed", lambda names: dict.fromkeys(names, other))
    monkeypatch.setattr(record.source, "digest", lambda entries: "third")
    with pytest.raises(InputError, match="say why"):
        record.accept(["deformation"])
    assert record.read()["deformation"]["version"] == 1
    assert record.accept(["deformation"], "another filter") == {"deformation": "version 2"}
    assert record.read()["deformation"]["reason"] == "another filter"
    monkeypatch.setattr(record, "probed", lambda names: dict.fromkeys(names, "ImportError: no"))
    with pytest.raises(InputError, match="mend the code"):
        record.accept(["deformation"])


def test_what_is_seen_may_differ_by_rounding_alone() -> None:
    old = {"x": [1e-3, 4, 2.0, 0.5, 0.5, 0.5], "none": [1e-3, 0, 0.0, 0.0, 0.0, 0.0]}
    assert record.differing(old, old) == []
    assert record.differing({**old, "x": [1e-3, 4, 2.001, 0.5, 0.499, 0.5]}, old) == []
    assert record.differing({**old, "x": [1e-3, 4, 2.0, 0.5, 0.497, 0.5]}, old) == ["x"]
    assert record.differing({**old, "x": [1e-3, 5, 2.0, 0.5, 0.5, 0.5]}, old) == ["x"]
    assert record.differing({"x": old["x"]}, old) == ["none"]


def test_a_probe_that_was_killed_decides_nothing(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(record, "REMEMBERED", tmp_path / "probed.json")
    monkeypatch.delenv(record.PROBING, raising=False)
    monkeypatch.setattr(record.source, "digest", lambda entries: "0123456789abcdef")
    monkeypatch.setattr(record, "probed", lambda names: dict.fromkeys(names, "no answer"))
    number = str(record.read()["deformation"]["version"])
    assert record.versions(["deformation"]) == {"deformation": f"{number}+01234567"}
    assert "The probe of deformation failed" in capsys.readouterr().err
    monkeypatch.setattr(record, "probed", lambda names: {name: record.read()[name]["probe"] for name in names})
    assert record.versions(["deformation"]) == {"deformation": number}  # asked again
    monkeypatch.setattr(record, "probed", None)  # and then remembered
    assert record.versions(["deformation"]) == {"deformation": number}


def test_the_rate_by_which_minutes_are_told_is_that_of_the_logs(root) -> None:
    """`long_training` says 1.0e5 pixels a second for all together and 2.4e5 for the registration alone."""
    mini, folder = presets.load("mini"), root / "results" / "mini" / "weights"
    for name, recipe, rate in (("ours", mini.recipe, 1.0e5), ("registration", mini.recipe.start, 2.4e5)):
        minutes = pd.read_csv(folder / f"{name}.csv")["seconds"].sum() / 60
        assert recipe.minutes() * PIXELS_PER_SECOND / minutes == pytest.approx(rate, rel=0.05)
