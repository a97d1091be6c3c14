"""MURF against golden values of the published code, its units and directions, and as a method."""

from __future__ import annotations

from copy import deepcopy

import golden
import pytest
import torch
from fusing_checks import load_published
from golden import check_outputs, check_state, exact, inputs, pair
from registering_checks import check_protocol
from torch import Tensor, nn

from fusionlib.deformation import valid_mask, warp
from fusionlib.methods.baselines import murf
from fusionlib.methods.baselines.murf import MURF, MURFMethod
from fusionlib.methods.baselines.murf_coarse import affine_field, affine_sample, coarse_loss, extent, identity, sample
from fusionlib.methods.baselines.murf_descriptor import Descriptors
from fusionlib.methods.baselines.murf_fine import with_colour

FACTS = golden.load("murf")
SIDE = 64  # of the squares that MCRM gets in these tests


@pytest.fixture(autouse=True)
def small_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(murf, "COARSE_SIDE", SIDE)


@pytest.fixture(scope="module")
def network() -> MURF:
    """Small affine changes, and offsets of some pixels that are smooth."""
    net = MURF()
    for part in net.children():
        part.load_state_dict(golden.filled(part.state_dict()))
    return net.eval()


def shifting(x: float, y: float, by: str = "coarse") -> MURF:
    """A network of which one part shifts by so much, in normalised units from 0 to 0.2, and the other is idle."""
    torch.manual_seed(0)
    net = MURF().eval()
    for part in (net.mcrm.d4.fc, net.mcrm.d2.fc, net.mcrm.d1.fc, net.f2m.offset.conv11):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    with torch.no_grad():
        if by == "coarse":
            net.mcrm.d4.fc.bias[2], net.mcrm.d4.fc.bias[5] = x, y
        else:
            net.f2m.offset.conv11.bias.copy_(torch.atanh(torch.tensor([x, y]) / 0.2))
    return net


def outputs(name: str, net: nn.Module, rgb: Tensor, ir: Tensor) -> dict[str, Tensor]:
    found = net(rgb, ir)._asdict()
    if name == "mcrm":
        half = affine_sample(rgb[..., ::2, ::2], found["first"])[0]
        before = affine_sample(rgb, found["before"])[0]
        change = (found["matrix"] - torch.eye(2, 3)).flatten(1)
        return {"change": change, "warped": found["warped"], "inside": found["inside"], "half": half, "before": before}
    return found


@pytest.mark.parametrize("part", FACTS["parts"])
def test_names_and_shapes_of_the_weights_are_the_published_ones(part: str) -> None:
    check_state(getattr(MURF(), part), FACTS["parts"][part])


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(network: MURF, case: dict) -> None:
    net = exact(deepcopy(getattr(network, case["network"])))
    check_outputs(outputs(case["network"], net, *inputs(case, 3, 1)), case)


@pytest.mark.parametrize("case", FACTS["published"], ids=lambda case: case["name"])
@torch.no_grad()
def test_published_weights_give_the_golden_values(case: dict) -> None:
    net = exact(load_published(getattr(MURF(), case["network"]), "murf", case["file"]))
    check_outputs(outputs(case["network"], net, *inputs(case, 3, 1)), case)


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_sampling_is_near_the_nearest_neighbour_and_zero_outside() -> None:
    image = golden.waves(9, 11, channels=3)
    for shift, nearest in ((0.2, 0), (0.8, 1), (-0.8, -1)):
        positions = (identity(image) + 2 * torch.tensor([shift, 0.0]).view(2, 1, 1) / extent(image))[None]
        read, inside = sample(image, positions)
        expected = torch.zeros_like(image)
        columns = slice(1, -2)  # whole weights only: away from where the four corners coincide
        expected[..., columns] = image[..., 1 + nearest : 9 + nearest]
        torch.testing.assert_close(read[..., :-1, columns], expected[..., :-1, columns], rtol=0, atol=0.01)
        outside = 0 if shift < 0 else -1
        assert inside[..., outside].sum() == 0 and read[..., outside].abs().sum() == 0


def test_half_way_between_two_pixels_is_their_mean() -> None:
    image = golden.waves(9, 11)
    positions = (identity(image) + torch.tensor([1.0, 0.0]).view(2, 1, 1) / extent(image))[None]
    expected = (image[..., :-1, :-2] + image[..., :-1, 1:-1]) / 2
    torch.testing.assert_close(sample(image, positions)[0][..., :-1, :-2], expected, rtol=0, atol=1e-4)


def test_an_affine_field_in_pixels_does_what_the_sampling_does() -> None:
    image = golden.waves(60, 80)
    matrix = torch.tensor([[[0.95, 0.05, 0.1], [-0.04, 1.02, -0.05]]])
    field = affine_field(image, matrix)
    read, inside = affine_sample(image, matrix)
    assert torch.equal(valid_mask(field), inside.bool())
    error = (read - warp(image, field))[inside.bool()].abs()
    assert error.max() < 0.15 and error.mean() < 0.05  # nearly the nearest neighbour against bilinear


