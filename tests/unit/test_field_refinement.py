"""Refinement of a field: certain positions keep their residual, others take the local mean, noise is removed."""

from __future__ import annotations

import pytest
import torch

from fusionlib import data, methods
from fusionlib.experiments import evaluation
from fusionlib.methods import field_refinement
from fusionlib.methods.fast import fast
from fusionlib.methods.field_refinement import RefinedNetwork, Refinement, affine_fit, match_confidence, refine
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

SIDE = 64


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    return x, y


def affine() -> torch.Tensor:
    x, y = grid()
    return torch.stack([3 + 2 * x - y, -1 + 0.5 * x + 4 * y])[None]


def bump(length: float) -> torch.Tensor:
    """A smooth residual of at most so many pixels, without an affine part."""
    x, y = grid()
    waves = torch.sin(3 * torch.pi * x) * torch.cos(2 * torch.pi * y)
    bend = length * torch.stack([waves, -waves])[None]
    return bend - affine_fit(bend, torch.ones(1, 1, SIDE, SIDE))


SURE = torch.full((1, 1, SIDE, SIDE), 0.9)


def test_an_affine_field_is_its_own_affine_part_and_a_bend_has_none() -> None:
    x, y = grid()
    everywhere = torch.ones(1, 1, SIDE, SIDE)
    torch.testing.assert_close(affine_fit(affine(), everywhere), affine(), atol=1e-4, rtol=0)
    bend = torch.stack([x * y, x * y])[None]  # orthogonal to 1, x and y on a symmetric grid
    assert affine_fit(bend, everywhere).abs().max() < 1e-5


def test_what_weighs_nothing_does_not_count() -> None:
    spoilt, weight = affine(), torch.ones(1, 1, SIDE, SIDE)
    spoilt[..., :10], weight[..., :10] = 99.0, 0.0
    torch.testing.assert_close(affine_fit(spoilt, weight), affine(), atol=1e-4, rtol=0)


def test_confidence_is_one_where_one_shift_stands_out_and_least_where_none_does() -> None:
    scores = torch.zeros(1, 2, 9, 1, 2)
    scores[0, 1, 4, 0, 1] = 50.0
    scores[0, 0, 0, 0, 0] = 50.0  # through a narrow window, which does not count
    torch.testing.assert_close(match_confidence(scores), torch.tensor([[[[1 / 9, 1.0]]]]))


def test_an_affine_field_is_not_changed() -> None:
    torch.testing.assert_close(refine(affine(), SURE, Refinement()), affine(), atol=1e-4, rtol=0)


def test_a_field_that_is_sure_everywhere_stays() -> None:
    phi = affine() + bump(0.2)
    torch.testing.assert_close(refine(phi, torch.ones_like(SURE), Refinement()), phi, atol=1e-4, rtol=0)


def test_of_unsure_bends_a_long_one_stays_and_one_as_short_as_the_noise_goes() -> None:
    unsure = torch.full_like(SURE, 0.02)

    def left(length: float, refinement: Refinement) -> float:
        bend = refine(affine() + bump(length), unsure, refinement) - affine()
        return (bend.norm(dim=1).mean() / bump(length).norm(dim=1).mean()).item()

    assert left(6.0, Refinement()) > 0.7 and left(0.2, Refinement()) < 0.03
    assert left(0.2, Refinement(noise=0.0)) > 0.7


def test_guesses_follow_what_is_sure() -> None:
    phi, sure = affine() + bump(3.0), SURE.clone()
    guessed = (..., slice(20, 44), slice(20, 44))
    truth = phi.clone()
    phi[guessed] += 4 * torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0)) + 3
    sure[guessed] = 0.05
    error = (phi - truth).norm(dim=1)
    refined = (refine(phi, sure, Refinement()) - truth).norm(dim=1)
    assert refined[guessed].mean() < 0.5 * error[guessed].mean()
    blind = (refine(phi, SURE, Refinement()) - truth).norm(dim=1)
    assert refined[guessed].mean() < 0.7 * blind[guessed].mean()  # it is the confidence that does it


def test_images_of_a_batch_do_not_see_each_other() -> None:
    fields = torch.cat([affine() + bump(3.0), bump(0.3), 2 * affine()])
    sure = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) + 0.05
    alone = torch.cat([refine(fields[i : i + 1], sure[i : i + 1], Refinement()) for i in range(3)])
    torch.testing.assert_close(refine(fields, sure, Refinement()), alone, atol=1e-4, rtol=0)


def test_the_same_at_every_size() -> None:
    phi = affine() + bump(3.0)
    double = torch.nn.functional.interpolate(2 * phi, scale_factor=2, mode="bilinear", align_corners=False)
    sure = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(2)) + 0.05
    small, large = (torch.nn.functional.interpolate(sure, size=side, mode="bilinear") for side in (SIDE, 2 * SIDE))
    again = torch.nn.functional.avg_pool2d(refine(double, large, Refinement()), 2) / 2
    inside = (..., slice(4, -4), slice(4, -4))
    assert (again - refine(phi, small, Refinement()))[inside].norm(dim=1).mean() < 0.1


def test_the_network_gains_one_stage_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = FusionNetwork().eval()
    refined = RefinedNetwork(network).eval()
    assert all(torch.equal(value, refined.state_dict()[key]) for key, value in network.state_dict().items())
    pair = data.open_set("synthetic", "test", 96, count=1).stack([0])
    with torch.inference_mode():
        plain, output = network.align(*pair), refined(*pair)
    stages = output.alignment.stages
    assert len(stages) == len(plain.stages) + 1 and torch.equal(stages[-2].field, plain.stages[-1].field)
    assert output.field.shape == plain.field.shape and output.image.shape == pair[0].shape


def test_gradients_pass_through_it() -> None:
    torch.manual_seed(0)
    refined = RefinedNetwork(FusionNetwork(), Refinement(noise=0.0)).eval()
    torch.nn.init.normal_(refined.msrb.decoder[0].to_field.weight)
    pair = data.open_set("synthetic", "test", 64, count=1).stack([0])
    refined.align(*pair).field.square().mean().backward()
    gradients = [weight.grad for weight in refined.msrb.parameters() if weight.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert refined.msrb.comparison[0].sharpness.grad.abs().max() > 0


def test_a_plain_unet_cannot_refine() -> None:
    with pytest.raises(InputError, match="this network has 'unet'"):
        RefinedNetwork(FusionNetwork(AS_IN_THE_PAPER))


def test_by_name_and_in_a_hurry() -> None:
    """The shipped weights, refined: a better field than without on drawn scenes, and the fast network's is the same."""
    pairs = data.open_set("synthetic", "test", 128, count=4)
    plain, refined = methods.load("ours"), methods.load("ours_settled")
    assert isinstance(refined.network, RefinedNetwork) and refined.name == "ours_settled"
    errors = {}
    for index, name in enumerate(pairs.names):
        ir, vi = pairs.stack([index])
        moved = evaluation.deform(ir, name, "light")
        for method in (plain, refined):
            found = method.fuse(moved.ir, vi)
            errors[method.name] = errors.get(method.name, 0) + (found.field - moved.phi_gt).norm(dim=1).mean().item()
    assert errors["ours_settled"] < errors["ours"]
    again = fast(refined).fuse(moved.ir, vi)
    torch.testing.assert_close(again.field, found.field, atol=1e-3, rtol=0)
    assert methods.origin("ours").key != methods.origin("ours_settled").key


def test_the_bare_network_by_name() -> None:
    assert isinstance(methods.network("ours_settled"), field_refinement.RefinedNetwork)
