"""The four metrics of `fusionlib.metrics` for several fused images of one pair, and faster: the same values but for
rounding.

What `metrics` computes step by step over whole images, this computes strip by strip, so that the many small steps stay
in the cache; what belongs to the sources alone, their edges, window means and spectra, is computed once for all fused
images; and on a CPU, OpenCV filters, being faster at small filters of one channel. Which version of each metric it is,
and why, stands in `metrics`.

Convention: as in `fusionlib.metrics`; images (B, 1, H, W) float32 or float64 in [0, 1], each metric (B,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from fusionlib.metrics import fusion
from fusionlib.metrics.fusion import IMAGE, WINDOW

STRIP = 256  # rows at once, a multiple of 16: a strip of 512 columns in float32 is 512 KiB
REGION = 16  # pixels, of Q_CV
LOG2_E = 1 / math.log(2)


def fusion_metrics(ir: Tensor, vi: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """`metrics.fusion_metrics` in less time; arguments, values and errors are the same."""
    return fusion_metrics_many(ir, vi, {"fused": fused})["fused"]


@torch.no_grad()
def fusion_metrics_many(ir: Tensor, vi: Tensor, fused: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Score several fused images of the same sources: name to Q_CC, Q_AB/F, Q_CV and Q_SSIM, each (B,), no gradients.

    Args:
        ir, vi: the sources, (B, 1, H, W) in [0, 1].
        fused: name to fused images of that shape.

    Raises:
        InputError: what cannot be scored, see `fusionlib.metrics`.
    """
    fusion._check_images(1, ir=ir, vi=vi, **fused)
    a, b = _gray_levels(ir), _gray_levels(vi)
    levels = [_gray_levels(image) for image in fused.values()]
    found = zip(_q_cc(a, b, levels), _q_abf(a, b, levels), _q_cv(a, b, levels), _q_ssim(a, b, levels), strict=True)
    names = ("Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM")
    scores = [[value.to(ir.dtype) for value in one] for one in found]
    return {name: dict(zip(names, one, strict=True)) for name, one in zip(fused, scores, strict=True)}


def _gray_levels(image: Tensor) -> Tensor:
    """As `metrics._gray_levels`; where all images came from 8 bits, nothing has to be chosen pixel by pixel."""
    levels = image * 255
    integers = levels.round()
    from_8_bits = levels.sub_(integers).abs_().amax(IMAGE, keepdim=True) < 1e-3
    return integers if from_8_bits.all() else torch.where(from_8_bits, integers, image * 255)


def _q_cc(a: Tensor, b: Tensor, fused: list[Tensor]) -> list[Tensor]:
    images = [a, b, *fused]
    # Less its maximum, a constant image is exactly zero, and its correlation 0 / 0: see `metrics`.
    highest = [x.amax(IMAGE, keepdim=True).double() for x in images]
    sums, squares, products = [0] * len(images), [0] * len(images), [[0, 0] for _ in fused]
    for rows in _strips(a.shape[-2]):
        parts = [_in_double(x[..., rows, :]).sub_(high).flatten(1) for x, high in zip(images, highest, strict=True)]
        for place, part in enumerate(parts):
            sums[place], squares[place] = sums[place] + part.sum(1), squares[place] + _dot(part, part)
        for product, part in zip(products, parts[2:], strict=True):
            product[:] = [so_far + _dot(source, part) for so_far, source in zip(product, parts, strict=False)]
    count = a[0].numel()
    energies = [square - total * total / count for square, total in zip(squares, sums, strict=True)]
    values = []
    for place, product in enumerate(products, 2):
        covariances = [product[i] - sums[i] * sums[place] / count for i in (0, 1)]
        values.append(sum(covariances[i] / (energies[i] * energies[place]).sqrt() for i in (0, 1)) / 2)
    return values


def _in_double(x: Tensor) -> Tensor:
    """A copy, which may be worked on in place."""
    return x.to(torch.float64, copy=True)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.bmm(x[:, None], y[..., None]).flatten()


