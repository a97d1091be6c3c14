"""What every fusing system must hold: weights by rule or published, the protocol of
`fusionlib.methods.protocol.Method`."""

from __future__ import annotations

import golden
import pytest
import torch
from golden import check_one_by_one, pair
from torch import nn

from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.support.files import InputError
from fusionlib.support.paths import weight_file


def fill(net: nn.Module, case: dict) -> nn.Module:
    """Weights by the rule of `golden`, those of two or more dimensions scaled; evaluation mode."""
    weights = golden.filled(net.state_dict(), **case.get("fill", {}))
    scale = case.get("kernel_scale", 1)
    net.load_state_dict({key: value * scale if value.ndim >= 2 else value for key, value in weights.items()})
    return net.eval()


def load_published(net: nn.Module, system: str, file: str) -> nn.Module:
    """Published weights, loaded strictly; the test is skipped where the library finds none."""
    if (path := weight_file(system, file)) is None:
        pytest.skip(f"the published weights of {system} are not here")
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return net.eval()


def check_protocol(method: FusingMethod, side: int = 41) -> None:
    """Shapes and range at odd sizes, a batch is fused one by one, what cannot be fused is refused."""
    ir, vi = pair(side, side + 12, batch=2)
    fused = method.fuse(ir, vi)
    assert fused.field is None and fused.registered_ir is None
    assert fused.image.shape == ir.shape and fused.image.dtype == torch.float32
    assert fused.image.min() >= 0 and fused.image.max() <= 1
    assert fused.image.std() > 0.01  # nothing below would mean much for an image without content
    check_one_by_one(method, ir, vi, "image")
    assert method.fuse(*pair(32, 32)).image.shape == (1, 1, 32, 32)
    assert method.fuse(*(image.double() for image in pair(32, 32))).image.dtype == torch.float64
    with pytest.raises(InputError, match="32 pixels"):
        method.fuse(*pair(31, 40))
    with pytest.raises(InputError, match="differ in size"):
        method.fuse(ir, vi[..., :-1])
