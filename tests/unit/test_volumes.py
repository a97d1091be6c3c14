"""Brain volumes: whatever way they are stored, a slice shows the same; what cannot be used is told in one sentence."""

from __future__ import annotations

import gzip
import itertools
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from fusionlib import data
from fusionlib.data import open_set, volumes
from fusionlib.support.files import InputError

SHAPE = (60, 70, 8)  # right-left, back-front, up, in voxels of the phantom
FIRST, LAST = 2, 6  # heights with enough brain

real = Path(os.environ.get("FUSIONLIB_DATA") or "nowhere")
needs_open_ms = pytest.mark.skipif(not (real / "open_ms").is_dir(), reason="open_ms is not here")
needs_brats_format = pytest.mark.skipif(not (real / "brats_format").is_dir(), reason="brats_format is not here")


def phantom(scale: float = 1.0) -> np.ndarray:
    """Head (60, 70, 8) in RAS+: a block of brain with a bright spot at its left front, a dim one at its right back."""
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[5:55, 5:65, FIRST : LAST + 1] = 100
    volume[5:55, 5:45, 1] = 100  # 2000 pixels, which is not more than 2000
    volume[10:16, 56:62, FIRST : LAST + 1] = 200
    volume[44:52, 10:14, FIRST : LAST + 1] = 50
    return volume * scale


