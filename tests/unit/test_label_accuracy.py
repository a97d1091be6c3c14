"""What the truth is worth: blocks matched between the images of an undeformed pair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionlib.deformation import compose, misalign_by_key, warp
from fusionlib.experiments.label_accuracy import corrected, own_misalignment, sample_at

pytestmark = pytest.mark.numeric


def texture(seed: int = 0, side: int = 128) -> Tensor:
    coarse = torch.rand(1, 1, side // 5, side // 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def constant(dx: float, dy: float, side: int = 128) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, side, side)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (2.0, -3.0), (1.5, 0.4)])
def test_a_known_displacement_is_found(dx: float, dy: float) -> None:
    vi = texture()
    own = own_misalignment(warp(vi, constant(-dx, -dy)), vi)
    assert len(own) > 10
    assert own["dx"].mean() == pytest.approx(dx, abs=0.1) and own["dy"].mean() == pytest.approx(dy, abs=0.1)
    assert own["dx"].std() < 0.2 and own["dy"].std() < 0.2


def test_what_can_slide_or_does_not_match_is_not_believed() -> None:
    stripes = texture()[..., :1, :].expand(1, 1, 128, 128)  # the same in every row
    assert own_misalignment(stripes, stripes).empty
    assert own_misalignment(texture(1), texture(2)).empty
    flat = torch.full((1, 1, 128, 128), 0.5)
    assert own_misalignment(flat, flat).empty
    assert own_misalignment(texture(), texture(), least=1.1).empty


def test_the_corrected_truth_brings_both_misalignments_to_an_end() -> None:
    vi = texture(side=160)
    ir = warp(vi, constant(-2.0, 1.0, 160))  # a pair that is off by (2, -1)
    moved = misalign_by_key(ir, "heavy", ["key"])
    own = own_misalignment(ir, vi)
    assert len(own) > 10
    expected = compose(moved.phi_gt, constant(2.0, -1.0, 160))  # undo the deformation, then the pair's own error
    difference = corrected(moved.phi_gt, own) - sample_at(expected, own["x"], own["y"])
    assert difference.norm(dim=1).mean() < 0.2
    label = sample_at(moved.phi_gt, own["x"], own["y"])
    assert (label - sample_at(expected, own["x"], own["y"])).norm(dim=1).mean() > 1.5
