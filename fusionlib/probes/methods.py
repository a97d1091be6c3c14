"""Probes of the methods: the network with and without refinement, classical registration, fixed rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace

import torch
from torch import Tensor

from fusionlib.experiments import reliability
from fusionlib.methods import Fused, Ours
from fusionlib.methods import classical as registrations
from fusionlib.methods.field_confidence import cues, field_confidence
from fusionlib.methods.field_refinement import RefinedNetwork, Refinement, refine
from fusionlib.methods.simple_fusion import RULES
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig
from fusionlib.probes.views import DOUBLE, SINGLE, Pairs, Seen, pair


def random_network(config: NetworkConfig) -> FusionNetwork:
    """A network in float64 with random weights and BatchNorm statistics of images."""
    torch.manual_seed(0)
    net = FusionNetwork(config).double().train()
    with torch.no_grad():
        for number in range(3):
            net(*(torch.cat(images) for images in zip(pair(number), pair(number + 4), strict=True)))
    return net.eval()


def network() -> Iterator[Seen]:
    """Ours, above its registration size too, the plain reading of the paper, and the third ablation."""
    configs = {
        "ours": (NetworkConfig(), (64, 64)),
        "reduced": (NetworkConfig(registration_side=48), (70, 91)),
        "as in the paper": (AS_IN_THE_PAPER, (64, 80)),
        "without common": (replace(NetworkConfig(), common_in_fusion=False), (64, 64)),
    }
    for name, (config, sides) in configs.items():
        net = random_network(config)
        with torch.no_grad():
            output = net(*pair(2, *sides))
        yield f"{name} image", output.image, DOUBLE
        yield f"{name} field", output.field, 1e-5  # grids of pixels are float32 in places
        yield f"{name} features", output.fused, DOUBLE
        for place, stage in enumerate(output.alignment.stages):
            yield f"{name} stage {place}", stage.field, 1e-5
    single = Ours(random_network(NetworkConfig()).float()).fuse(*pair(3, 64, 64, torch.float32))
    yield "method image", single.image, SINGLE
    yield "method registered", single.registered_ir, 1e-3


def refinement() -> Iterator[Seen]:
    """The refined field and the image fused with it."""
    with torch.no_grad():
        network = RefinedNetwork(random_network(NetworkConfig()).float(), Refinement(chance=0.0, match=0.01, noise=0.0))
        output = network.eval()(*pair(2, 64, 64, torch.float32))
    yield "image", output.image, 1e-3
    yield "field", output.field, 1e-3
    y, x = torch.meshgrid(torch.linspace(0, 6, 40), torch.linspace(0, 5, 48), indexing="ij")
    phi = torch.stack([2 * torch.sin(x) + y, torch.cos(y * x / 4)])[None].double()
    confidence = (0.5 + 0.4 * torch.cos(3 * x - y)).double()[None, None]
    yield "refined", refine(phi, confidence, Refinement()), DOUBLE
    yield "hardly any evidence", refine(phi, confidence * 0.11 / confidence.mean(), Refinement()), DOUBLE
    against_mirrored = Refinement(chance=0.03, match=0.08, mirrored=True)
    yield "hardly more than by chance", refine(phi, confidence, against_mirrored, confidence / 1.2), DOUBLE


class HalfSure:
    """Finds a fixed field, with a confidence that rises from left to right."""

    name = "half sure"

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        phi = 0.4 * torch.sin(torch.arange(ir.shape[-1]) / 9).expand(1, 2, *ir.shape[-2:])
        return Fused(vi, phi, ir, torch.linspace(0, 1, ir.shape[-1]).expand_as(vi))


def confidence() -> Iterator[Seen]:
    """The cues of two fields, the confidence that follows, a calibration, and how often a method is right."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 40).double(), torch.linspace(0, 5, 48).double(), indexing="ij")
    field = torch.stack([2 * torch.sin(x) + y, torch.cos(y * x / 4)])[None]
    match = (0.5 + 0.4 * torch.cos(3 * x - y))[None, None]
    cue_values = cues(field, 0.8 * field, match)
    yield "cues", cue_values, DOUBLE
    yield "confidence", field_confidence(cue_values), DOUBLE
    binned = reliability._measure(Pairs(1, torch.float32), reliability.Condition("light", 30.0), HalfSure())
    yield "places, their confidence, and how many are right", binned[["places", "confidence", "right"]].to_numpy(), 1e-3
    # Motions of several lengths: in one image alone, two of the cues are constant, and their weights are rounding.
    several = torch.cat([cues(part * field, (1 - part) * part * field, match) for part in (1.0, 0.6, 0.2)])
    right = several[:, 0] - 0.3 * several[:, 1] + 0.5 * torch.sin(5 * x) > 0.5
    places = several.transpose(0, 1).flatten(1).T.numpy(), right.flatten().numpy()
    yield "calibration over images", astuple(reliability.logistic(*places)), 1e-3


def classical() -> Iterator[Seen]:
    """Every classical registration of a shifted picture, and of a pair."""
    picture = pair(5, 96, 112, torch.float32)[0]
    moved, (ir, vi) = torch.roll(picture, (3, -2), (2, 3)), pair(6, 96, 96, torch.float32)
    for name, registration in registrations.REGISTRATIONS.items():
        for title, images in {"shift": (moved, picture), "pair": (ir, vi)}.items():
            result = registrations.register(*images, registration)
            yield f"{name} {title}", result.field, 1e-2
            yield f"{name} {title} failed", result.failed.double(), DOUBLE


def simple_fusion() -> Iterator[Seen]:
    """Every fixed rule, on a pair whose sides are odd."""
    for name, rule in RULES.items():
        yield name, rule.fuse(*pair(1, 63, 81)).image, DOUBLE
