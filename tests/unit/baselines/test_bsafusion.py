"""BSAFusion against golden values of the published code, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
import torch.nn.functional as F
from golden import check_outputs, exact, inputs, pair
from medical_checks import check_brings_back, check_parts, check_registering_protocol, fill_parts

from fusionlib.deformation import warp
from fusionlib.methods.baselines.bsafusion import BSAFusion, BSAFusionMethod
from fusionlib.methods.baselines.bsafusion_registration import collect, shift
from fusionlib.support.files import InputError

FACTS = golden.load("bsafusion")


@pytest.fixture(scope="module")
def method() -> BSAFusionMethod:
    torch.manual_seed(0)
    return BSAFusionMethod(BSAFusion())


@pytest.fixture
def still() -> BSAFusionMethod:
    """A method whose network finds no displacement."""
    torch.manual_seed(0)
    network = BSAFusion()
    for name, module in network.reg_net.named_modules():
        if name.endswith("flow_output.0"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return BSAFusionMethod(network)


def test_names_and_shapes_of_the_weights_are_the_published_ones(method: BSAFusionMethod) -> None:
    check_parts(method.network, FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    net, (img1, img2) = exact(fill_parts(BSAFusion())), inputs(case)
    output, (detail, semantic) = net(img1, img2), net.encoder(img1)
    deep, (of_img1, of_img2) = output.transferred, collect(output.flows)
    outputs = {
        "AS_F": detail,
        "feature1_encoder": semantic,
        "pre1": deep.logits1,
        "pre2": deep.logits2,
        "feature_pred1": net.transfer.discriminate(deep.feature1),
        "feature_pred2": net.transfer.discriminate(deep.feature2),
        "feature1": deep.feature1,
        "feature2": deep.feature2,
        "AU_F": deep.own1,
        "BU_F": deep.own2,
        "flow_neg": of_img1,
        "flow_pos": of_img2,
        "flow": output.flow,
        "warped_img2": output.warped,
        "warped_img2_border": warp(img2, output.flow),
        "fused": output.fused,
    }
    outputs |= {f"flow{i}": flow for i, flow in enumerate(output.flows, start=1)}
    check_outputs(outputs, case)


def test_it_is_a_method(method: BSAFusionMethod) -> None:
    check_registering_protocol(method)


def test_visible_is_the_reference_and_images_are_squared_at_the_lower_right(method: BSAFusionMethod) -> None:
    ir, vi = pair(40, 50)
    with torch.no_grad():
        output = method.network(*(F.pad(image, (0, 14, 0, 24), mode="replicate") for image in (vi, ir)))
    fused = method.fuse(ir, vi)
    assert torch.equal(fused.image, output.fused[..., :40, :50])
    assert torch.equal(fused.field, output.flow[..., :40, :50])
    with pytest.raises(InputError, match="squares with a multiple of 16"):
        method.network(ir, vi)


def test_without_steps_nothing_moves(still: BSAFusionMethod) -> None:
    ir, vi = pair(40, 50)
    fused = still.fuse(ir, vi)
    assert fused.field.abs().max() == 0
    torch.testing.assert_close(fused.registered_ir, ir, rtol=0, atol=1e-6)


@torch.no_grad()
def test_steps_of_the_moving_image_minus_those_of_the_reference_bring_it_back(still: BSAFusionMethod) -> None:
    net = still.network.reg_net  # the first step is 16 pixels of the image long, the third 4
    net.f2_FR1.flow_output[0].bias.copy_(torch.tensor([0.25, -0.125]).atanh())
    net.f1_FR3.flow_output[0].bias.copy_(torch.tensor([-0.25, 0.5]).atanh())
    check_brings_back(still, x=4 + 1, y=-2 - 2)


def test_the_network_s_own_warp_reads_too_far_outwards() -> None:
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    x = torch.arange(32.0)
    flow = torch.stack([torch.full((32, 32), 2.0), torch.zeros(32, 32)])[None]
    for image, axis in ((ramp, 3), (ramp.mT, 2)):
        moved = shift(image, flow).movedim(axis, -1)[0, 0, 16]
        expected = (x + (2 if axis == 3 else 0)) * 32 / 31 - 0.5
        inside = (expected >= 0) & (expected <= 31)
        torch.testing.assert_close(moved[inside], expected[inside], rtol=0, atol=1e-4)
        assert inside.sum() >= 28