# --- coarse registration ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_of_several_affine_steps_only_the_first_keeps_its_shift() -> None:
    network, (ir, vi) = shifting(0.1, 0.2), pair(SIDE, SIDE)
    network.mcrm.d2.fc.bias[0] = network.mcrm.d1.fc.bias[2] = 0.5  # twice a half more in x; a shift, to be lost
    found = network.mcrm(vi.expand(-1, 3, -1, -1), ir)
    torch.testing.assert_close(found.first, torch.tensor([[[1, 0, 0.1], [0, 1, 0.2]]]))
    torch.testing.assert_close(found.matrix, torch.tensor([[[1.5, 0, 0.15], [0, 1, 0.2]]]))
    assert torch.equal(found.before, found.matrix)


@torch.no_grad()
def test_the_coarse_loss_is_least_where_the_descriptors_lie_on_each_other() -> None:
    ir, image = golden.waves(SIDE, SIDE), golden.waves(SIDE, SIDE, 3)
    descriptors = Descriptors(torch.roll(ir, 4, 3), ir, ir, ir)  # the visible one lies 4 pixels to the right
    loss = {}
    for pixels in (0, 2, 4, 6):
        found = shifting(2 * pixels / (SIDE - 1), 0).mcrm(image, ir)
        loss[pixels] = coarse_loss(found, descriptors).item()
    assert min(loss, key=loss.get) == 4 and loss[4] == pytest.approx(-2, abs=0.05)
    assert loss[0] > loss[2] > loss[4] < loss[6]


def test_tuning_lowers_the_loss_and_leaves_the_network_as_it_is(network: MURF) -> None:
    ir, vi = pair(SIDE, SIDE)
    rgb = vi.expand(-1, 3, -1, -1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.inference_mode():
        descriptors = network.siem(rgb, ir)
        loss = [coarse_loss(MURFMethod(network, steps=n)._register(rgb, ir), descriptors) for n in (0, 2)]
    assert loss[1] < loss[0] - 1e-4
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


# --- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [True, False])
def test_it_is_a_method(network: MURF, coarse: bool) -> None:
    check_protocol(MURFMethod(network, coarse=coarse, steps=0))


@torch.no_grad()
@pytest.mark.parametrize("by", ["coarse", "fine"])
def test_the_infrared_comes_to_lie_on_the_visible_image(by: str) -> None:
    vi, shift = golden.waves(48, 64), torch.tensor([6.0, 3.0]).view(1, 2, 1, 1)
    ir = warp(vi, shift.expand(1, 2, 48, 64))  # ir(p) = vi(p + shift), so that the visible image must move by shift
    normalised = 2 * shift.flatten() / torch.tensor([64, 48]) * SIDE / (SIDE - 1)
    fused = MURFMethod(shifting(*normalised.tolist(), by), steps=0).fuse(ir, vi)
    torch.testing.assert_close(fused.field, -shift.expand(1, 2, 48, 64), rtol=0, atol=1e-3)
    torch.testing.assert_close(fused.registered_ir[..., 3:, 6:], vi[..., 3:, 6:], rtol=0, atol=1e-3)


@torch.no_grad()
def test_coarse_and_fine_registration_make_one_field(network: MURF) -> None:
    ir, vi = pair(SIDE, SIDE)
    _, moved = MURFMethod(network, steps=0)._fuse(ir, vi)
    _, fine = network(vi.expand(-1, 3, -1, -1), ir)
    inside = fine.warped[:, :1] > 0
    error = (warp(vi, moved) - fine.warped[:, :1])[inside].abs()
    assert inside.float().mean() > 0.5 and error.mean() < 0.03  # nearly the nearest neighbour against bilinear


@torch.no_grad()
def test_the_fused_image_lies_on_the_visible_one_or_stays_on_the_infrared(network: MURF) -> None:
    ir, vi = pair(40, 48)
    moved, stayed = (MURFMethod(network, steps=0, onto_visible=onto).fuse(ir, vi) for onto in (True, False))
    assert torch.equal(moved.field, stayed.field)
    assert torch.equal(moved.image, warp(stayed.image, stayed.field))
    assert stayed.image.max() == 1  # stretched


@torch.no_grad()
def test_without_resizing_the_method_is_the_network(network: MURF) -> None:
    ir, vi = pair(SIDE, SIDE)
    _, fine = network(vi.expand(-1, 3, -1, -1), ir)
    image = MURFMethod(network, steps=0, onto_visible=False).fuse(ir, vi).image
    torch.testing.assert_close(image, fine.luma / fine.luma.max())
    torch.testing.assert_close(fine.fused, fine.luma.expand(-1, 3, -1, -1))  # grey in, grey out


def test_colour_is_carried_over() -> None:
    rgb = golden.waves(8, 9, channels=3)
    luma = 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]
    torch.testing.assert_close(with_colour(luma, rgb), rgb, rtol=0, atol=1e-3)
    torch.testing.assert_close(with_colour(luma + 0.1, rgb), rgb + 0.1, rtol=0, atol=1e-3)
