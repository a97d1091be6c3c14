"""Fusion by a fixed rule, without a network and without registration: the simplest baselines.

Convention: images (B, 1, H, W) in [0, 1], of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.methods.protocol import Fused
from fusionlib.support.inputs import check_pair

LEVELS = 5  # of the Laplacian pyramid, at most; the coarsest has 8 pixels or more on its shorter side


@dataclass(frozen=True)
class Rule:
    """A fixed rule, which does not register.

    >>> ir, vi = torch.tensor([[[[0.2, 0.9]]]]), torch.tensor([[[[0.5, 0.1]]]])
    >>> torch.equal(RULES["maximum"].fuse(ir, vi).image, torch.tensor([[[[0.5, 0.9]]]]))
    True
    """

    name: str
    rule: Callable[[Tensor, Tensor], Tensor]

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        check_pair(ir, vi, smallest=1)
        return Fused(self.rule(ir, vi))


def laplacian(ir: Tensor, vi: Tensor) -> Tensor:
    """Fuse by Laplacian pyramids (Burt & Adelson, 1983): the stronger detail at each level, the mean of the rest.

    The standard method before networks: it keeps the edges of both images, as a maximum does, but without hard seams.
    """
    (*details_ir, rest_ir), (*details_vi, rest_vi) = pyramid(ir), pyramid(vi)
    image = (rest_ir + rest_vi) / 2
    for a, b in zip(reversed(details_ir), reversed(details_vi), strict=True):
        image = _enlarged(image, a) + torch.where(a.abs() >= b.abs(), a, b)
    return image.clamp(0, 1)


def pyramid(image: Tensor) -> list[Tensor]:
    """Details from fine to coarse, each half the size of the one before (rounded up), and the low-pass rest.

    Adding the levels up again, from coarse to fine, gives the image exactly.

    >>> [tuple(level.shape[-2:]) for level in pyramid(torch.rand(1, 1, 32, 48))]
    [(32, 48), (16, 24), (8, 12)]
    """
    levels = []
    while len(levels) < LEVELS and min(image.shape[-2:]) >= 16:
        coarser = _blurred(image)[..., ::2, ::2]
        levels.append(image - _enlarged(coarser, image))
        image = coarser
    return [*levels, image]


def _blurred(image: Tensor) -> Tensor:
    row = torch.tensor([1.0, 4, 6, 4, 1], dtype=image.dtype, device=image.device) / 16
    return F.conv2d(F.pad(image, [2] * 4, mode="replicate"), torch.outer(row, row)[None, None])


def _enlarged(image: Tensor, like: Tensor) -> Tensor:
    """Bilinear upsampling that puts pixel i at 2i, the place it was sampled from."""
    doubled = F.interpolate(image, [2 * side - 1 for side in image.shape[-2:]], mode="bilinear", align_corners=True)
    height, width = like.shape[-2:]
    return F.pad(doubled, (0, width - doubled.shape[-1], 0, height - doubled.shape[-2]), mode="replicate")


RULES = {
    rule.name: rule
    for rule in (
        Rule("infrared", lambda ir, vi: ir),
        Rule("visible", lambda ir, vi: vi),
        Rule("average", lambda ir, vi: (ir + vi) / 2),
        Rule("maximum", torch.maximum),
        Rule("laplacian", laplacian),
    )
}
