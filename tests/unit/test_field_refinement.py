"""Refinement: confident places stay, guesses follow them, what is as short as the noise or without evidence is 0."""

from __future__ import annotations

import pytest
import torch

from fusionlib import data, methods
from fusionlib.experiments import evaluation
from fusionlib.experiments.robustness import night
from fusionlib.methods.fast import fast
from fusionlib.methods.field_refinement import (
    RefinedNetwork,
    Refinement,
    affine_fit,
    evidence,
    match_confidence,
    refine,
)
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

SIDE = 64
CONFIDENT = torch.full((1, 1, SIDE, SIDE), 0.9)
EVERYWHERE = torch.ones(1, 1, SIDE, SIDE)
NO_NOISE = Refinement(noise=0.0)


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    return x, y


def affine() -> torch.Tensor:
    x, y = grid()
    return torch.stack([3 + 2 * x - y, -1 + 0.5 * x + 4 * y])[None]


def bump(length: float) -> torch.Tensor:
    """A smooth non-rigid field of at most so many pixels, without an affine part."""
    x, y = grid()
    waves = torch.sin(3 * torch.pi * x) * torch.cos(2 * torch.pi * y)
    field = length * torch.stack([waves, -waves])[None]
    return field - affine_fit(field, EVERYWHERE)


def length(field: torch.Tensor) -> float:
    return field.norm(dim=1).mean().item()


def test_an_affine_field_is_its_own_affine_part_and_others_have_none() -> None:
    x, y = grid()
    torch.testing.assert_close(affine_fit(affine(), EVERYWHERE), affine(), atol=1e-4, rtol=0)
    product = torch.stack([x * y, x * y])[None]  # orthogonal to 1, x and y on a symmetric grid
    assert affine_fit(product, EVERYWHERE).abs().max() < 1e-5


def test_what_has_no_weight_does_not_count() -> None:
    spoilt, weight = affine(), EVERYWHERE.clone()
    spoilt[..., :10], weight[..., :10] = 99.0, 0.0
    torch.testing.assert_close(affine_fit(spoilt, weight), affine(), atol=1e-4, rtol=0)


def test_confidence_is_one_where_one_shift_stands_out_and_least_where_none_does() -> None:
    scores = torch.zeros(1, 2, 9, 1, 2)
    scores[0, 1, 4, 0, 1] = 50.0
    scores[0, 0, 0, 0, 0] = 50.0  # through a narrow window, which does not count
    torch.testing.assert_close(match_confidence(scores), torch.tensor([[[[1 / 9, 1.0]]]]))


def test_without_noise_confident_and_affine_fields_stay() -> None:
    torch.testing.assert_close(refine(affine(), CONFIDENT, NO_NOISE), affine(), atol=1e-4, rtol=0)
    phi = affine() + bump(0.2)
    torch.testing.assert_close(refine(phi, EVERYWHERE, NO_NOISE), phi, atol=1e-4, rtol=0)


@pytest.mark.parametrize("part", [affine, lambda: bump(3.0)], ids=["affine", "non-rigid"])
def test_each_part_is_shrunk_by_wiener_s_factor(part) -> None:
    refinement = Refinement(noise=0.02)
    for size in (0.2, 1.0, 5.0):
        phi = size * part() / part().square().sum(1).mean().sqrt()  # root mean square length: `size` pixels
        factor = max(0.0, 1 - (0.02 * SIDE / size) ** 2)
        torch.testing.assert_close(refine(phi, EVERYWHERE, refinement), factor * phi, atol=2e-3 * size, rtol=0)


def test_parts_are_shrunk_each_by_itself() -> None:
    """A long affine motion stays although the non-rigid one is as short as the noise, and goes."""
    refined = refine(8 * affine() + bump(0.2), EVERYWHERE, Refinement(noise=0.01))
    assert length(refined - 8 * affine()) < 0.01 * length(8 * affine())


