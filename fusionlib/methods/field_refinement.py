"""Refinement of a field: it is shortened where the two images do not match, down to zero.

Not in the paper; `ours_refined` and `ours_robust` have it. No weight of the network changes. The cost volume of the
MSRB compares every position with its surroundings (`registration.Stage.scores`). Where one shift fits far better than
all others, at the corner of a house, the field can be trusted; on a road or in the sky all shifts fit alike, and the
field is uncertain. Four steps, each in closed form:

    affine      A shift, a rotation or a stretch moves the whole image. This part is fitted to all positions by least
                squares, each weighted by its match confidence.
    non-rigid   The residual differs from place to place. Each position keeps a part of its own that is equal to its
                confidence, and takes the rest from the weighted mean of its surroundings.
    shrinkage   A motion as short as the network's own errors consists of them. Both parts are multiplied by the Wiener
                factor 1 - noise^2 / length^2: nearly 1 for a long motion, 0 for one as short as the noise. So a pair
                that is aligned already hardly moves.
    evidence    In a constant image or in noise no shift fits better than the others. Where the mean confidence is no
                higher than in noise, the field is 0, and the pair is fused as it was given. The confidence in
                noise is either a fixed number or measured on the pair itself, against the mirrored features of the
                visible image, which hardly anything matches: that serves in the dark, too, where all confidences
                are low.

A weighted mean over the mean of the weights is normalised convolution (Knutsson and Westin, CVPR 1993).

Convention: fields (B, 2, h, w) in pixels of their own size, see `fusionlib.deformation`. Lengths in `Refinement` are
parts of the image side, the root of its area, so that they mean the same at every size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fusionlib.methods.field_confidence import Calibration, cues, field_confidence, gaussian_average
from fusionlib.network import FusionNetwork
from fusionlib.registration import Stage
from fusionlib.support.files import InputError
from fusionlib.support.keys import NEUTRAL
from fusionlib.support.settings import check

POSITIONS = 64  # of the cost volume along the side of an image of 256 px


@dataclass(frozen=True)
class Refinement:
    """How a field is refined; chosen on the validation pairs of RoadScene, deformed, raw, aligned and without match.

    Attributes:
        power: a position is weighted by its confidence to this power.
        reach: standard deviation of the Gaussian mean over the surroundings, in parts of the image side.
        prior: weight, in units of the mean one, of there being no non-rigid motion; it decides where all
            surroundings are uncertain.
        noise: length of the errors that a motion has to exceed, in parts of the image side.
        chance, match: mean confidence up to which there is no evidence of a match, and from which it counts in full;
            in between, the field is scaled linearly. With the defaults, constant images and noise lie below `chance`,
            from 128 px a side on, and daylight pairs above `match`. Dark pairs and unrelated scenes overlap, so these
            may move.
        mirrored: compare the mean confidence with that against the mirrored features of the visible image, which
            hardly anything matches; it costs a second pass of the registration network. `chance` and `match` then hold
            for the mean confidence times the part by which it is larger, in an image of 256 px. In a smaller one that
            part counts for less, since the mean over fewer positions varies more.
    """

    power: float = 2.0
    reach: float = 0.025
    prior: float = 0.1
    noise: float = 0.0035
    chance: float = 0.1
    match: float = 0.12
    mirrored: bool = field(default=False, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        check(self, "power", "prior", "noise", "chance")
        check(self, "reach", least=1e-6)  # a Gaussian of none is 0 / 0
        check(self, "match", least=self.chance + 1e-6)


class RefinedNetwork(FusionNetwork):
    """A `FusionNetwork` whose registration ends in one more stage: the refined field.

    Args:
        network: the trained network; it stays as it is, the weights are copied in their dtype, on their device.
        refinement: how.
        calibration: of the confidence, see `fusionlib.methods.field_confidence`.

    Raises:
        InputError: its MSRB is a plain U-Net, which compares nothing and so has no confidence.
    """

    def __init__(
        self, network: FusionNetwork, refinement: Refinement | None = None, calibration: Calibration | None = None
    ) -> None:
        if network.config.msrb != "pyramid":
            raise InputError(f"Only a field of msrb 'pyramid' can be refined, not one of {network.config.msrb!r}.")
        super().__init__(network.config)
        self.to(next(network.parameters()))
        self.load_state_dict(network.state_dict())
        self.refinement, self.calibration = refinement or Refinement(), calibration or Calibration()

    @classmethod
    def load(cls, path: Path | str) -> RefinedNetwork:
        """As `FusionNetwork.load`, with the default refinement."""
        return cls(FusionNetwork.load(path)).eval()

    def register(self, common_ir: Tensor, common_vi: Tensor) -> list[Stage]:
        """As in `FusionNetwork`, and one more stage: the last field refined, in the same pixels, and its confidence."""
        stages = super().register(common_ir, common_vi)
        initial, match = stages[-1].field, match_confidence(stages[-1].scores)
        by_chance = None
        if self.refinement.mirrored:
            by_chance = match_confidence(super().register(common_ir, common_vi.flip(-1))[-1].scores)
        refined = refine(initial, match, self.refinement, by_chance)
        confidence = field_confidence(cues(initial, refined, match), self.calibration)
        return [*stages, Stage(refined, confidence=evidence(match, self.refinement, by_chance) * confidence)]


def match_confidence(scores: Tensor) -> Tensor:
    """How far the best shift stands out: its share of the softmax, through the widest window.

    Args:
        scores: (B, W, K, h, w), see `registration.Stage`.

    Returns:
        (B, 1, h, w) in [1 / K, 1].

    >>> match_confidence(torch.zeros(1, 1, 4, 2, 2)).unique().tolist()  # all of 4 shifts match equally well
    [0.25]
    """
    return scores[:, -1].softmax(1).amax(1, keepdim=True)


def refine(phi: Tensor, confidence: Tensor, refinement: Refinement, by_chance: Tensor | None = None) -> Tensor:
    """The field after the steps at the top of this module.

    Args:
        phi: (B, 2, h, w) pixels.
        confidence: (B, 1, h, w), over 0 and at most 1: what part of its own non-rigid motion each position keeps.
        refinement: how.
        by_chance: the confidence against the mirrored visible image, as `confidence`, if the refinement asks for it.

    Returns:
        (B, 2, h, w) pixels; exactly 0 where there is no evidence.
    """
    side = torch.sym_sqrt(phi.shape[-2] * phi.shape[-1])
    weight = confidence**refinement.power
    weight = weight / _mean(weight)
    affine = affine_fit(phi, weight)
    own = phi - affine
    sigma = refinement.reach * side
    around = gaussian_average(torch.cat([weight * own, weight], 1), sigma, torch.sym_max(1, round(3 * sigma)))
    around = around[:, :2] / (around[:, 2:] + refinement.prior)
    non_rigid = confidence * own + (1 - confidence) * around
    noise = refinement.noise * side
    carried = evidence(confidence, refinement, by_chance)
    return carried * (_shrunk(affine, weight, noise) + _shrunk(non_rigid, weight, noise))


def evidence(confidence: Tensor, refinement: Refinement, by_chance: Tensor | None = None) -> Tensor:
    """How far a pair matches, from 0, nothing, to 1: confidences (B, 1, h, w) to (B, 1, 1, 1); arguments of `refine`.

    >>> evidence(torch.tensor([0.1, 0.2]).view(2, 1, 1, 1), Refinement()).flatten().tolist()
    [0.0, 1.0]
    """
    match = _mean(confidence)
    if by_chance is not None:
        side = torch.sym_sqrt(confidence.shape[-2] * confidence.shape[-1])
        match = match * (match / _mean(by_chance) - 1) * side / POSITIONS
    return ((match - refinement.chance) / (refinement.match - refinement.chance)).clamp(0, 1)


def _shrunk(part: Tensor, weight: Tensor, noise: float) -> Tensor:
    """A part of the field times Wiener's factor; its length is the weighted root mean square over the image."""
    square = _mean(weight * part.square().sum(1, keepdim=True))
    return (1 - noise**2 / square.clamp(min=1e-12)).clamp(min=0) * part


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


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
    sides = phi.shape[-2:]
    y, x = (torch.arange(n, dtype=torch.float64, device=phi.device) / ((n - 1) / 2) - 1 for n in sides)
    y, x = torch.meshgrid(y, x, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y], -1).flatten(0, 1)  # (h w, 3)
    weighed = basis.T * weight.double().flatten(1).unsqueeze(1)  # (B, 3, h w)
    a, b, c = (weighed @ basis).unbind(1)  # solved by Cramer's rule, since an ONNX file knows no other
    adjugate = torch.stack([torch.linalg.cross(*two) for two in ((b, c), (c, a), (a, b))], -1)
    solution = adjugate @ (weighed @ phi.double().flatten(2).mT)  # (B, 3, 2), times the determinant
    solution = solution / (a * adjugate[..., 0]).sum(-1).view(-1, 1, 1)
    return (basis @ solution).mT.reshape(phi.shape).to(phi.dtype)
