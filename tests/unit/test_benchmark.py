"""The benchmark: what `make` writes, that its bytes do not depend on the machine, and how a method is scored."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image

from fusionlib import metrics
from fusionlib.__main__ import main
from fusionlib.deformation import misalign_by_key, sample_field, valid_mask, warp
from fusionlib.experiments.benchmark import bytes_of, entries, fields, leaderboard, triples
from fusionlib.experiments.benchmark import make as make_module
from fusionlib.experiments.benchmark import score as score_module
from fusionlib.experiments.benchmark.folder import MANIFEST, open_benchmark, part_digest
from fusionlib.experiments.benchmark.guide import EXAMPLES
from fusionlib.experiments.benchmark.make import make
from fusionlib.experiments.benchmark.score import score
from fusionlib.support import files
from fusionlib.support.files import InputError, sha256


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn scenes at two levels."""
    return make(["drawn"], tmp_path_factory.mktemp("benchmark") / "made", levels=["medium", "zero"], count=2)


@pytest.fixture(scope="module")
def fused(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The average of what a method is given, and no registration as its field."""
    out = tmp_path_factory.mktemp("fused")
    for path in sorted((made / "ir").iterdir()):
        ir, vi = (pixels(made / kind / path.name, "L").astype(int) for kind in ("ir", "vi"))
        Image.fromarray(((ir + vi + 1) // 2).astype(np.uint8)).save(out / path.name)
        np.savez(out / f"{path.stem}.npz", phi=np.zeros((2, *ir.shape), np.float32))
    return out


def pixels(path: Path, mode: str | None = None) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert(mode) if mode else image)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def beside(folder: Path) -> list[str]:
    """What lies in a folder, but for the empty files of locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def error(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


# --- fields and bytes


def test_fields_are_those_of_the_tables_to_a_part_of_a_pixel() -> None:
    image = torch.rand(1, 1, 96, 128)
    level, key = "medium", ("test", 0, "a pair")
    psi = fields.quantised(sample_field(level, 96, 128, key)[0].numpy())
    truth = misalign_by_key(image, level, [key])
    phi = fields.inverse(psi)
    assert np.abs(phi / fields.STEP - truth.phi_gt[0].numpy()).max() < 0.02
    assert (fields.inside(phi) == truth.valid[0, 0].numpy()).mean() > 0.999
    levels = (image * 255).round()
    moved = fields.move(levels[0, 0].numpy().astype(np.uint8), psi)
    exact = warp(levels, torch.from_numpy(psi / fields.STEP)[None].float())[0, 0].numpy()
    assert np.abs(moved - exact).max() <= 0.5 + 1e-3


def test_whole_shifts_and_no_shift_are_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    assert np.array_equal(fields.move(image, np.zeros((2, 20, 30), np.int64)), image)
    right = np.zeros((2, 20, 30), np.int64)
    right[0] = 3 * fields.STEP
    assert np.array_equal(fields.move(image, right)[:, :-3], image[:, 3:])
    assert np.array_equal(fields.inverse(right), -right)
    assert fields.inside(right).sum() == 20 * 27


@pytest.mark.parametrize("shape", [(1, 1), (40, 33), (200, 400, 3)])
def test_stored_pngs_and_arrays_are_read_as_they_were(shape, tmp_path) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    (tmp_path / "a.png").write_bytes(bytes_of.png(image))
    assert np.array_equal(pixels(tmp_path / "a.png"), image)
    flags = cv2.IMREAD_COLOR_RGB if image.ndim == 3 else cv2.IMREAD_GRAYSCALE
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), flags), image)
    (tmp_path / "a.npz").write_bytes(bytes_of.npz(phi=image, word=np.array("phi")))
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["phi"], image) and str(file["word"]) == "phi"


# --- make


def test_what_is_made(made: Path) -> None:
    benchmark = open_benchmark(made)
    assert [part.level for part in benchmark.parts.values()] == ["medium", "zero"]
    assert set(digests(made)) == {*benchmark.files, MANIFEST}
    boxes = json.loads((made / "boxes.json").read_text(encoding="utf-8"))
    for part in benchmark.parts.values():
        for case in part.cases:
            moved, aligned = (pixels(made / kind / f"{case}.png") for kind in ("ir", "aligned"))
            assert pixels(made / "vi" / f"{case}.png").shape == (256, 256, 3) and len(boxes[case])
            with np.load(made / "fields" / f"{case}.npz") as file:
                phi, valid = torch.from_numpy(file["phi"])[None], file["valid"]
            assert np.array_equal(valid, valid_mask(phi)[0, 0].numpy())
            back = warp(torch.from_numpy(moved.astype(np.float32))[None, None], phi)[0, 0].numpy()
            apart = np.abs(back - aligned)[valid].mean()
            if part.level == "zero":
                assert not phi.any() and valid.all() and np.array_equal(moved, aligned)
            else:
                assert apart < 0.4 * np.abs(moved.astype(float) - aligned)[valid].mean()


