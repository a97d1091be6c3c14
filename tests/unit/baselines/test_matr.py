"""MATR against golden values of the published code, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
import torch.nn.functional as F
from fusing_checks import check_protocol, fill, load_published
from golden import check_output, check_state, exact, inputs, pair

from fusionlib.methods.baselines.matr import MATR, AdaptiveConv2d, MATRMethod

FACTS = golden.load("matr")


def method() -> MATRMethod:
    torch.manual_seed(0)
    return MATRMethod(MATR())


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(MATR(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    check_output(exact(fill(MATR(), case))(*inputs(case)), case)


@pytest.mark.parametrize("case", FACTS["published"], ids=lambda case: case["name"])
@torch.no_grad()
def test_published_weights_give_the_golden_values(case: dict) -> None:
    net = exact(load_published(MATR(), "matr", case["file"]))
    check_output(net(*inputs(case)), case)


def test_it_is_a_method() -> None:
    fusing = method()
    with torch.no_grad():
        fusing.network.convolutional_out.conv1.weight.abs_()  # positive, or the clamp would leave nothing
    check_protocol(fusing)


def test_infrared_goes_in_first_and_the_output_is_clamped() -> None:
    fusing, (ir, vi) = method(), pair(32, 40)
    with torch.no_grad():
        output = fusing.network(ir, vi)
    assert output.min() < 0 < output.max()
    assert torch.equal(fusing.fuse(ir, vi).image, output.clamp(0, 1))


@torch.no_grad()
def test_an_adaptive_convolution_with_gates_at_rest_is_a_plain_one() -> None:
    torch.manual_seed(0)
    layer, x = AdaptiveConv2d(3, 4).eval(), torch.rand(2, 3, 9, 12)
    assert (layer(x) - F.conv2d(x, layer.weight / 2, padding=1)).abs().max() > 0.01
    layer.gd.weight.zero_()
    layer.gd2.weight.zero_()
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, padding=1))  # sigmoid(0) = 1/2
