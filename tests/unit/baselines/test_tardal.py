"""TarDAL's generator against golden values of the published code, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
from fusing_checks import check_protocol, fill, load_published
from golden import check_output, check_state, exact, inputs, pair

from fusionlib.methods.baselines.tardal import TarDALGenerator, TarDALMethod, with_own_statistics

FACTS = golden.load("tardal")


def generator() -> TarDALGenerator:
    torch.manual_seed(0)
    network = TarDALGenerator()
    torch.nn.init.constant_(network.fuse[3][0].bias, 0.5)  # the middle of the range, where nothing is cut
    return network


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(TarDALGenerator(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    net = exact(fill(TarDALGenerator(), case))
    check_output((with_own_statistics(net) if case["own_statistics"] else net)(*inputs(case)), case)


@pytest.mark.parametrize("case", FACTS["published"], ids=lambda case: case["file"])
@torch.no_grad()
def test_published_weights_give_the_golden_values(case: dict) -> None:
    net = exact(load_published(TarDALGenerator(), "tardal", case["file"]))
    check_output((with_own_statistics(net) if case["own_statistics"] else net)(*inputs(case)), case)


@pytest.mark.parametrize("own_statistics", [True, False])
def test_it_is_a_method(own_statistics: bool) -> None:
    network = generator()
    torch.nn.init.constant_(network.fuse[3][0].weight, 0.01 if own_statistics else 0.3)
    check_protocol(TarDALMethod(network, own_statistics=own_statistics))


def test_infrared_goes_in_first_and_the_output_is_clamped() -> None:
    fusing, (ir, vi) = TarDALMethod(generator(), own_statistics=False), pair(32, 40)
    with torch.no_grad():
        fusing.network.fuse[3][0].bias.fill_(0.0)
        output = fusing.network(ir, vi)
    assert output.min() < 0 < output.max()
    assert torch.equal(fusing.fuse(ir, vi).image, output.clamp(0, 1))


@torch.no_grad()
def test_own_statistics_are_those_of_batchnorm_in_training_and_leave_the_network_as_it_is() -> None:
    network, images = generator().eval(), pair(40, 32)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    evaluated = network(*images)
    own = TarDALMethod(network).fuse(*images).image
    assert torch.equal(network(*images), evaluated)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(own, network.train()(*images).clamp(0, 1), rtol=0, atol=1e-6)
    assert (own - evaluated.clamp(0, 1)).abs().max() > 0.05
