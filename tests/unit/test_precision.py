"""Ours in every floating dtype: plain, fast and refined, of trained weights, on images of any other dtype."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusionlib import data, methods, presets
from fusionlib.experiments import evaluation
from fusionlib.losses import total_loss
from fusionlib.methods import Method, Ours
from fusionlib.methods.fast import FastNetwork, fast
from fusionlib.methods.field_refinement import RefinedNetwork
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork
from fusionlib.support.files import InputError
from fusionlib.support.weights import read_state
from fusionlib.training import Model
from fusionlib.training.batches import batches

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Mean difference from float32 that rounding explains: of the image, and in pixels of the field.
CLOSE = dict(zip(DTYPES, [(1e-6, 1e-4), (1e-6, 1e-4), (3e-3, 0.4), (5e-4, 0.05)], strict=True))
KINDS: dict[str, Callable[[FusionNetwork], Method]] = {
    "plain": Ours,
    "fast": lambda network: fast(Ours(network)),
    "refined": lambda network: Ours(RefinedNetwork(network)),
    "refined and fast": lambda network: fast(Ours(RefinedNetwork(network))),
}


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    """The shipped weights, in a network that registers at 96 px, so that a small pair is enough."""
    trained = methods.load("ours").network
    network = FusionNetwork(replace(trained.config, registration_side=96)).eval()
    network.load_state_dict(trained.state_dict())
    return network


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Larger than what `network` registers as it is, so that images are reduced on the way."""
    ir, vi = data.open_set("synthetic", "test", (112, 104), count=1).stack([0])
    return evaluation.deform(ir, "a pair", "light").ir, vi


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_any_dtype_give_the_same_but_for_rounding(
    network: FusionNetwork, pair: tuple[Tensor, Tensor], kind: str, dtype: torch.dtype
) -> None:
    expected = KINDS[kind](network).fuse(*pair)
    fused = KINDS[kind](deepcopy(network).to(dtype)).fuse(*(image.to(dtype) for image in pair))
    assert fused.image.dtype == fused.registered_ir.dtype == dtype
    assert fused.field.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    image, field = CLOSE[dtype]
    assert (fused.image.float() - expected.image).abs().mean() < image
    assert (fused.field - expected.field).norm(dim=1).mean() < field


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_images_of_another_dtype_are_converted_and_given_back(
    network: FusionNetwork, pair: tuple[Tensor, Tensor], kind: str
) -> None:
    method = KINDS[kind](network)
    fused, expected = method.fuse(*(image.double() for image in pair)), method.fuse(*pair)
    assert fused.image.dtype == fused.registered_ir.dtype == torch.float64 and fused.field.dtype == torch.float32
    assert torch.equal(fused.image.float(), expected.image) and torch.equal(fused.field, expected.field)
    mixed = method.fuse(pair[0], pair[1].double())
    assert torch.equal(mixed.image, expected.image) and torch.equal(mixed.field, expected.field)


@torch.no_grad()
def test_float64_is_computed_in_float64(network: FusionNetwork, pair: tuple[Tensor, Tensor]) -> None:
    ir, vi = (image.double() for image in pair)
    exact = deepcopy(network).double()
    plain, quick = exact(ir, vi), FastNetwork(exact)(ir, vi)
    assert plain.image.dtype == plain.field.dtype == plain.fused.dtype == torch.float64
    assert (plain.image - quick.image).abs().max() < 1e-12 and (plain.field - quick.field).abs().max() < 1e-10
    tiled, *_ = FastNetwork(exact).fuse(ir, vi, tile=128)
    assert (plain.image - tiled).abs().max() < 1e-12
    assert RefinedNetwork(exact)(ir, vi).field.dtype == torch.float64


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flat_images_stay_finite(network: FusionNetwork, pair: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    """Small numbers that keep float32 from dividing by 0 are 0 themselves in float16."""
    own, seen = Ours(deepcopy(network).to(dtype)), pair[1][..., :64, :64].to(dtype)
    for value in (0.0, 0.3, 1.0):
        flat = torch.full_like(seen, value)
        for vi in (flat, seen):
            fused = own.fuse(flat, vi)
            assert fused.image.isfinite().all() and fused.field.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_plain_reading_has_dtypes_too(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 1, 40, 48, dtype=dtype)
    output = FusionNetwork(AS_IN_THE_PAPER).to(dtype).eval()(*images)
    assert output.image.dtype == output.field.dtype == torch.promote_types(dtype, torch.float32)


def test_whole_numbers_are_told(network: FusionNetwork) -> None:
    eight_bits = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    for method in (Ours(network), fast(Ours(network)), methods.load("average")):
        with pytest.raises(InputError, match=r"Infrared has whole numbers, torch\.uint8; give floats in \[0, 1\]"):
            method.fuse(eight_bits, eight_bits)
        with pytest.raises(InputError, match="An image is of the type ndarray: give a torch tensor"):
            method.fuse(eight_bits.float().numpy(), eight_bits.float().numpy())
        with pytest.raises(InputError, match="Infrared has complex numbers"):
            method.fuse(eight_bits + 0j, eight_bits + 0j)


@pytest.mark.numeric
def test_a_training_step_in_bfloat16_is_that_of_float32_but_for_rounding(root: Path) -> None:
    """As `paper` trains on a GPU. The detection head is a trained one: which places a new one learns from changes with
    the last digits of its scores.
    """
    recipe = presets.load("mini").recipe
    training = replace(recipe.training, batch=4)
    recipe = replace(recipe, dataset="synthetic", size=64, train_pairs=4, start=None, training=training)
    batch = next(batches(data.open_set("synthetic", "train", 64, count=4), recipe, epoch=0))
    detector = read_state(root / "results" / "mini" / "weights" / "ours_detector.safetensors")
    terms, gradients = {}, {}
    for half in (False, True):
        model = Model(recipe, methods.load("ours").network)
        model.detector.load_state_dict({name: value.float() for name, value in detector.items()})
        model.prepare(recipe.training, fusion_alone=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms[half] = model.terms(batch, registration_alone=False, fusion_alone=False)
            total = total_loss(terms[half], recipe.losses)
        total.backward()
        parts = {**dict(model.network.named_children()), "detector": model.detector}
        lists = {name: [each.grad.flatten() for each in part.parameters() if each.grad is not None]
                 for name, part in parts.items()}  # fmt: skip
        gradients[half] = {name: torch.cat(found) for name, found in lists.items() if found}
    for name, value in terms[False].items():
        assert terms[True][name].item() == pytest.approx(value.item(), rel=0.05), name
    for name, value in gradients[False].items():
        assert torch.cosine_similarity(gradients[True][name], value, dim=0) > 0.9, name
