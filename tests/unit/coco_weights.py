"""Weights in the form of YOLOv5n's, for tests on machines without the published ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlib.training.anchor_detector import AnchorDetector


def made_up(channels: int = 3) -> dict[str, Tensor]:
    """Weights in the form of the published ones, drawn at random; anchors as published."""
    torch.manual_seed(0)
    state = AnchorDetector(channels).state_dict()
    found = {name.removeprefix("net."): torch.randn_like(value.float()) / 10 for name, value in state.items()}
    for name in found:
        if name.endswith("running_var"):
            found[name] = found[name].abs() + 1
    for grid in range(3):
        inputs = found[f"model.24.m.{grid}.weight"].shape[1]
        found[f"model.24.m.{grid}.weight"] = torch.randn(255, inputs, 1, 1) / 10
        found[f"model.24.m.{grid}.bias"] = torch.randn(255) - 4
    found["model.24.anchors"] = 1 + torch.rand(3, 3, 2) * 8
    return found
