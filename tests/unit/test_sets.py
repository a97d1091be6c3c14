"""Pairs and sets: two folders match by name, sets open by name and split, whatever is missing is named."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import noise, write
from PIL import Image

from fusionlib.data import sets
from fusionlib.data.drawn.synthetic import scene
from fusionlib.data.sets import Pair, PairSet, open_folders, open_set, read_pair
from fusionlib.support.files import InputError

# Pairs of (nearly) the same scene, found by eye; a split that separates them would test on what it trained on.
SAME_SCENE = [
    ("FLIR_09465", "FLIR_video_02829"),
    ("FLIR_09437", "FLIR_video_02223"),
    ("FLIR_09488", "FLIR_video_03374"),
    ("FLIR_09416", "FLIR_video_01876"),
    ("FLIR_06099", "FLIR_06128"),
    ("FLIR_07190", "FLIR_07206"),
    ("FLIR_04929", "FLIR_05064"),
    ("FLIR_07119", "FLIR_07125"),
    ("FLIR_07166", "FLIR_07176"),
    ("FLIR_08202", "FLIR_08220", "FLIR_08248", "FLIR_08284"),
    ("FLIR_08756", "FLIR_08768"),
    ("FLIR_00594", "FLIR_00603"),
]

real = os.environ.get("FUSIONLIB_DATA", "")
needs_roadscene = pytest.mark.skipif(
    not (Path(real) / "RoadScene").is_dir() or not real, reason="RoadScene is not here"
)


def folders(root: Path, names: str, shape: tuple[int, int] = (40, 48)) -> tuple[Path, Path]:
    for name in names.split():
        write(root / "ir" / f"{name}.png", noise(*shape))
        write(root / "vi" / f"{name}.png", noise(*shape, 3))
    return root / "ir", root / "vi"


# --- two images, two folders ------------------------------------------------------------------------------------------


def test_a_pair_of_two_sizes_is_refused_with_both(tmp_path: Path) -> None:
    ir, vi = write(tmp_path / "i.png", noise(40, 48)), write(tmp_path / "v.png", noise(50, 60, 3))
    with pytest.raises(InputError, match=r"i\.png is 48x40 and .*v\.png is 60x50 pixels: crop or resize"):
        read_pair(ir, vi, size=64)


def test_a_pair_is_resized_and_its_luma_is_that_of_its_colour(tmp_path: Path) -> None:
    ir, vi = write(tmp_path / "i.png", noise(40, 48)), write(tmp_path / "v.png", noise(40, 48, 3))
    pair = read_pair(ir, vi, size=(64, 96), name="scene")
    assert pair.name == "scene"
    small = Image.open(vi).resize((96, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(255 * pair.ir[0], np.asarray(Image.open(ir).resize((96, 64), Image.Resampling.BICUBIC)))
    assert np.array_equal(255 * pair.rgb.permute(1, 2, 0), np.asarray(small))
    assert np.array_equal(255 * pair.vi[0], np.asarray(small.convert("L")))
    assert read_pair(ir, vi, size=33).ir.shape == (1, 33, 33)
    with pytest.raises(InputError, match="8x64 is too small"):
        read_pair(ir, vi, size=(64, 8))


def test_folders_match_by_stem_whatever_the_extension(tmp_path: Path) -> None:
    ir_dir, vi_dir = folders(tmp_path, "c a")
    write(ir_dir / "b.tif", noise(40, 48))
    write(vi_dir / "b.JPG", noise(40, 48, 3))
    (vi_dir / "Thumbs.db").write_bytes(b"\0")
    (ir_dir / "._a.png").write_bytes(b"\0")
    (ir_dir / "notes.txt").write_text("not an image")
    pairs = open_folders(ir_dir, vi_dir)
    assert pairs.names == ["a", "b", "c"]
    assert [pair.name for pair in pairs] == pairs.names
    assert [pair.ir.shape for pair in open_folders(ir_dir, vi_dir, size=32)] == [(1, 32, 32)] * 3


def test_a_missing_twin_is_named_with_its_folder(tmp_path: Path) -> None:
    ir_dir, vi_dir = folders(tmp_path, "a b c d e f")
    (vi_dir / "b.png").unlink()
    with pytest.raises(InputError, match=r"No image in .*vi goes with b of .*ir: give both folders"):
        open_folders(ir_dir, vi_dir)
    for name in "cdef":
        (vi_dir / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"b, c, d and 2 more of .*ir"):
        open_folders(ir_dir, vi_dir)
    with pytest.raises(InputError, match=r"No image in .*vi goes with b, c, d and 2 more of .*ir"):
        open_folders(vi_dir, ir_dir)


def test_folders_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    ir_dir, vi_dir = folders(tmp_path, "a")
    with pytest.raises(InputError, match="gone is not a folder"):
        open_folders(ir_dir, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no image"):
        open_folders(tmp_path / "empty", vi_dir)
    write(ir_dir / "a.bmp", noise(40, 48))
    with pytest.raises(InputError, match=r"has both a\.bmp and a\.png: remove one"):
        open_folders(ir_dir, vi_dir)


# --- sets -------------------------------------------------------------------------------------------------------------


def test_a_pair_is_read_once_and_cannot_be_spoilt(tmp_path: Path) -> None:
    ir_dir, vi_dir = folders(tmp_path, "a b")
    pairs = open_folders(ir_dir, vi_dir)
    first = pairs[0]
    shutil.rmtree(ir_dir)
    first_again = pairs[-2]
    assert torch.equal(first.ir, first_again.ir) and torch.equal(first.rgb, first_again.rgb)
    first.ir.zero_()
    assert torch.equal(pairs[0].ir, first_again.ir)
    assert [pair.name for pair in pairs[:1]] == ["a"] and pairs[2:] == []
    with pytest.raises(InputError, match="A batch needs a pair"):
        pairs.stack([])
    with pytest.raises(InputError, match=r"b\.png does not exist"):
        pairs[1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def load(name: str) -> Pair:
        reads.append(name)
        return Pair(name, torch.zeros(1, 32, 32), torch.zeros(1, 32, 32), torch.zeros(3, 32, 32))

    monkeypatch.setattr(sets, "CACHE_BYTES", 2 * 5 * 32 * 32)
    pairs = PairSet("abc", load)
    for _ in range(3):
        assert len(list(pairs)) == 3
    assert (reads.count("a"), reads.count("b"), reads.count("c")) == (1, 1, 3)


def test_pairs_of_one_size_make_a_batch(tmp_path: Path) -> None:
    ir_dir, vi_dir = folders(tmp_path, "a b")
    pairs = open_folders(ir_dir, vi_dir)
    ir, vi = pairs.stack([1, 0, 1])
    assert ir.shape == vi.shape == (3, 1, 40, 48)
    assert torch.equal(vi[1], pairs[0].vi) and torch.equal(ir[2], pairs[1].ir)
    folders(tmp_path, "c", shape=(50, 60))
    with pytest.raises(InputError, match=r"a is 48x40 and c is 60x50 pixels: open the set with size="):
        open_folders(ir_dir, vi_dir).stack(range(3))


def roadscene(root: Path, names: list[str]) -> None:
    for name in names:
        write(root / "RoadScene" / "cropinfrared" / f"{name}.jpg", noise(40, 48))
        write(root / "RoadScene" / "crop_LR_visible" / f"{name}.jpg", noise(40, 48, 3))


def test_a_set_opens_by_name_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path))
    members = sets.splits("roadscene")
    roadscene(tmp_path, members["val"] + members["test"])
    assert open_set("RoadScene", "val").names == members["val"]
    assert open_set("roadscene", "TEST", size=64)[0].vi.shape == (1, 64, 64)
    assert open_set("ROADSCENE").names == sorted(members["val"] + members["test"])
    assert open_set("roadscene", "val", count=2).names == members["val"][:2]
    missing = f"40 of the 40 pairs of RoadScene external, such as {members['external'][0]}, .*data fetch roadscene`"
    with pytest.raises(InputError, match=missing):
        open_set("RoadScene", "external")


@pytest.mark.parametrize(
    "layout", ["M3FD/ir M3FD/vi", "M3FD/Ir M3FD/Vis", "M3FD/M3FD_Detection/Ir M3FD/M3FD_Detection/Vis"]
)
def test_m3fd_is_taken_as_fetched_and_as_published(tmp_path: Path, layout: str) -> None:
    ir, vi = layout.split()
    write(tmp_path / ir / "00000.png", noise(40, 48))
    write(tmp_path / vi / "00000.png", noise(40, 48, 3))
    assert open_set("m3fd", root=tmp_path).names == ["00000"]


def test_unknown_or_absent_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no set 'kaist': choose one of RoadScene, M3FD, TNO, LLVIP, M3FD_full, synthetic"
    ):
        open_set("kaist")
    with pytest.raises(InputError, match=r"no split 'dev': choose one of external, test, train, val, all"):
        open_set("RoadScene", "dev")
    for name in ("synthetic", "TNO", "open_ms"):
        for count in (0, -1):
            with pytest.raises(InputError, match=f"A set of {count} pairs is none: give a count of 1 or more"):
                open_set(name, count=count)
    with pytest.raises(
        InputError, match=r"TNO is not in .*: run `python -m fusionlib data fetch tno`, or set FUSIONLIB_DATA"
    ):
        open_set("TNO", root=tmp_path)


def test_drawn_scenes_are_a_set_like_any_other() -> None:
    pairs = open_set("Synthetic", "val", size=(32, 48), count=2)
    for number, pair in enumerate(pairs):
        drawn = scene(("val", 0, number), 32, 48)
        assert pair.name == f"synthetic_val_000{number}" and torch.equal(pair.boxes, drawn.boxes)
        assert all(torch.equal(getattr(pair, image), getattr(drawn, image)) for image in ("ir", "vi", "rgb"))
    assert len(open_set("synthetic")) == sum(sets.SYNTHETIC_SCENES.values())
    assert open_set("synthetic", "test").names[0] == "synthetic_test_0000"


def test_the_data_root_follows_the_environment(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path))
    assert sets.data_root() == tmp_path
    monkeypatch.delenv("FUSIONLIB_DATA")
    assert sets.data_root() == root / "data"


# --- committed facts --------------------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_keep_scenes_together() -> None:
    members = sets.splits("roadscene")
    assert {split: len(names) for split, names in members.items()} == {
        "train": 152,
        "test": 18,
        "val": 11,
        "external": 40,
    }
    assert len(set().union(*members.values())) == 221
    for one, other in itertools.combinations(members.values(), 2):
        assert not set(one) & set(other)
    split_of = {name: split for split, names in members.items() for name in names}
    for group in SAME_SCENE:
        assert len({split_of[name] for name in group} - {"external"}) == 1, group


def test_every_pair_has_a_homography_onto_its_crop(root: Path) -> None:
    text = (root / "data" / "homographies.json").read_text(encoding="utf-8")
    assert len(text) < 200_000
    facts = json.loads(text)
    assert facts.keys() == set().union(*sets.splits("roadscene").values())
    for name, fact in facts.items():
        x, y, w = np.array(fact["H"]) @ [319.5, 255.5, 1]
        assert 0 < x / w < fact["w"] and 0 < y / w < fact["h"], name


@needs_roadscene
@pytest.mark.data
def test_roadscene_is_read_at_its_own_size() -> None:
    pairs = open_set("RoadScene", root=real)
    assert len(pairs) == 221
    facts = json.loads((sets.FACTS / "homographies.json").read_text(encoding="utf-8"))
    for pair in map(pairs.__getitem__, range(0, 221, 20)):
        assert pair.ir.shape == pair.vi.shape == (1, facts[pair.name]["h"], facts[pair.name]["w"])


def test_a_pair_can_be_changed_without_changing_its_set() -> None:
    drawn = open_set("synthetic", "test", 64, count=1)
    before = drawn[0]
    for tensor in (drawn[0].boxes, drawn[0].ir, drawn[0].rgb):
        tensor.zero_()
    assert len(before.boxes) and torch.equal(drawn[0].boxes, before.boxes) and torch.equal(drawn[0].ir, before.ir)


def test_a_folder_named_like_an_image_is_no_image(tmp_path: Path) -> None:
    for kind in ("ir", "vi"):
        (tmp_path / kind / "sub.png").mkdir(parents=True)
        write(tmp_path / kind / "a.png", noise(40, 48))
    assert open_folders(tmp_path / "ir", tmp_path / "vi").names == ["a"]
