"""What a fused image and a registration are worth: four fusion metrics and three registration metrics.

The paper names the fusion metrics of its tables and prints no formula; public codes of one metric differ by more than
the compared methods do. So each function says which version it is, and numbers its steps.

Convention:
- a: infrared source, b: visible source (gray), f: fused image; (B, 1, H, W), float32 or float64, at least 11 x 11
  pixels. The `q_...(a, b, f)` take 0..255, as the metrics were published; everything else takes [0, 1].
- Each metric is (B,), one number per image, in the dtype given (sums run in double); `DIRECTION` says what is better.
- NaN says "undefined", for that image only: Q_CC, its bound and NCC where an image is constant; Q_CV where an image is
  constant but not black, or no source has an edge; a registration metric where no pixel is valid.
- What cannot be scored raises `InputError`: shapes or dtypes that do not fit; of fused images also values out of range
  or not finite. `endpoint_error`, `ncc` and `mse` take any size, any floating dtype and any values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fusionlib.metrics.images import IMAGE, check_images, correlation, gaussian_mean, gray_levels, mean, sobel
from fusionlib.support.files import InputError

DIRECTION = dict.fromkeys(("Q_CC", "Q_AB/F", "Q_SSIM", "NCC"), "higher")
DIRECTION |= dict.fromkeys(("Q_CV", "EPE", "MSE"), "lower")


def fusion_metrics(ir: Tensor, vi: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """Score fused images against their sources, all (B, 1, H, W) in [0, 1]: Q_CC, Q_AB/F, Q_CV, Q_SSIM, each (B,).

    >>> image = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    >>> {name: round(value.item(), 3) for name, value in fusion_metrics(image, image, image).items()}
    {'Q_CC': 1.0, 'Q_AB/F': 0.975, 'Q_CV': 0.0, 'Q_SSIM': 2.0}
    """
    check_images(1, ir=ir, vi=vi, fused=fused)
    a, b, f = (gray_levels(image) for image in (ir, vi, fused))
    return {"Q_CC": q_cc(a, b, f), "Q_AB/F": q_abf(a, b, f), "Q_CV": q_cv(a, b, f), "Q_SSIM": q_ssim(a, b, f)}


def q_cc(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """Q_CC = (r_AF + r_BF) / 2, Pearson's r over the whole image, -1..1 (Ma, Ma & Li, Information Fusion 45, 2019).

    PAPER-GAP: the paper prints 0.83, more than `q_cc_bound` allows on most of RoadScene. Chosen: the definition of the
    survey, on which public codes agree, not tuned to that value.

    >>> q_cc(*[torch.arange(256.0).view(1, 1, 16, 16)] * 3).round(decimals=3)
    tensor([1.])
    """
    check_images(255, a=a, b=b, f=f)
    return ((correlation(a, f) + correlation(b, f)) / 2).to(f.dtype)


def q_cc_bound(ir: Tensor, vi: Tensor) -> Tensor:
    """Largest Q_CC that any fused image can reach: sqrt((1 + rho_AB) / 2), rho_AB the correlation of the sources.

    Centred and scaled to length 1, images are unit vectors: r_AF + r_BF = (a + b).f <= |a + b| = sqrt(2 + 2 rho_AB).
    Equality holds where f is parallel to a + b, the sum of the standardised sources.

    >>> q_cc_bound(*[torch.linspace(0, 1, 256).view(1, 1, 16, 16)] * 2).round(decimals=3)
    tensor([1.])
    """
    check_images(1, ir=ir, vi=vi)
    return ((1 + correlation(ir, vi)) / 2).clamp(min=0).sqrt().to(ir.dtype)


def q_abf(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """Q_AB/F: how much of the sources' edges f keeps, 0..1 (Xydeas & Petrovic, Electronics Letters 36, 2000).

    Three identical images give 0.9748, not 1, because the sigmoids of step 4 do not reach 1.

    PAPER-GAP: the paper cites Liu et al. (TPAMI 2024) for this metric. Chosen: the algorithm of their MFIF-Metrics; the
    one in most infrared-visible papers (Linfeng-Tang/Evaluation-for-Image-Fusion) differs by < 0.2 % on RoadScene.

    >>> q_abf(*[torch.arange(256.0).view(1, 1, 16, 16)] * 3).round(decimals=3)
    tensor([0.9750])
    """
    check_images(255, a=a, b=b, f=f)
    # 1. Strength g and angle alpha of edges; arctan, not atan2, for an edge and its negative are the same edge.
    (g_a, alpha_a), (g_b, alpha_b), (g_f, alpha_f) = (_edges(x) for x in (a, b, f))
    divisor_f = _no_zeros(g_f)
    kept = total = 0
    # As in the reference, zeros of g_f count as zeros when the first source is stronger, as 1e-5 when the second is.
    for g, alpha, dividend_f in ((g_a, alpha_a, g_f), (g_b, alpha_b, divisor_f)):
        stronger = g > g_f
        g = _no_zeros(g)
        # 2. Relative strength: the weaker over the stronger edge.
        strength = torch.where(stronger, dividend_f / g, g / divisor_f)
        # 3. Relative angle: 1 if parallel, 0 at 90 degrees, -1 at 180 (the difference is not wrapped).
        angle = 1 - (alpha - alpha_f).abs() * (2 / torch.pi)
        # 4. Two sigmoids: how much of the strength and of the angle is preserved.
        preserved = 0.9994 * torch.sigmoid(15 * (strength - 0.5)) * 0.9879 * torch.sigmoid(22 * (angle - 0.8))
        # 5. One ratio for the whole image, pixels weighted by the source's edges.
        kept, total = kept + mean(preserved * g), total + mean(g)
    return (kept / total).to(f.dtype)


def q_cv(a: Tensor, b: Tensor, f: Tensor, interior: bool = False) -> Tensor:
    """Q_CV: visible difference of f from the sources at their edges (Chen & Varshney, Information Fusion 8, 2007).

    PAPER-GAP: the paper gives no version. Chosen: `metricChen` of Liu et al. (TPAMI 2012), which the field uses. Unlike
    the article it stretches every image to 0..255 and filters the image as a whole, not region by region.

    Zero padding makes the outermost ring of pixels an edge, which by the fifth power carries 65-92 % of the infrared
    saliency on RoadScene. `interior` gives that ring no saliency: an extra beside the published metric.

    >>> q_cv(*[torch.arange(256.0).view(1, 1, 16, 16)] * 3)
    tensor([0.])
    """
    check_images(255, a=a, b=b, f=f)
    # 1. Every image by itself is stretched to the integers 0..255.
    a, b, f = (_stretch(x) for x in (a, b, f))
    sensitivity = _contrast_sensitivity(f)
    difference = total = 0
    for x in (a, b):
        # 2. Saliency of a region of 16 x 16 pixels: sum of the fifth power of the gradient.
        power = torch.hypot(*_sobel(x)) ** 5
        saliency = _region_sum(pad(power[..., 1:-1, 1:-1], (1, 1, 1, 1)) if interior else power)
        # 3. Visible difference: what the eye's contrast sensitivity leaves, squared, mean over the region.
        perceived = torch.fft.irfft2(torch.fft.rfft2(x - f) * sensitivity, s=f.shape[-2:])
        visible = _region_sum(perceived * perceived) / 16**2
        # 4. Mean over the regions of both sources, weighted by saliency.
        difference, total = difference + mean(saliency * visible), total + mean(saliency)
    return (difference / total).to(f.dtype)


def q_ssim(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """Q_SSIM = SSIM(A, F) + SSIM(B, F), at most 2 (Wang et al., IEEE Trans. Image Processing 13, 2004, Eqs. 13, 17).

    PAPER-GAP: the paper prints values above 1. Chosen: the sum, not the mean, of two SSIMs as in the authors'
    `ssim_index`: Gaussian window of 11 x 11 pixels, sigma 1.5, inside the image only, no downsampling, L = 255.

    >>> q_ssim(*[torch.arange(256.0).view(1, 1, 16, 16)] * 3).round(decimals=3)
    tensor([2.])
    """
    check_images(255, a=a, b=b, f=f)
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_f = gaussian_mean(f)
    variance_f = gaussian_mean(f * f) - mean_f * mean_f
    total = 0
    for x in (a, b):
        # 1. Mean, variance and covariance in each window.
        mean_x = gaussian_mean(x)
        variance_x = gaussian_mean(x * x) - mean_x * mean_x
        covariance = gaussian_mean(x * f) - mean_x * mean_f
        # 2. Eq. 13: luminance times contrast and structure.
        luminance = (2 * mean_x * mean_f + c_1) / (mean_x * mean_x + mean_f * mean_f + c_1)
        structure = (2 * covariance + c_2) / (variance_x + variance_f + c_2)
        # 3. Eq. 17: mean over the windows.
        total = total + mean(luminance * structure)
    return total.to(f.dtype)


def endpoint_error(phi: Tensor, phi_gt: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean distance in pixels between the end points of two displacement fields (B, 2, H, W), in pixels.

    The truth is the inverse of the deformation, not its negative. `valid`: (B, 1, H, W) bool, the pixels that count.

    >>> endpoint_error(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    tensor([5.])
    """
    _check_pair(phi, phi_gt, valid, channels=2)
    return mean((phi - phi_gt).norm(dim=1, keepdim=True), valid).to(phi.dtype)


