"""Refinement of a field where the network was not certain: it is replaced there by the affine and the local mean field.

Not in the paper; no weight of the network changes, and it is off unless asked for. The scores of the MSRB say at every
position how well each shift matches (`registration.Stage.scores`). If one shift stands out, as at the corner of a
house, the field can be trusted; on a road or in the sky all shifts match equally. Three steps, each in closed form:

    affine      A shift, a rotation and a stretch move the whole image. This part is fitted to all positions, weighted
                by their match confidence.
    local mean  The residual field is averaged over the neighbourhood, with the same weights; it is zero where no
                neighbour is certain.
    shrinkage   The local mean is multiplied by the Wiener factor 1 - noise^2 / signal^2: nearly 1 for a large residual
                and 0 for one as small as the network's own errors.

In the end each position keeps its own residual in proportion to its confidence, and the local mean for the rest. The
third step is needed for two real cameras, whose images differ by a rotation and a stretch, but hardly non-rigidly.

A weighted mean divided by the mean of the weights is normalised convolution (Knutsson and Westin, CVPR 1993).

Convention: fields (B, 2, h, w) in pixels of their own size, see `fusionlib.deformation`. Lengths in `Refinement` are
parts of the image side, the root of its area, so that they mean the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusionlib.network import FusionNetwork
from fusionlib.registration import Stage
from fusionlib.support.files import InputError
from fusionlib.support.settings import check


@dataclass(frozen=True)
class Refinement:
    """How a field is refined; the defaults were chosen on the validation pairs, deformed and raw.

    Attributes:
        power: the weight of a position is its confidence to this power.
        reach: standard deviation of the Gaussian that averages the residual, in parts of the image side.
        doubt: weight, in units of the mean one, of a residual of zero; it wins where no neighbour is certain.
        noise: length of the network's errors, in parts of the image side; infinity leaves no local mean.
    """

    power: float = 2.0
    reach: float = 0.025
    doubt: float = 0.1
    noise: float = 0.004

    def __post_init__(self) -> None:
        check(self, "power", "doubt")
        check(self, "reach", least=1e-6)  # a Gaussian of width 0 is 0 / 0
        check(self, "noise", most=math.inf)


class RefinedNetwork(FusionNetwork):
    """A `FusionNetwork` whose registration ends in one more stage: the refined field.

    Args:
        network: the trained network; it is not changed, the weights are copied in their dtype, on their device.
        refinement: how.

    Raises:
        InputError: its MSRB is a plain U-Net, which has no scores and so no confidence.
    """

    def __init__(self, network: FusionNetwork, refinement: Refinement | None = None) -> None:
        if network.config.msrb != "pyramid":
            kind = network.config.msrb
            raise InputError(f"Only msrb 'pyramid' has scores to refine a field by; this network has {kind!r}.")
        super().__init__(network.config)
        self.to(next(network.parameters()))
        self.load_state_dict(network.state_dict())
        self.refinement = refinement or Refinement()

    @classmethod
    def load(cls, path: Path | str) -> RefinedNetwork:
        """As `FusionNetwork.load`, with the default refinement."""
        return cls(FusionNetwork.load(path)).eval()

    def register(self, common_ir: Tensor, common_vi: Tensor) -> list[Stage]:
        """As in `FusionNetwork`, and one more stage: the last field (B, 2, h, w), refined, in the same pixels."""
        stages = super().register(common_ir, common_vi)
        last = stages[-1]
        return [*stages, Stage(refine(last.field, match_confidence(last.scores), self.refinement))]


def match_confidence(scores: Tensor) -> Tensor:
    """How far the best shift stands out: its probability under the softmax, through the widest window.

    Args:
        scores: (B, W, K, h, w), see `registration.Stage`.

    Returns:
        (B, 1, h, w) in [1 / K, 1].

    >>> match_confidence(torch.zeros(1, 1, 4, 2, 2)).unique().tolist()  # all of 4 shifts match equally well
    [0.25]
    """
    return scores[:, -1].softmax(1).amax(1, keepdim=True)


def refine(phi: Tensor, confidence: Tensor, refinement: Refinement) -> Tensor:
    """The field after the steps at the top of this module.

    Args:
        phi: (B, 2, h, w) pixels.
        confidence: (B, 1, h, w) in (0, 1]: the share of its own residual that each position keeps.
        refinement: how.

    Returns:
        (B, 2, h, w) pixels.
    """
    from kornia.filters import gaussian_blur2d  # takes a second to import, and few need it

    side = (phi.shape[-2] * phi.shape[-1]) ** 0.5
    weight = confidence**refinement.power
    weight = weight / weight.mean(dim=(2, 3), keepdim=True)
    affine = affine_fit(phi, weight)
    residual = phi - affine
    sigma = refinement.reach * side
    kernel = 2 * max(1, round(3 * sigma)) + 1
    means = gaussian_blur2d(torch.cat([weight * residual, weight], 1), (kernel,) * 2, (sigma,) * 2, "constant")
    local = means[:, :2] / (means[:, 2:] + refinement.doubt)
    squares = (weight * local.square().sum(1, keepdim=True)).mean(dim=(2, 3), keepdim=True)
    local = (1 - (refinement.noise * side) ** 2 / squares.clamp(min=1e-12)).clamp(min=0) * local
    return affine + confidence * residual + (1 - confidence) * local


def affine_fit(phi: Tensor, weight: Tensor) -> Tensor:
    """The affine field closest to a field, by weighted least squares.

    Args:
        phi: (B, 2, h, w) pixels.
        weight: (B, 1, h, w) of each position, 0 or more; at least three positions that are not on one line count.

    Returns:
        (B, 2, h, w) pixels.

    >>> shift = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> affine_fit(shift, torch.ones(1, 1, 4, 4)).allclose(shift)
    True
    """
    y, x = (torch.linspace(-1, 1, side, dtype=torch.float64, device=phi.device) for side in phi.shape[-2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)  # (h w, 3)
    weighed = basis.T * weight.double().flatten(1).unsqueeze(1)  # (B, 3, h w)
    solution = torch.linalg.solve(weighed @ basis, weighed @ phi.double().flatten(2).mT)  # (B, 3, 2)
    return (basis @ solution).mT.reshape(phi.shape).to(phi.dtype)
