"""Each loss beside numbers worked out by hand, and the weighted sum of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fusionlib.losses import (
    LossWeights,
    alignment_terms,
    complementarity_loss,
    consistency_loss,
    fusion_loss,
    fusion_terms,
    gradient_loss,
    luminance_loss,
    matching_loss,
    registration_loss,
    sobel,
    total_loss,
)
from fusionlib.network import Alignment, NetworkOutput
from fusionlib.registration import Stage

pytestmark = pytest.mark.numeric

ALIGNMENT, FUSION = {"l_c", "l_reg", "l_coarse", "l_match"}, {"l_s", "l_b", "l_g"}


def image(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)[None, None]


def step(height: float, size: int = 6) -> Tensor:
    """A vertical edge in the middle of a square image (1, 1, size, size): 0 on the left, `height` on the right."""
    edge = torch.zeros(1, 1, size, size)
    edge[..., size // 2 :] = height
    return edge


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- the equations ----------------------------------------------------------------------------------------------------


def test_consistency_is_the_mean_difference_of_features() -> None:
    # One image, C = 2, H = 1, W = 2: |1-0| + |2-4| + |-1-1| + |3-3| = 5, over HWC = 4.
    ir, vi = torch.tensor([[[[1.0, 2]], [[-1, 3]]]]), torch.tensor([[[[0.0, 4]], [[1, 3]]]])
    assert consistency_loss(ir, vi).item() == 1.25
    assert consistency_loss(vi, vi).item() == 0


def test_complementarity_is_its_negative() -> None:
    ir, vi = torch.tensor([[[[1.0, 2]], [[-1, 3]]]]), torch.tensor([[[[0.0, 4]], [[1, 3]]]])
    assert complementarity_loss(ir, vi).item() == -1.25


def test_registration_is_the_mean_error_of_both_components() -> None:
    # H = W = 1, 2HW = 2: (|3-1| + |-1-2|) / 2 = 2.5 for the first field and 0 for the second; the batch's mean is 1.25.
    phi = torch.tensor([[[[3.0]], [[-1]]], [[[5]], [[6]]]])
    truth = torch.tensor([[[[1.0]], [[2]]], [[[5]], [[6]]]])
    assert registration_loss(phi, truth).item() == 1.25


def test_luminance_asks_for_the_brighter_source() -> None:
    # Brighter of the two: 0.6, 0.5, 0.9, 0.2; the fused image is off by 0.1, 0, 0.4, 0.1: 0.6 / 4.
    ir, vi = image((0.6, 0.1), (0.9, 0.2)), image((0.2, 0.5), (0.3, 0.1))
    fused = image((0.5, 0.5), (0.5, 0.3))
    assert luminance_loss(fused, ir, vi).item() == pytest.approx(0.15)
    assert luminance_loss(torch.maximum(ir, vi), ir, vi).item() == 0


def test_sobel_on_an_edge() -> None:
    # On both sides of a vertical edge of height 1, gx = 1 + 2 + 1 = 4 and gy = 0; flat areas give 0.
    strength = sobel(step(1.0))[0, 0]
    assert strength[2].tolist() == [0, 0, 4, 4, 0, 4]  # the last column borders on the zeros of the padding
    assert torch.equal(sobel(step(1.0).mT), sobel(step(1.0)).mT)
    # A single bright pixel: the four neighbours have 2 in one direction, the diagonal ones 1 in both.
    spot = torch.zeros(1, 1, 5, 5)
    spot[..., 2, 2] = 1
    assert sobel(spot)[0, 0, 1:4, 1:4].tolist() == [[2, 2, 2], [2, 0, 2], [2, 2, 2]]


def test_gradient_asks_for_the_stronger_edge_at_each_pixel() -> None:
    vertical, horizontal = step(0.5), step(0.25).mT
    target = torch.maximum(sobel(vertical), sobel(horizontal))
    inner = target[0, 0, 1:-1, 1:-1]
    # Gradients 4 x 0.5 along the vertical edge and 4 x 0.25 along the horizontal one; the first wins where they cross.
    assert inner.tolist() == [[0, 2, 2, 0], [1, 2, 2, 1], [1, 2, 2, 1], [0, 2, 2, 0]]
    nothing = torch.zeros(1, 1, 6, 6)
    assert gradient_loss(nothing, vertical, horizontal).item() == pytest.approx(target.mean().item())
    assert gradient_loss(vertical, vertical, nothing).item() == 0
    # The sign of an edge does not count, and the weaker source plays no part.
    assert torch.equal(sobel(0.5 - vertical)[..., 1:-1, 1:-1], sobel(vertical)[..., 1:-1, 1:-1])
    assert gradient_loss(vertical, vertical, 0.5 * vertical).item() == 0


def test_an_edge_of_half_the_height_costs_half_its_gradient() -> None:
    # Sources with an edge of 1, fused of 0.5: each of the columns at the edge is 4 - 2 = 2 off, inside a border of one.
    error = (sobel(step(0.5)) - sobel(step(1.0))).abs()[0, 0, 1:-1, 1:-1]
    assert error.tolist() == [[0, 2, 2, 0]] * 4
    assert gradient_loss(step(0.5), step(1.0), step(0.25)).item() == pytest.approx(
        (sobel(step(1.0)) - sobel(step(0.5))).mean().item()
    )


def test_fusion_adds_gamma_times_the_gradient() -> None:
    fused, ir, vi = (noise(2, 1, 9, 7, seed=seed) for seed in range(3))
    bright, edges = luminance_loss(fused, ir, vi), gradient_loss(fused, ir, vi)
    torch.testing.assert_close(fusion_loss(fused, ir, vi), bright + 2 * edges)
    torch.testing.assert_close(fusion_loss(fused, ir, vi, gamma=0.5), bright + 0.5 * edges)


def test_matching_is_the_cross_entropy_of_the_true_shift() -> None:
    # Nine shifts (radius 1), row by row: index 5 is one pixel to the right. Equal scores: ln 9.
    start, truth = torch.zeros(1, 2, 3, 3), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    scores = torch.zeros(1, 1, 9, 3, 3)
    assert matching_loss(Stage(start, start, scores), truth).item() == pytest.approx(math.log(9))
    scores[:, :, 5] = 100.0
    assert matching_loss(Stage(start, start, scores), truth).item() == pytest.approx(0, abs=1e-6)
    assert matching_loss(Stage(start, start, scores), truth.flip(1)).item() == pytest.approx(100)
    # A quarter of the way down: the middle (4) has weight 3/4 and the one below it (7) has 1/4.
    down = torch.tensor([0.0, 0.25]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    scores = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(1, 1, 9, 3, 3)
    expected = scores[0, 0, :, 0, 0].logsumexp(0) - (0.75 * 4 + 0.25 * 7)
    assert matching_loss(Stage(start, start, scores), down).item() == pytest.approx(expected.item())
    # From where the stage started, the truth may be out of reach: then nothing is asked.
    assert matching_loss(Stage(start, start + 3, scores), down).item() == 0
    # Every window is asked, and the mean taken.
    both = torch.cat([scores, torch.zeros_like(scores)], 1)
    assert matching_loss(Stage(start, start, both), down).item() == pytest.approx((expected.item() + math.log(9)) / 2)


@pytest.mark.parametrize("loss", [luminance_loss, gradient_loss])
def test_fusion_losses_pull_the_fused_image_to_the_stronger_source(loss) -> None:
    ir, vi = step(1.0, 8), 0.2 * step(1.0, 8)
    fused = torch.full((1, 1, 8, 8), 0.4, requires_grad=True)
    values = []
    optimiser = torch.optim.Adam([fused], lr=0.02)
    for _ in range(100):
        optimiser.zero_grad()
        value = loss(fused, ir, vi)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.15 * values[0]


# --- the sum ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Two pairs: what a network with one comparing stage and one plain one made of them, and the truth."""

    output: NetworkOutput
    common_ir: Tensor
    specific_ir: Tensor
    ir: Tensor
    vi: Tensor
    phi_gt: Tensor

    def terms(self) -> dict[str, Tensor]:
        aligned = alignment_terms(self.output.alignment, self.common_ir, self.phi_gt)
        return aligned | fusion_terms(self.output, self.specific_ir, self.ir, self.vi)


