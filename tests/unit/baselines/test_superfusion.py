"""SuperFusion against golden values of the published code, its units and directions, and as a method."""

from __future__ import annotations

from copy import deepcopy

import golden
import pytest
import torch
from golden import check_outputs, check_state, exact, inputs
from registering_checks import check_protocol, fill
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.methods.baselines.superfusion import SuperFusion, SuperFusionMethod, pixel_field
from fusionlib.methods.baselines.superfusion_fusion import Scan
from fusionlib.methods.baselines.superfusion_matcher import blur, cost_volume, edge_warp

FACTS = golden.load("superfusion")


@pytest.fixture(scope="module")
def network() -> SuperFusion:
    net = SuperFusion()
    for name, part in net.named_children():
        fill(part, FACTS["cases"][0]["multiply"][name])
    return net.eval()


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("part", FACTS["parts"])
def test_names_and_shapes_of_the_weights_are_the_published_ones(network: SuperFusion, part: str) -> None:
    check_state(getattr(network, part), FACTS["parts"][part])


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(network: SuperFusion, case: dict) -> None:
    net = deepcopy(network)
    for name, multiply in case["multiply"].items():
        fill(getattr(net, name), multiply)
    ir, vi = inputs(case, 3, 3)
    output = exact(net)(ir, vi)
    luma = 0.299 * vi[:, :1] + 0.587 * vi[:, 1:2] + 0.114 * vi[:, 2:]
    cr, cb = 0.713 * (vi[:, :1] - luma), 0.564 * (vi[:, 2:] - luma)
    colour = [output.luma + 1.403 * cr, output.luma - 0.714 * cr - 0.344 * cb, output.luma + 1.773 * cb]
    features = torch.cat([net.FN.encoder_ir(ir[:, :1]), net.FN.encoder_vi(luma)], 1)
    scans = net.FN.SAM.irnn1(net.FN.SAM.conv_in(features))
    found = {
        "displacement": output.displacement,
        "reverse displacement": net.DM(ir, vi, reverse=True),
        "registered": output.registered_ir,
        "fused colour": torch.cat(colour, 1).clamp(0, 1),
        "fused unregistered": net.FN(ir[:, :1], luma),
        "map": net.FN.SAM(features),
    }
    check_outputs(found | dict(zip(("up", "right", "down", "left"), scans, strict=True)), case)


def test_it_is_a_method(network: SuperFusion) -> None:
    check_protocol(SuperFusionMethod(network))


def test_the_field_in_pixels_does_what_the_system_s_warp_does() -> None:
    image = golden.waves(40, 53, channels=2)
    displacement = torch.nn.functional.interpolate(0.2 * noise(1, 2, 3, 3) - 0.1, (40, 53), mode="bicubic")
    field = pixel_field(displacement)
    within = warp(nn.functional.pad(torch.ones(1, 2, 38, 51), [1] * 4), field) > 0.999
    assert within.float().mean() > 0.5
    torch.testing.assert_close(edge_warp(image, displacement)[within], warp(image, field)[within], rtol=0, atol=1e-5)


def test_a_displacement_of_zero_reads_half_a_pixel_outwards_at_the_border() -> None:
    field = pixel_field(torch.zeros(1, 2, 5, 9))
    torch.testing.assert_close(field[0, 0], torch.linspace(-0.5, 0.5, 9).expand(5, 9))
    torch.testing.assert_close(field[0, 1], torch.linspace(-0.5, 0.5, 5)[:, None].expand(5, 9))


@pytest.mark.parametrize("shift", [(0, 0), (4, -8), (-12, 12)])
def test_the_cost_is_zero_at_the_shift_between_source_and_target(shift: tuple[int, int]) -> None:
    source = noise(1, 3, 40, 48)
    dy, dx = shift
    target = torch.roll(blur(source, 13, 3, "constant"), (-dy, -dx), (2, 3))  # target(p) = blurred source(p + shift)
    cost = cost_volume(source, target)[..., 12:-12, 12:-12]
    channel = 7 * (dy // 4 + 3) + dx // 4 + 3
    assert cost[:, channel].max() < 1e-12
    others = torch.cat([cost[:, :channel], cost[:, channel + 1 :]], 1)
    assert others.mean((0, 2, 3)).min() > 1e-4


def test_scans_carry_what_they_saw_onwards() -> None:
    scan, x = Scan(1), noise(1, 1, 5, 7)
    for step in scan.children():
        nn.init.ones_(step.weight)
        nn.init.zeros_(step.bias)
    up, right, down, left = (result.detach() for result in scan(x))
    torch.testing.assert_close(right, x.cumsum(3))
    torch.testing.assert_close(left, x.flip(3).cumsum(3).flip(3))
    torch.testing.assert_close(down, x.cumsum(2))
    torch.testing.assert_close(up, x.flip(2).cumsum(2).flip(2))
    nn.init.constant_(scan.right_weight.bias, 100)
    assert torch.equal(scan(x)[1][..., 0], x[..., 0])  # nothing comes before the first


@torch.no_grad()
def test_displacements_of_all_levels_are_there_for_training(network: SuperFusion) -> None:
    ir, vi = golden.waves(37, 50, 3), golden.waves(37, 50, 3, 1.0)
    levels = network.DM.levels(*network.DM.features(ir, vi), (37, 50))
    assert [level.shape for level in levels] == [(1, 2, 37, 50)] * 3
    assert torch.equal(levels[0], network.DM(ir, vi))
    assert not torch.allclose(levels[1], levels[2])


def test_everything_learns_but_the_weights_of_the_directions(network: SuperFusion) -> None:
    output = network(golden.waves(32, 40, 3), golden.waves(32, 40, 3, 1.0))
    output.luma.mean().backward()
    still = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    network.zero_grad()
    assert still == {name for name, _ in network.named_parameters() if "attention_layer" in name} and len(still) == 6