def _q_abf(a: Tensor, b: Tensor, fused: list[Tensor]) -> list[Tensor]:
    kept, total = [0] * len(fused), 0
    for rows in _strips(a.shape[-2]):
        sources = [_edges(x, rows) for x in (a, b)]
        total = total + sum(_sum(filled) for _, filled, _ in sources)
        for place, f in enumerate(fused):
            g_f, filled_f, alpha_f = _edges(f, rows)
            for first, (g, filled, alpha) in zip((True, False), sources, strict=True):
                # The weaker over the stronger edge. Where only f has none, it is 0 for the first source: see `metrics`.
                weaker = torch.minimum(filled, filled_f)
                if first and not g_f.all():
                    weaker.masked_fill_((g_f == 0) & (g > 0), 0)
                strength = weaker.div_(torch.maximum(filled, filled_f))
                angle = (alpha - alpha_f).abs_()
                # Both sigmoids are 1 / (1 + exp), of -15 (strength - 0.5) and -22 (1 - 2 angle / pi - 0.8); powers of
                # two take half the time of powers of e.
                strength = strength.mul_(-15 * LOG2_E).add_(7.5 * LOG2_E).exp2_().add_(1)
                angle = angle.mul_(44 / math.pi * LOG2_E).sub_(22 * 0.2 * LOG2_E).exp2_().add_(1)
                kept[place] = kept[place] + _sum(filled / strength.mul_(angle))
    return [0.9994 * 0.9879 * part / total for part in kept]


