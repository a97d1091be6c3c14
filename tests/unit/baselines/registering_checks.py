"""What every registering system must hold: its golden values, and the protocol of `fusionlib.protocol.Method`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import golden
import pytest
import torch
from torch import Tensor, nn

from fusionlib.baselines.registering import RegisteringMethod
from fusionlib.deformation import valid_mask, warp
from fusionlib.files import InputError


def check_state(net: nn.Module, facts: dict) -> None:
    """Names and shapes of all weights, and their number, are those of the published code."""
    assert golden.state_fingerprint(net.state_dict()) == facts["state"]
    assert sum(p.numel() for p in net.parameters()) == facts["parameters"]


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


def check_output(found: Tensor, expected: dict) -> None:
    """Shape, mean, standard deviation and single values, to within the tolerance in units of the deviation."""
    assert list(found.shape) == expected["shape"]
    found = found.double()
    numbers = torch.stack([found.mean(), found.std(correction=0), *found.flatten()[expected["at"]]])
    right = torch.tensor([expected["mean"], expected["std"], *expected["values"]], dtype=torch.float64)
    torch.testing.assert_close(numbers, right, rtol=0, atol=expected["tolerance"] * expected["std"])


def pair(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Infrared and visible of different content, (B, 1, H, W) in [0, 1], each of the batch different too."""
    return tuple(torch.cat([golden.waves(height, width, phase=p + i) for i in range(batch)]) for p in (0.0, 1.7))


def displaced(height: int, width: int, x: int, y: int) -> tuple[Tensor, Tensor]:
    """Infrared and visible of one content, (1, 1, H, W): `ir(p + (x, y)) = vi(p)`."""
    assert max(abs(x), abs(y)) <= 8
    wide = golden.waves(height + 16, width + 16)
    return wide[..., 8 - y :, 8 - x :][..., :height, :width], wide[..., 8 : 8 + height, 8 : 8 + width]


def check_field(method: RegisteringMethod, x: int, y: int, margin: int = 8) -> None:
    """A method whose network always finds the displacement (x, y) brings what is so displaced into register."""
    ir, vi = displaced(64, 80, x, y)
    fused = method.fuse(ir, vi)
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    constant = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand_as(fused.field)
    torch.testing.assert_close(fused.field[inside], constant[inside], rtol=0, atol=1e-4)
    torch.testing.assert_close(fused.registered_ir[inside], vi[inside], rtol=0, atol=1e-4)


def check_protocol(method: RegisteringMethod, side: int = 41) -> None:
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

    alone = [method.fuse(ir[i : i + 1], vi[i : i + 1]) for i in range(2)]
    for name in ("image", "field", "registered_ir"):
        one_by_one = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(fused, name), one_by_one, rtol=0, atol=1e-3)

    small = method.fuse(*pair(32, 32))
    assert small.image.shape == (1, 1, 32, 32) and small.field.shape == (1, 2, 32, 32)
    with pytest.raises(InputError, match="32 pixels"):
        method.fuse(*pair(31, 40))
    with pytest.raises(InputError, match="differ in size"):
        method.fuse(ir, vi[..., :-1])
