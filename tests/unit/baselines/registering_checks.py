"""What every registering system must hold: weights by rule, and the protocol of `fusionlib.methods.protocol.Method`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import golden
import pytest
import torch
from golden import check_one_by_one, pair
from torch import Tensor, nn

from fusionlib.deformation import valid_mask, warp
from fusionlib.methods.baselines.network_method import NetworkMethod
from fusionlib.support.files import InputError


def fill(net: nn.Module, factors: Mapping[str, float]) -> nn.Module:
    """Weights as those of `golden`, but no plain sine waves, and some multiplied by a factor; evaluation mode.

    A sine along the flat index makes kernels so alike that features hardly vary; here the index is scrambled first, to
    (i^2 + 3i) mod 65521, which comes round every 65521 places.
    """
    i = torch.arange(65521)
    scrambled = ((i * i + 3 * i) % 65521).double()
    weights = {}
    for key, value in net.state_dict().items():
        if not value.is_floating_point():
            weights[key] = value
            continue
        wave = torch.sin(0.1 * (zlib.crc32(key.encode()) % 1000) + 0.7 * scrambled[: value.numel()])
        if value.ndim >= 2:
            wave = wave / math.sqrt(math.prod(value.shape[1:]))
        else:
            wave = 1 + 0.1 * wave if key.endswith(("weight", "running_var")) else 0.05 * wave
        rounds = wave.float().repeat(-(-value.numel() // len(wave)))
        weights[key] = rounds[: value.numel()].view(value.shape) * factors.get(key, 1)
    net.load_state_dict(weights)
    return net.eval()


def displaced(height: int, width: int, x: int, y: int) -> tuple[Tensor, Tensor]:
    """Infrared and visible of one content, (1, 1, H, W): `ir(p + (x, y)) = vi(p)`."""
    assert max(abs(x), abs(y)) <= 8
    wide = golden.waves(height + 16, width + 16)
    return wide[..., 8 - y :, 8 - x :][..., :height, :width], wide[..., 8 : 8 + height, 8 : 8 + width]


def check_field(method: NetworkMethod, x: int, y: int, margin: int = 8) -> None:
    """A method whose network always finds the displacement (x, y) brings what is so displaced into register."""
    ir, vi = displaced(64, 80, x, y)
    fused = method.fuse(ir, vi)
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    constant = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand_as(fused.field)
    torch.testing.assert_close(fused.field[inside], constant[inside], rtol=0, atol=1e-4)
    torch.testing.assert_close(fused.registered_ir[inside], vi[inside], rtol=0, atol=1e-4)


def check_protocol(method: NetworkMethod, side: int = 41) -> None:
    """Shapes, ranges, the field against the registered image, batches one by one, and what is refused."""
    ir, vi = pair(side, side + 12, batch=2)
    fused = method.fuse(ir, vi)
    assert fused.image.shape == fused.registered_ir.shape == ir.shape
    assert fused.field.shape == (2, 2, side, side + 12)
    for result in (fused.image, fused.registered_ir):
        assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 1
        assert result.std() > 0.01  # nothing below would mean much for an image without content
    assert fused.field.std() > 0.1
    moved, inside = warp(ir, fused.field), valid_mask(fused.field)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(fused.registered_ir[inside], moved[inside], rtol=0, atol=1e-3)

    check_one_by_one(method, ir, vi, "image", "field", "registered_ir")
    small = method.fuse(*pair(32, 32))
    assert small.image.shape == (1, 1, 32, 32) and small.field.shape == (1, 2, 32, 32)
    double = method.fuse(*(image.double() for image in pair(32, 32)))
    assert double.image.dtype == double.registered_ir.dtype == torch.float64
    with pytest.raises(InputError, match="32 pixels"):
        method.fuse(*pair(31, 40))
    with pytest.raises(InputError, match="differ in size"):
        method.fuse(ir, vi[..., :-1])
