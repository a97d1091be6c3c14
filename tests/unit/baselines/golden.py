"""Golden values: two networks with equal keys and shapes get equal weights by rule, and must then give equal outputs.

A golden file holds, for one system, the fingerprint of its state_dict (names and shapes), its number of parameters, and
for some inputs the shape, mean, standard deviation and some single values of the output of the published code.

Outputs are compared in float64, where an instruction set or a number of threads shows in the last digits only. A
golden that was recorded in float64 is met to many digits. One that was recorded in float32 holds that run's rounding
error, which is part of its tolerance and is the same wherever the test runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionlib.methods.protocol import Method

GOLDENS = Path(__file__).parent / "goldens"


def load(name: str) -> dict:
    """The golden file of a system."""
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


def state_fingerprint(state: dict[str, Tensor]) -> str:
    """Changes with any name, shape or kind (floating or not) of a state_dict, not with the order of its entries."""
    lines = sorted(f"{key} {list(value.shape)} {value.is_floating_point()}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def filled(state: dict[str, Tensor], phase: float = 0.7, offset: float = 0.1) -> dict[str, Tensor]:
    """Weights that follow from key and shape alone: sine waves scaled like a fresh layer; integers stay."""
    return {
        key: _fill(key, value, phase, offset) if value.is_floating_point() else value for key, value in state.items()
    }


def _fill(key: str, value: Tensor, phase: float, offset: float) -> Tensor:
    start = offset * (zlib.crc32(key.encode()) % 1000)
    wave = torch.sin(start + phase * torch.arange(value.numel(), dtype=torch.float64))
    if value.ndim >= 2:
        wave = wave / math.sqrt(max(1, math.prod(value.shape[1:])))
    elif key.endswith(("weight", "running_var")):
        wave = 1 + 0.1 * wave
    else:
        wave = 0.05 * wave
    return wave.reshape(value.shape).to(value.dtype)


def waves(height: int, width: int, channels: int = 1, phase: float = 0.0) -> Tensor:
    """A smooth image without randomness, (1, channels, H, W) float32 in [0, 1]."""
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)[None, :]
    planes = [
        0.5 + 0.25 * torch.sin(0.31 * x + 0.17 * y + phase + c) + 0.25 * torch.cos(0.065 * x - 0.23 * y + 2 * phase - c)
        for c in range(channels)
    ]
    return torch.stack(planes)[None].to(torch.float32)


def pair(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Infrared and visible of different content, (B, 1, H, W) in [0, 1], each of the batch different too."""
    return tuple(torch.cat([waves(height, width, phase=p + i) for i in range(batch)]) for p in (0.0, 1.7))


def exact(net: nn.Module) -> nn.Module:
    """The network in float64 and evaluation mode; its weights stay the float32 numbers that they were."""
    return net.double().eval()


def inputs(case: dict, *channels: int) -> list[Tensor]:
    """The waves that a case is about, (1, C, H, W) each, of one channel unless told: float32 numbers in float64."""
    channels = channels or (1,) * len(case["phases"])
    return [waves(*case["size"], c, phase).double() for c, phase in zip(channels, case["phases"], strict=True)]


def check_state(net: nn.Module, facts: dict) -> None:
    """Names and shapes of all weights, and their number, are those of the published code."""
    assert state_fingerprint(net.state_dict()) == facts["state"]
    assert sum(p.numel() for p in net.parameters()) == facts["parameters"]


def check_output(found: Tensor, expected: dict, tolerance: float | None = None) -> None:
    """Shape, mean, standard deviation and single values, all to within the tolerance in units of the deviation."""
    assert found.dtype == torch.float64
    assert list(found.shape) == (expected.get("shape") or [1, 1, *expected["size"]])
    numbers = torch.stack([found.mean(), found.std(correction=0), *found.flatten()[expected["at"]]])
    right = torch.tensor([expected["mean"], expected["std"], *expected["values"]], dtype=torch.float64)
    tolerance = expected.get("tolerance", tolerance)
    torch.testing.assert_close(numbers, right, rtol=0, atol=tolerance * expected["std"])


def check_outputs(found: dict[str, Tensor], case: dict) -> None:
    """Every output of a case that has several, to within its own tolerance or the case's."""
    assert case["outputs"].keys() <= found.keys()
    for name, expected in case["outputs"].items():
        check_output(found[name], expected, case.get("tolerance"))


def check_one_by_one(method: Method, ir: Tensor, vi: Tensor, *names: str) -> None:
    """What a method makes of a batch, by the names of `Fused`, is what it makes of each pair alone."""
    method = deepcopy(method)
    method.network.double()
    ir, vi = ir.double(), vi.double()
    together, alone = method.fuse(ir, vi), [method.fuse(*each) for each in zip(ir.split(1), vi.split(1), strict=True)]
    for name in names:
        one_by_one = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), one_by_one, rtol=0, atol=1e-7)
