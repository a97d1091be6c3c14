"""The four fusion metrics in plain numpy, float64, step by step as they are published; SSIM is scikit-image's.

A second implementation of `fusionlib.metrics` for the tests, which shares no line with it. Which version of each metric
it is, and why, is said there.

Convention: images are (H, W) float64 in 0..255, at least 11 x 11 pixels, and none of them constant.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

EPSILON = 1e-5


def fusion_metrics(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """Q_CC, Q_AB/F, Q_CV and Q_SSIM of the fused image f of the sources a and b."""
    return {"Q_CC": q_cc(a, b, f), "Q_AB/F": q_abf(a, b, f), "Q_CV": q_cv(a, b, f), "Q_SSIM": q_ssim(a, b, f)}


def q_cc(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """The mean of two correlations."""

    def r(x: np.ndarray) -> float:
        x, y = x - x.mean(), f - f.mean()
        return (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())

    return (r(a) + r(b)) / 2


def sobel(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives to the right and down, zeros beyond the border."""
    x = np.pad(x, 1)
    up, down, left, right = x[:-2], x[2:], x[:, :-2], x[:, 2:]
    s_x = right[:-2] + 2 * right[1:-1] + right[2:] - left[:-2] - 2 * left[1:-1] - left[2:]
    s_y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:] - up[:, :-2] - 2 * up[:, 1:-1] - up[:, 2:]
    return s_x, s_y


def q_abf(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """How much of the edges is kept."""
    strengths, angles = [], []
    for x in (a, b, f):
        s_x, s_y = sobel(x)
        strengths.append(np.sqrt(s_x**2 + s_y**2))
        angles.append(np.arctan(s_y / np.where(s_x == 0, EPSILON, s_x)))
    g_f, above, below = strengths[2], 0.0, 0.0
    for g, angle in zip(strengths[:2], angles[:2], strict=True):
        stronger = g > g_f
        g = np.where(g == 0, EPSILON, g)
        ratio = g_f / g
        g_f = np.where(g_f == 0, EPSILON, g_f)  # kept for the second source
        ratio = np.where(stronger, ratio, g / g_f)
        alike = 1 - np.abs(angle - angles[2]) * 2 / np.pi
        q_g = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
        q_a = 0.9879 / (1 + np.exp(-22 * (alike - 0.8)))
        above, below = above + (q_g * q_a * g).sum(), below + g.sum()
    return above / below


def q_cv(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """The visible difference at the edges."""
    a, b, f = (np.floor((x - x.min()) / (x.max() - x.min()) * 255 + 0.5) for x in (a, b, f))
    height, width = f.shape
    v, u = (((np.arange(n) - n // 2) * 2 / n) * n / 8 for n in (height, width))
    r = np.sqrt(u[None, :] ** 2 + v[:, None] ** 2)
    sensitivity = 2.6 * (0.0192 + 0.144 * r) * np.exp(-((0.144 * r) ** 1.1))
    above = below = 0.0
    for x in (a, b):
        saliency = regions(np.hypot(*sobel(x)) ** 5)
        spectrum = np.fft.fftshift(np.fft.fft2(x - f)) * sensitivity
        seen = np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        above, below = above + (saliency * regions(seen**2) / 256).sum(), below + saliency.sum()
    return above / below


def regions(x: np.ndarray) -> np.ndarray:
    """Sums over 16 x 16 pixels, zeros beyond the border."""
    x = np.pad(x, [(0, -n % 16) for n in x.shape])
    return x.reshape(x.shape[0] // 16, 16, x.shape[1] // 16, 16).sum((1, 3))


def q_ssim(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """The sum of two SSIMs."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return sum(structural_similarity(x, f, **options) for x in (a, b))
