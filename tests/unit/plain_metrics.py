"""The fusion metrics in plain numpy, float64, step by step as they are published; SSIM is scikit-image's.

A second implementation of `fusionlib.metrics` for the tests, which shares no line with it. Which version of each metric
it is, and why, is said there.

Convention: images are (H, W) float64 in 0..255, at least 11 x 11 pixels, and none of them constant.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d
from skimage.measure import shannon_entropy
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


def further_metrics(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """The nine of `fusionlib.metrics.further`; of images of whole levels."""
    across, down = np.diff(f, axis=1), np.diff(f, axis=0)
    gy, gx = np.gradient(f)
    return {
        "EN": shannon_entropy(f.astype(np.uint8)),
        "MI": information(a, f) + information(b, f),
        "SD": f.std(),
        "SF": np.sqrt((across**2).mean() + (down**2).mean()),
        "AG": np.sqrt((gx**2 + gy**2) / 2).mean(),
        "SCD": np.corrcoef((f - b).ravel(), a.ravel())[0, 1] + np.corrcoef((f - a).ravel(), b.ravel())[0, 1],
        "VIF": vifp(a, f) + vifp(b, f),
        "MS-SSIM": ms_ssim(a, f) + ms_ssim(b, f),
        "N_AB/F": n_abf(a, b, f),
    }


def information(x: np.ndarray, f: np.ndarray) -> float:
    """Mutual information in bits, as a sum over the joint histogram."""
    joint = np.histogram2d(x.ravel(), f.ravel(), bins=256, range=[(-0.5, 255.5)] * 2)[0] / x.size
    both = joint.sum(1)[:, None] * joint.sum(0)[None]
    return (joint[joint > 0] * np.log2(joint[joint > 0] / both[joint > 0])).sum()


def gauss(x: np.ndarray, side: int, sigma: float) -> np.ndarray:
    """Gaussian means inside the image."""
    offset = np.arange(side) - side // 2
    weights = np.exp(-(offset**2) / (2 * sigma**2))
    for axis in (0, 1):
        x = correlate1d(x, weights / weights.sum(), axis)
    return x[side // 2 : -(side // 2), side // 2 : -(side // 2)]


def moments(x: np.ndarray, f: np.ndarray, side: int, sigma: float) -> tuple[np.ndarray, ...]:
    """Both means, both variances and the covariance."""
    m, n = gauss(x, side, sigma), gauss(f, side, sigma)
    return m, n, *(gauss(p * q, side, sigma) - u for p, q, u in ((x, x, m * m), (f, f, n * n), (x, f, m * n)))


def vifp(x: np.ndarray, f: np.ndarray) -> float:
    """Visual information fidelity of one source."""
    above = below = 0.0
    for side in (17, 9, 5, 3):
        if side < 17:
            x, f = (gauss(y, side, side / 5)[::2, ::2] for y in (x, f))
        _, _, v, w, c = moments(x, f, side, side / 5)
        v, w = np.maximum(v, 0), np.maximum(w, 0)
        gain = c / (v + 1e-10)
        rest = w - gain * c
        gain[v < 1e-10], rest[v < 1e-10] = 0, w[v < 1e-10]
        v[v < 1e-10] = 0
        gain[w < 1e-10], rest[w < 1e-10] = 0, 0
        rest[gain < 0], gain[gain < 0] = w[gain < 0], 0
        above += np.log10(1 + gain**2 * v / (np.maximum(rest, 1e-10) + 2)).sum()
        below += np.log10(1 + v / 2).sum()
    return above / below


def ms_ssim(x: np.ndarray, f: np.ndarray) -> float:
    """Multi-scale SSIM of one source."""
    value, c_1, c_2 = 1.0, (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        m, n, v, w, c = moments(x, f, 11, 1.5)
        alike = (2 * c + c_2) / (v + w + c_2)
        if scale == 4:
            alike = alike * (2 * m * n + c_1) / (m**2 + n**2 + c_1)
        value *= max(alike.mean(), 0) ** weight
        x, f = (np.pad(y, [(0, n % 2) for n in y.shape], mode="edge") for y in (x, f))
        x, f = ((y[::2, ::2] + y[1::2, ::2] + y[::2, 1::2] + y[1::2, 1::2]) / 4 for y in (x, f))
    return value


def n_abf(a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """Share of the edges that no source explains."""
    strengths, angles = [], []
    for x in (a, b, f):
        s_x, s_y = (s[1:-1, 1:-1] / 8 for s in sobel(np.pad(x, 1, mode="reflect")))
        strengths.append(np.sqrt(s_x**2 + s_y**2))
        with np.errstate(divide="ignore", invalid="ignore"):
            angles.append(np.where((s_x == 0) & (s_y == 0), 0, np.arctan(s_x / s_y)))
    g_a, g_b, g_f = strengths
    above = below = 0.0
    for g, angle in zip(strengths[:2], angles[:2], strict=True):
        larger = np.maximum(g, g_f)
        ratio = np.where(np.minimum(g, g_f) == 0, 0, np.minimum(g, g_f) / np.where(larger == 0, 1, larger))
        alike = np.abs(np.abs(angle - angles[2]) - np.pi / 2) * 2 / np.pi
        kept = 0.9999 / (1 + np.exp(-19 * (ratio - 0.5))) * 0.9995 / (1 + np.exp(-22 * (alike - 0.5)))
        weight = np.where(g >= 2, g**1.5, 0.001)
        above += ((1 - np.sqrt(kept)) * weight)[(g_f > g_a) & (g_f > g_b)].sum()
        below += weight.sum()
    return above / below