def test_guesses_follow_confident_places() -> None:
    phi, confidence = affine() + bump(3.0), CONFIDENT.clone()
    guessed = (..., slice(20, 44), slice(20, 44))
    truth = phi.clone()
    phi[guessed] += 4 * torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0)) + 3
    confidence[guessed] = 0.05
    error = length((phi - truth)[guessed])
    refined = length((refine(phi, confidence, Refinement()) - truth)[guessed])
    assert refined < 0.5 * error
    blind = length((refine(phi, CONFIDENT, Refinement()) - truth)[guessed])
    assert refined < 0.7 * blind  # it is the confidence that does it


def test_without_evidence_nothing_moves_and_in_between_it_scales() -> None:
    refinement = Refinement(chance=0.2, match=0.4, noise=0.0)
    for mean, factor in ((0.1, 0.0), (0.2, 0.0), (0.25, 0.25), (0.4, 1.0), (0.9, 1.0)):
        confidence = torch.full_like(CONFIDENT, mean)
        assert evidence(confidence, refinement).item() == pytest.approx(factor, abs=1e-6)
        torch.testing.assert_close(refine(affine(), confidence, refinement), factor * affine(), atol=1e-4, rtol=0)
    with pytest.raises(InputError):
        Refinement(chance=0.3, match=0.3)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    fields = torch.cat([affine() + bump(3.0), bump(0.3), 2 * affine()])
    confidence = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) + 0.05
    alone = torch.cat([refine(fields[i : i + 1], confidence[i : i + 1], Refinement()) for i in range(3)])
    torch.testing.assert_close(refine(fields, confidence, Refinement()), alone, atol=1e-4, rtol=0)


