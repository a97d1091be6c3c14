"""IMF against golden values of the published code, and as a method."""

from __future__ import annotations

from copy import deepcopy

import golden
import pytest
import torch
from golden import check_outputs, check_state, exact, inputs, pair
from registering_checks import check_field, check_protocol, fill

from fusionlib.methods.baselines.imf import IMF, IMFMethod

FACTS = golden.load("imf")
PARTS = ("cpstn", "mpdr", "cofusion")


@pytest.fixture(scope="module")
def filled() -> IMF:
    network = IMF()
    for part in PARTS:
        fill(getattr(network, part), FACTS["cases"][0]["multiply"][part])
    return network


@pytest.fixture
def network(filled: IMF) -> IMF:
    """A copy to change."""
    return deepcopy(filled)


def still(network: IMF) -> IMF:
    """Finds no displacement at any level."""
    for i in range(4):
        torch.nn.init.zeros_(getattr(network.mpdr, f"predict_flow{i}").weight)
    return network


@pytest.mark.parametrize("part", PARTS)
def test_names_and_shapes_of_the_weights_are_the_published_ones(filled: IMF, part: str) -> None:
    check_state(getattr(filled, part), FACTS["parts"][part])


@torch.no_grad()
def test_filled_weights_give_the_golden_values(filled: IMF) -> None:
    case = FACTS["cases"][0]
    ir, luma, colour = inputs(case, 1, 1, 3)
    net = exact(deepcopy(filled))
    registered = net.mpdr(luma, ir)
    fusion = net.cofusion
    chain = net(ir, luma, colour)
    found = {
        "pseudo infrared": chain.pseudo_ir,
        "moved": registered.moved,
        "fixed, moved back": registered.fixed_back,
        "field": registered.fields[2],
        "field at 1/2": registered.fields[1],
        "field at 1/4": registered.fields[0],
        "fused without registration": fusion(ir, luma),
        "infrared features": fusion.neck_1(fusion.head_1(fusion.m_head_1(ir))),
        "chain: field": chain.field.flip(1),
        "chain: fused": chain.image,
    }
    check_outputs(found, case)


def test_it_is_a_method(network: IMF) -> None:
    with torch.no_grad():
        network.cofusion.tail[0].weight.neg_()  # the fused image is negative otherwise, and all cut off
    check_protocol(IMFMethod(network))


@torch.no_grad()
def test_the_field_says_where_the_infrared_lies(network: IMF) -> None:
    mpdr = still(network).mpdr
    mpdr.bottle_2.bn.weight.zero_()
    mpdr.bottle_2.bn.bias.fill_(1)  # decoded features of 1 everywhere, of which the flow is made
    for gate in mpdr.DFF_4.convsig:
        gate.conv.weight.zero_()
        gate.conv.bias.zero_()  # each flow counts half
    mpdr.predict_flow0.weight[:, 0, 1, 1] = 2 * torch.tensor([-2.0, 4.0])  # row first
    check_field(IMFMethod(network), 4, -2)


def test_without_displacement_the_infrared_stays(network: IMF) -> None:
    network = still(network)
    ir, vi = pair(37, 50)
    fused = IMFMethod(network).fuse(ir, vi)
    assert not fused.field.any()
    torch.testing.assert_close(fused.registered_ir, ir, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_pseudo_infrared_guides_and_the_luma_is_fused(filled: IMF) -> None:
    ir, vi = pair(32, 48)
    colour = vi.expand(-1, 3, -1, -1)
    output = filled(ir, vi, colour)
    assert 0 <= output.pseudo_ir.min() < output.pseudo_ir.max() <= 1
    torch.testing.assert_close(output.registered_ir, filled.mpdr(output.pseudo_ir, ir).moved)
    torch.testing.assert_close(output.image, filled.cofusion(output.registered_ir, vi))
    assert (filled(ir, vi, 1 - colour).field - output.field).abs().max() > 1e-3
    torch.testing.assert_close(filled(ir, 1 - vi, colour).field, output.field)
