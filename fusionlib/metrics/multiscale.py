"""Two metrics over several scales: VIF and MS-SSIM, each the sum over both sources.

Convention: as in `fusionlib.metrics.further`. Both compute in double: in float32 the variance of a flat area is noise.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fusionlib.metrics.images import WINDOW, check_images, gaussian_mean, mean

NOISE = 2.0  # variance of the eye's noise, in squared levels
TINY = 1e-10
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's scales, fine to coarse
SMALLEST_MS_SSIM = WINDOW * 2 ** (len(WEIGHTS) - 1)  # pixels; 176


def vif(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """VIF(A, F) + VIF(B, F), visual information fidelity in pixels (Sheikh & Bovik, IEEE TIP 15, 2006).

    As `vifp_mscale`, which Tang's code and MMIF-CDDFuse (there under the name VIFF) have. Four scales with Gaussian
    windows of 17, 9, 5 and 3 pixels. NaN where a source is constant or a side has under 41 pixels.
    """
    check_images(255, a=a, b=b, f=f)
    images, preserved, available = [x.double() for x in (a, b, f)], [0, 0], [0, 0]
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1

        def window(x: Tensor, side: int = side) -> Tensor:
            return gaussian_mean(x, side, side / 5)

        if scale > 1:
            images = [window(x)[..., ::2, ::2] for x in images]
        if min(images[0].shape[-2:]) < side:
            return a.new_full((len(a),), torch.nan)
        *sources, fused = images
        mean_f = window(fused)
        var_f = (window(fused * fused) - mean_f * mean_f).clamp(min=0)
        for place, x in enumerate(sources):
            mean_x = window(x)
            var_x = (window(x * x) - mean_x * mean_x).clamp(min=0)
            covariance = window(x * fused) - mean_x * mean_f
            # f is seen as gain * x + noise of variance `rest`; the order of the exceptions is the reference's.
            gain = covariance / (var_x + TINY)
            rest = var_f - gain * covariance
            flat = var_x < TINY
            gain, rest = torch.where(flat, 0, gain), torch.where(flat, var_f, rest)
            var_x = torch.where(flat, 0, var_x)
            flat = var_f < TINY
            gain, rest = torch.where(flat, 0, gain), torch.where(flat, 0, rest)
            rest, gain = torch.where(gain < 0, var_f, rest), gain.clamp(min=0)
            rest = rest.clamp(min=TINY)
            count = var_x[0].numel()
            preserved[place] = preserved[place] + count * mean(torch.log10(1 + gain * gain * var_x / (rest + NOISE)))
            available[place] = available[place] + count * mean(torch.log10(1 + var_x / NOISE))
    return (preserved[0] / available[0] + preserved[1] / available[1]).to(f.dtype)


def ms_ssim(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """MS-SSIM(A, F) + MS-SSIM(B, F), at most 2 (Wang, Simoncelli & Bovik, Asilomar 2003).

    As `msssim` of MATR with the sum instead of the mean: five scales, each the mean of 2 x 2 pixels of the one before.
    A negative mean contrast, whose power is complex in MATLAB, counts as 0. NaN under 176 pixels a side.
    """
    check_images(255, a=a, b=b, f=f)
    if min(f.shape[-2:]) < SMALLEST_MS_SSIM:
        return a.new_full((len(a),), torch.nan)
    return sum(_ms_ssim(x.double(), f.double()) for x in (a, b)).to(f.dtype)


def _ms_ssim(x: Tensor, f: Tensor) -> Tensor:
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    factors = []
    for scale in range(len(WEIGHTS)):
        mean_x, mean_f = gaussian_mean(x), gaussian_mean(f)
        variances = gaussian_mean(x * x + f * f) - mean_x * mean_x - mean_f * mean_f
        value = (2 * (gaussian_mean(x * f) - mean_x * mean_f) + c_2) / (variances + c_2)
        if scale + 1 == len(WEIGHTS):
            value = value * (2 * mean_x * mean_f + c_1) / (mean_x * mean_x + mean_f * mean_f + c_1)
        factors.append(mean(value).clamp(min=0) ** WEIGHTS[scale])
        x, f = _halved(x), _halved(f)
    return prod(factors)


def _halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, sides rounded up; the last row and column are repeated where they have no neighbour."""
    height, width = x.shape[-2:]
    return avg_pool2d(pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
