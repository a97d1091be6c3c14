"""Golden values: two networks with equal keys and shapes get equal weights by rule, and must then give equal outputs.

A golden file holds, for one system, the fingerprint of its state_dict (names and shapes), its number of parameters, and
for some inputs the shape, mean, standard deviation and some single values of the output of the published code.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

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
