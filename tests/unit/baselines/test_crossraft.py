"""CrossRAFT against golden values of the published code, and as a method."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import golden
import pytest
import torch
from golden import check_outputs, check_state, exact, inputs, pair
from registering_checks import check_field, check_protocol, fill
from torch import Tensor

from fusionlib.methods.baselines.crossraft import CrossRAFT, CrossRAFTMethod, align, mixed, padded

FACTS = golden.load("crossraft")


@pytest.fixture(scope="module")
def network() -> CrossRAFT:
    """With 34 million weights in one layer it takes longer to make than to run, so it is made once."""
    return fill(CrossRAFT(), FACTS["cases"][0]["multiply"])


@pytest.fixture
def finding(network: CrossRAFT, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], CrossRAFTMethod]:
    """Makes a method of two iterations which always finds the displacement (x, y)."""

    def make(x: float, y: float) -> CrossRAFTMethod:
        step = torch.tensor([x, y]).view(1, 2, 1, 1) / 8 / 2

        def head(state: Tensor) -> Tensor:
            return step.expand(len(state), 2, *state.shape[-2:])

        monkeypatch.setattr(network, "iterations", 2)
        monkeypatch.setattr(network.update_block.flow_head, "forward", head)
        return CrossRAFTMethod(network)

    return make


def test_names_and_shapes_of_the_weights_are_the_published_ones(network: CrossRAFT) -> None:
    check_state(network, FACTS)


@torch.no_grad()
def test_filled_weights_give_the_golden_values(network: CrossRAFT) -> None:
    case = FACTS["cases"][0]
    net, (first, second) = exact(deepcopy(network)), inputs(case, 3, 3)
    flow = net(first, second)
    first_padded, second_padded = padded(2 * first - 1), padded(2 * second - 1)
    matrix = net.adapter(first_padded, second_padded)
    found = {
        "adapter matrix": matrix,
        "features of the first image, mixed": mixed(net.fnet(first_padded), matrix),
        "context": net.cnet(first_padded),
        "flow": flow,
        "aligned": align(second, flow),
    }
    check_outputs(found, case)


def test_there_is_one_prediction_an_iteration_and_the_last_is_the_answer(
    network: CrossRAFT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "iterations", 2)
    images = [image.expand(-1, 3, -1, -1) for image in pair(45, 52)]
    predictions = network.predictions(*images)
    assert [p.shape for p in predictions] == [(1, 2, 45, 52)] * 2
    assert (predictions[1] - predictions[0]).abs().max() > 0.1
    torch.testing.assert_close(predictions[1], network(*images))
    predictions[1].mean().backward()
    assert network.adapter.feat_net[0][0].weight.grad.abs().max() > 0
    network.zero_grad()


def test_it_is_a_method(network: CrossRAFT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "iterations", 2)
    check_protocol(CrossRAFTMethod(network))


def test_the_visible_image_is_the_reference(network: CrossRAFT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "iterations", 1)
    ir, vi = pair(40, 33)
    with torch.no_grad():
        flow = network(*(image.expand(-1, 3, -1, -1) for image in (vi, ir)))
    torch.testing.assert_close(CrossRAFTMethod(network).fuse(ir, vi).field, flow)


def test_the_field_says_where_the_infrared_lies(finding: Callable[[float, float], CrossRAFTMethod]) -> None:
    check_field(finding(4, -2), 4, -2)


def test_without_displacement_the_infrared_stays_and_the_average_comes_out(
    finding: Callable[[float, float], CrossRAFTMethod],
) -> None:
    ir, vi = pair(37, 50)
    fused = finding(0, 0).fuse(ir, vi)
    assert not fused.field.any()
    torch.testing.assert_close(fused.registered_ir, ir, rtol=0, atol=1e-5)
    torch.testing.assert_close(fused.image, (ir + vi) / 2, rtol=0, atol=1e-5)


def test_what_is_covered_in_part_only_becomes_zero() -> None:
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0] = 2.5
    aligned = align(torch.ones(1, 1, 6, 7), flow)
    assert aligned[..., :4].eq(1).all() and aligned[..., 4:].eq(0).all()
