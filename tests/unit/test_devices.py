"""Everything is made on the device of its inputs, and a training step reads no value back.

Torch's `meta` device has shapes and no values: what is made on another device does not mix with it, and whoever asks
for a value gets an error. So what runs there runs on a GPU without waiting.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fusionlib import deformation, presets
from fusionlib.detection import Detector
from fusionlib.losses import total_loss
from fusionlib.methods import Ours
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig
from fusionlib.support.machine import exact_float32, uses_bfloat16
from fusionlib.training import Model
from fusionlib.training.anchor_detector import AnchorDetector
from fusionlib.training.batches import Batch


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


BOTH = [NetworkConfig(), AS_IN_THE_PAPER]


def images(count: int, channels: int = 1, side: int = 64) -> Tensor:
    return torch.empty(count, channels, side, side, device="meta")


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("side", [64, 288])  # 288: above the size at which Ours registers
def test_the_network_makes_all_its_tensors_where_the_images_are(config: NetworkConfig, side: int) -> None:
    output = FusionNetwork(config).to("meta")(images(2, side=side), images(2, side=side))
    seen = (output.image, output.field, output.fused, output.specific_vi)
    assert all(each.is_meta for each in seen) and output.image.shape == (2, 1, side, side)


@pytest.mark.parametrize("alone", [True, False])
def test_a_training_step_reads_no_value_back(alone: bool) -> None:
    recipe = replace(presets.load("smoke").recipe, detector=None, start=None)
    model = Model(recipe).to("meta")
    model.prepare(recipe.training, fusion_alone=False)
    batch = Batch(images(4), images(4), images(4), images(4, 2), [None] * 4)
    terms = model.terms(batch, registration_alone=alone, fusion_alone=False)
    loss = total_loss(terms, recipe.losses)
    loss.backward()
    part = model.network.msrb if alone else model.network
    assert loss.is_meta and all(weight.grad.is_meta for weight in part.parameters() if weight.requires_grad)


def test_detectors_predict_where_the_features_are() -> None:
    assert Detector(8).to("meta")(images(2, 8)).boxes.is_meta
    assert all(grid.is_meta for grid in AnchorDetector(1).to("meta")(images(2)).grids)


def test_fields_are_drawn_and_composed_where_they_are_asked_for() -> None:
    level = deformation.get_level("medium")
    psi = deformation.draw(level, 48, 64, ("key", 0), torch.device("meta"))
    assert psi.is_meta and deformation.compose(psi, psi).is_meta and deformation.fold_share(psi).is_meta
    assert deformation.warp(images(1), torch.empty(1, 2, 64, 64, device="meta")).is_meta


def test_a_folded_draw_is_replaced_in_a_batch_as_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first draw of the second image folds: its field is that of `sample_field`, which draws again."""
    first, whole = [], deformation.draw

    def folding(level, height, width, key, device):
        field = whole(level, height, width, key, device)
        if key == ("b", 0):
            first.append(key)
            field[:, :, 20:30, 20:30] = -3 * torch.arange(10.0)
        return field

    monkeypatch.setattr(deformation, "draw", folding)
    image = torch.rand(3, 1, 48, 48)
    together = deformation.misalign_by_key(image, "light", ["a", "b", "c"])
    for index, key in enumerate("abc"):
        alone = deformation.misalign(image[index : index + 1], deformation.sample_field("light", 48, 48, key))
        assert torch.allclose(together.phi_gt[index], alone.phi_gt[0], atol=1e-3)
    assert len(first) == 3  # in the batch, for the batch's second look, and here


class FromNumbers(TorchFunctionMode):
    """Counts the tensors that are made of Python numbers: on a GPU, each waits until all before it is computed."""

    made = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.made += function in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("alone", [True, False])
def test_a_training_step_makes_no_tensor_of_python_numbers(alone: bool) -> None:
    recipe = replace(presets.load("smoke").recipe, detector=None, start=None)
    model = Model(recipe)
    ir, vi = torch.rand(2, 2, 1, 64, 64)
    batch = Batch(ir, vi, deformation.warp(ir, torch.ones(2, 2, 64, 64)), torch.ones(2, 2, 64, 64), [None] * 2)
    with FromNumbers() as numbers:
        terms = model.terms(batch, registration_alone=alone, fusion_alone=False)
        total_loss(terms, recipe.losses).backward()
    assert numbers.made == 0
    with FromNumbers() as numbers:
        torch.zeros(1).new_tensor([1.0])
    assert numbers.made == 1  # it does count


def test_exact_float32_leaves_the_other_flags_of_cudnn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cudnn
    monkeypatch.setattr(flags, "deterministic", True)
    monkeypatch.setattr(flags, "allow_tf32", True)
    with exact_float32():
        assert flags.deterministic and not flags.allow_tf32
    assert flags.deterministic and flags.allow_tf32


def test_a_network_computes_in_exact_float32_when_it_fuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen, forward = [], FusionNetwork.forward

    def watched(network: FusionNetwork, *images: Tensor) -> object:
        seen.append(torch.backends.cudnn.allow_tf32)
        return forward(network, *images)

    monkeypatch.setattr(FusionNetwork, "forward", watched)
    torch.manual_seed(0)
    Ours(FusionNetwork()).fuse(torch.rand(1, 1, 40, 48), torch.rand(1, 1, 40, 48))
    assert seen == [False] and torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_used_where_it_may_be_and_the_device_has_it(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has, "amx_bf16": False})
    assert uses_bfloat16("cuda:0", ("cuda",)) == uses_bfloat16("cpu", ("cpu", "cuda")) == has
    assert not uses_bfloat16("cpu", ("cuda",)) and not uses_bfloat16("cuda", ())
