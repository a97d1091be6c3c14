"""DATFuse against golden values of the published code, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
from fusing_checks import check_protocol, fill, load_published
from golden import check_output, check_state, exact, inputs, pair

from fusionlib.methods.baselines.datfuse import DATFuse, DATFuseMethod

FACTS = golden.load("datfuse")


def method() -> DATFuseMethod:
    torch.manual_seed(0)
    network = DATFuse()
    torch.nn.init.constant_(network.convolutional_out.conv.bias, 0.5)  # the middle of the range, where nothing is cut
    return DATFuseMethod(network)


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(DATFuse(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    check_output(exact(fill(DATFuse(), case))(*inputs(case)), case)


@pytest.mark.parametrize("case", FACTS["published"], ids=lambda case: case["name"])
@torch.no_grad()
def test_published_weights_give_the_golden_values(case: dict) -> None:
    net = exact(load_published(DATFuse(), "datfuse", case["file"]))
    check_output(net(*inputs(case)), case)


def test_it_is_a_method() -> None:
    check_protocol(method())


def test_infrared_goes_in_first_and_the_output_is_clamped() -> None:
    fusing, (ir, vi) = method(), pair(32, 40)
    with torch.no_grad():
        fusing.network.convolutional_out.conv.bias.fill_(0.05)
        output = fusing.network(ir, vi)
    assert output.min() < 0 < output.max()
    assert torch.equal(fusing.fuse(ir, vi).image, output.clamp(0, 1))
