"""Raw thermal frames, real or drawn: placed by scale and shift alone, with the true field of what is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import noise, write

from fusionlib import data, metrics
from fusionlib.data import images, raw_pairs
from fusionlib.data.raw_pairs import open_raw, place, placement, true_field
from fusionlib.deformation import valid_mask, warp
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

FRAME, CROP = (128, 160), (84, 120)
# Rotation, scales that differ between the axes and perspective, as the real ones have.
H = np.array([[0.88, 0.05, -9.0], [-0.04, 0.79, -6.0], [1e-4, -2e-4, 1.0]])

real = os.environ.get("FUSIONLIB_DATA", "")
needs_raw_frames = pytest.mark.skipif(
    not (Path(real) / "RoadScene" / "infrared").is_dir() or not real, reason="RoadScene's raw frames are not here"
)


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture that is known between the pixels, too."""
    return 0.5 + 0.25 * np.sin(x / 8) * np.cos(y / 10) + 0.2 * np.cos((x + 2 * y) / 25)


def points(canvas: tuple[int, int], crop: tuple[int, int] = CROP) -> np.ndarray:
    """Homogeneous crop coordinates (3, H, W) of the pixels of a canvas that shows the whole crop."""
    rows, columns = np.indices(canvas)
    x, y = (columns + 0.5) / canvas[1] * crop[1] - 0.5, (rows + 0.5) / canvas[0] * crop[0] - 0.5
    return np.stack([x, y, np.ones(canvas)])


def source(canvas: tuple[int, int]) -> np.ndarray:
    """Where each pixel of the aligned crop comes from in the raw frame, (2, H, W)."""
    x, y, w = np.linalg.solve(H, points(canvas).reshape(3, -1)).reshape(3, *canvas)
    return np.stack([x / w, y / w])


@pytest.fixture(scope="module")
def frame() -> torch.Tensor:
    y, x = np.indices(FRAME)
    return torch.from_numpy(scene(x, y)).float()[None]


# --- placement and field ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 96, (40, 60)])
def test_the_field_brings_the_aligned_image_back(frame, size):
    placed = place(frame, placement(H, CROP), CROP, size)
    phi, valid = true_field(H, CROP, FRAME, size)
    canvas = placed.shape[-2:]
    assert canvas == (CROP if size is None else images.height_width(size))
    assert phi.shape == (2, *canvas) and valid.shape == (1, *canvas)
    assert phi.dtype == torch.float32 and valid.dtype == torch.bool
    assert 0.6 < valid.float().mean() < 1

    aligned = torch.from_numpy(scene(*source(canvas))).float()[None]
    error = (warp(placed[None], phi[None])[0] - aligned).abs()[valid]
    nothing = (placed - aligned).abs()[valid]
    assert error.max() < 0.02 and error.mean() < 0.004 < 0.03 < nothing.mean()


@pytest.mark.parametrize("size", [None, 96, (40, 60)])
def test_the_field_follows_from_homography_and_placement(size):
    """Forwards: the point that the field names, taken back to the raw frame and through H, is the pixel itself."""
    at = placement(H, CROP)
    phi, _ = true_field(H, CROP, FRAME, size)
    canvas = np.array(phi.shape[1:])
    to_crop = (np.array(CROP) / canvas)[::-1, None, None]
    here = points(tuple(canvas))
    end = here[:2] + phi.double().numpy() * to_crop
    x, y = (end - np.array([at.left, at.top])[:, None, None]) / at.scale
    u, v, w = np.tensordot(H, np.stack([x, y, np.ones_like(x)]), 1)
    assert np.abs(np.stack([u / w, v / w]) - here[:2]).max() < 1e-4


