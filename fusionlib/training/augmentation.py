"""Photometric augmentation: a pair as other cameras show it, or in other light. It moves nothing.

Not in the paper. 152 pairs teach the registration what is common to these two cameras by day; it then fails where an
image is full of photon noise. Three steps, each for a share of the pairs:

    single      Infrared and visible image are replaced by one of the two under two random intensity maps: a pair
                that is aligned exactly, which no published pair is (Hoffmann et al., SynthMorph, IEEE TMI 2022).
    relit       Gamma, uneven light, little light, an offset, reversed polarity; each image on its own.
    degraded    Blur, photon noise, noise of the sensor, dead rows, 8 bits; after the deformation, as a camera does it.

Convention: images (1, H, W) float32 in [0, 1]; a random generator of the pair makes each pair the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from fusionlib.support.settings import check

KNOTS = 6  # of a random intensity map


@dataclass(frozen=True)
class Augmentation:
    """Shares of the pairs that go through each step, 0 to 1."""

    single: float = 1 / 3
    relit: float = 1.0
    degraded: float = 1.0

    def __post_init__(self) -> None:
        check(self, "single", "relit", "degraded", most=1)


def before_deformation(ir: Tensor, vi: Tensor, shares: Augmentation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """An aligned pair after the steps `single` and `relit`; still aligned."""
    if rng.random() < shares.single:
        one = vi if rng.random() < 0.6 else ir  # the visible image shows more edges
        ir, vi = remapped(one, rng), remapped(one, rng)
    if rng.random() < shares.relit:
        ir, vi = relit(ir, rng), relit(vi, rng)
    return ir, vi


def after_deformation(ir: Tensor, vi: Tensor, shares: Augmentation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A misaligned pair after the step `degraded`."""
    return (degraded(ir, rng), degraded(vi, rng)) if rng.random() < shares.degraded else (ir, vi)


def remapped(image: Tensor, rng: np.random.Generator) -> Tensor:
    """An image under a random piecewise linear map of its intensities, which need not rise, stretched to [0, 1].

    >>> ramp = torch.linspace(0, 1, 5).expand(1, 4, 5)
    >>> new = remapped(ramp, np.random.default_rng(0))
    >>> new.shape, bool((new[0, 0] == new[0, 3]).all()), float(new.min())  # equal intensities stay equal
    (torch.Size([1, 4, 5]), True, 0.0)
    """
    values = torch.from_numpy(rng.random(KNOTS)).float()
    place = image.clamp(0, 1) * (KNOTS - 1)
    below = place.floor().clamp(max=KNOTS - 2).long()
    new = torch.lerp(values[below], values[below + 1], place - below)
    return (new - new.min()) / (new.max() - new.min() + 1e-3)


def relit(image: Tensor, rng: np.random.Generator) -> Tensor:
    """An image in other light: each change with its own chance."""
    if rng.random() < 0.5:
        image = image.clamp(min=1e-4) ** float(np.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.4:
        image = image * (1 + 0.4 * _smooth(image.shape[-2:], rng)).clamp(0.1, 2)
    if rng.random() < 0.3:
        image = image * 10 ** rng.uniform(-1, 0)
    if rng.random() < 0.5:
        image = image + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.2:
        image = 1 - image
    return image.clamp(0, 1)


def degraded(image: Tensor, rng: np.random.Generator) -> Tensor:
    """An image as a worse camera takes it: each fault with its own chance."""
    if rng.random() < 0.3:
        image = _blurred(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.4:
        photons = 10 ** rng.uniform(0.7, 3)  # that a white pixel catches
        image = torch.from_numpy(rng.poisson(image.double().numpy() * photons) / photons).float()
    if rng.random() < 0.3:
        noise = torch.from_numpy(rng.standard_normal(tuple(image.shape))).float()
        image = image + 10 ** rng.uniform(-2.5, -1.2) * noise
    if rng.random() < 0.1:
        rows = rng.integers(image.shape[-2], size=3)
        image = image.clone()
        image[:, rows] = float(rng.random())
    return (255 * image.clamp(0, 1)).round() / 255


def _smooth(size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A smooth random field (1, H, W), of mean 0 and a standard deviation of about 0.8."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 4, 4))).float()
    return F.interpolate(coarse, tuple(size), mode="bicubic", align_corners=True)[0]


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (1, H, W), `sigma` up to 1.5 pixels."""
    return gaussian_blur2d(image[None], 9, (sigma, sigma), "replicate")[0]
