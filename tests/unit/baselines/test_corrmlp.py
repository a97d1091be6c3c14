"""CorrMLP in two dimensions: golden values of a program that gives the published ones in three, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
import torch.nn.functional as F
from fusing_checks import fill
from golden import check_outputs, check_state, exact, inputs, pair
from medical_checks import check_brings_back, check_registering_protocol
from torch import nn

from fusionlib.deformation import valid_mask
from fusionlib.methods.baselines.corrmlp import CorrMLP, CorrMLPMethod
from fusionlib.methods.baselines.corrmlp_blocks import correlation
from fusionlib.support.files import InputError

FACTS = golden.load("corrmlp")


def heads(network: CorrMLP) -> list[nn.Conv2d]:
    """The convolutions that end in a flow, from full size to an eighth."""
    return [getattr(network.Decoder, f"reghead_{level}").reg_head for level in (1, 2, 3, 4)]


def method(spread: float = 0.0) -> CorrMLPMethod:
    """A method whose heads have weights of this deviation; at zero nothing moves."""
    torch.manual_seed(0)
    network = CorrMLP()
    for head in heads(network):
        nn.init.normal_(head.weight, std=spread)
    return CorrMLPMethod(network)


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(CorrMLP(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    net, outputs = exact(fill(CorrMLP(), case)), {}
    for name, part in net.Decoder.named_children():
        part.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    outputs["warped"], outputs["flow"] = net(*inputs(case))
    check_outputs(outputs, case)


def test_it_is_a_method() -> None:
    check_registering_protocol(method(spread=0.02))


def test_visible_is_fixed_and_images_are_padded_at_the_lower_right() -> None:
    registering, (ir, vi) = method(spread=0.02), pair(37, 50)
    with torch.no_grad():
        warped, flow = registering.network(*(F.pad(image, (0, 6, 0, 3), mode="replicate") for image in (vi, ir)))
    fused = registering.fuse(ir, vi)
    assert torch.equal(fused.field, flow[:, [1, 0], :37, :50])
    torch.testing.assert_close(fused.image, (fused.registered_ir + vi) / 2)
    inside = valid_mask(fused.field)  # elsewhere the network mixes zeros in
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(fused.registered_ir[inside], warped[..., :37, :50][inside], rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="sides of 16, 24, 32"):
        registering.network(ir, vi)


def test_it_starts_near_the_identity() -> None:
    ir, vi = pair(32, 40)
    fused = CorrMLPMethod(CorrMLP()).fuse(ir, vi)
    assert 0 < fused.field.abs().max() < 0.05


@torch.no_grad()
def test_the_flows_of_all_levels_add_up_and_bring_a_moved_image_back() -> None:
    registering = method()
    for head, flow in zip(heads(registering.network), [(2.0, 1.0), (0.0, -1.0), (0.5, 0.0), (-1.0, 0.5)], strict=True):
        head.bias.copy_(torch.tensor(flow))  # rows, then columns, in pixels of the level
    check_brings_back(registering, x=1 - 2 + 4, y=2 + 2 - 8)


def test_correlation_finds_the_neighbour_that_fits() -> None:
    feature = torch.randn(1, 64, 8, 9, generator=torch.Generator().manual_seed(0))
    down_left = feature.roll((1, -1), (2, 3))  # what was at (y, x) is at (y + 1, x - 1)
    found = correlation(feature, down_left)[..., :-1, 1:].argmax(1)
    assert (found == 2 * 3 + 0).all()
    assert correlation(feature, feature)[:, :3, 0].abs().max() == 0  # above the first row there is nothing