def save(path: Path, volume: np.ndarray, axes: str = "RAS", affine: np.ndarray | None = None) -> Path:
    """Write a volume given in RAS+ as NIfTI, with its axes stored in another order and direction if wished."""
    affine = np.eye(4) if affine is None else affine
    if axes != "RAS":
        turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
        affine, volume = affine @ inv_ornt_aff(turn, volume.shape), nibabel.apply_orientation(volume, turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def two(folder: Path, t1: np.ndarray, t2: np.ndarray | None = None) -> tuple[Path, Path]:
    return save(folder / "t1.nii", t1), save(folder / "t2.nii", phantom() if t2 is None else t2)


def brats(root: Path, *numbers: int, suffix: str = ".nii.gz", folder: str = "MICCAI_BraTS2020_TrainingData") -> None:
    """Fabricate cases of BraTS2020 in the layout of its archive; T2 is the phantom inverted within the brain."""
    for number in numbers:
        case = f"BraTS20_Training_{number:03d}"
        for name, volume in (("t1", phantom()), ("t2", np.where(phantom() > 0, 300 - phantom(), 0))):
            save(root / "BraTS2020" / folder / case / f"{case}_{name}{suffix}", volume, "LPS")
        (root / "BraTS2020" / folder / "name_mapping.csv").write_text("Grade\n")


# --- one subject ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "ASL", "SRP"])
def test_front_is_up_and_left_is_right_however_it_is_stored(tmp_path: Path, axes: str) -> None:
    paths = [save(tmp_path / f"{name}.nii.gz", phantom(), axes) for name in ("t1", "t2")]
    subject = volumes.read_subject(*paths)
    assert subject.heights == tuple(range(FIRST, LAST + 1))
    picture = subject.t1[0]
    rows, columns = np.nonzero(picture == 255)
    assert len(rows) == 36 and rows.max() < 120 < columns.min()  # the patient's left front: at the top right
    rows, columns = np.nonzero(picture == 64)  # half of 100, where 200 is white
    assert len(rows) == 32 and columns.max() < 120 < rows.min()
    # exactly: 60 and 70 voxels in the middle of 240 pixels, the last voxel of both axes first
    expected = np.pad(phantom()[::-1, ::-1, FIRST].T, ((85, 85), (90, 90)))
    assert np.array_equal(picture, np.round(expected * 1.275))


def test_a_slice_counts_if_it_has_enough_brain_in_both(tmp_path: Path) -> None:
    t2 = phantom()
    t2[:, 30:, LAST] = 0
    assert volumes.read_subject(*two(tmp_path / "a", phantom(), t2)).heights == (2, 3, 4, 5)
    assert volumes.read_subject(*two(tmp_path / "b", t2, phantom())).heights == (2, 3, 4, 5)
    assert volumes.read_subject(*two(tmp_path / "b", t2, phantom()), every=2).heights == (2, 4)


def test_each_volume_has_one_scale_and_no_negative_values(tmp_path: Path) -> None:
    """The brightest percentile counts the brain alone, the whole of it, and few stray voxels do not move it."""
    t1 = np.linspace(1, 1000, 60 * 70 * 8).reshape(SHAPE).astype(np.float32)
    t1[:5] = -300  # what resampling leaves at edges
    t1[30, 30, 3] = 1e6
    subject = volumes.read_subject(*two(tmp_path, t1, phantom(7)))
    white = np.percentile(t1[t1 > 0], 99.5)
    shown = subject.t1[subject.heights.index(3), ::-1, ::-1].T[90:150, 85:155]  # back in the order of the volume
    expected = np.round(np.clip(t1[..., 3] / white, 0, 1) * 255)
    assert np.abs(shown - expected).max() <= 1 and (shown == expected).mean() > 0.999
    assert (shown[:5] == 0).all() and shown[30, 30] == 255
    assert np.array_equal(subject.t2[1], volumes.read_subject(*two(tmp_path / "dim", t1, phantom())).t2[1])


@pytest.mark.parametrize(
    ("length", "kept", "shown"),
    [(240, (0, 240), (0, 240)), (217, (0, 217), (11, 228)), (255, (7, 247), (0, 240)), (60, (0, 60), (90, 150))],
)
def test_slices_are_framed_in_the_middle(tmp_path: Path, length: int, kept: tuple, shown: tuple) -> None:
    volume = np.zeros((length, 70, 3), dtype=np.float32)
    middle = slice(length // 2 - 25, length // 2 + 25)
    volume[middle, 5:65, 1] = 1 + np.arange(50)[:, None]
    picture = volumes.read_subject(*two(tmp_path, volume, volume)).t1[0]
    part = np.round(np.minimum(volume[::-1, ::-1, 1] / 50, 1) * 255).T
    assert np.array_equal(picture[85:155, slice(*shown)], part[:, slice(*kept)])
    assert np.count_nonzero(picture) == 50 * 60


def test_integers_with_a_scale_are_read_as_their_values(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(phantom().astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, tmp_path / "t1.nii")
    subject = volumes.read_subject(tmp_path / "t1.nii", save(tmp_path / "t2.nii", phantom(3)))
    assert np.array_equal(subject.t1, subject.t2)


# --- what cannot be used ----------------------------------------------------------------------------------------------


def refused(paths: tuple[Path, Path], *parts: str) -> None:
    """Reading fails, with a single sentence in which these parts occur in this order."""
    with pytest.raises(InputError) as failure:
        volumes.read_subject(*paths)
    assert re.search(".*".join(parts), str(failure.value)), failure.value
    assert str(failure.value).endswith(".") and ". " not in str(failure.value) and "\n" not in str(failure.value)


def test_volumes_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    paths = two(tmp_path, phantom(), phantom()[:, :-1])
    refused(paths, r"t1\.nii has 60x70x8 voxels and", r"t2\.nii has 60x69x8: give volumes that were registered")
    moved = np.eye(4)
    moved[0, 3] = 4
    refused((paths[0], save(tmp_path / "m.nii", phantom(), affine=moved)), "do not lie in the same place", "registered")


@pytest.mark.parametrize("shape", [(60, 70), (60, 70, 8, 2)])
def test_a_volume_has_three_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    paths = two(tmp_path, np.ones(shape, dtype=np.float32))
    refused(paths, rf"t1\.nii has {len(shape)} dimensions \({'x'.join(map(str, shape))}\): give a volume of three")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    broken = phantom()
    broken[0, 0, 0] = value
    refused(two(tmp_path, phantom(), broken), r"t2\.nii holds NaN or infinite values: replace them by 0")


def test_files_that_are_no_volumes_are_refused(tmp_path: Path) -> None:
    good = save(tmp_path / "good.nii.gz", np.random.default_rng(0).random(SHAPE, dtype=np.float32) + 1)
    refused((tmp_path / "gone.nii.gz", good), r"gone\.nii\.gz does not exist: check its name")
    packed = good.read_bytes()
    plain = gzip.decompress(packed)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    contents = {
        "cut.nii.gz": packed[: len(packed) // 2],
        "damaged.nii.gz": bytes(damaged),
        "plain.nii.gz": plain,
        "cut.nii": plain[: len(plain) // 2],
        "empty.nii": b"",
        "page.nii.gz": b"<html>Not found</html>" * 50,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        refused(
            (good, tmp_path / name), rf"{re.escape(name)} cannot be read as a NIfTI volume \(.+\): fetch or convert"
        )


def test_a_volume_without_brain_is_refused(tmp_path: Path) -> None:
    for name, volume in (("zero", phantom(0)), ("small", phantom() * (phantom() > 150))):
        refused(two(tmp_path / name, phantom(), volume), r"No axial slice of .*t1\.nii and", "more than 2000 pixels of")


@pytest.mark.parametrize("outside", [0.0, -1.0])
def test_a_normalised_volume_is_refused(tmp_path: Path, outside: float) -> None:
    """Half of a z-scored brain is below 0 and would be black."""
    texture = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    refused(
        two(tmp_path, np.where(phantom() > 0, texture, outside)),
        r"t1\.nii has \d+ % of its values below 0, as after a z-score: give the intensities as they were measured",
    )


def test_a_volume_without_a_background_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"t1\.nii has no background of 0, .*: give a skull-stripped volume"):
        volumes.read_subject(*two(tmp_path, phantom() + 5))


def test_other_scales_and_larger_heads_are_refused(tmp_path: Path) -> None:
    coarse = [save(tmp_path / f"{name}.nii", phantom(), affine=np.diag([0.5, 0.9375, 3, 1])) for name in ("t1", "t2")]
    refused(coarse, r"t1\.nii has pixels of 0\.5x0\.938 mm in its axial slices: resample it to 1 mm")
    thick = [save(tmp_path / f"{name}.nii", phantom(), affine=np.diag([1, 1, 3, 1])) for name in ("t1", "t2")]
    assert volumes.read_subject(*thick).heights == tuple(range(FIRST, LAST + 1))
    for axis in (0, 1):
        damaged = nibabel.Nifti1Image(phantom(), np.eye(4))
        damaged.header["pixdim"][1 + axis] = np.nan
        (tmp_path / "t1.nii").write_bytes(damaged.to_bytes())
        refused([tmp_path / "t1.nii"] * 2, r"pixels of (nanx1|1xnan) mm")
    huge = np.ones((250, 60, 3), dtype=np.float32)
    refused(two(tmp_path, huge, huge), r"t1\.nii has brain beyond the middle 240x240 mm: centre or crop it")


# --- the sets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("folder", ["MICCAI_BraTS2020_TrainingData", "."])
def test_brats2020_opens_as_its_archive_unpacks(tmp_path: Path, suffix: str, folder: str) -> None:
    brats(tmp_path, 1, 5, 10, 369, suffix=suffix, folder=folder)
    assert open_set("brats2020", "train", root=tmp_path).names == [f"BraTS20_Training_{n}_z005" for n in ("001", "369")]
    assert open_set("BraTS2020", "val", root=tmp_path).names == ["BraTS20_Training_005_z005"]
    assert open_set("BraTS2020", "test", root=tmp_path).names == ["BraTS20_Training_010_z005"]
    assert len(open_set("BraTS2020", root=tmp_path)) == 4
    (pair,) = open_set("BraTS2020", "test", root=tmp_path)
    case = tmp_path / "BraTS2020" / folder / "BraTS20_Training_010"
    subject = volumes.read_subject(*[case / f"{case.name}_{name}{suffix}" for name in ("t1", "t2")])
    assert np.array_equal(255 * pair.vi[0], subject.t1[3]) and np.array_equal(255 * pair.ir[0], subject.t2[3])
    assert torch.equal(pair.rgb, pair.vi.expand(3, -1, -1)) and pair.boxes is None
    small = open_set("BraTS2020", "test", size=(64, 96), root=tmp_path)[0]
    assert small.ir.shape == small.vi.shape == (1, 64, 96) and small.rgb.shape == (3, 64, 96)


def test_the_splits_of_brats2020_part_its_cases() -> None:
    cases = [f"BraTS20_Training_{number:03d}" for number in range(1, 370)]
    splits = [volumes.split_of(case) for case in cases]
    assert {split: splits.count(split) for split in volumes.SPLITS} == {"train": 296, "val": 37, "test": 36}


def test_no_more_is_read_than_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subjects beyond `count` stay closed, and a volume is read once, whatever the order of the slices."""
    brats(tmp_path, 1, 2, 3)
    reads: list[str] = []
    read = volumes.read_subject

    def counted(t1: Path, t2: Path, every: int) -> volumes.Subject:
        reads.append(t1.parent.name[-3:])
        return read(t1, t2, every=1)

    monkeypatch.setattr(volumes, "read_subject", counted)
    pairs = open_set("BraTS2020", "train", root=tmp_path, count=7)
    assert reads == ["001", "002"] and [name[-8:] for name in pairs.names[4:]] == ["001_z006", "002_z002", "002_z003"]
    for index in (0, 6, 1, 5, 2):
        assert pairs[index].name == pairs.names[index]
    assert reads == ["001", "002"]


def test_a_missing_set_gives_the_steps_to_get_it(tmp_path: Path) -> None:
    where = re.escape(str(tmp_path))
    steps = rf"register with the BraTS2020 organisers .* unpack it as {where}/BraTS2020/MICCAI_BraTS2020_TrainingData"
    with pytest.raises(InputError, match=rf"^BraTS2020 is not in {where}: {steps}, .* or set FUSIONLIB_DATA to"):
        open_set("BraTS2020", "train", root=tmp_path)
    with pytest.raises(
        InputError, match=rf"^open_ms is not in {where}: run `python -m fusionlib data fetch open_ms`, or"
    ):
        open_set("open_ms", root=tmp_path)
    with pytest.raises(
        InputError, match=rf"^brats_format is not in {where}: run `python -m .* fetch brats_format`, or"
    ):
        open_set("brats_format", "test", root=tmp_path)
    with pytest.raises(InputError, match="BraTS2020 has no split 'external': choose one of train, val, test, all"):
        open_set("BraTS2020", "external", root=tmp_path)
    brats(tmp_path, 1)
    with pytest.raises(InputError, match=r"^every subject of BraTS2020 val is not in .*: register with"):
        open_set("BraTS2020", "val", root=tmp_path)


def test_a_missing_modality_or_subject_is_named(tmp_path: Path) -> None:
    brats(tmp_path, 1, 2)
    case = tmp_path / "BraTS2020" / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_002"
    (case / f"{case.name}_t2.nii.gz").unlink()
    expected = rf"{case} has neither {case.name}_t2\.nii\.gz nor {case.name}_t2\.nii: put that volume there"
    with pytest.raises(InputError, match=expected):
        open_set("BraTS2020", "train", root=tmp_path, count=1)
    for name in ("T1", "T2"):
        save(tmp_path / "open_ms" / "patient07" / f"{name}.nii.gz", phantom())
    with pytest.raises(
        InputError, match=r"^patient19 of open_ms train is not in .*: run `python -m .* fetch open_ms`\.$"
    ):
        open_set("open_ms", "train", root=tmp_path)
    assert open_set("open_ms", root=tmp_path).names == [f"patient07_z00{z}" for z in range(FIRST, LAST + 1)]


def test_a_listed_slice_that_the_volume_lacks_is_named(tmp_path: Path) -> None:
    for name in ("T1", "T2"):
        save(tmp_path / "open_ms" / "patient26" / f"{name}.nii", phantom())
    pairs = open_set("open_ms", "test", root=tmp_path)
    with pytest.raises(InputError, match=r"T1\.nii has too little brain at z=35 to be patient26_z035: fetch"):
        pairs[0]


def test_the_committed_splits_part_subjects_with_a_gap_before_val() -> None:
    members = data.splits("open_ms")
    assert {split: len(names) for split, names in members.items()} == {"train": 188, "val": 20, "test": 21}
    for one, other in itertools.combinations(members.values(), 2):
        assert not set(one) & set(other)
    subjects = {split: {name.split("_")[0] for name in names} for split, names in members.items()}
    assert subjects == {"train": {"patient07", "patient19"}, "val": {"patient19"}, "test": {"patient26"}}
    heights = {split: [int(n[-3:]) for n in members[split] if n.startswith("patient19")] for split in ("train", "val")}
    assert heights["val"] == list(range(68, 88))
    assert min(abs(a - b) for a in heights["train"] for b in heights["val"]) == 6  # five between them belong to nobody
    assert {split: len(names) for split, names in data.splits("brats_format").items()} == {"test": 24}
    cases = [name.rpartition("_z")[0] for name in data.splits("brats_format")["test"]]
    assert {case: cases.count(case) for case in cases} == {"TCGA-DU-7294": 12, "TCGA-FG-6692": 12}


@needs_open_ms
@pytest.mark.data
def test_open_ms_has_the_slices_of_its_lists() -> None:
    names = open_set("open_ms", root=real).names
    members = data.splits("open_ms")
    assert set(names) > set().union(*members.values())
    mine = [name for name in names if name.startswith("patient26")]
    assert members["test"] == mine[2::5]
    left_out = set(names) - set().union(*members.values(), mine)
    assert sorted(left_out) == [f"patient19_z{z:03d}" for z in (*range(63, 68), *range(88, 93))]


@needs_open_ms
@pytest.mark.data
def test_real_slices_show_one_brain_in_two_contrasts() -> None:
    pairs = open_set("open_ms", "test", size=240, root=real)
    for pair in (pairs[8], pairs[12], pairs[16]):
        brain = (pair.vi > 0) & (pair.ir > 0)
        assert pair.vi.shape == (1, 240, 240) and 10_000 < brain.sum() < 25_000
        assert ((pair.vi > 0) ^ (pair.ir > 0)).sum() < 0.01 * brain.sum()
        correlation = torch.corrcoef(torch.stack([pair.vi[brain], pair.ir[brain]]))[0, 1]
        assert -0.95 < correlation < -0.4  # fluid is dark in T1 and bright in T2
        assert 0.95 <= pair.ir.max() <= 1 and 0.3 < pair.vi[brain].mean() < 0.9
        rows, columns = brain[0].nonzero().T
        assert rows.max() - rows.min() > columns.max() - columns.min()  # a head is longer than wide


@needs_brats_format
@pytest.mark.data
def test_the_tumour_cases_have_the_slices_of_their_list() -> None:
    names = open_set("brats_format", root=real).names
    assert len(names) == 242 and set(data.splits("brats_format")["test"]) < set(names)
