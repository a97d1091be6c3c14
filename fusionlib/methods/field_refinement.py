"""Settling: a field that was found is set right where the network was unsure, by what it was sure of elsewhere.

Not in the paper, and no weight of the network changes: a switch that is off unless asked for. The MSRB says at every
position how well each shift fits (`registration.Stage.scores`). Where one shift stands out, at the corner of a house,
the field can be trusted; on a road, or in the sky, all shifts fit alike and the field there is half guess. Three steps,
each with a closed form:

    affine    a shift, a rotation, a stretch move the whole picture. That part is fitted to all positions, and each
              weighs as much as it is sure.
    bend      what is left differs from place to place. Its mean over the surroundings, again by weight, is what an
              unsure place can borrow; nothing where all around is guess.
    noise     a bend shorter than the network's own errors consists of them. What is borrowed is multiplied by Wiener's
              factor 1 - noise^2 / length^2, nearly 1 for a long bend and 0 for one as short as the noise.

At last every place takes as much of what it found itself as it is sure, and borrows the rest. The third step is what
really different cameras need: their picture is turned and stretched, but hardly bent.

A mean by weight, over the mean of the weights, is normalised convolution (Knutsson and Westin, CVPR 1993).

Convention: fields (B, 2, h, w) in pixels of their own size, see `fusionlib.deformation`. Lengths in `Settling` are
parts of the image side, the root of its area, so that they mean the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.network import FusionNetwork
from fusionlib.registration import Stage
from fusionlib.support.files import InputError
from fusionlib.support.settings import check


@dataclass(frozen=True)
class Settling:
    """How a field settles; chosen on the validation pairs, deformed and raw.

    Attributes:
        power: a position weighs as its sureness to this power.
        reach: standard deviation of the Gaussian that averages the bend, in parts of the image side.
        doubt: weight, in units of the mean one, of there being no bend; it wins where no neighbour is sure.
        noise: length of the errors that a bend has to exceed, in parts of the image side; infinity borrows no bend.
    """

    power: float = 2.0
    reach: float = 0.025
    doubt: float = 0.1
    noise: float = 0.004

    def __post_init__(self) -> None:
        check(self, "power", "doubt")
        check(self, "reach", least=1e-6)  # a Gaussian of none is 0 / 0
        check(self, "noise", most=math.inf)


class SettledNetwork(FusionNetwork):
    """A `FusionNetwork` whose registration ends in one more stage: the field, settled.

    Args:
        network: the trained network; it stays as it is, the weights are copied in their dtype, on their device.
        settling: how.

    Raises:
        InputError: its MSRB is a plain U-Net, which compares nothing and so cannot say how sure it is.
    """

    def __init__(self, network: FusionNetwork, settling: Settling | None = None) -> None:
        if network.config.msrb != "pyramid":
            kind = network.config.msrb
            raise InputError(f"Only msrb 'pyramid' says how sure it is; a network with {kind!r} cannot settle.")
        super().__init__(network.config)
        self.to(next(network.parameters()))
        self.load_state_dict(network.state_dict())
        self.settling = settling or Settling()

    def register(self, common_ir: Tensor, common_vi: Tensor) -> list[Stage]:
        """As in `FusionNetwork`, and one more stage: the last field (B, 2, h, w), settled, in the same pixels."""
        stages = super().register(common_ir, common_vi)
        found = stages[-1]
        return [*stages, Stage(settle(found.field, sureness(found.scores), self.settling))]


def sureness(scores: Tensor) -> Tensor:
    """How far the best shift stands out: its share of the softmax, through the widest window.

    Args:
        scores: (B, W, K, h, w), see `registration.Stage`.

    Returns:
        (B, 1, h, w) in [1 / K, 1].
    """
    return scores[:, -1].softmax(1).amax(1, keepdim=True)


def settle(phi: Tensor, sure: Tensor, settling: Settling) -> Tensor:
    """The field after the steps at the top of this module.

    Args:
        phi: (B, 2, h, w) pixels.
        sure: (B, 1, h, w), over 0 and at most 1: what part of its own bend each position keeps.
        settling: how.

    Returns:
        (B, 2, h, w) pixels.
    """
    side = (phi.shape[-2] * phi.shape[-1]) ** 0.5
    weight = sure**settling.power
    weight = weight / weight.mean(dim=(2, 3), keepdim=True)
    affine = affine_fit(phi, weight)
    around = smooth(torch.cat([weight * (phi - affine), weight], 1), settling.reach * side)
    bend = around[:, :2] / (around[:, 2:] + settling.doubt)
    squares = (weight * bend.square().sum(1, keepdim=True)).mean(dim=(2, 3), keepdim=True)
    bend = (1 - (settling.noise * side) ** 2 / squares.clamp(min=1e-12)).clamp(min=0) * bend
    return affine + sure * (phi - affine) + (1 - sure) * bend


def affine_fit(phi: Tensor, weight: Tensor) -> Tensor:
    """The affine field that comes closest to a field, by weighted least squares.

    Args:
        phi: (B, 2, h, w) pixels.
        weight: (B, 1, h, w), 0 or more, and more than 0 somewhere off one line: how much each position counts.

    Returns:
        (B, 2, h, w) pixels, everywhere.
    """
    y, x = (torch.linspace(-1, 1, side, dtype=torch.float64, device=phi.device) for side in phi.shape[-2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)  # (h w, 3)
    weighed = basis.T * weight.double().flatten(1).unsqueeze(1)  # (B, 3, h w)
    solution = torch.linalg.solve(weighed @ basis, weighed @ phi.double().flatten(2).mT)  # (B, 3, 2)
    return (basis @ solution).mT.reshape(phi.shape).to(phi.dtype)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian mean of (B, C, h, w) with a standard deviation in pixels; what lies outside counts as 0."""
    half = max(1, round(3 * sigma))
    at = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, kernel, padding=(0, half), groups=x.shape[1])
    return F.conv2d(x, kernel.mT, padding=(half, 0), groups=x.shape[1])
