"""Classical registration: directions, pixel centres, sizes, failures, repeatability; and methods joined by a +."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionlib import methods
from fusionlib.data.drawn.synthetic import scene
from fusionlib.deformation import compose, invert, valid_mask, warp
from fusionlib.methods import classical
from fusionlib.methods.classical import ECC, Identity, MutualInformation, PhaseCorrelation, register
from fusionlib.metrics import endpoint_error
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

pytest.importorskip("cv2", reason="OpenCV's desktop build needs libGL", exc_type=ImportError)

BY_NAME = pytest.mark.parametrize("name", classical.REGISTRATIONS)
SHIFT = [[1, 0, 3.3], [0, 1, -2.6]]
RIGID = [[np.cos(0.05), -np.sin(0.05), 7], [np.sin(0.05), np.cos(0.05), -6]]
AFFINE = [[1.02, 0.01, -3], [-0.015, 0.99, 4]]


def picture(height: int, width: int) -> Tensor:
    """A drawn infrared image (1, 1, H, W)."""
    return scene(("test", 0, 1), height, width).ir[None]


def moved(image: Tensor, matrix: list[list[float]]) -> tuple[Tensor, Tensor]:
    """The image deformed, and the field that undoes it: the motion of every pixel by a matrix (2, 3)."""
    height, width = image.shape[-2:]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    motion = np.tensordot(np.array(matrix), np.stack([x, y, np.ones_like(x)]), 1) - np.stack([x, y])
    phi = torch.from_numpy(motion)[None].float()
    return warp(image, invert(phi)), phi


def left(by: classical.Registration, image: Tensor, matrix: list[list[float]]) -> float:
    """End-point error in pixels after the deformed image was registered to the image itself."""
    deformed, phi = moved(image, matrix)
    found = register(deformed, image, by)
    assert not found.failed.any()
    return endpoint_error(found.field, phi, valid_mask(phi)).item()


# --- direction and pixels: an image registered to itself


@pytest.mark.parametrize(
    "by, height, width, matrix, allowed",
    [
        (PhaseCorrelation(), 96, 128, SHIFT, 0.4),
        (PhaseCorrelation(), 192, 144, SHIFT, 0.4),
        (ECC(), 96, 128, SHIFT, 0.05),
        (ECC(), 192, 144, RIGID, 0.05),
        (MutualInformation(), 96, 128, SHIFT, 0.1),
        (MutualInformation(), 144, 192, RIGID, 0.1),
    ],
)
def test_a_known_motion_comes_back(by, height, width, matrix, allowed):
    assert left(by, picture(height, width), matrix) < allowed


def test_a_spline_finds_what_is_not_rigid():
    image = picture(128, 160)
    assert left(MutualInformation(mesh=3), image, AFFINE) < 0.6 < 0.8 < left(MutualInformation(), image, AFFINE)


@pytest.mark.parametrize("by, allowed", [(PhaseCorrelation(), 1.0), (ECC(), 0.05), (MutualInformation(), 0.1)])
def test_large_images_are_compared_reduced_and_the_field_is_of_their_own_pixels(by, allowed):
    """401 x 515 is reduced by 2, and neither side is a multiple of that; half a pixel amiss would show."""
    assert left(by, picture(401, 515), SHIFT) < allowed


def test_each_image_of_a_batch_is_registered_by_itself():
    one, other = picture(96, 128), picture(96, 128).flip(-1)
    (first, _), (second, _) = moved(one, SHIFT), moved(other, [[1, 0, -2], [0, 1, 1]])
    together = register(torch.cat([first, second]), torch.cat([one, other]), ECC())
    assert together.field.shape == (2, 2, 96, 128) and together.field.dtype == torch.float32
    assert torch.equal(together.field[:1], register(first, one, ECC()).field)
    assert torch.equal(together.field[1:], register(second, other, ECC()).field)


@BY_NAME
def test_the_same_images_give_the_same_field(name):
    image = picture(96, 128)
    deformed, _ = moved(image, RIGID)
    by = classical.REGISTRATIONS[name]
    assert torch.equal(register(deformed, image, by).field, register(deformed, image, by).field)


@BY_NAME
@pytest.mark.parametrize("size", [(32, 32), (33, 90)])
def test_small_images_give_a_field_too(name, size):
    image = picture(96, 128)[..., 20 : 20 + size[0], 20 : 20 + size[1]]
    found = register(image, image, classical.REGISTRATIONS[name])
    assert found.field.shape == (1, 2, *size)
    assert found.field.abs().mean() < 0.2


# --- failures


@BY_NAME
def test_images_without_any_edge_stay_where_they_are(name):
    flat = torch.full((2, 1, 64, 64), 0.5)
    found = register(flat, flat, classical.REGISTRATIONS[name])
    assert torch.equal(found.field, torch.zeros(2, 2, 64, 64))


class Far:
    """Finds a shift by `pixels` to the right."""

    def __init__(self, pixels: float) -> None:
        self.pixels = pixels

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray:
        return np.stack([np.full(points.shape[1:], self.pixels), np.zeros(points.shape[1:])])


def test_what_goes_too_far_has_failed():
    image = torch.rand(1, 1, 50, 80)
    near, far = (register(image, image, Far(pixels)) for pixels in (4.9, 5.1))
    assert not near.failed.any() and near.field[:, 0].unique().tolist() == pytest.approx([4.9])
    assert far.failed.all() and not far.field.any()


def test_ecc_says_when_it_does_not_converge():
    """Noise and a picture have no edge in common."""
    noise = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    both = register(torch.cat([noise, noise]), torch.cat([picture(128, 128), noise]), ECC())
    assert both.failed.tolist() == [True, False]
    assert not both.field[0].any()


@BY_NAME
def test_bad_input_is_told_in_one_sentence(name):
    method, good = methods.load(name), torch.rand(1, 1, 40, 40)
    for ir, message in [
        (torch.rand(1, 1, 40, 41), "differ in size"),
        (torch.full_like(good, torch.nan), "NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            method.fuse(ir, good)
    with pytest.raises(InputError, match="too small"):
        method.fuse(good[..., :31], good[..., :31])
    for ir, vi in ((good.expand(1, 3, -1, -1), good), (good, good.expand(1, 3, -1, -1))):
        with pytest.raises(InputError, match=r"(Infrared|Visible) has 3 channels; give one.* luma"):
            method.fuse(ir, vi)


# --- as methods, alone and joined by a +


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    image = picture(96, 128)
    return moved(image, SHIFT)[0], image


@BY_NAME
def test_a_registration_is_a_method_whose_image_is_the_average(name, pair):
    ir, vi = pair
    method = methods.load(name)
    fused = method.fuse(ir, vi)
    assert method.name == name and name in methods.names()
    assert fused.field.shape == (1, 2, 96, 128) and fused.field.dtype == torch.float32
    assert torch.equal(fused.registered_ir, warp(ir, fused.field))
    assert torch.equal(fused.image, (fused.registered_ir + vi) / 2)
    assert bool(fused.field.any()) == (name != "identity")


def test_identity_leaves_the_image_as_it_is(pair):
    fused = methods.load("identity").fuse(*pair)
    assert (fused.registered_ir - pair[0]).abs().max() < 1e-6
    assert not register(*pair, Identity()).failed.any()


def test_one_method_registers_and_another_fuses(pair):
    ir, vi = pair
    chain, alone = methods.load("ecc+maximum"), methods.load("ecc").fuse(ir, vi)
    fused = chain.fuse(ir, vi)
    assert chain.name == "ecc+maximum"
    assert torch.equal(fused.field, alone.field) and torch.equal(fused.registered_ir, alone.registered_ir)
    assert torch.equal(fused.image, torch.maximum(alone.registered_ir, vi))
    assert torch.equal(methods.load("ecc+average").fuse(ir, vi).image, alone.image)


def test_a_second_registration_is_composed_with_the_first(pair):
    ir, vi = pair
    rough = methods.Classical("rough", Far(3))
    both = methods.Chain(rough, methods.load("ecc")).fuse(ir, vi)
    then = methods.load("ecc").fuse(rough.fuse(ir, vi).registered_ir, vi)
    assert torch.equal(both.field, compose(rough.fuse(ir, vi).field, then.field))
    assert torch.equal(both.registered_ir, warp(ir, both.field))
    phi = torch.tensor([3.3, -2.6]).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    assert endpoint_error(both.field, phi, valid_mask(phi)) < 0.1


def test_a_network_can_stand_on_either_side_of_the_plus(pair):
    ir, vi = pair
    network = methods.Ours(FusionNetwork(NetworkConfig(channels=4, msrb_widths=(8, 8), gathering_widths=(8, 8))))
    before = methods.Chain(network, methods.load("visible")).fuse(ir, vi)
    assert torch.equal(before.field, network.fuse(ir, vi).field) and torch.equal(before.image, vi)
    after = methods.Chain(methods.load("identity"), network).fuse(ir, vi)
    assert torch.allclose(after.field, network.fuse(ir, vi).field, atol=1e-3)


def test_names_that_do_not_fit_together_are_told(pair):
    for name in ("magic+average", "ecc+magic", "magic"):
        with pytest.raises(InputError, match=r"Unknown method 'magic'; choose one of ours, .*simpleitk.*maximum"):
            methods.load(name)
    with pytest.raises(InputError, match="maximum registers nothing: put one before the"):
        methods.load("maximum+average").fuse(*pair)


def test_opencv_and_simpleitk_are_loaded_when_they_are_used(monkeypatch, pair):
    """Importing the methods stays fast, and where OpenCV cannot be loaded the others work."""
    for module in ("cv2", "SimpleITK"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    fresh = runpy.run_path(classical.__file__)
    assert not fresh["register"](*pair, fresh["Identity"]()).failed.any()
    for name in ("phase_correlation", "ecc"):
        with pytest.raises(InputError, match="OpenCV, which this needs, cannot be loaded"):
            methods.load(name).fuse(*pair)
