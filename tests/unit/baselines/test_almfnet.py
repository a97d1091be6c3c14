"""ALMFnet against golden values of the published code, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
from fusing_checks import check_protocol, fill, load_published
from golden import check_output, check_state, exact, inputs, pair

from fusionlib.methods.baselines.almfnet import ALMFNet, ALMFNetMethod

FACTS = golden.load("almfnet")


def method() -> ALMFNetMethod:
    """With the weights of `golden`: those of a new network give an image of hardly any contrast."""
    network = ALMFNet()
    network.load_state_dict(golden.filled(network.state_dict()))
    return ALMFNetMethod(network)


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(ALMFNet(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    check_output(exact(fill(ALMFNet(), case))(*inputs(case)), case)


@pytest.mark.parametrize("case", FACTS["published"], ids=lambda case: case["name"])
@torch.no_grad()
def test_published_weights_give_the_golden_values(case: dict) -> None:
    check_output(exact(load_published(ALMFNet(), "almfnet", case["file"]))(*inputs(case)), case)


def test_it_is_a_method() -> None:
    check_protocol(method())


def test_visible_goes_in_first_and_the_output_is_clamped() -> None:
    fusing, (ir, vi) = method(), pair(32, 40)
    with torch.no_grad():
        output = fusing.network(vi, ir)
    assert output.min() < 0 < output.max()
    assert torch.equal(fusing.fuse(ir, vi).image, output.clamp(0, 1))