def test_no_other_scale_or_shift_leaves_less():
    at, (x, y), (p_x, p_y, _) = placement(H, CROP), source(CROP), points(CROP)

    def remains(scale: float, left: float, top: float) -> float:
        return ((scale * x + left - p_x) ** 2 + (scale * y + top - p_y) ** 2).mean()

    best = remains(at.scale, at.left, at.top)
    phi, _ = true_field(H, CROP, FRAME)
    assert best == pytest.approx(phi.square().sum(0).mean().item(), rel=1e-5)
    for step in (1e-3, -1e-3):
        assert remains(at.scale * (1 + step), at.left, at.top) > best
        assert remains(at.scale, at.left + 10 * step, at.top) > best
        assert remains(at.scale, at.left, at.top + 10 * step) > best


def test_scale_and_shift_alone_leave_nothing():
    homography, crop = np.array([[0.8, 0, -20], [0, 0.8, -10], [0, 0, 1]]), (60, 70)
    at = placement(homography, crop)
    assert (at.scale, at.left, at.top) == pytest.approx((0.8, -20, -10))
    phi, valid = true_field(homography, crop, (512, 640))
    assert phi.abs().max() < 1e-5
    assert valid[:, 1:-1, 1:-1].all()


def test_a_resized_canvas_scales_each_axis_of_the_field():
    native, _ = true_field(H, CROP, FRAME)
    small, _ = true_field(H, CROP, FRAME, (CROP[0], CROP[1] // 3))
    # The centre of each third pixel is the same point on both canvases.
    assert torch.allclose(small[0], native[0, :, 1::3] / 3, atol=1e-5)
    assert torch.allclose(small[1], native[1, :, 1::3], atol=1e-5)


def test_beyond_the_frame_its_border_is_repeated_and_not_valid():
    frame = images.to_tensor(noise(64, 64))
    shift = np.array([[1.0, 0, 20], [0, 1, 8], [0, 0, 1]])
    crop = (80, 90)
    placed, (_, valid) = place(frame, placement(shift, crop), crop), true_field(shift, crop, frame.shape[-2:])
    rows, columns = (np.arange(80) - 8).clip(0, 63), (np.arange(90) - 20).clip(0, 63)
    assert torch.equal(placed, frame[:, rows][:, :, columns])
    expected = torch.zeros(1, 80, 90, dtype=torch.bool)
    expected[:, 8:72, 20:84] = True
    assert torch.equal(valid, expected)


def test_what_the_field_looks_for_beyond_the_canvas_is_not_valid():
    phi, valid = true_field(H, CROP, (1000, 1000))
    x, y = source(CROP)
    in_frame = torch.from_numpy((x >= 0) & (y >= 0))[None]
    assert torch.equal(valid, in_frame & valid_mask(phi[None])[0])
    assert not torch.equal(valid, in_frame)


def test_pixel_centres_go_where_the_placement_says():
    """A ramp at half its scale: averaging leaves a ramp alone, so each pixel says where it was read."""
    rows, columns = np.indices(FRAME)
    at, crop = placement(np.array([[0.5, 0, -10], [0, 0.5, -20], [0, 0, 1]]), (30, 40)), (30, 40)
    y, x = np.indices(crop)
    assert torch.equal(place(images.to_tensor(columns), at, crop), images.to_tensor(2 * (x + 10)))
    assert torch.equal(place(images.to_tensor(rows), at, crop), images.to_tensor(2 * (y + 20)))


def test_a_reduced_canvas_is_sampled_once_and_smoothed():
    frame = images.to_tensor(noise(120, 120))
    at = placement(np.array([[1.0, 0, -10], [0, 1, -10], [0, 0, 1]]), (96, 96))
    small = place(frame, at, (96, 96), 32)
    # At scale one the canvas is a cut-out, so resizing it is all there is; its edges know what lies beyond the cut.
    resized = images.resize(frame[:, 10:106, 10:106], 32)
    assert torch.equal(small[:, 2:-2, 2:-2], resized[:, 2:-2, 2:-2])
    assert not torch.equal(small, resized)
    assert small.std() < 0.5 * frame.std()
    # Where the canvas ends with the frame, the smoothing sees the repeated border.
    whole = place(frame, placement(np.eye(3), (120, 120)), (120, 120), 40)
    padded = images.to_tensor(np.pad(noise(120, 120), 12, mode="edge"))
    assert torch.equal(whole, images.resize(padded, 48)[:, 4:-4, 4:-4])


# --- the set ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """A data root whose RoadScene has the names of the validation split, and noise for images."""
    folder = tmp_path / "RoadScene"
    for name in data.splits("roadscene")["val"]:
        write(folder / "cropinfrared" / f"{name}.jpg", noise(40, 48))
        write(folder / "crop_LR_visible" / f"{name}.jpg", noise(40, 48, 3))
        write(folder / "infrared" / f"{name}.png", noise(256, 320))
    return tmp_path


def test_pairs_are_read_when_asked_for(val, monkeypatch):
    monkeypatch.setenv("FUSIONLIB_DATA", str(val))
    names = data.splits("roadscene")["val"]
    broken = val / "RoadScene" / "infrared" / f"{names[1]}.png"
    broken.write_text("not an image")
    pairs = open_raw("RoadScene", "val", size=64)
    assert pairs.names == pairs.aligned.names == names and len(pairs) == 11
    pair, again = pairs[0], pairs[-11]
    assert pair.name == names[0]
    assert pair.ir.shape == pair.vi.shape == pair.valid.shape == (1, 64, 64)
    assert pair.rgb.shape == (3, 64, 64) and pair.phi_gt.shape == (2, 64, 64)
    assert torch.equal(pair.vi, pairs.aligned[0].vi)
    assert torch.equal(pair.ir, again.ir) and torch.equal(pair.phi_gt, again.phi_gt)
    facts = json.loads(raw_pairs.HOMOGRAPHIES.read_text(encoding="utf-8"))
    assert [pairs[index].rig for index in (0, 2)] == [facts[names[index]]["cluster"] for index in (0, 2)] == [0, 1]
    with pytest.raises(InputError, match=rf"{names[1]}\.png cannot be read as an image"):
        pairs[1]
    with pytest.raises(IndexError):
        pairs[11]
    with pytest.raises(AttributeError):
        pair.ir = pair.vi


def test_the_first_few_pairs(val):
    (val / "RoadScene" / "infrared" / f"{data.splits('roadscene')['val'][2]}.png").unlink()
    pairs = open_raw("RoadScene", "val", root=val, count=2)
    assert pairs.names == data.splits("roadscene")["val"][:2] and len(pairs) == 2
    with pytest.raises(InputError, match=r"1 of the 3 raw frames"):
        open_raw("RoadScene", "val", root=val, count=3)


def test_a_pair_is_misaligned_as_a_deformed_one_is(val):
    pair = open_raw("RoadScene", "val", 64, val)[0]
    moved = pair.misaligned
    assert moved.ir.shape == moved.valid.shape == (1, 1, 64, 64) and moved.phi_gt.shape == (1, 2, 64, 64)
    assert all(torch.equal(getattr(moved, name)[0], getattr(pair, name)) for name in ("ir", "phi_gt", "valid"))


def test_a_deep_frame_is_read_like_every_infrared_image(val):
    name = data.splits("roadscene")["val"][0]
    write(val / "RoadScene" / "infrared" / f"{name}.png", noise(256, 320, high=4000, dtype=np.uint16))
    with pytest.warns(UserWarning, match="deeper than 8 bits"):
        pair = open_raw("RoadScene", "val", size=64, root=val)[0]
    assert torch.equal(pair.ir, images.to_uint8(pair.ir).float() / 255)


def test_missing_frames_are_named_with_the_command(val):
    names = data.splits("roadscene")["val"]
    frames = val / "RoadScene" / "infrared"
    (frames / f"{names[3]}.png").unlink()
    with pytest.raises(
        InputError, match=rf"1 of the 11 raw frames .* val, such as {names[3]}\.png, .*data fetch roadscene`"
    ):
        open_raw("RoadScene", "val", root=val)
    for file in frames.iterdir():
        file.unlink()
    frames.rmdir()
    with pytest.raises(InputError, match=r"11 of the 11 raw frames .* not in .*infrared: run"):
        open_raw("RoadScene", "val", root=val)
    with pytest.raises(InputError, match=r"RoadScene is not in .*: run `python -m fusionlib data fetch roadscene`"):
        open_raw("RoadScene", "val", root=frames)


def test_an_unknown_split_lists_the_known_ones(val):
    with pytest.raises(InputError, match=r"no split 'dev': choose one of external, test, train, val, all"):
        open_raw("RoadScene", "dev", root=val)


@pytest.mark.parametrize("name", ["M3FD", "TNO", "nothing"])
def test_a_set_without_raw_frames_is_refused(val, name):
    with pytest.raises(InputError, match=rf"no raw thermal frames of '{name}': choose RoadScene or synthetic\."):
        open_raw(name, "test", root=val)


def test_a_frame_without_a_homography_is_named(val):
    stray = {"cropinfrared": (40, 48), "crop_LR_visible": (40, 48, 3), "infrared": (256, 320)}
    for folder, shape in stray.items():
        write(val / "RoadScene" / folder / "mine.png", noise(*shape))
    with pytest.raises(InputError, match=r"homographies\.json has no homography for 1 of the 12 .*, such as mine: "):
        open_raw(root=val)
    assert len(open_raw("RoadScene", "val", root=val)) == 11


def test_the_fetched_set_has_the_raw_frames(root: Path) -> None:
    files = json.loads((root / "data" / "registry" / "roadscene.json").read_text(encoding="utf-8"))["files"]
    members = set().union(*data.splits("roadscene").values())
    assert {Path(file).stem for file in files if file.startswith("infrared/") and file.endswith(".png")} == members


# --- drawn frames -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> raw_pairs.RawSet:
    return open_raw("Synthetic", "test", count=1)


def test_a_drawn_scene_is_a_raw_frame_like_any_other(drawn):
    pair, aligned = drawn[0], drawn.aligned[0]
    assert drawn.names == drawn.aligned.names == [pair.name] == ["synthetic_test_0000"]
    canvas = pair.vi.shape[1:]
    assert pair.ir.shape == pair.valid.shape == aligned.ir.shape == (1, *canvas)
    assert pair.rgb.shape == (3, *canvas) and pair.phi_gt.shape == (2, *canvas)
    assert torch.equal(pair.vi, aligned.vi) and torch.equal(pair.vi, images.luma(pair.rgb))
    moved = pair.misaligned
    assert metrics.ncc(warp(moved.ir, moved.phi_gt), aligned.ir[None], moved.valid) > 0.99
    assert metrics.ncc(moved.ir, aligned.ir[None], moved.valid) < 0.98
    assert 1 < pair.phi_gt.norm(dim=0)[pair.valid[0]].mean() < 20


def test_the_crop_shows_the_drawn_scene_through_its_homography(drawn):
    facts = json.loads(raw_pairs.HOMOGRAPHIES.read_text(encoding="utf-8"))
    pair, scene = drawn[0], data.open_set("synthetic", "test", (512, 640), count=1)[0]
    sizes = [fact for fact in facts.values() if (fact["h"], fact["w"]) == pair.vi.shape[1:]]
    source, crop = (torch.cat([each.ir, each.rgb]).double() for each in (scene, drawn.aligned[0]))

    def differs(homography: list[list[float]]) -> float:
        """At pixels inside, the bilinear mean of the four around the point that the homography takes there."""
        worst = 0.0
        for x, y in ((100, 60), (201, 133), (257, 190)):
            u, v, w = np.linalg.solve(homography, [x, y, 1])
            left, a, top, b = int(u / w // 1), u / w % 1, int(v / w // 1), v / w % 1
            four = source[:, top : top + 2, left : left + 2] * torch.tensor([[1 - b], [b]]) * torch.tensor([1 - a, a])
            worst = max(worst, (crop[:, y, x] - four.sum((1, 2))).abs().max().item())
        return worst

    assert sorted(differs(fact["H"]) < 0.51 / 255 for fact in sizes) == [False] * (len(sizes) - 1) + [True]


def test_drawn_frames_are_always_the_same(drawn):
    more = open_raw("synthetic", "test", count=2)
    assert more.names == [f"synthetic_test_{number:04d}" for number in range(2)]
    assert torch.equal(more[0].ir, drawn[0].ir) and torch.equal(more[0].rgb, drawn[0].rgb)
    assert torch.equal(more[0].phi_gt, drawn[0].phi_gt)
    assert not torch.equal(more[1].phi_gt.mean((1, 2)), more[0].phi_gt.mean((1, 2)))
    assert len(open_raw("synthetic", count=2)) == 6 and len(open_raw("synthetic", "val")) == 8


@pytest.mark.parametrize("size", [64, (48, 96)])
def test_a_drawn_frame_is_resized_like_any_other(drawn, size):
    pairs = open_raw("synthetic", "test", size, count=1)
    pair, aligned = pairs[0], pairs.aligned[0]
    assert torch.equal(pair.rgb, images.resize(drawn[0].rgb, size)) and torch.equal(pair.vi, images.luma(pair.rgb))
    assert torch.equal(aligned.ir, images.resize(drawn.aligned[0].ir, size))
    moved = pair.misaligned
    assert metrics.ncc(warp(moved.ir, moved.phi_gt), aligned.ir[None], moved.valid) > 0.98


def test_an_unknown_split_of_drawn_scenes_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no split 'external': choose one of train, val, test, all"):
        open_raw("synthetic", "external")


# --- real frames ------------------------------------------------------------------------------------------------------


def test_misalignment_of_the_real_frames():
    """What doing nothing leaves. Median over all 221 frames: 6.51 px on all pixels, 6.18 where the truth is valid."""
    facts = json.loads(raw_pairs.HOMOGRAPHIES.read_text(encoding="utf-8"))
    everywhere, in_valid = [], []
    assert len(facts) == 221
    for name in sorted(facts)[::3]:
        fact = facts[name]
        crop = fact["h"], fact["w"]
        quarter = crop[0] // 4, crop[1] // 4  # a sixteenth of the pixels gives the same mean
        phi, valid = true_field(np.array(fact["H"]), crop, (512, 640), quarter)
        length = (phi * torch.tensor([crop[1] / quarter[1], crop[0] / quarter[0]]).view(2, 1, 1)).norm(dim=0)
        everywhere.append(length.mean().item())
        in_valid.append(length[valid[0]].mean().item())
        assert valid.float().mean() > 0.85, name
    assert np.median(everywhere) == pytest.approx(6.5, abs=0.2)
    assert np.median(in_valid) == pytest.approx(6.2, abs=0.2)


@needs_raw_frames
@pytest.mark.data
@pytest.mark.parametrize("size", [None, 256])
def test_real_frames_come_back_as_the_aligned_crops(size):
    pairs = open_raw("roadscene", "test", size, real)
    for index in (0, 5, 17):
        pair, aligned = pairs[index], pairs.aligned[index].ir[None]
        assert pair.ir.shape == pair.vi.shape == pair.phi_gt[:1].shape == pair.valid.shape
        back, valid = warp(pair.ir[None], pair.phi_gt[None]), pair.valid[None]
        assert metrics.ncc(back, aligned, valid) > 0.995
        assert metrics.ncc(pair.ir[None], aligned, valid) < 0.98
