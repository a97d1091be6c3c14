"""IVFWSR against golden values of the published code, what its attention can move, and as a method."""

from __future__ import annotations

from copy import deepcopy

import golden
import pytest
import torch
from fusing_checks import check_protocol
from golden import check_outputs, check_state, exact, inputs, pair
from torch import Tensor, nn

from fusionlib.methods.baselines import ivfwsr_blocks
from fusionlib.methods.baselines.ivfwsr import IVFWSR, IVFWSRMethod
from fusionlib.methods.baselines.ivfwsr_blocks import WIDTH, WindowAttention

FACTS = golden.load("ivfwsr")


@pytest.fixture(scope="module")
def network() -> IVFWSR:
    net = IVFWSR().eval()
    net.load_state_dict(golden.filled(net.state_dict()))
    return net


def features(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, WIDTH, height, width, generator=torch.Generator().manual_seed(0))


def test_names_and_shapes_of_the_weights_are_the_published_ones(network: IVFWSR) -> None:
    check_state(network, FACTS)


@torch.no_grad()
def test_filled_weights_give_the_golden_values(network: IVFWSR) -> None:
    (case,) = FACTS["cases"]
    fused, corrected = exact(deepcopy(network))(*inputs(case, 3, 3))
    check_outputs({"fused": fused} | {f"corrected {i}": c for i, c in enumerate(corrected, 1)}, case)


@torch.no_grad()
def test_the_offset_says_which_pixel_of_a_window_to_draw_from() -> None:
    attention, x = WindowAttention(14, corrects=True), features(14, 28)
    torch.nn.init.eye_(attention.proj.weight)
    for parameter in (attention.proj.bias, attention.qkv.bias, attention.correct.weight, attention.correct.bias):
        torch.nn.init.zeros_(parameter)
    attention.qkv.weight.copy_(torch.eye(WIDTH).repeat(3, 1))  # query, key and value are the feature itself
    attention.correct.bias[3 * 14 + 5] = 1000
    moved = attention(x, features(14, 28))
    for left in (0, 14):
        drawn = x[..., 3, left + 5, None, None].expand(-1, -1, 14, 14)
        torch.testing.assert_close(moved[..., left : left + 14], drawn)


@torch.no_grad()
@pytest.mark.parametrize("side", [7, 14])
def test_attention_stays_within_its_window(side: int) -> None:
    torch.manual_seed(0)
    attention, x = WindowAttention(side), features(28, 42)
    changed = x.clone()
    changed[..., 16, 30] += 1
    touched = (attention(changed) != attention(x)).any(1).squeeze(0).nonzero()
    first, last = touched.min(0).values.tolist(), touched.max(0).values.tolist()
    assert first == [16 // side * side, 30 // side * side]
    assert last == [16 // side * side + side - 1, 30 // side * side + side - 1]


@torch.no_grad()
def test_how_many_windows_are_attended_to_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, x, offset = WindowAttention(14, corrects=True), features(28, 42, batch=2), features(28, 42, batch=2)
    expected = attention(x, offset)
    monkeypatch.setattr(ivfwsr_blocks, "WINDOWS_AT_ONCE", 5)
    torch.testing.assert_close(attention(x, offset), expected, rtol=0, atol=1e-6)


class Red(nn.Module):
    """Stands in for the network: the image to correct as red, three times too bright, no green, no blue."""

    def forward(self, moving: Tensor, reference: Tensor) -> tuple[Tensor, list[Tensor]]:
        assert moving.shape == reference.shape and moving.shape[1] == 3
        assert moving.shape[2] % 14 == moving.shape[3] % 14 == 0
        return torch.cat([torch.zeros_like(moving[:, :2]), 3 * moving[:, :1]], 1), []


def test_it_is_a_method() -> None:
    check_protocol(IVFWSRMethod(Red()))


def test_the_network_goes_with_the_method(network: IVFWSR) -> None:
    fused = IVFWSRMethod(network).fuse(*pair(32, 33)).image
    assert fused.shape == (1, 1, 32, 33)
    assert fused.min() >= 0 and fused.max() <= 1 and fused.std() > 0.02


def test_infrared_is_corrected_and_the_luma_of_the_stretched_output_comes_back() -> None:
    ir, vi = pair(42, 56, batch=2)
    brightest = ir.amax((2, 3), keepdim=True)
    torch.testing.assert_close(IVFWSRMethod(Red()).fuse(ir, vi).image, 0.299 * ir / brightest)


def test_other_sizes_are_resized_down_and_back() -> None:
    ir, vi = pair(83, 97)
    fused = IVFWSRMethod(Red()).fuse(ir, vi).image
    torch.testing.assert_close(fused, 0.299 * ir / ir.max(), rtol=0, atol=0.03)


def test_an_output_without_contrast_is_black() -> None:
    black = torch.zeros(1, 1, 42, 42)
    assert torch.equal(IVFWSRMethod(Red()).fuse(black, black).image, black)