def test_the_examples_of_the_guide_apply_the_field_alike(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    case = next(iter(open_benchmark(made).parts["drawn_medium_256"].cases))
    ir = pixels(made / "ir" / f"{case}.png").astype(np.float32)
    results = []
    for name, code in EXAMPLES.items():
        assert f"```python\n{code}\n```" in (made / "README.md").read_text(encoding="utf-8"), name
        names = {"np": np, "cv2": cv2, "torch": torch, "F": F, "scipy": scipy, "ir": ir}
        exec(code.replace("CASE", case), names)
        results.append(np.asarray(names["aligned"]))
    with np.load(made / "fields" / f"{case}.npz") as file:
        mine = warp(torch.from_numpy(ir)[None, None], torch.from_numpy(file["phi"])[None])[0, 0].numpy()
    for result, atol in zip(results, (4.0, 0.02, 0.02), strict=True):  # OpenCV rounds places to 1/32 px
        assert np.abs(result - mine).max() < atol * 2 and np.abs(result - mine).mean() < atol / 8


PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX",
    "OPENBLAS_CORETYPE": "Prescott",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
}


def test_the_bytes_are_the_same_with_other_threads_and_instructions(made: Path, tmp_path: Path, root: Path) -> None:
    code = "import sys; from fusionlib.experiments.benchmark.make import make; "
    code += "make(['drawn'], sys.argv[1], levels=['medium', 'zero'], count=2)"
    place = {"PYTHONPATH": str(root)}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "again")],
        env=os.environ | PLAIN | place,
        check=True,
        capture_output=True,
    )
    assert digests(tmp_path / "again") == digests(made)


@pytest.mark.numeric
def test_the_digest_is_that_of_the_committed_entries(tmp_path: Path) -> None:
    """A machine on which other bytes come out is found here."""
    part = open_benchmark(make(["drawn"], tmp_path / "all", levels=["medium"])).parts["drawn_medium_256"]
    known = [each for each in entries.read(entries.FOLDER / "ours.json")["parts"] if each["part"] == part.name]
    assert [each["digest"] for each in known] == [part.digest]
    assert known[0]["scores"].keys() == set(part.cases.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["moon"], "There is no set 'moon'"),
        (["drawn", "--levels", "cameras"], "There is no level 'cameras'"),
        (["drawn", "--levels", "raw"], "raw frames are RoadScene's alone"),
    ],
)
def test_what_cannot_be_made(arguments, words, tmp_path, capsys) -> None:
    assert words in error(capsys, "benchmark", "make", *arguments, "-o", tmp_path / "new")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, -1])
