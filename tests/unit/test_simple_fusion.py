"""The rules without a network: the Laplacian pyramid above all."""

from __future__ import annotations

import pytest
import torch

from fusionlib import methods
from fusionlib.methods import simple_fusion

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (33, 200), (15, 15), (1, 7)])
def test_the_pyramid_adds_up_to_the_image(size: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *size)
    fused = methods.load("laplacian").fuse(image, image)
    torch.testing.assert_close(fused.image, image, rtol=0, atol=1e-6)
    assert fused.field is None and fused.registered_ir is None


def test_levels_halve_and_smooth_images_have_no_details() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 64), indexing="ij")
    *details, rest = simple_fusion.pyramid((x + y)[None, None] / 2)
    assert [tuple(level.shape[-2:]) for level in (*details, rest)] == [(96, 64), (48, 32), (24, 16), (12, 8)]
    inside = (..., slice(4, -4), slice(4, -4))
    assert details[0][inside].abs().max() < 1e-5 < details[0].abs().max()  # the border is repeated, not continued


def test_the_stronger_edge_wins_wherever_it_is() -> None:
    """Each source has an edge of its own; in the average both lose half, here they keep three quarters and more."""
    ir, vi = torch.full((1, 1, 64, 64), 0.5), torch.full((1, 1, 64, 64), 0.5)
    ir[..., 20:] = 0.9
    vi[..., 40:, :] = 0.1
    fused = methods.load("laplacian").fuse(ir, vi).image
    across, down = fused[..., 10, :].diff().squeeze(), fused[..., 10].diff().squeeze()
    assert across.argmax() == 19 and across.max() > 0.3
    assert down.argmin() == 39 and down.min() < -0.3
    assert fused.min() >= 0 and fused.max() <= 1


def test_swapping_the_sources_changes_nothing_but_ties() -> None:
    ir, vi = torch.rand(2, 1, 1, 40, 40)
    laplacian = methods.load("laplacian")
    torch.testing.assert_close(laplacian.fuse(ir, vi).image, laplacian.fuse(vi, ir).image)