def test_the_same_at_every_size() -> None:
    phi = affine() + bump(3.0)
    double = torch.nn.functional.interpolate(2 * phi, scale_factor=2, mode="bilinear", align_corners=False)
    coarse = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(2)) + 0.05
    small, large = (torch.nn.functional.interpolate(coarse, size=side, mode="bilinear") for side in (SIDE, 2 * SIDE))
    again = torch.nn.functional.avg_pool2d(refine(double, large, Refinement()), 2) / 2
    inside = (..., slice(4, -4), slice(4, -4))
    assert length((again - refine(phi, small, Refinement()))[inside]) < 0.1


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
    refined = RefinedNetwork(FusionNetwork(), Refinement(noise=0.0, chance=0.0, match=1.0)).eval()
    torch.nn.init.normal_(refined.msrb.decoder[0].to_field.weight)
    pair = data.open_set("synthetic", "test", 64, count=1).stack([0])
    refined.align(*pair).field.square().mean().backward()
    gradients = [weight.grad for weight in refined.msrb.parameters() if weight.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert refined.msrb.comparison[0].sharpness.grad.abs().max() > 0


def test_a_plain_unet_has_no_confidence() -> None:
    with pytest.raises(InputError, match="not one of 'unet'"):
        RefinedNetwork(FusionNetwork(AS_IN_THE_PAPER))


def test_with_the_shipped_weights_it_registers_better_and_the_fast_network_does_the_same() -> None:
    pairs = data.open_set("synthetic", "test", 128, count=4)
    plain, refined = methods.load("ours"), methods.load("ours_refined")
    assert isinstance(refined.network, RefinedNetwork) and refined.name == "ours_refined"
    errors = {}
    for index, name in enumerate(pairs.names):
        ir, vi = pairs.stack([index])
        moved = evaluation.deform(ir, name, "light")
        for method in (plain, refined):
            found = method.fuse(moved.ir, vi)
            errors[method.name] = errors.get(method.name, 0) + length(found.field - moved.phi_gt)
    assert errors["ours_refined"] < errors["ours"]
    again = fast(refined).fuse(moved.ir, vi)
    torch.testing.assert_close(again.field, found.field, atol=1e-3, rtol=0)
    assert methods.origin("ours").key != methods.origin("ours_refined").key


@pytest.mark.parametrize("side", [128, 256])
def test_where_there_is_nothing_to_match_nothing_moves(side: int) -> None:
    """Constant, black, saturated and noise infrared: the shipped network finds a field, its refinement finds none."""
    vi = data.open_set("synthetic", "test", side, count=1).stack([0])[1]
    noise = torch.rand(vi.shape, generator=torch.Generator().manual_seed(0))
    plain, refined = methods.load("ours"), methods.load("ours_refined")
    for ir in (torch.full_like(vi, 0.5), torch.zeros_like(vi), torch.ones_like(vi), noise):
        assert length(plain.fuse(ir, vi).field) > 1
        assert length(refined.fuse(ir, vi).field) < 0.3 * side / 256


def test_the_limits_of_evidence_lie_between_noise_and_pairs_that_match() -> None:
    """The mean confidence of the shipped network, as the docstring of `Refinement` has it."""
    network, limits = methods.load("ours").network, Refinement()

    def confidence(ir: torch.Tensor, vi: torch.Tensor) -> float:
        with torch.inference_mode():
            return match_confidence(network.align(ir, vi).stages[-1].scores).mean().item()

    pairs = data.open_set("synthetic", "test", 256, count=3)
    for index, name in enumerate(pairs.names):
        ir, vi = pairs.stack([index])
        assert confidence(evaluation.deform(ir, name, "heavy").ir, vi) > limits.match
        assert confidence(torch.full_like(ir, 0.5), vi) < limits.chance
        assert confidence(torch.rand(ir.shape, generator=torch.Generator().manual_seed(index)), vi) < limits.chance


def test_an_aligned_pair_moves_less() -> None:
    pairs = data.open_set("synthetic", "test", 256, count=3)
    plain, refined = methods.load("ours"), methods.load("ours_refined")
    fields = [[length(each.fuse(*pairs.stack([i])).field) for i in range(3)] for each in (plain, refined)]
    assert sum(fields[1]) < 0.5 * sum(fields[0])


def test_the_bare_network_by_name() -> None:
    assert isinstance(methods.network("ours_refined"), RefinedNetwork)


# --- evidence against the mirrored image


def test_a_match_counts_against_that_of_the_mirrored_image() -> None:
    limits, chance = Refinement(chance=0.01, match=0.02, mirrored=True), torch.full((1, 1, 64, 64), 0.1)
    for ratio, carried in ((1.0, 0), (1.05, 0), (1.25, 1)):  # 0.1 times ratio times (ratio - 1)
        assert evidence(ratio * chance, limits, chance).item() == pytest.approx(carried, abs=1e-5)
    assert 0 < evidence(1.13 * chance, limits, chance).item() < 1
    assert evidence(1.25 * chance / 4, limits, chance / 4).item() == 0  # as high by ratio, but nothing stands out
    small = chance[..., ::2, ::2]  # a mean over fewer positions varies more, so more is asked for
    assert evidence(1.13 * small, limits, small).item() == 0
    assert evidence(1.5 * small, limits, small).item() == 1
    field = bump(5)
    torch.testing.assert_close(refine(field, CONFIDENT, limits, CONFIDENT / 4), refine(field, CONFIDENT, Refinement()))


def test_in_the_dark_the_robust_registration_still_moves_and_at_rest_it_rests() -> None:
    pairs = data.open_set("synthetic", "test", 256, count=3)
    refined, robust = methods.load("ours_refined"), methods.load("ours_robust")
    left = {refined.name: 0.0, robust.name: 0.0, "identity": 0.0}
    for index, name in enumerate(pairs.names):
        ir, vi = pairs.stack([index])
        moved = evaluation.deform(ir, name, "medium")
        for method in (refined, robust):
            left[method.name] += length(method.fuse(moved.ir, night(vi, 10.0, name)).field - moved.phi_gt)
        left["identity"] += length(moved.phi_gt)
        noise = torch.rand(vi.shape, generator=torch.Generator().manual_seed(index))
        for nothing in (torch.full_like(vi, 0.5), torch.zeros_like(vi), torch.ones_like(vi), noise):
            assert length(robust.fuse(nothing, vi).field) < 0.3
    assert left[robust.name] < 0.9 * left["identity"] and left[robust.name] < 0.9 * left[refined.name]
    torch.testing.assert_close(
        fast(robust).fuse(moved.ir, vi).field, robust.fuse(moved.ir, vi).field, atol=1e-3, rtol=0
    )
    keys = [methods.origin(name).key for name in ("ours", "ours_refined", "ours_robust")]
    assert len(set(map(str, keys))) == 3
