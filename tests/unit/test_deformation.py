"""Fields: warp moves where its convention says, the label is a true inverse, sampled fields depend on the key alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionlib.deformation import (
    LEVELS,
    Level,
    compose,
    fold_share,
    get_level,
    invert,
    jacobian_determinant,
    misalign,
    misalign_by_key,
    sample_field,
    valid_mask,
    warp,
)
from fusionlib.experiments.robustness import farther
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

KEYS = [(0, "FLIR_00006", 0), (0, "FLIR_video_02829", 3), (7, "00429", 12)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates x and y of every pixel, (1, 1, H, W) each."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return x[None, None], y[None, None]


def waves(height: int, width: int) -> Tensor:
    """A smooth image (1, 1, H, W) in [0, 1]."""
    x, y = grid(height, width)
    return 0.5 + 0.25 * torch.sin(2 * math.pi * x / 40) + 0.25 * torch.cos(2 * math.pi * (x + 2 * y) / 70)


def constant(x: float, y: float, height: int, width: int) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def seen_through(phi: Tensor, known: Tensor) -> Tensor:
    """Where `phi` reads inside the image, and only `known` pixels of it, at all four around the point: (B, 1, H, W)."""
    return valid_mask(phi) & (warp(known.float(), phi) > 0.999)


def lengths(phi: Tensor) -> Tensor:
    """Displacement of each pixel, (B, 1, H, W)."""
    return phi.norm(dim=1, keepdim=True)


# --- warp -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (101, 64), (211, 385), (512, 512)])
def test_a_zero_field_is_the_identity(size: tuple[int, int]) -> None:
    image = noise(1, 2, *size)
    assert (warp(image, torch.zeros(1, 2, *size)) - image).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(40, 56), (41, 57)])
@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 5), (-4, 2)])
def test_an_integer_shift_moves_by_exactly_that_many_pixels(size: tuple[int, int], x: int, y: int) -> None:
    image = noise(1, 1, *size)
    moved = warp(image, constant(x, y, *size))
    for row in range(max(0, -y), size[0] - max(0, y)):
        columns = slice(max(0, -x), size[1] - max(0, x))
        fetched = image[0, 0, row + y, columns.start + x : columns.stop + x]  # moved(p) = image(p + phi)
        assert (moved[0, 0, row, columns] - fetched).abs().max() <= 1e-6


def test_a_field_to_the_right_moves_the_content_to_the_left_and_one_down_moves_it_up() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[..., 16, 20] = 1
    assert warp(image, constant(3, 0, 32, 32))[0, 0].nonzero().tolist() == [[16, 17]]
    assert warp(image, constant(0, 5, 32, 32))[0, 0].nonzero().tolist() == [[11, 20]]


def test_half_a_pixel_is_the_mean_of_two_and_outside_the_border_is_repeated() -> None:
    image = noise(1, 1, 6, 8)
    half = warp(image, constant(0.5, 0, 6, 8))
    torch.testing.assert_close(half[..., :-1], (image[..., :-1] + image[..., 1:]) / 2)
    assert torch.equal(half[..., -1], image[..., -1])
    far = warp(image, constant(-100, 0, 6, 8))
    torch.testing.assert_close(far, image[..., :1].expand_as(image))


def test_the_fast_warp_is_within_its_promise() -> None:
    ramp = grid(257, 385)[0]  # brightness is x, so an error in it is an error in pixels
    phi = sample_field("medium", 257, 385, "fast")
    assert (warp(ramp, phi, exact=False) - warp(ramp, phi)).abs().max() < 1e-4


def test_warp_keeps_the_dtype_and_refuses_another_size() -> None:
    assert warp(noise(1, 3, 32, 40).to(torch.bfloat16), torch.zeros(1, 2, 32, 40)).dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"shape \(1, 2, 32, 32\) cannot warp an image of 32 x 40 pixels"):
        warp(noise(1, 1, 32, 40), torch.zeros(1, 2, 32, 32))


def test_one_image_or_one_field_goes_with_a_batch_of_any_size() -> None:
    images, fields = noise(3, 2, 32, 40), torch.cat([sample_field("medium", 32, 40, key) for key in range(3)])
    for exact in (True, False):
        one_image = torch.cat([warp(images[:1], fields[i : i + 1], exact) for i in range(3)])
        assert torch.equal(warp(images[:1], fields, exact), one_image)
        one_field = torch.cat([warp(images[i : i + 1], fields[:1], exact) for i in range(3)])
        assert torch.equal(warp(images, fields[:1], exact), one_field)
    pairs = torch.cat([compose(fields[:1], fields[i : i + 1]) for i in range(3)])
    assert torch.equal(compose(fields[:1], fields), pairs)
    pairs = torch.cat([compose(fields[i : i + 1], fields[:1]) for i in range(3)])
    assert torch.equal(compose(fields, fields[:1]), pairs)


REFUSED = {
    "batches": (lambda: warp(noise(2, 1, 8, 9), noise(3, 2, 8, 9)), "3 fields cannot warp 2 images; give as many of"),
    "no batch of images": (lambda: warp(noise(1, 8, 9), noise(1, 2, 8, 9)), r"\(B, C, H, W\), not \(1, 8, 9\)"),
    "no batch of fields": (lambda: warp(noise(1, 1, 8, 9), noise(2, 8, 9)), r"\(2, 8, 9\) .* one of \(B, 2, 8, 9\)"),
    "no two components": (lambda: warp(noise(1, 1, 8, 9), noise(1, 1, 8, 9)), r"\(1, 1, 8, 9\) cannot warp an image"),
    "composed batches": (lambda: compose(noise(2, 2, 8, 9), noise(3, 2, 8, 9)), "3 fields cannot warp 2 images"),
    "composed images": (lambda: compose(noise(1, 3, 8, 9), noise(1, 2, 8, 9)), r"must be \(B, 2, H, W\)"),
    "inverse": (lambda: invert(noise(2, 8, 9)), r"must be \(B, 2, H, W\), in pixels, not \(2, 8, 9\)"),
    "mask": (lambda: valid_mask(noise(1, 8, 9, 2)), r"must be \(B, 2, H, W\)"),
    "determinant": (lambda: jacobian_determinant(noise(1, 3, 8, 9)), r"must be \(B, 2, H, W\)"),
    "folds": (lambda: fold_share(noise(1, 2, 2, 9)), "2 x 9 pixels is too small to have folds"),
    "sample": (lambda: sample_field("light", 2, 40, 0), "2 x 40 pixels is too small to have folds"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_shapes_that_do_not_fit_are_told(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_warp_is_differentiable_by_image_and_field() -> None:
    image = noise(1, 2, 5, 6).double().requires_grad_()
    # Clear of whole numbers, where bilinear interpolation has a kink, and of the border.
    phi = (0.3 + 0.4 * noise(1, 2, 5, 6, seed=1)).double().requires_grad_()
    inside = valid_mask(phi.detach() + 0.01)
    assert torch.autograd.gradcheck(lambda image, phi: warp(image, phi) * inside, (image, phi))


def test_the_gradient_of_a_ramp_points_where_the_field_should_go() -> None:
    ramp = 2 * grid(16, 16)[0] - 3 * grid(16, 16)[1]
    phi = constant(0.25, 0.25, 16, 16).requires_grad_()
    warp(ramp, phi)[..., 4:12, 4:12].sum().backward()
    torch.testing.assert_close(phi.grad[..., 4:12, 4:12], constant(2, -3, 8, 8))


def test_valid_is_where_a_warp_reads_inside() -> None:
    valid = valid_mask(constant(3, -2, 8, 10))
    assert valid.shape == (1, 1, 8, 10) and valid.dtype == torch.bool
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[2:, :7] = (
        True  # the last three columns fetch from the right of the image, the first two rows from above it
    )
    assert torch.equal(valid[0, 0], expected)


# --- composing and inverting ------------------------------------------------------------------------------------------


def test_composing_is_warping_twice() -> None:
    image = waves(160, 200)
    first, then = (sample_field("medium", 160, 200, key) for key in ("first", "then"))
    twice, once = warp(warp(image, first), then), warp(image, compose(first, then))
    inside = seen_through(then, valid_mask(first))
    summed = warp(image, first + then)
    assert (twice - once)[inside].abs().max() < 5e-3 and (twice - summed)[inside].abs().max() > 3e-2


def test_composing_constants_adds_them_and_composing_has_an_order() -> None:
    total = compose(constant(3, -2, 32, 32), constant(1.5, 4, 32, 32))
    torch.testing.assert_close(total, constant(4.5, 2, 32, 32))
    # Stretching about x = 0 and then shifting by 4 is not shifting first: 2 (x + 4) against 2 x + 4.
    stretch, shift = torch.cat([grid(32, 32)[0], torch.zeros(1, 1, 32, 32)], 1), constant(4, 0, 32, 32)
    assert compose(stretch, shift)[0, 0, 0, 10] == 18 and compose(shift, stretch)[0, 0, 0, 10] == 14


@pytest.mark.parametrize("level", LEVELS)
def test_the_inverse_undoes_a_field_in_both_orders(level: str) -> None:
    for key in KEYS:
        psi = sample_field(level, 512, 512, key)
        phi = invert(psi)
        # Warped by psi, then by phi: what phi fetches must lie in the deformed image.
        there_and_back, inside = compose(psi, phi), valid_mask(phi)
        assert inside.float().mean() > 0.85
        assert lengths(there_and_back)[inside].mean() <= 0.02 and lengths(there_and_back)[inside].max() <= 0.2, key
        # Warped by phi, then by psi: of phi, psi must read only what is known.
        back_and_there, inside = compose(phi, psi), seen_through(psi, valid_mask(phi))
        assert inside.float().mean() > 0.85
        assert lengths(back_and_there)[inside].mean() <= 0.02 and lengths(back_and_there)[inside].max() <= 0.2, key


@pytest.mark.parametrize(("level", "least"), [("light", 0.2), ("medium", 1.0), ("heavy", 4.0)])
def test_the_negative_is_no_inverse(level: str, least: float) -> None:
    for key in KEYS:
        psi = sample_field(level, 512, 512, key)
        left = lengths(compose(psi, -psi))[valid_mask(-psi)]
        assert left.mean() > least and left.max() > 0.5  # ten times and more what the inverse may leave


def test_the_inverse_of_a_constant_is_its_negative() -> None:
    torch.testing.assert_close(invert(constant(5.25, -3.5, 40, 48)), constant(-5.25, 3.5, 40, 48))


def test_the_inverse_of_an_affine_field_is_known() -> None:
    x, y = grid(64, 64)
    psi = torch.cat([0.25 * (x - 32), -0.2 * (y - 32)], 1)  # x' - 32 = 1.25 (x - 32), y' - 32 = 0.8 (y - 32)
    phi, inside = invert(psi), valid_mask(torch.cat([-0.2 * (x - 32), 0.25 * (y - 32)], 1))
    assert (phi[:, :1] + 0.2 * (x - 32))[inside].abs().max() < 1e-3
    assert (phi[:, 1:] - 0.25 * (y - 32))[inside].abs().max() < 1e-3


@pytest.mark.parametrize("tolerance", [1e-4, 0.02])
def test_an_inverse_that_is_not_found_is_told_with_what_is_left(tolerance: float) -> None:
    with pytest.warns(UserWarning, match=r"60 iterations find: the last one moved it by \d+(\.\d+)? pixels; give"):
        invert(9 * noise(1, 2, 32, 32), tolerance)
    with pytest.warns(UserWarning, match="moved it by nan pixels"):
        invert(torch.full((1, 2, 32, 32), math.nan), tolerance)


@pytest.mark.parametrize("tolerance", [1e-4, 0.02])
@pytest.mark.parametrize("level", [*LEVELS.values(), farther(3.0)], ids=lambda level: level.name)
def test_the_inverse_of_a_drawn_field_is_found(level: Level, tolerance: float) -> None:
    for key in range(20):
        invert(sample_field(level, 48, 55, key), tolerance)  # warnings are errors here


def test_rounding_is_no_reason_to_warn() -> None:
    """The coordinates of a large image are rounded to more than the tolerance, so its inverse never rests."""
    psi = sample_field(Level("wide", translation=0.03, rotation=0, elastic=0.012), 16, 3000, 0)
    phi = invert(psi)
    assert 1e-4 < (phi + warp(psi, phi, exact=False)).abs().max() < 1e-3


def test_the_jacobian_of_an_affine_field_is_its_determinant() -> None:
    x, y = grid(20, 24)
    phi = torch.cat([0.5 * x + 0.25 * y, -0.5 * x + 0.125 * y], 1)
    # (1 + 0.5) (1 + 0.125) - 0.25 (-0.5) = 1.6875 + 0.125
    torch.testing.assert_close(jacobian_determinant(phi), torch.full((1, 18, 22), 1.8125))
    assert fold_share(phi).tolist() == [0]


def test_folds_are_counted() -> None:
    x, _ = grid(20, 42)
    mirror = torch.where(x < 21, -2 * (x - 10), -2 * (x - 31))  # each half is mirrored about its middle: 1 - 2 = -1
    phi = torch.cat([torch.cat([mirror, torch.zeros_like(x)], 1), constant(3, 4, 20, 42)])
    # The 40 inner columns fold except the two where the halves meet and the field jumps.
    torch.testing.assert_close(fold_share(phi), torch.tensor([38 / 40, 0]))


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_a_field_depends_on_its_key_and_on_nothing_else() -> None:
    alone = sample_field("medium", 64, 96, (0, "a", 1))
    torch.manual_seed(5)
    np.random.seed(5)
    others = [sample_field("medium", 64, 96, key) for key in ((0, "a", 2), (0, "b", 1), (1, "a", 1))]
    again = sample_field(LEVELS["medium"], 64, 96, (0, "a", 1))
    assert alone.shape == (1, 2, 64, 96) and alone.dtype == torch.float32
    assert torch.equal(alone, again)
    assert all((alone - other).abs().mean() > 0.5 for other in others)


@pytest.mark.parametrize("level", LEVELS)
def test_a_field_is_the_same_deformation_at_every_size(level: str) -> None:
    for key in KEYS:
        large, small = sample_field(level, 512, 512, key), sample_field(level, 128, 128, key)
        resized = torch.nn.functional.interpolate(large, (128, 128), mode="bilinear", align_corners=True) / 4
        assert lengths(resized - small).mean() <= 0.02 * lengths(small).mean()


def test_displacements_follow_the_sides_of_the_image() -> None:
    square, wide = (
        sample_field(Level("shift", 0.05, 0, 0), 64, 64, "k"),
        sample_field(Level("x", 0.05, 0, 0), 64, 128, "k"),
    )
    torch.testing.assert_close(wide[:, 0, 0, 0], 2 * square[:, 0, 0, 0])
    torch.testing.assert_close(wide[:, 1, 0, 0], square[:, 1, 0, 0])


@pytest.mark.parametrize("level", LEVELS)
def test_fields_do_not_fold(level: str) -> None:
    assert max(fold_share(sample_field(level, 128, 128, ("fold", i))).item() for i in range(20)) == 0


def test_the_elastic_part_has_the_standard_deviation_of_its_level() -> None:
    level = Level("elastic", translation=0, rotation=0, elastic=0.01)
    fields = torch.cat([sample_field(level, 100, 200, i) for i in range(60)])
    assert abs(fields[:, 0].std().item() - 2.0) < 0.15 and abs(fields[:, 1].std().item() - 1.0) < 0.08
    assert fields.mean().abs() < 0.1
    edge = torch.cat([fields[:, 1, 0], fields[:, 1, -1]])
    assert abs(edge.std().item() - 1.0) < 0.12  # as strong at the border as inside


def test_the_elastic_part_is_as_smooth_as_its_level() -> None:
    level = Level("elastic", translation=0, rotation=0, elastic=0.005, smoothing=0.06)
    fields = torch.cat([sample_field(level, 200, 200, i) for i in range(40)])
    # White noise under a Gaussian of s = 12 px correlates as exp(-d^2 / 4 s^2): exp(-1/4) at 12 px, exp(-1) at 24 px.
    for distance, expected in ((12, math.exp(-0.25)), (24, math.exp(-1))):
        near, far = fields[..., distance:].flatten(), fields[..., :-distance].flatten()
        assert abs(torch.corrcoef(torch.stack([near, far]))[0, 1].item() - expected) < 0.06


def test_shifts_are_uniform_up_to_their_bound() -> None:
    level = Level("shift", translation=0.05, rotation=0, elastic=0)
    shifts = torch.cat([sample_field(level, 40, 80, i) for i in range(100)])
    assert torch.allclose(shifts, shifts[..., :1, :1], atol=1e-4)
    for axis, bound in ((0, 4.0), (1, 2.0)):
        drawn = shifts[:, axis, 0, 0]
        assert drawn.abs().max() <= bound + 1e-4 and drawn.min() < -0.9 * bound and drawn.max() > 0.9 * bound
        assert abs(drawn.std().item() - bound / math.sqrt(3)) < 0.1 * bound


def test_rotations_turn_about_the_centre_up_to_their_bound() -> None:
    level = Level("turn", translation=0, rotation=10, elastic=0)
    angles = []
    for i in range(100):
        psi = sample_field(level, 33, 65, i)
        assert psi[0, :, 16, 32].abs().max() < 1e-4  # the centre stays
        right = psi[0, :, 16, 64]  # the vector (32, 0) became (32 cos, 32 sin)
        angles.append(math.degrees(math.atan2(right[1], 32 + right[0])))
        torch.testing.assert_close(math.hypot(32 + right[0], right[1]), 32.0, atol=1e-3, rtol=0)
    assert max(map(abs, angles)) <= 10 + 1e-3 and min(angles) < -9 and max(angles) > 9


def test_levels_are_the_documented_ones_and_others_are_refused() -> None:
    numbers = {n: (v.translation, v.rotation, v.elastic, v.scale, v.perspective) for n, v in LEVELS.items()}
    assert numbers == {
        "light": (0.01, 0.0, 0.005, 0, 0),
        "medium": (0.03, 3.0, 0.008, 0, 0),
        "heavy": (0.06, 8.0, 0.012, 0, 0),
        "cameras": (0.02, 3.0, 0.003, 0.08, 0.02),
    }
    assert {level.smoothing for level in LEVELS.values()} == {0.06}
    assert get_level(LEVELS["light"]) is LEVELS["light"]
    with pytest.raises(InputError, match="Unknown deformation level 'extreme'; choose one of light, medium, heavy"):
        sample_field("extreme", 64, 64, 0)


@pytest.mark.parametrize("setting", ["translation", "rotation", "elastic", "smoothing", "scale", "perspective"])
@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf])
def test_a_level_of_impossible_numbers_is_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} of Level is {value:g}; give a finite number of"):
        replace(LEVELS["medium"], **{setting: value})


def test_a_level_that_nothing_smooths_is_refused() -> None:
    """Its field would be NaN, at most sizes."""
    with pytest.raises(InputError, match=r"smoothing of Level is 0; give a finite number of 0\.001 or more"):
        Level("rough", 0, 0, elastic=0.01, smoothing=0)
    narrowest = Level("narrow", 0.01, 0, elastic=0, smoothing=1e-3)
    assert all(sample_field(narrowest, side, side, 0).isfinite().all() for side in (33, 64, 100, 257))


def test_what_is_no_number_counts_as_folded() -> None:
    phi = torch.zeros(2, 2, 6, 6)
    phi[1, 0, 2, 2] = math.nan  # which its neighbours on two axes see
    torch.testing.assert_close(fold_share(phi), torch.tensor([0, 4 / 16]))


def test_a_second_camera_stretches_each_axis_and_tilts_the_picture() -> None:
    stretched, tilted = Level("stretched", 0, 0, 0, scale=0.1), Level("tilted", 0, 0, 0, perspective=0.05)
    bends = []
    for key in range(20):
        psi = sample_field(stretched, 65, 97, key)[0]
        across, down = psi[0, 32] / torch.linspace(-48, 48, 97), psi[1, :, 48] / torch.linspace(-32, 32, 65)
        for slope in (across[across.isfinite()], down[down.isfinite()]):  # the same everywhere along the axis
            assert slope.max() - slope.min() < 1e-4 and abs(slope.mean()) <= 0.1
        assert not torch.isclose(across[0], down[0])  # each axis has its own
        psi = sample_field(tilted, 65, 97, key)[0]
        assert psi[:, 32, 48].abs().max() < 1e-4  # the centre stays
        left, right = psi[0, 32, 0].item(), psi[0, 32, -1].item()
        assert left * right > 0 and max(abs(left), abs(right)) <= 48 * 0.05 / 0.95 + 1e-3
        bends.append(left)
    assert min(bends) < -1 and max(bends) > 1


def test_a_level_that_folds_every_time_is_refused() -> None:
    told = r"^Level wild folds the image in every draw; lower its elastic part or raise its smoothing\.$"
    with pytest.raises(InputError, match=told):
        sample_field(Level("wild", 0, 0, elastic=0.2), 64, 64, 0)


# --- misaligning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_the_label_brings_the_deformed_image_back(level: str) -> None:
    ir = waves(160, 200)
    for key in KEYS:
        moved = misalign(ir, sample_field(level, 160, 200, key))
        assert torch.equal(moved.ir, warp(ir, sample_field(level, 160, 200, key)))
        left = (warp(moved.ir, moved.phi_gt) - ir).abs()
        assert left[moved.valid].max() < 0.02 and left[moved.valid].mean() < 0.002
        assert (moved.ir - ir).abs().mean() > 10 * left[moved.valid].mean()


def test_valid_is_what_is_still_in_the_picture() -> None:
    ir = noise(1, 1, 32, 40)
    moved = misalign(ir, constant(6, 0, 32, 40))  # the content moves six to the left: the first six columns are lost
    assert torch.equal(moved.valid, grid(32, 40)[0] >= 6)
    left = (warp(moved.ir, moved.phi_gt) - ir).abs()
    assert left[moved.valid].max() < 1e-4 and left[~moved.valid].mean() > 0.1


def test_each_image_of_a_batch_has_the_field_of_its_own_key() -> None:
    ir = torch.cat([waves(64, 64), 1 - waves(64, 64)])
    batch = misalign_by_key(ir, "medium", ["a", "b"])
    for i, key in enumerate("ab"):
        alone = misalign(ir[i : i + 1], sample_field("medium", 64, 64, key))
        torch.testing.assert_close(batch.ir[i : i + 1], alone.ir)
        assert lengths(batch.phi_gt[i : i + 1] - alone.phi_gt).max() < 1e-3
        assert (batch.valid[i : i + 1] ^ alone.valid).float().mean() < 1e-3
    assert batch.phi_gt.shape == (2, 2, 64, 64) and batch.valid.shape == (2, 1, 64, 64)


def test_as_many_keys_as_images_are_needed() -> None:
    with pytest.raises(InputError, match="1 keys cannot misalign 2 images; give one for each"):
        misalign_by_key(torch.rand(2, 1, 32, 32), "light", [0])