def test_a_benchmark_of_no_pairs_cannot_be_made(count: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"A benchmark of {count} pairs is none: give a count of 1 or more"):
        make(["drawn"], tmp_path / "new", levels=["zero"], count=count)
    assert not any(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(made: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    assert "thesis.txt, which is no part" in error(capsys, "benchmark", "make", "drawn", "-o", tmp_path)
    assert "is a file" in error(capsys, "benchmark", "make", "drawn", "-o", tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_user_puts_beside_a_benchmark_is_not_lost(made: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(made, tmp_path / "made")
    (tmp_path / "made" / "fused").mkdir()
    assert "holds fused, which is no part" in error(capsys, "benchmark", "make", "drawn", "-o", tmp_path / "made")
    assert (tmp_path / "made" / "fused").is_dir()
    (tmp_path / "half" / "ir").mkdir(parents=True)
    assert "no complete benchmark" in error(capsys, "benchmark", "make", "drawn", "-o", tmp_path / "half")


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_the_folder_that_one_is_in_is_not_replaced(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert "the folder that you are in" in error(capsys, "benchmark", "make", "drawn", "-o", name)


def test_a_benchmark_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make(["drawn"], tmp_path / "made", levels=["zero"], count=1)
    before = digests(out)
    monkeypatch.setattr(fields, "inside", lambda phi: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(["drawn"], out, levels=["medium"], count=1)
    assert digests(out) == before and beside(tmp_path) == ["made"]


def test_an_interruption_between_old_and_new_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make(["drawn"], tmp_path / "made", levels=["zero"], count=1)
    before, rename = digests(out), Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == ".made.part":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", interrupted)
        make(["drawn"], out, levels=["medium"], count=1)
    assert digests(out) == before and beside(tmp_path) == ["made"]
    after = digests(make(["drawn"], out, levels=["medium"], count=1))
    assert after != before and beside(tmp_path) == ["made"]


def test_what_a_kill_has_left_is_no_obstacle(tmp_path: Path) -> None:
    out = make(["drawn"], tmp_path / "made", levels=["zero"], count=1)
    before = digests(out)
    shutil.copytree(out, tmp_path / ".made.old.part")  # killed while the old one was removed
    make(["drawn"], out, levels=["zero"], count=1)
    assert digests(out) == before and beside(tmp_path) == ["made"]
    out.rename(tmp_path / ".made.old.part")  # killed between the two renames
    with pytest.raises(InputError, match="Nothing is left to make"):
        make(["drawn"], out, levels=["raw"], count=1)
    make(["drawn"], out, levels=["zero"], count=1)
    assert digests(out) == before and beside(tmp_path) == ["made"]


@pytest.mark.parametrize("there", [True, False])
def test_behind_a_link_the_folder_is_replaced_and_the_link_stays(there: bool, tmp_path: Path) -> None:
    folder, link = tmp_path / "disk" / "made", tmp_path / "link"
    folder.parent.mkdir()
    if there:
        folder.mkdir()
    link.symlink_to(folder, target_is_directory=True)
    for _ in range(2):
        assert make(["drawn"], link, levels=["zero"], count=1) == link
        assert link.readlink() == folder and len(open_benchmark(folder).files) == 6
        assert beside(tmp_path) == ["disk", "link"] and beside(folder.parent) == ["made"]


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for out in (tmp_path / "one", tmp_path / "one" / "below"):
        assert "leads to itself" in error(capsys, "benchmark", "make", "drawn", "--count", "1", "-o", out)
    assert beside(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("shows", ["at once", "when it is renamed"])
def test_a_mount_point_cannot_be_replaced(shows: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "disk").mkdir()
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path == tmp_path / "disk":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return rename(path, target)

    if shows == "at once":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
        monkeypatch.setattr(make_module, "_write", None)
    monkeypatch.setattr(Path, "rename", busy)
    arguments = ("benchmark", "make", "drawn", "--count", "1", "--levels", "zero", "-o")
    assert "is a mount point, which cannot be replaced: give a folder inside it" in error(
        capsys, *arguments, tmp_path / "disk"
    )
    assert beside(tmp_path) == ["disk"] and beside(tmp_path / "disk") == []


def test_of_two_at_once_the_second_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, waiting = tmp_path / "made", threading.Event()
    monkeypatch.setattr(files.LOGGER, "info", lambda line: waiting.set())
    with ThreadPoolExecutor(2) as pool:
        with files.locked(out):
            runs = [pool.submit(make, ["drawn"], out, levels=["zero"], count=1) for _ in range(2)]
            assert waiting.wait(60) and beside(tmp_path) == []
        assert [run.result() for run in runs] == [out, out]
    assert set(digests(out)) == {*open_benchmark(out).files, MANIFEST} and beside(tmp_path) == ["made"]


def test_what_came_while_it_waited_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, waiting = tmp_path / "made", threading.Event()
    monkeypatch.setattr(files.LOGGER, "info", lambda line: waiting.set())
    with ThreadPoolExecutor(1) as pool:
        with files.locked(out):
            run = pool.submit(make, ["drawn"], out, levels=["zero"], count=1)
            assert waiting.wait(60)
            files.write_text(out / "thesis.txt", "years")
        with pytest.raises(InputError, match=r"thesis\.txt, which is no part"):
            run.result()
    assert beside(out) == ["thesis.txt"]


@pytest.mark.data
def test_sets_of_others_and_raw_frames(tmp_path: Path) -> None:
    root = os.environ.get("FUSIONLIB_DATA")
    if not root or not (Path(root) / "RoadScene").is_dir():
        pytest.skip("FUSIONLIB_DATA names no folder with RoadScene")
    out = make(["roadscene"], tmp_path / "made", levels=["raw", "light"], size="native", count=1)
    benchmark = open_benchmark(out)
    (case,) = benchmark.parts["roadscene_raw_native"].cases
    ir, aligned = (pixels(out / kind / f"{case}.png") for kind in ("ir", "aligned"))
    with np.load(out / "fields" / f"{case}.npz") as file:
        phi, valid = torch.from_numpy(file["phi"])[None], torch.from_numpy(file["valid"])[None, None]
    back = warp(torch.from_numpy(ir.astype(np.float32))[None, None], phi)
    truth = torch.from_numpy(aligned.astype(np.float32))[None, None]
    before = metrics.ncc(torch.from_numpy(ir.astype(np.float32))[None, None] / 255, truth / 255, valid)
    assert metrics.ncc(back / 255, truth / 255, valid) > max(0.95, before.item())


# --- score


def test_an_entry_has_the_numbers_of_the_metrics(made: Path, fused: Path, tmp_path: Path) -> None:
    entry = score(fused, tmp_path / "e.json", benchmark=made, fields=fused, name="mean")
    assert json.loads((tmp_path / "e.json").read_text(encoding="utf-8")) == entry
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]
    part = entry["parts"][0]
    case, pair = next(iter(open_benchmark(made).parts[part["part"]].cases.items()))
    read = [pixels(made / kind / f"{case}.png", "L") for kind in ("aligned", "vi")]
    read.append(pixels(fused / f"{case}.png"))
    images = [torch.tensor(each)[None, None].double() / 255 for each in read]
    expected = metrics.fusion_metrics(*images) | metrics.further_metrics(*images)
    for name, value in expected.items():
        assert part["scores"][pair][name] == pytest.approx(value.item(), rel=1e-7), name
    assert part["scores"][pair]["EPE_share"] == 1 and part["scores"][pair]["folds"] == 0
    values = [each["Q_CV"] for each in part["scores"].values()]
    assert part["means"]["Q_CV"]["mean"] == pytest.approx(sum(values) / 2, rel=1e-6)
    assert part["scores"][pair]["Q_CC"] <= part["scores"][pair]["Q_CC bound"]
    assert entry["parts"][1]["scores"][pair]["EPE_share"] is None  # of no misalignment there is no share


def test_comparisons_are_made_with_entries_of_the_same_images(made: Path, fused: Path, tmp_path: Path) -> None:
    score(fused, tmp_path / "a.json", benchmark=made, name="a")
    entry = score(fused, tmp_path / "b.json", benchmark=made, fields=fused, against=[tmp_path / "a.json"])
    assert entry["name"] == "b"
    facts = entry["parts"][0]["against"]["a"]
    assert "EPE" not in facts and "Q_CC bound" not in facts
    assert "EPE_share" not in facts  # pair by pair the same as EPE
    assert facts["Q_CC"] == {"difference": 0, "p": 1, "verdict": "not significantly different", "images": 2}
    text = leaderboard.in_words(entry)
    assert "not significantly different" in text and "2 images" in text


def test_an_entry_that_cannot_be_compared_is_refused_before_the_work(
    made: Path, fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, other = (tmp_path / f"{name}.json" for name in ("one", "two", "other"))
    score(fused, one, benchmark=made)
    shutil.copy(one, two)
    for kind in ("aligned", "vi"):
        (tmp_path / kind).mkdir()
        for path in (made / kind).glob("*zero*"):
            shutil.copy(path, tmp_path / kind)
    own = {"ir": tmp_path / "aligned", "vi": tmp_path / "vi"}
    monkeypatch.setattr(score_module, "_score_all", None)
    for against, where, name, words in (
        ([one], {"benchmark": made}, "one", f"{one} and the entry to write have the same name, one, .*another --name"),
        ([one, two], {"benchmark": made}, "b", f"{two} and {one} have the same name, one, .*another --name"),
        ([one], own, "b", f"{one} has no part in common with what is scored, .*or leave it out"),
    ):
        with pytest.raises(InputError, match=words):
            score(tmp_path / "aligned" if where is own else fused, other, against=against, name=name, **where)
    assert not other.exists()


def test_parts_of_another_size_can_be_added_to_an_entry(made: Path, fused: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    first = score(fused, out, benchmark=made, fields=fused)
    small = make(["drawn"], tmp_path / "small", levels=["medium"], size="native", count=1)
    (tmp_path / "fused").mkdir()
    for path in (small / "vi").iterdir():
        shutil.copy(path, tmp_path / "fused")
    both = score(tmp_path / "fused", out, benchmark=small, add=True)
    assert [part["part"] for part in both["parts"]] == sorted(
        [*(p["part"] for p in first["parts"]), "drawn_medium_native"]
    )
    assert entries.read(out) == both and both["parts"][0]["scores"] == first["parts"][0]["scores"]
    with pytest.raises(InputError, match="is the entry of e: give that name, or another file"):
        score(tmp_path / "fused", out, benchmark=small, name="other", add=True)


def test_the_share_of_a_part_is_that_of_all_its_pairs_together() -> None:
    scores = {f"p{pair}": {"EPE": 1.0, "EPE_share": share} for pair, share in enumerate((0.25, 1.0, 1.0, 1.0, 1.0))}
    means = entries.means({"scores": scores})
    assert means["EPE_share"]["mean"] == pytest.approx(5 / 8)
    assert means["EPE_share"]["low"] < 5 / 8 < means["EPE_share"]["high"]


def test_names_of_own_images_say_nothing_about_scenes_and_few_have_no_interval() -> None:
    """Six frames of M3FD are one scene; six images of one's own with the same names are six."""
    scores = {f"{pair:05}": {"Q_CC": pair / 10} for pair in range(6)}
    own, m3fd = entries.means({"scores": scores}), entries.means({"set": "m3fd", "scores": scores})
    assert own["Q_CC"]["low"] < 0.25 < own["Q_CC"]["high"]
    assert m3fd["Q_CC"]["low"] is None and m3fd["Q_CC"]["mean"] == 0.25
    part = {"part": "p", "scores": scores, "against": {}, "means": m3fd}
    assert "too few scenes" in leaderboard.in_words({"name": "n", "parts": [part]})


def test_a_method_with_fields_is_not_called_one_without_where_there_is_nothing_to_register() -> None:
    part = {"means": {"EPE": {"mean": 1.0, "low": 0.5, "high": 1234.5}}, "against": {}}
    assert leaderboard._cell(part | {"fields": True}, "EPE_share") == ""
    assert leaderboard._cell(part | {"fields": False}, "EPE_share") == "no field"
    assert leaderboard._cell(part | {"fields": True}, "EPE") == "1 [0.5, 1234]"


def test_a_fused_image_in_which_zero_is_white_is_read_as_it_is_seen(tmp_path: Path) -> None:
    shown = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    read = []
    for kind, levels in (("minisblack", shown), ("miniswhite", 65535 - shown)):
        tifffile.imwrite(tmp_path / f"{kind}.tif", levels, photometric=kind)
        read.append(triples.levels(tmp_path / f"{kind}.tif"))
    assert (read[0] == read[1]).all() and read[0][0, 0] == 0 and read[0][-1, -1] == 255
    tifffile.imwrite(tmp_path / "float.tif", shown.astype(np.float32), photometric="miniswhite")
    with pytest.raises(InputError, match="has samples of float32: save fused images with 8 or 16 bits"):
        triples.levels(tmp_path / "float.tif")


def test_three_folders_in_colour_grey_and_16_bits(made: Path, fused: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep"
    out.mkdir()
    names = [path.stem for path in sorted(fused.glob("*zero*.png"))]
    for name, kind in zip(names, ("deep", "colour"), strict=True):
        levels = pixels(fused / f"{name}.png")
        if kind == "deep":
            cv2.imwrite(str(out / f"{name}.png"), levels.astype(np.uint16) * 257)
        else:
            Image.fromarray(np.stack([levels] * 3, -1)).save(out / f"{name}.png")
    for kind in ("aligned", "vi"):
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / f"{name}.png").write_bytes((made / kind / f"{name}.png").read_bytes())
    entry = score(out, tmp_path / "own.json", ir=tmp_path / "aligned", vi=tmp_path / "vi")
    whole = score(fused, tmp_path / "whole.json", benchmark=made)
    mine, theirs = entry["parts"][0], whole["parts"][1]
    assert list(mine["scores"].values()) == list(theirs["scores"].values())
    assert mine["part"] == "own" and mine["fields"] is False
    again = score(
        out, tmp_path / "c.json", ir=tmp_path / "aligned", vi=tmp_path / "vi", against=[tmp_path / "own.json"]
    )
    assert again["parts"][0]["against"]["own"]["SD"]["p"] == 1


def test_a_part_without_fused_images_is_left_out(made: Path, fused: Path, tmp_path: Path, capsys) -> None:
    for path in fused.glob("*medium*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    entry = score(tmp_path, tmp_path / "e.json", benchmark=made)
    assert [part["level"] for part in entry["parts"]] == ["medium"]
    assert "drawn_zero_256: no fused image of it is there" in capsys.readouterr().out


def test_a_killed_run_goes_on_where_it_stopped(made: Path, fused: Path, tmp_path: Path, monkeypatch) -> None:
    expected, counted = score(fused, tmp_path / "whole.json", benchmark=made, threads=1), []
    true = score_module.values_of

    def cut(triple):
        counted.append(triple.case)
        if len(counted) == 3:
            raise KeyboardInterrupt
        return true(triple)

    monkeypatch.setattr(score_module, "values_of", cut)
    with pytest.raises(KeyboardInterrupt):
        score(fused, tmp_path / "e.json", benchmark=made, threads=1)
    assert not (tmp_path / "e.json").exists()
    journal = tmp_path / ".e.scores.part"
    kept = len(journal.read_text(encoding="utf-8").splitlines())
    assert 1 <= kept <= 2
    journal.write_text(journal.read_text(encoding="utf-8") + '{"case": "cut of', encoding="utf-8")
    counted[:] = ["far"] * 3
    entry = score(fused, tmp_path / "e.json", benchmark=made, threads=1)
    assert len(counted) - 3 == 4 - kept and not journal.exists()
    assert entry["parts"] == expected["parts"]


def test_a_journal_of_other_files_is_not_used(made: Path, fused: Path, tmp_path: Path) -> None:
    one = triples.of_benchmark(fused, made, None).triples
    true = {
        each.case: {
            "case": each.case,
            "version": score_module.SCORES,
            "mark": each.mark(),
            "sources": each.sources(),
            "values": {"Q_CC": 0.5, "Q_AB/F": 0.5},
        }
        for each in one
    }
    first = next(iter(true.values()))
    first["mark"] = "of another file"
    (tmp_path / ".e.scores.part").write_text(
        "".join(json.dumps(each) + "\n" for each in true.values()), encoding="utf-8"
    )
    found = score(fused, tmp_path / "e.json", benchmark=made)["parts"]
    values = [scores for part in found for scores in part["scores"].values()]
    assert sorted(len(each) == 2 for each in values) == [False, True, True, True]


@pytest.mark.parametrize("broken", ["missing", "size", "no image", "too large", "float", "field"])
def test_what_does_not_fit_is_named_file_by_file(broken, made: Path, fused: Path, tmp_path: Path, capsys) -> None:
    out, fields_of = tmp_path / "fused", tmp_path / "fields"
    for folder, suffix in ((out, ".png"), (fields_of, ".npz")):
        folder.mkdir()
        for path in fused.glob(f"*{suffix}"):
            (folder / path.name).write_bytes(path.read_bytes())
    first, second = sorted(out.glob("*medium*.png"))
    if broken == "missing":
        first.unlink()
        (fields_of / f"{second.stem}.npz").unlink()
    for path in (first, second):
        if broken == "size":
            Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
        elif broken == "no image":
            path.write_bytes(b"nothing")
        elif broken == "too large":  # by its header, from which Pillow refuses to read on
            path.write_bytes(bytes_of.png(np.zeros((1, 1), np.uint8)).replace(b"\0\0\0\1" * 2, b"\0\1\0\0" * 2))
        elif broken == "float":
            Image.fromarray(np.ones((256, 256), np.float32)).save(path.with_suffix(".tif"))
            path.unlink()
        elif broken == "field":
            np.savez(fields_of / f"{path.stem}.npz", phi=np.zeros((256, 256, 2), np.float32))
    message = error(capsys, "score", out, "--benchmark", made, "--fields", fields_of, "-o", tmp_path / "e.json")
    lines = [line for line in message.splitlines() if "image/s" not in line]
    assert len([line for line in lines if first.stem in line or second.stem in line]) == 2
    assert lines[-1].startswith("fusionlib: error: 2 files do not fit") and "Traceback" not in message
    assert not (tmp_path / "e.json").exists()


@pytest.mark.parametrize("content", [b"junk", "nan", "name", "words"])
def test_fields_that_cannot_be_used(content, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if content == b"junk":
        path.write_bytes(content)
    else:
        phi = {"nan": np.full((2, 4, 4), np.nan), "words": np.full((2, 4, 4), "x"), "name": np.zeros((2, 4, 4))}[
            content
        ]
        np.savez(path, **{"field" if content == "name" else "phi": phi})
    with pytest.raises(InputError, match=str(path)):
        triples.read_field(path, (2, 4, 4))


def npy(header: str, content: bytes = b"") -> bytes:
    """An .npy with a header, as numpy wrote it or not."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize(
    "member",
    [
        b"no array",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, "),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': ((((((\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 400000000000, 40000), }\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, 4), }\n", b"too short"),
        npy("{" + " " * 20000 + "}\n"),
        "flipped",
        "cut",
    ],
)
def test_damaged_fields_are_named(member: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if isinstance(member, bytes):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("phi.npy", member)
    else:
        np.savez_compressed(path, phi=np.random.default_rng(0).random((2, 40, 40)))
        content = bytearray(path.read_bytes())
        for place in range(200, 1200):
            content[place] ^= 0xFF
        path.write_bytes(content if member == "flipped" else content[:900])
    with pytest.raises(InputError, match=rf"^{path} holds no field phi \(.*\): save it .*\.$"):
        triples.read_field(path, (2, 40, 40))


def test_an_array_under_the_name_of_an_archive_is_a_field(tmp_path: Path) -> None:
    phi = np.random.default_rng(0).random((2, 4, 4), np.float32)
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, phi)
    assert np.array_equal(triples.read_field(tmp_path / "a.npz", phi.shape), phi)


@pytest.mark.parametrize("value", [1e300, 3e38, -2e6, np.inf])
def test_a_field_that_has_diverged_does_not_drop_out_of_the_mean(value, made, fused, tmp_path, capsys) -> None:
    fields_of, first = tmp_path / "fields", min(fused.glob("*.npz")).name
    fields_of.mkdir()
    for path in fused.glob("*.npz"):
        shutil.copy(path, fields_of)
    np.savez(fields_of / first, phi=np.full((2, 256, 256), value, np.float64 if value == 1e300 else np.float32))
    message = error(capsys, "score", fused, "--benchmark", made, "--fields", fields_of, "-o", tmp_path / "e.json")
    last = message.splitlines()[-1]
    assert f"{fields_of / first} has displacements of more than 1000000 pixels" in last and "Warning" not in message
    assert not (tmp_path / "e.json").exists()


def test_an_error_that_is_not_finite_is_said(made: Path, fused: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triple = triples.of_benchmark(fused, made, fused).triples[0]
    monkeypatch.setattr(metrics, "endpoint_error", lambda *arguments: torch.tensor(torch.inf))
    with pytest.raises(InputError, match=f"The EPE of {triple.field} is not finite"):
        score_module.values_of(triple)


def test_mistakes_in_the_command(made: Path, fused: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "e.json"
    for arguments, words in (
        ((fused, "-o", out), "give --benchmark, or both --ir and --vi"),
        ((fused, "--benchmark", made, "--ir", made, "-o", out), "leave out --ir and --vi"),
        ((fused, "--ir", made / "ir", "--vi", made / "vi", "--fields", fused, "-o", out), "no true field"),
        ((fused, "--benchmark", made, "-o", tmp_path / "e.txt"), "ends in .json"),
        ((fused, "--benchmark", tmp_path, "-o", out), "holds no benchmark"),
        ((made / "boxes.json", "--benchmark", made, "-o", out), "is not a folder"),
        ((fused, "--benchmark", made, "-o", made / MANIFEST), "manifest.json is a file of a benchmark"),
        ((fused, "--benchmark", made, "-o", made / "boxes.json"), "boxes.json is a file of a benchmark"),
        ((fused, "--benchmark", made, "-o", out, "--name", "  "), "name of the method is empty"),
        ((fused, "--benchmark", made, "-o", out, "--name", ""), "NAME is empty"),
        ((tmp_path, "--benchmark", made, "-o", out), "has no image"),
        ((fused, "--benchmark", made, "--fields", tmp_path / "no", "-o", out), "is not a folder"),
        ((fused, "--benchmark", made, "--against", made / "boxes.json", "-o", out), "is not an entry"),
    ):
        assert words in error(capsys, "score", *arguments)
    assert not any(tmp_path.iterdir())


def test_a_benchmark_that_was_changed_is_refused(made: Path, fused: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in made.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(made)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(made)).write_bytes(path.read_bytes())
    path = next((copy / "aligned").iterdir())
    path.write_bytes(bytes_of.png(np.zeros((256, 256), np.uint8)))
    with pytest.raises(InputError, match=f"{path.name} is not as the benchmark was made"):
        score(fused, tmp_path / "e.json", benchmark=copy)


CHANGES = {
    "a case is gone": lambda facts, part: part["cases"].pop(min(part["cases"])),
    "a file is another": lambda facts, part: facts["files"].update({f"vi/{min(part['cases'])}.png": "0" * 64}),
    "a file is gone": lambda facts, part: facts["files"].pop(f"vi/{min(part['cases'])}.png"),
    "a list of cases": lambda facts, part: part.update(cases=list(part["cases"])),
    "a list of pairs": lambda facts, part: part["cases"].update({case: [case] for case in part["cases"]}),
    "one pair twice": lambda facts, part: part["cases"].update(dict.fromkeys(part["cases"], "a pair")),
    "no case": lambda facts, part: part["cases"].clear(),
    "no case, and its digest": lambda facts, part: part.update(cases={}, digest=part_digest([], {})),
    "no part": lambda facts, part: facts["parts"].clear(),
    "a list of files": lambda facts, part: facts.update(files=list(facts["files"])),
    "a list of parts": lambda facts, part: facts.update(parts=[part]),
    "another format": lambda facts, part: facts.update(format=2),
    "no facts": lambda facts, part: facts.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_was_changed_is_refused(change: str, made: Path, tmp_path: Path) -> None:
    facts = json.loads((made / MANIFEST).read_text(encoding="utf-8"))
    CHANGES[change](facts, facts["parts"]["drawn_medium_256"])
    (tmp_path / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{tmp_path}.*: make (one with|the benchmark again)[^\n]*\.$"):
        open_benchmark(tmp_path)


# --- entries and the leaderboard


def test_the_committed_entries_are_sound_and_on_the_leaderboard(root: Path) -> None:
    found = leaderboard.load()
    names, parts = [entry["name"] for entry in found], list(leaderboard.parts_of(found))
    assert {"ours", "average", "maximum"} <= set(names)
    assert (root / "results" / "benchmark" / "README.md").read_text(encoding="utf-8") == leaderboard.page(found, parts)
    assert (root / "results" / "benchmark" / "index.html").read_text(encoding="utf-8") == leaderboard.sortable(parts)
    known = {part["part"]: part["digest"] for entry in found for part in entry["parts"] if entry["name"] == "ours"}
    for entry in found:
        assert all(known[part["part"]] == part["digest"] for part in entry["parts"]), entry["name"]
        as_written = json.loads((entries.FOLDER / f"{entry['name']}.json").read_text(encoding="utf-8"))["parts"]
        assert as_written == entry["parts"], f"intervals of {entry['name']} are by an earlier rule: write it again"


def test_intervals_of_an_earlier_rule_are_computed_again(tmp_path: Path) -> None:
    good = entries.read(entries.FOLDER / "average.json")
    earlier = json.loads(json.dumps(good))
    earlier["parts"][0]["means"]["Q_CC"].update(low=0.0, high=1.0)
    entries.write(tmp_path / "average.json", earlier)
    assert entries.read(tmp_path / "average.json") == good


def test_entries_that_were_changed_by_hand_are_refused(made: Path, fused: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    good = score(fused, path, benchmark=made)
    for change in (
        lambda entry: entry["parts"][0]["means"]["Q_CC"].update(mean=0.99),
        lambda entry: entry.update(format=0),
        lambda entry: entry["parts"][0].update(digest="my own"),
        lambda entry: entry["parts"][0]["scores"].clear(),
        lambda entry: entry.pop("parts"),
        lambda entry: entry.update(name=7),
        lambda entry: entry.update(name=["mine"]),
        lambda entry: entry.update(name=" "),
        lambda entry: entry["parts"][0].update(part=7),
        lambda entry: next(iter(entry["parts"][0]["scores"].values())).update(Q_CC=10**400),
    ):
        entry = json.loads(json.dumps(good))
        change(entry)
        with pytest.raises(InputError, match=r"e\.json .*score the images again"):
            entries.check(entry, path)
    card = tmp_path / "e.md"
    with pytest.raises(InputError, match="needs a method card"):
        entries.read_card(card)
    card.write_text("".join(f"## {heading}\n\nWords.\n\n" for heading in entries.CARD[:-1]) + "## Licence\n")
    with pytest.raises(InputError, match="under `## Licence`"):
        entries.read_card(card)


def test_an_interruption_says_what_it_waits_for(made: Path, fused: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(score_module, "values_of", lambda triple: (_ for _ in ()).throw(KeyboardInterrupt))
    arguments = ["score", fused, "--benchmark", made, "-o", tmp_path / "e.json"]
    assert main(list(map(str, arguments))) == 130
    assert "as soon as the images in work are scored" in capsys.readouterr().err
    assert not (tmp_path / "e.json").exists()


def test_interrupted_from_outside(made: Path, fused: Path, tmp_path: Path, root: Path, monkeypatch) -> None:
    command = [
        sys.executable,
        "-m",
        "fusionlib",
        "score",
        str(fused),
        "--benchmark",
        str(made),
        "-o",
        str(tmp_path / "e.json"),
    ]
    journal = tmp_path / ".e.scores.part"
    process = subprocess.Popen(
        [*command, "--threads", "1"],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    assert process.poll() is None and journal.stat().st_size  # something is scored, and not all
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    scored, values_of = [], score_module.values_of
    monkeypatch.setattr(score_module, "values_of", lambda triple: scored.append(triple) or values_of(triple))
    assert score(fused, tmp_path / "e.json", benchmark=made)["name"] == "e"
    assert 0 < len(scored) < len(list(fused.glob("*.png")))
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


def test_twelve_bits_in_samples_of_sixteen_are_refused(tmp_path: Path) -> None:
    for bits, highest in ((12, 4095), (16, 65535)):
        samples = np.linspace(0, highest, 64 * 64).reshape(64, 64).astype(np.uint16)
        Image.fromarray(samples).save(tmp_path / f"{bits}.png")
    assert triples.levels(tmp_path / "16.png").max() == 255
    with pytest.raises(InputError, match=r"12\.png has 16 bits and no level above 4095, .*: scale it to 0\.\.65535"):
        triples.levels(tmp_path / "12.png")


def test_an_entry_of_nested_brackets_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match=r"e\.json is no JSON"):
        entries.read(tmp_path / "e.json")
