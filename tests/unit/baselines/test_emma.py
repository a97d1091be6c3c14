"""EMMA's fuser and its sensors against golden values of the published code, and the fuser as a method.

With weights by rule the coarsest level moves the fused image by a billionth of its standard deviation: only float64,
and the narrow tolerance it allows, sees that level.
"""

from __future__ import annotations

import golden
import pytest
import torch
from fusing_checks import check_protocol, fill
from golden import check_output, check_state, exact, inputs, pair

from fusionlib.methods.baselines.emma import EMMAMethod, Ufuser, stretched

FACTS = golden.load("emma")


@pytest.fixture(scope="module")
def network() -> Ufuser:
    """Weights that give images of good contrast."""
    return fill(Ufuser(), {"kernel_scale": 0.6})


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_state(Ufuser(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    check_output(exact(fill(Ufuser(), case))(*inputs(case)), case)


@pytest.mark.parametrize("stretch", [True, False])
def test_it_is_a_method(network: Ufuser, stretch: bool) -> None:
    check_protocol(EMMAMethod(network, stretch=stretch))


@torch.inference_mode()
def test_a_multiple_of_32_is_one_tile_and_infrared_goes_in_first(network: Ufuser) -> None:
    ir, vi = pair(32, 64)
    assert torch.equal(EMMAMethod(network, stretch=False).fuse(ir, vi).image, network(ir, vi))


@torch.inference_mode()
def test_other_sizes_are_fused_in_tiles(network: Ufuser) -> None:
    ir, vi = pair(40, 70)
    image = EMMAMethod(network, stretch=False).fuse(ir, vi).image
    corners = {
        (y, x): network(ir[..., y : y + 32, x : x + 64], vi[..., y : y + 32, x : x + 64])
        for y in (0, 8)
        for x in (0, 6)
    }
    assert torch.equal(image[..., :32, :64], corners[0, 0])
    assert torch.equal(image[..., :32, 64:], corners[0, 6][..., -6:])
    assert torch.equal(image[..., 32:, :64], corners[8, 0][..., -8:, :])
    assert torch.equal(image[..., 32:, 64:], corners[8, 6][..., -8:, -6:])


def test_every_image_of_a_batch_is_stretched_on_its_own() -> None:
    image = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.5, 0.9], [0.7, 0.7, 0.7]]).view(3, 1, 1, 3)
    expected = torch.tensor([[0, 0.5, 1], [0, 0, 1], [0, 0, 0]]).view(3, 1, 1, 3)
    torch.testing.assert_close(stretched(image), expected)