@pytest.fixture
def case() -> Case:
    coarse = Stage(noise(2, 2, 4, 4, seed=1), torch.zeros(2, 2, 4, 4), noise(2, 2, 9, 4, 4, seed=2))
    phi = noise(2, 2, 8, 8, seed=3)
    features = [noise(2, 3, 8, 8, seed=seed) for seed in range(4, 9)]
    aligned = Alignment(phi, [coarse, Stage(phi)], common_ir=features[0], common_vi=features[1])
    output = NetworkOutput(noise(2, 1, 8, 8, seed=9), aligned, specific_vi=features[2], fused=noise(2, 12, 8, 8))
    ir, vi = noise(2, 1, 8, 8, seed=10), noise(2, 1, 8, 8, seed=11)
    return Case(output, common_ir=features[3], specific_ir=features[4], ir=ir, vi=vi, phi_gt=0.5 * phi)


def test_the_terms_are_the_equations(case: Case) -> None:
    output, aligned = case.output, case.output.alignment
    doubled = 2 * torch.nn.functional.interpolate(aligned.stages[0].field, scale_factor=2, mode="bilinear")
    expected = {
        "l_c": consistency_loss(case.common_ir, aligned.common_vi),
        "l_s": complementarity_loss(case.specific_ir, output.specific_vi),
        "l_reg": registration_loss(aligned.field, case.phi_gt),
        "l_coarse": registration_loss(doubled, case.phi_gt),  # a field of half the size means twice the pixels
        "l_match": matching_loss(aligned.stages[0], case.phi_gt),
        "l_b": luminance_loss(output.image, case.ir, case.vi),
        "l_g": gradient_loss(output.image, case.ir, case.vi),
    }
    terms = case.terms()
    assert terms.keys() == expected.keys() == ALIGNMENT | FUSION
    for name, value in expected.items():
        assert value.ndim == 0 and value != 0
        torch.testing.assert_close(terms[name], value)


