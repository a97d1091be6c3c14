"""What every fusing system must hold: its golden values, and the protocol of `fusionlib.protocol.Method`."""

from __future__ import annotations

import os
from pathlib import Path

import golden
import pytest
import torch
from torch import Tensor, nn

from fusionlib.baselines.fusing import FusingMethod
from fusionlib.files import InputError


def check_state(net: nn.Module, facts: dict) -> None:
    """Names and shapes of all weights, and their number, are those of the published code."""
    assert golden.state_fingerprint(net.state_dict()) == facts["state"]
    assert sum(p.numel() for p in net.parameters()) == facts["parameters"]


def fill(net: nn.Module, case: dict) -> nn.Module:
    """Weights by the rule of `golden`, those of two or more dimensions scaled; evaluation mode, in the case's dtype."""
    weights = golden.filled(net.state_dict(), **case.get("fill", {}))
    scale = case.get("kernel_scale", 1)
    net.load_state_dict({key: value * scale if value.ndim >= 2 else value for key, value in weights.items()})
    return net.to(getattr(torch, case["dtype"])).eval()


def load_published(net: nn.Module, system: str, file: str) -> nn.Module:
    """Published weights, loaded strictly; the test is skipped where FUSIONLIB_WEIGHTS names no folder."""
    if not (folder := os.environ.get("FUSIONLIB_WEIGHTS")):
        pytest.skip("FUSIONLIB_WEIGHTS names no folder with published weights")
    net.load_state_dict(torch.load(Path(folder) / system / file, weights_only=True, map_location="cpu"))
    return net.eval()


def inputs(case: dict) -> list[Tensor]:
    """The waves that a case is about, each (1, 1, H, W)."""
    dtype = getattr(torch, case["dtype"])
    return [golden.waves(*case["size"], phase=phase).to(dtype) for phase in case["phases"]]


def check_output(output: Tensor, case: dict) -> None:
    """Mean, standard deviation and single values, all to within the tolerance in units of the standard deviation."""
    assert output.shape == (1, 1, *case["size"])
    output = output.double()
    found = torch.stack([output.mean(), output.std(correction=0), *output.flatten()[case["at"]]])
    expected = torch.tensor([case["mean"], case["std"], *case["values"]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=case["tolerance"] * case["std"])


def pair(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Infrared and visible of different content, (B, 1, H, W) in [0, 1], each of the batch different too."""
    return tuple(torch.cat([golden.waves(height, width, phase=p + i) for i in range(batch)]) for p in (0.0, 1.7))


def check_protocol(method: FusingMethod, side: int = 41) -> None:
    """Shapes and range at odd sizes, a batch is fused one by one, what cannot be fused is refused."""
    ir, vi = pair(side, side + 12, batch=2)
    fused = method.fuse(ir, vi)
    assert fused.field is None and fused.registered_ir is None
    assert fused.image.shape == ir.shape and fused.image.dtype == torch.float32
    assert fused.image.min() >= 0 and fused.image.max() <= 1
    assert fused.image.std() > 0.01  # nothing below would mean much for an image without content
    alone = torch.cat([method.fuse(ir[i : i + 1], vi[i : i + 1]).image for i in range(2)])
    torch.testing.assert_close(fused.image, alone, rtol=0, atol=1e-4)
    assert method.fuse(*pair(32, 32)).image.shape == (1, 1, 32, 32)
    with pytest.raises(InputError, match="32 pixels"):
        method.fuse(*pair(31, 40))
    with pytest.raises(InputError, match="differ in size"):
        method.fuse(ir, vi[..., :-1])
