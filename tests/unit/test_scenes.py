"""Pairs of one scene count as one: the groups are whole, and hold all near-duplicates of the test pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fusionlib import data
from fusionlib.data import open_set
from fusionlib.data.scenes import scenes_of
from fusionlib.data.sets import Pair, PairSet
from fusionlib.metrics.statistics import interval, sign_flips

SIDE, LEAST = 64, 0.8  # of the thumbnails that are compared, and their smallest correlation


def near_duplicates(pairs: PairSet) -> list[tuple[str, str]]:
    """Pairs of names whose thumbnails, infrared and visible together, correlate by at least `LEAST`.

    Args:
        pairs: of one size for all.
    """
    seen = []
    for _, *images in pairs.one_by_one():
        small = [F.interpolate(image, (SIDE, SIDE), mode="area").flatten() for image in images]
        seen.append(torch.cat([(each - each.mean()) / (each.std(correction=0) + 1e-6) for each in small]))
    thumbnails = torch.stack(seen) / (2 * SIDE**2) ** 0.5
    first, second = (thumbnails @ thumbnails.T >= LEAST).triu(1).nonzero().T.tolist()
    return [(pairs.names[one], pairs.names[two]) for one, two in zip(first, second, strict=True)]


def test_every_pair_of_a_group_is_known_and_stands_in_one_group_only(root: Path) -> None:
    known = json.loads((root / "data" / "scenes.json").read_text(encoding="utf-8"))
    members = [pair for name, groups in known.items() if name != "about" for group in groups for pair in group]
    assert len(members) == len(set(members)) and all(len(g) > 1 for n, gs in known.items() if n != "about" for g in gs)
    for name, groups in known.items():
        if name != "about":
            there = {pair for split in data.splits(name).values() for pair in split}
            assert {pair for group in groups for pair in group} <= there


def test_slices_of_one_head_are_one_scene() -> None:
    names = data.splits("open_ms")["test"]
    assert len(names) > 10 and set(scenes_of(names)) == {name.rpartition("_z")[0] for name in names}
    assert scenes_of(["to_zoo", "to_zebra"]) == ["to_zoo", "to_zebra"]


def test_six_frames_of_one_street_are_one_scene() -> None:
    assert len(set(scenes_of([f"0000{number}" for number in range(6)]))) == 1
    assert scenes_of(["somebody's own"]) == ["somebody's own"]


def test_more_pairs_of_one_scene_are_no_more_evidence() -> None:
    scenes = ["a", "b", "c", "d"]
    values = [0.3, 0.1, 0.2, 0.4]
    assert interval(values * 5, scenes * 5) == pytest.approx(interval(values, scenes), abs=1e-9)
    assert sign_flips(values * 5, scenes * 5) == sign_flips(values, scenes) > 0.05 > sign_flips(values * 5)


def test_near_duplicates_are_found() -> None:
    drawn = open_set("synthetic", "test", 64, count=3)
    first, second = drawn[0], drawn[1]
    again = Pair("again", first.ir * 0.9, first.vi, first.rgb)
    both = {"first": first, "second": second, "again": again}
    assert near_duplicates(PairSet(list(both), both.__getitem__)) == [("first", "again")]


@pytest.mark.data
@pytest.mark.parametrize("name", ["RoadScene", "M3FD", "TNO", "LLVIP"])
def test_no_near_duplicate_of_the_test_pairs_counts_as_another_scene(name: str) -> None:
    if not (data.data_root() / name).is_dir():
        pytest.skip(f"{name} is not here")
    for one, other in near_duplicates(open_set(name, "test", 64)):
        assert scenes_of([one]) == scenes_of([other]), (one, other)