def test_a_single_field_has_no_coarse_and_no_matching_term(case: Case) -> None:
    alone = replace(case.output.alignment, stages=case.output.alignment.stages[1:])
    terms = alignment_terms(alone, case.common_ir, case.phi_gt)
    assert terms.keys() == ALIGNMENT and terms["l_coarse"].item() == terms["l_match"].item() == 0


def numbers(**changes: float) -> dict[str, Tensor]:
    """Terms that are powers of two, so that a sum of them tells each one's weight."""
    values = {"l_c": 1, "l_s": -2, "l_reg": 4, "l_coarse": 8, "l_match": 16, "l_b": 32, "l_g": 64}
    return {name: torch.tensor(float(value)) for name, value in (values | changes).items()}


def test_the_sum_is_equation_12_with_the_paper_s_weights() -> None:
    # l_c + l_s + 10 l_reg + 5 (l_b + 2 l_g) = 1 - 2 + 40 + 5 (32 + 128) = 839, without what the paper does not have.
    assert total_loss(numbers(), LossWeights(coarse=0, matching=0)).item() == 839
    torch.testing.assert_close(
        total_loss({"l_b": torch.tensor(32.0), "l_g": torch.tensor(64.0)}, LossWeights()),
        torch.tensor(5 * (32.0 + 2 * 64)),
    )


def test_every_weight_weighs_its_own_term() -> None:
    weights = LossWeights(
        gamma=3,
        lambda_reg=7,
        lambda_fusion=2,
        lambda_detection=11,
        common=0.5,
        specific=0.25,
        coarse=0.75,
        matching=1.5,
    )
    # 0.5 - 0.5 + 7 (4 + 0.75 * 8 + 1.5 * 16) + 2 (32 + 3 * 64) + 11 * 128 = 238 + 448 + 1408
    assert total_loss(numbers(l_ob=128), weights).item() == 2094


@pytest.mark.parametrize(
    ("weight", "lost"),
    [
        ("common", 1),
        ("specific", -2),
        ("lambda_reg", 10 * (4 + 8 + 16)),
        ("coarse", 10 * 8),
        ("matching", 10 * 16),
        ("lambda_fusion", 5 * (32 + 2 * 64)),
        ("gamma", 5 * 2 * 64),
        ("lambda_detection", 5 * 128),
    ],
)
def test_a_zero_weight_removes_its_terms(weight: str, lost: float) -> None:
    weights = LossWeights(coarse=1, matching=1)
    without = total_loss(numbers(l_ob=128), replace(weights, **{weight: 0.0}))
    assert total_loss(numbers(l_ob=128), weights).item() - without.item() == lost


def test_terms_that_are_not_there_do_not_count() -> None:
    weights, full = LossWeights(), numbers()
    with_detector = total_loss(full | {"l_ob": torch.tensor(0.25)}, weights)
    assert (with_detector - total_loss(full, weights)).item() == 5 * 0.25
    alone = {name: full[name] for name in ALIGNMENT}
    others = {name: full[name] for name in FUSION}
    assert total_loss(alone, weights) + total_loss(others, weights) == total_loss(full, weights)


def test_every_term_reaches_what_it_is_about(case: Case) -> None:
    aligned = case.output.alignment
    reaches = {
        "l_c": aligned.common_vi,
        "l_s": case.output.specific_vi,
        "l_reg": aligned.field,
        "l_coarse": aligned.stages[0].field,
        "l_match": aligned.stages[0].scores,
        "l_b": case.output.image,
        "l_g": case.output.image,
    }
    for tensor in reaches.values():
        tensor.requires_grad_()
    terms = case.terms()
    for name, tensor in reaches.items():
        (gradient,) = torch.autograd.grad(total_loss({name: terms[name]}, LossWeights()), tensor, retain_graph=True)
        assert gradient.abs().max() > 0
