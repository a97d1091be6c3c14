"""What is left, taken apart: each part is found where it was put, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from fusionlib import data
from fusionlib.experiments import error_parts, evaluation
from fusionlib.methods import Fused

pytestmark = pytest.mark.numeric

SIDE = 64


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    return x, y


class Off:
    """Finds every field but for a fixed error, which is its own, and one that changes with the deformation."""

    name = "off"

    def __init__(self, own: torch.Tensor, chance: float) -> None:
        self.own, self.chance, self.calls = own, chance, 0

    def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
        moved = evaluation.deform(self.ir, self.pair, "medium", seed=self.calls)
        self.calls += 1
        sign = self.chance if self.calls % 2 else -self.chance
        return Fused(ir, moved.phi_gt + self.own + sign, ir)


def test_what_comes_back_with_every_deformation_is_told_from_what_does_not() -> None:
    pairs = data.open_set("synthetic", "test", SIDE, count=1)
    x, y = grid()
    method = Off(torch.stack([0.5 * x * y, 0 * x])[None], chance=0.0)
    method.ir, method.pair = pairs.stack([0])[0], pairs.names[0]
    left = error_parts.parts(method, pairs, "medium", draws=4).loc["left"]
    length = method.own.norm(dim=1).mean().item()
    assert abs(left["EPE"] - length) < 0.03 and abs(left["own"] - length) < 0.03
    assert left["chance"] < 0.03 and abs(left["bent"] - length) < 0.05 and left["affine"] < 0.05

    method.own, method.chance, method.calls = torch.zeros(1, 2, SIDE, SIDE), 1.0, 0
    left = error_parts.parts(method, pairs, "medium", draws=4).loc["left"]
    # Of +1, -1, +1, -1 on both axes, the mean of the other three is a third of the error, with the opposite sign.
    expected = {"EPE": 1, "affine": 1, "bent": 0, "own": 1 / 3, "chance": 4 / 3}
    for part, length in expected.items():
        assert abs(left[part] - length * 2**0.5) < 0.1, part


def test_what_is_to_undo_is_what_doing_nothing_leaves() -> None:
    pairs = data.open_set("synthetic", "test", SIDE, count=1)

    class Nothing:
        name = "nothing"

        def fuse(self, ir: torch.Tensor, vi: torch.Tensor) -> Fused:
            return Fused(ir, torch.zeros(1, 2, *ir.shape[-2:]), ir)

    found = error_parts.parts(Nothing(), pairs, "heavy", draws=3)
    assert found.loc["to undo"].to_dict() == pytest.approx(found.loc["left"].to_dict())
    assert found.loc["left", "affine"] > found.loc["left", "bent"] > 0
