"""What the systems of several parts or with a field must hold: the weights of every part, and the field's meaning."""

from __future__ import annotations

import golden
import pytest
import torch
from golden import check_one_by_one, pair
from torch import nn

from fusionlib.deformation import warp
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.support.files import InputError


def check_parts(net: nn.Module, facts: dict) -> None:
    """Names and shapes of the weights of every part, and their number, are those of the published code."""
    parts = dict(net.named_children())
    assert {name: golden.state_fingerprint(part.state_dict()) for name, part in parts.items()} == facts["state"]
    numbers = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert numbers == facts["parameters"]


def fill_parts(net: nn.Module) -> nn.Module:
    """Weights by the rule of `golden`, each part on its own; evaluation mode."""
    for part in net.children():
        part.load_state_dict(golden.filled(part.state_dict()))
    return net.eval()


def check_registering_protocol(method: NetworkMethod) -> None:
    """Shapes and range at odd sizes, a batch one by one, the field is what `registered_ir` is warped by, refusals."""
    ir, vi = pair(41, 53, batch=2)
    fused = method.fuse(ir, vi)
    assert fused.image.shape == fused.registered_ir.shape == ir.shape and fused.image.dtype == torch.float32
    assert fused.field.shape == (2, 2, 41, 53) and fused.field.dtype == torch.float32
    assert fused.field.std() > 0.01 and fused.image.std() > 0.01  # else nothing here would mean much
    assert fused.image.min() >= 0 and fused.image.max() <= 1
    torch.testing.assert_close(fused.registered_ir, warp(ir, fused.field), rtol=0, atol=1e-6)
    check_one_by_one(method, ir, vi, "image", "field", "registered_ir")
    assert method.fuse(*pair(32, 32)).field.shape == (1, 2, 32, 32)
    with pytest.raises(InputError, match="32 pixels"):
        method.fuse(*pair(31, 40))
    with pytest.raises(InputError, match="differ in size"):
        method.fuse(ir, vi[..., :-1])


def check_brings_back(method: NetworkMethod, x: float, y: float) -> None:
    """A method whose network finds the displacement (x, y), in pixels, everywhere, undoes one by (-x, -y)."""
    vi = pair(40, 64)[1]
    away = torch.tensor([-x, -y], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 40, 64)
    ir = warp(vi, away)
    fused = method.fuse(ir, vi)
    torch.testing.assert_close(fused.field, -away, rtol=0, atol=1e-4)
    inside = (..., slice(12, -12), slice(12, -12))
    assert (ir - vi)[inside].abs().mean() > 0.1
    torch.testing.assert_close(fused.registered_ir[inside], vi[inside], rtol=0, atol=1e-3)