def ncc(a: Tensor, b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Normalised cross-correlation (Pearson's r) of the registered and the undeformed infrared image, -1..1.

    UMF-CMGR's public code adds 1e-5 and 1e-6 to the two variances (of images in [0, 1]); nothing is added here.

    >>> ncc(torch.eye(16)[None, None], 1 - torch.eye(16)[None, None]).round(decimals=3)
    tensor([-1.])
    """
    _check_pair(a, b, valid, channels=1)
    return correlation(a, b, valid).to(a.dtype)


def mse(a: Tensor, b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error between the registered and the undeformed infrared image, both (B, 1, H, W) in [0, 1].

    >>> mse(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5))
    tensor([0.2500])
    """
    _check_pair(a, b, valid, channels=1)
    return mean((a - b).square(), valid).to(a.dtype)


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """`sobel` of an image with zeros around it."""
    return sobel(pad(x, (1, 1, 1, 1)))


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and angle (-pi/2..pi/2) of the edges."""
    s_x, s_y = _sobel(x)
    return (s_x * s_x + s_y * s_y).sqrt(), (s_y / _no_zeros(s_x)).atan()


def _no_zeros(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1e-5, x)


def _stretch(x: Tensor) -> Tensor:
    """Minimum to 0, maximum to 255, halves up; black stays black, any other constant image becomes NaN (0 / 0).

    In double and dividing first, as the reference: a range such as 170 or 102 gives exact halves.
    """
    low, high = x.amin(IMAGE, keepdim=True).double(), x.amax(IMAGE, keepdim=True).double()
    stretched = ((x - low) / (high - low) * 255 + 0.5).floor().to(x.dtype)
    return torch.where((low == 0) & (high == 0), x, stretched)


def _region_sum(x: Tensor) -> Tensor:
    """Sums over regions of 16 x 16 pixels, in double; those that the border cuts off are filled up with zeros."""
    return avg_pool2d(x.double(), 16, ceil_mode=True, divisor_override=1)


def _contrast_sensitivity(x: Tensor) -> Tensor:
    """The eye's sensitivity S(r) to r cycles per degree, at the frequencies of rfft2(x): (H, W // 2 + 1).

    Mannos & Sakrison (1974), with the reference's 0.144 where they have 0.114. At the reference's viewing distance an
    axis of n pixels reaches up to n / 8 cycles per degree.
    """
    height, width = x.shape[-2:]
    v = torch.fft.fftfreq(height, dtype=torch.float64, device=x.device) * height / 4
    u = torch.fft.rfftfreq(width, dtype=torch.float64, device=x.device) * width / 4
    r = (v[:, None] ** 2 + u**2).sqrt()
    return (2.6 * (0.0192 + 0.144 * r) * torch.exp(-((0.144 * r) ** 1.1))).to(x.dtype)


def _check_pair(x: Tensor, y: Tensor, valid: Tensor | None, channels: int) -> None:
    inputs = f"{tuple(x.shape)} {x.dtype} and {tuple(y.shape)} {y.dtype}"
    if x.ndim != 4 or x.shape[1] != channels or not x.is_floating_point() or (x.shape, x.dtype) != (y.shape, y.dtype):
        raise InputError(f"{inputs} cannot be compared; give two (B, {channels}, H, W) of one floating dtype.")
    mask = (x.shape[0], 1, *x.shape[2:])
    if valid is not None and (valid.dtype, tuple(valid.shape)) != (torch.bool, mask):
        raise InputError(f"valid is {tuple(valid.shape)} {valid.dtype}; give {mask} torch.bool, True where it counts.")
