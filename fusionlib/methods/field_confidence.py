"""Confidence of a refined field: the chance that a place is registered to one pixel of a 256 px image.

Not in the paper. A field has to come with the answer to "how far can I trust it here?". Three cues, which
the registration has at hand, go into a logistic regression; its four numbers are calibrated so that of all places with
confidence 0.8, about 80 % have a residual below 1/256 of the image side.

    match       how far the best shift stands out around the place, see `field_refinement.match_confidence`
    length      how long the motion is: long motions leave longer residuals
    correction  how much the refinement changed the field

What no evidence supports (`field_refinement.evidence`) has confidence 0, although its field is 0 too: the pair may be
aligned or not.

Convention: as in `fusionlib.methods.field_refinement`; lengths are parts of the image side, the root of its area.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

WITHIN = 1 / 256  # of the image side: what counts as right
AROUND = 0.1  # standard deviation of the Gaussian mean around a place, in parts of the image side
LEAST = 1e-4  # added to a length before its logarithm is taken


@dataclass(frozen=True)
class Calibration:
    """The logistic regression from the cues to the confidence, in the order of `cues`.

    Fitted to the validation pairs of RoadScene, undeformed, at three levels of deformation, and in four amounts of
    darkness, by `fusionlib.experiments.reliability.fit`.
    """

    offset: float = -2.853
    match: float = 0.540
    length: float = -0.887
    correction: float = -317.5


def cues(initial: Tensor, refined: Tensor, match: Tensor) -> Tensor:
    """The three numbers at each place from which the confidence is computed.

    Args:
        initial, refined: the field before and after the refinement, (B, 2, h, w) pixels.
        match: the match confidence, (B, 1, h, w), above 0.

    Returns:
        (B, 3, h, w): the logarithm of `match` around each place; and of the whole image, the logarithm of the root mean
        square length of the refined field and the mean length of the correction, both in parts of the image side.
    """
    height, width = map(torch.sym_int, match.shape[-2:])  # plain numbers under a tracer that counts operations
    side = torch.sym_sqrt(height * width)
    sigma = AROUND * side
    reach = torch.sym_min(round(3 * sigma), torch.sym_min(height, width) - 1)
    around = gaussian_average(match, sigma, reach, mirrored=True)
    length = (refined / side).square().sum(1, keepdim=True).mean((2, 3), keepdim=True).sqrt()
    correction = ((initial - refined) / side).norm(dim=1, keepdim=True).mean((2, 3), keepdim=True)
    return torch.cat([around.log(), (length + LEAST).log().expand_as(match), correction.expand_as(match)], 1)


def gaussian_average(x: Tensor, sigma: float, reach: int, mirrored: bool = False) -> Tensor:
    """Gaussian mean of (B, C, h, w) around each place; two products with matrices, which any size and exporter takes.

    Args:
        x: what to average.
        sigma: standard deviation in pixels.
        reach: how many pixels to each side count, less than h and w if `mirrored`.
        mirrored: outside, the image is mirrored at its border pixels; else it is 0 there.

    >>> gaussian_average(torch.ones(1, 1, 3, 3), 0.5, 1, mirrored=True).allclose(torch.ones(3, 3))
    True
    """

    def bell(away: Tensor) -> Tensor:
        return torch.exp(away.square() / (-2 * sigma * sigma)) * (away.abs() <= reach)

    total = bell(torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)).sum()
    for dim in (-2, -1):
        last = x.shape[dim] - 1
        to = torch.arange(last + 1, dtype=x.dtype, device=x.device)
        place = to[:, None]
        weights = bell(place - to)
        if mirrored:  # a pixel is seen again on the other side of each border, but for that of the border itself
            weights = weights + bell(place + to) * (to > 0) + bell(2 * last - place - to) * (to < last)
        weights = weights / total
        x = weights @ x if dim == -2 else x @ weights.T
    return x


def field_confidence(cue_values: Tensor, calibration: Calibration | None = None) -> Tensor:
    """Cues (B, 3, h, w) to the confidence (B, 1, h, w) in [0, 1].

    >>> field_confidence(torch.zeros(1, 3, 2, 2), Calibration(offset=0.0)).unique().tolist()
    [0.5]
    """
    offset, *weights = astuple(calibration or Calibration())
    odds = offset + torch.einsum("bchw,c->bhw", cue_values, cue_values.new_tensor(weights))
    return odds.sigmoid().unsqueeze(1)
