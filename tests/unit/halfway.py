"""A compared system made up for tests: one file and one entry, both in a temporary folder, as a user would add them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fusionlib.data import systems

CODE = '''
import torch
from torch import nn

from fusionlib.methods.baselines.network_method import FusingMethod
from fusionlib.losses import fusion_loss


class Halfway(nn.Module):
    """Two layers, so that one of them can have published weights."""

    def __init__(self):
        super().__init__()
        self.mix, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, ir, vi):
        return self.last(self.mix(torch.cat([ir, vi], 1)).relu())


class HalfwayMethod(FusingMethod):
    name = "halfway"

    def __init__(self, network, name=None, device="cpu", gain=1.0):
        super().__init__(network, name, device)
        self.gain = gain

    def merge(self, ir, vi):
        return self.gain * self.network(ir, vi)


def training_loss(network, batch):
    noise = 0.01 * torch.randn_like(batch.ir)
    return fusion_loss(network(batch.ir + noise, batch.vi), batch.ir, batch.vi)
'''
FACTS = {
    "title": "Halfway",
    "kind": "fuses",
    "moves": None,
    "network": "halfway_code.Halfway",
    "method": "halfway_code.HalfwayMethod",
    "loss": "halfway_code.training_loss",
    "paper": "N. N.: Halfway, 2025",
    "upstream": "nobody/halfway",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "licence": "MIT",
    "retraining": "Eq. (9)",
    "budget": {"steps": 6, "batch": 2, "crop": 32},
    "published": {},
    "files": {},
}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> systems.System:
    """Make Halfway the only system there is, with some facts changed."""
    for sub, name, text in (
        ("code", "halfway_code.py", CODE),
        ("methods", "halfway.json", json.dumps(FACTS | changes)),
    ):
        (folder / sub).mkdir(exist_ok=True)
        (folder / sub / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(systems, "SYSTEMS", folder / "methods")
    monkeypatch.syspath_prepend(str(folder / "code"))
    monkeypatch.delitem(sys.modules, "halfway_code", raising=False)
    return systems.system("halfway")
