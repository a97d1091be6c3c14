"""The drawn brains: the same for the same key, one anatomy in two contrasts, intensities by the spin-echo equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionlib.data import SYNTHETIC_SCENES, open_set
from fusionlib.data.drawn.brain import T1_WEIGHTED, T2_WEIGHTED, TISSUES, Brain, SpinEcho, Tissue, brain
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

NAMES = list(TISSUES)


@pytest.fixture(scope="module")
def brains() -> list[Brain]:
    return [brain(("train", 0, number)) for number in range(12)]


def inside(drawn: Brain) -> torch.Tensor:
    return drawn.shares.sum(0) > 0.5


def pure(drawn: Brain, tissue: str) -> torch.Tensor:
    """Pixels (H, W) of hardly anything but this tissue."""
    return drawn.shares[NAMES.index(tissue)] > 0.95


def test_same_key_same_brain_other_key_other_brain(brains: list[Brain]) -> None:
    again = brain(("train", 0, 3))
    assert again.name == brains[3].name == "brain_train_0_3"
    for field in ("t1", "t2", "shares"):
        assert torch.equal(getattr(brains[3], field), getattr(again, field))
        assert not torch.equal(getattr(brains[3], field), getattr(brains[4], field))


@pytest.mark.parametrize(("height", "width"), [(240, 240), (64, 64), (97, 131), (300, 256)])
def test_images_are_8_bit_valued_and_black_outside(height: int, width: int) -> None:
    drawn = brain("sizes", height, width)
    assert drawn.t1.shape == drawn.t2.shape == (1, height, width) and drawn.shares.shape == (5, height, width)
    for image in (drawn.t1, drawn.t2):
        assert image.dtype == torch.float32 and torch.equal(torch.round(image * 255) / 255, image)
        assert (image[0][~inside(drawn)] == 0).all() and (image[0][inside(drawn)] > 0).float().mean() > 0.99
        assert image.max() == 1
    assert 0.2 < inside(drawn).float().mean() < 0.4  # as in the frame of real slices
    rows, columns = inside(drawn).nonzero().T
    assert (rows.max() - rows.min()) / height > (columns.max() - columns.min()) / width


def test_another_resolution_shows_the_same_brain() -> None:
    for key in range(4):
        small, large = brain(key, 120, 120), brain(key, 240, 240)
        for name in ("t1", "t2"):
            shrunk = torch.nn.functional.avg_pool2d(getattr(large, name), 2)
            assert torch.corrcoef(torch.stack([shrunk.flatten(), getattr(small, name).flatten()]))[0, 1] > 0.96


def test_shares_add_up_and_every_brain_has_its_tissues_and_a_lesion(brains: list[Brain]) -> None:
    for drawn in brains:
        total = drawn.shares.sum(0)
        assert drawn.shares.min() >= 0 and total.max() < 1 + 1e-5
        assert (total > 1 - 1e-5).float().mean() > 0.9 * inside(drawn).float().mean()
        parts = dict(zip(NAMES, (drawn.shares.sum((1, 2)) / total.sum()).tolist(), strict=True))
        assert 0.05 < parts["fluid"] < 0.3 and 0.2 < parts["cortex"] < 0.6 and 0.2 < parts["white"] < 0.65, parts
        assert 20 < pure(drawn, "lesion").sum() < 400  # square millimetres
    assert 3 < sum(pure(drawn, "deep").any().item() for drawn in brains) < 12  # not where the cut is high


def test_voxels_on_borders_are_mixtures(brains: list[Brain]) -> None:
    fluid = brains[0].shares[NAMES.index("fluid")]
    mixed = (fluid > 0.1) & (fluid < 0.9)
    assert 0.3 < mixed.sum() / (fluid > 0.1).sum() < 0.9


def test_the_signal_is_that_of_a_spin_echo() -> None:
    half, tenth = SpinEcho(repetition=1000 * np.log(2), echo=0), SpinEcho(repetition=1e9, echo=80 * np.log(10))
    assert half.signal(Tissue(1000, 80, 0.8)) == pytest.approx(0.4)
    assert tenth.signal(Tissue(1000, 80, 0.8)) == pytest.approx(0.08)


def test_tissues_are_as_bright_as_their_signals_say(brains: list[Brain]) -> None:
    """Medians of pure tissues, relative to white matter; the coil's field and the noise leave 6 %."""
    for name, setting in (("t1", T1_WEIGHTED), ("t2", T2_WEIGHTED)):
        white = setting.signal(TISSUES["white"])
        for tissue in ("fluid", "cortex", "lesion"):
            ratios = []
            for drawn in brains:
                image = getattr(drawn, name)[0]
                ratios.append(image[pure(drawn, tissue)].median() / image[pure(drawn, "white")].median())
            assert np.mean(ratios) == pytest.approx(setting.signal(TISSUES[tissue]) / white, rel=0.06), (name, tissue)


def test_the_two_contrasts_oppose_each_other(brains: list[Brain]) -> None:
    for drawn in brains:
        pair = torch.stack([drawn.t1[0][inside(drawn)], drawn.t2[0][inside(drawn)]])
        assert -0.95 < torch.corrcoef(pair)[0, 1] < -0.4  # real slices of open_ms have -0.6 to -0.7


def test_noise_is_there_and_the_two_images_do_not_share_it(brains: list[Brain]) -> None:
    white, noise = pure(brains[0], "white"), []
    for image in (brains[0].t1[0], brains[0].t2[0]):
        difference = (image[:, 1:] - image[:, :-1])[white[:, 1:] & white[:, :-1]]
        noise.append(difference)
        assert 0.015 < difference.std() / 2**0.5 < 0.025
    assert abs(torch.corrcoef(torch.stack(noise))[0, 1]) < 0.1


@pytest.mark.parametrize(("height", "width"), [(63, 128), (128, 32), (0, 240)])
def test_a_size_too_small_is_said_so(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{width}x{height} pixels is too small to show its parts: ask for 64x64"):
        brain(0, height, width)


def test_drawn_brains_are_a_set_like_any_other() -> None:
    pairs = open_set("Brains", "val", size=(64, 80), count=2)
    assert pairs.names == ["brains_val_0000", "brains_val_0001"]
    for number, pair in enumerate(pairs):
        drawn = brain(("val", 0, number), 64, 80)
        assert torch.equal(pair.ir, drawn.t2) and torch.equal(pair.vi, drawn.t1)
        assert torch.equal(pair.rgb, drawn.t1.expand(3, -1, -1)) and pair.boxes is None
    assert open_set("brains", "test", count=1)[0].ir.shape == (1, 240, 240)
    assert {split: len(open_set("brains", split)) for split in SYNTHETIC_SCENES} == SYNTHETIC_SCENES
    assert len(open_set("brains")) == sum(SYNTHETIC_SCENES.values())
    with pytest.raises(InputError, match="brains has no split 'external': choose one of train, val, test, all"):
        open_set("brains", "external")