def _edges(x: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Strength of the edges of some rows, the same with 1e-5 for 0, and their angle, as in `metrics`."""
    s_x, s_y = _sobel(x, rows)
    strength = (s_x * s_x).addcmul_(s_y, s_y).sqrt_()
    # 1e-5 for 0: `threshold` and `copysign` are several times as fast as anything with a mask.
    divisor = threshold(s_x.abs(), 0, 1e-5).copysign_(s_x)
    return strength, threshold(strength, 0, 1e-5), _arctan(s_y.div_(divisor))


def _arctan(x: Tensor) -> Tensor:
    """In place; on a CPU by numpy, which has the faster one."""
    if x.device.type != "cpu":
        return x.atan_()
    np.arctan(x.numpy(), out=x.numpy())
    return x


def _sobel(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """As `metrics._sobel`, of some rows."""
    top, bottom = max(0, rows.start - 1), min(x.shape[-2], rows.stop + 1)
    seen, own = x[..., top:bottom, :], slice(rows.start - top, rows.stop - top)
    cv2 = _opencv() if x.device.type == "cpu" else None
    if cv2 is None:
        return tuple(part[..., own, :] for part in fusion._sobel(seen))
    by_zeros = {"ddepth": -1, "borderType": cv2.BORDER_CONSTANT}
    return tuple(_each(seen, lambda image: cv2.Sobel(image, dx=dx, dy=1 - dx, **by_zeros)[own]) for dx in (1, 0))  # noqa: B023


def _q_cv(a: Tensor, b: Tensor, fused: list[Tensor]) -> list[Tensor]:
    a, b = _stretch(a), _stretch(b)
    saliencies = [_saliency(x) for x in (a, b)]
    weight = sum(_sum(saliency) for saliency in saliencies)
    sensitivity = _contrast_sensitivity(*a.shape[-2:], a.dtype, a.device)
    values = []
    for f in fused:
        f, difference = _stretch(f), 0
        for x, saliency in ((a, saliencies[0]), (b, saliencies[1])):
            seen = torch.fft.irfft2(torch.fft.rfft2(x - f).mul_(sensitivity), s=f.shape[-2:])
            difference = difference + _sum(saliency * _region_sum(seen.square_()))
        values.append(difference / REGION**2 / weight)
    return values


def _stretch(x: Tensor) -> Tensor:
    """As `metrics._stretch`; only where an image is black, it has to be chosen."""
    low, high = x.amin(IMAGE, keepdim=True).double(), x.amax(IMAGE, keepdim=True).double()
    stretched = torch.empty_like(x)
    for rows in _strips(x.shape[-2]):
        part = _in_double(x[..., rows, :]).sub_(low).div_(high - low)
        stretched[..., rows, :] = part.mul_(255).add_(0.5).floor_()
    black = (low == 0) & (high == 0)
    return torch.where(black, x, stretched) if black.any() else stretched


def _saliency(x: Tensor) -> Tensor:
    power = []
    for rows in _strips(x.shape[-2]):  # their number of rows is a multiple of a region's
        s_x, s_y = _sobel(x, rows)
        squared = (s_x * s_x).addcmul_(s_y, s_y)
        power.append(_region_sum(squared.sqrt().mul_(squared).mul_(squared)))
    return torch.cat(power, -2)


def _region_sum(x: Tensor) -> Tensor:
    """As `metrics._region_sum`, by rows first."""
    height, width = x.shape[-2:]
    if height % REGION or width % REGION:
        x = pad(x, (0, -width % REGION, 0, -height % REGION))
    x = x.unflatten(-2, (-1, REGION)).sum(-2, dtype=torch.float64)
    return x.unflatten(-1, (-1, REGION)).sum(-1)


@lru_cache(maxsize=8)
def _contrast_sensitivity(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """It depends on the size alone, and images of one set are of one size."""
    return fusion._contrast_sensitivity(torch.empty(height, width, dtype=dtype, device=device))


def _q_ssim(a: Tensor, b: Tensor, fused: list[Tensor]) -> list[Tensor]:
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    height, width = (side - WINDOW + 1 for side in a.shape[-2:])
    totals: list[Tensor | int] = [0] * len(fused)
    for rows in _strips(height):
        seen = (..., slice(rows.start, rows.stop + WINDOW - 1), slice(None))
        sources = [(x, x * x, mean, mean * mean) for x in (a[seen], b[seen]) for mean in [_window_mean(x)]]
        for place, whole in enumerate(fused):
            f = whole[seen]
            f_squared, mean_f = f * f, _window_mean(f)
            for x, x_squared, mean_x, mean_x_squared in sources:
                # Only the sum of the two variances is needed.
                products, squares = mean_x * mean_f, torch.addcmul(mean_x_squared, mean_f, mean_f)
                variances = _window_mean(x_squared + f_squared).sub_(squares).add_(c_2)
                covariance = _window_mean(x * f).sub_(products)
                above = products.mul_(2).add_(c_1).mul_(covariance.mul_(2).add_(c_2))
                totals[place] = totals[place] + _sum(above.div_(squares.add_(c_1).mul_(variances)))
    return [total / (height * width) for total in totals]


def _window_mean(x: Tensor) -> Tensor:
    """As `metrics._window_mean`; on a CPU by OpenCV's separable filter, in a third of the time."""
    cv2 = _opencv() if x.device.type == "cpu" else None
    if cv2 is None:
        return fusion._window_mean(x)
    weights = _gaussian().astype(np.float32 if x.dtype == torch.float32 else np.float64)
    inner = (slice(WINDOW // 2, -(WINDOW // 2)),) * 2  # only whole windows count, so the border's rule does not matter
    return _each(x, lambda image: cv2.sepFilter2D(image, -1, weights, weights)[inner])


def _each(x: Tensor, filtered: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A filter of arrays (H, W) on each image of (B, 1, H, W); a batch of one is not copied."""
    found = [torch.from_numpy(filtered(image[0].numpy())) for image in x.detach()]
    return found[0][None, None] if len(found) == 1 else torch.stack(found)[:, None]


@cache
def _gaussian() -> np.ndarray:
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    return weights / weights.sum()


@cache
def _opencv() -> ModuleType | None:
    """OpenCV, where it can be loaded; only who scores waits for it."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def _strips(height: int) -> Iterator[slice]:
    return (slice(top, min(top + STRIP, height)) for top in range(0, height, STRIP))


def _sum(x: Tensor) -> Tensor:
    """Sum of each image, (B,), in double from the sums of its rows on."""
    return x.sum(-1).sum((1, 2), dtype=torch.float64)
