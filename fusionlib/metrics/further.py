"""Nine further metrics that papers of this field print: EN, MI, SD, SF, AG, SCD, VIF, MS-SSIM and N_AB/F.

Public codes of one name differ by more than methods do, so each function says which version it is and names the code
whose values it has. Four (EN, SD, SF, AG) do not look at the sources at all and can be raised by noise or by sharpening
alone: see notebook 13.

Convention: as in `fusionlib.metrics.fusion`. `a` infrared, `b` visible, `f` fused, (B, 1, H, W) in 0..255, of which EN
and MI count whole levels (halves up). NaN is "undefined": SCD where a difference is constant, VIF of a constant source
or below 41 pixels, MS-SSIM below 176 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from fusionlib.metrics.images import check_images, correlation, gray_levels, mean, sobel
from fusionlib.metrics.multiscale import ms_ssim, vif

DIRECTION = dict.fromkeys(("EN", "MI", "SD", "SF", "AG", "SCD", "VIF", "MS-SSIM"), "higher") | {"N_AB/F": "lower"}
LEVELS = 256


def further_metrics(ir: Tensor, vi: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """The nine metrics of fused images and their sources, all (B, 1, H, W) in [0, 1]; each (B,).

    >>> image = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    >>> values = {name: round(value.item(), 3) for name, value in further_metrics(image, image, image).items()}
    >>> values["EN"], values["MI"], values["SD"], values["SCD"], values["N_AB/F"]
    (8.0, 16.0, 73.9, nan, 0.0)
    """
    check_images(1, ir=ir, vi=vi, fused=fused)
    a, b, f = (gray_levels(image) for image in (ir, vi, fused))
    return {
        "EN": entropy(f),
        "MI": mutual_information(a, b, f),
        "SD": deviation(f),
        "SF": spatial_frequency(f),
        "AG": average_gradient(f),
        "SCD": scd(a, b, f),
        "VIF": vif(a, b, f),
        "MS-SSIM": ms_ssim(a, b, f),
        "N_AB/F": n_abf(a, b, f),
    }


def entropy(f: Tensor) -> Tensor:
    """EN, entropy of the levels of f in bits, 0..8; as `entropy` of MATLAB and of MMIF-CDDFuse on 8-bit images."""
    check_images(255, f=f)
    return torch.stack([_bits(torch.bincount(_levels(one).flatten())) for one in f]).to(f.dtype)


def mutual_information(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """MI = I(A, F) + I(B, F) in bits, 256 levels (Qu, Zhang & Yan, Electronics Letters 38, 2002).

    As the `mutual_info` of imageFusionMetrics. MMIF-CDDFuse gives nats, 0.693 times as much.
    """
    check_images(255, a=a, b=b, f=f)
    return torch.stack([sum(_shared(x, fused) for x in sources) for *sources, fused in zip(a, b, f, strict=True)]).to(f)


def deviation(f: Tensor) -> Tensor:
    """SD, standard deviation of f over all pixels, 0..127.5; as in Tang's evaluation code, VIFB and MMIF-CDDFuse.

    Tables with values of 7 to 11 come from an older code in 8-bit arithmetic and cannot be compared.
    """
    check_images(255, f=f)
    off = f.double() - mean(f).view(-1, 1, 1, 1)
    return mean(off * off).sqrt().to(f.dtype)


def spatial_frequency(f: Tensor) -> Tensor:
    """SF, root of the mean squared differences of neighbours across plus down (Eskicioglu & Fisher, 1995).

    Each mean is over the differences that there are, as in Tang's evaluation code and MMIF-CDDFuse.
    """
    check_images(255, f=f)
    across, down = f[..., 1:] - f[..., :-1], f[..., 1:, :] - f[..., :-1, :]
    return (mean(across * across) + mean(down * down)).sqrt().to(f.dtype)


def average_gradient(f: Tensor) -> Tensor:
    """AG, mean of sqrt((gx^2 + gy^2) / 2), central differences, one-sided at the border; as MMIF-CDDFuse.

    Other codes take forward differences or another count, 0.5 to 27 % more on real images.
    """
    check_images(255, f=f)
    down, across = torch.gradient(f, dim=(-2, -1))
    return mean(((across * across + down * down) / 2).sqrt()).to(f.dtype)


def scd(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """SCD = r(F - B, A) + r(F - A, B), -2..2 (Aslantas & Bendes, AEU 69, 2015); as Tang's code and MMIF-CDDFuse.

    Where F equals a source this is 0 / 0, NaN.
    """
    check_images(255, a=a, b=b, f=f)
    return (correlation(f - b, a) + correlation(f - a, b)).to(f.dtype)


def n_abf(a: Tensor, b: Tensor, f: Tensor) -> Tensor:
    """N_AB/F: share of the edges' weight that f has and neither source explains, 0..1 (Shreyamsha Kumar, 2013).

    As `objective_fusion_perform_fn` of CBF in VIFB. Tang's driver hands that function its images in another order.
    """
    check_images(255, a=a, b=b, f=f)
    # 1. Strength and angle of edges: Sobel over 8, the border mirrored without its own pixels.
    (g_a, alpha_a), (g_b, alpha_b), (g_f, alpha_f) = (_mirrored_edges(x.double()) for x in (a, b, f))
    # 2. An artefact is where f has the strongest edge of the three.
    artefact = (g_f > g_a) & (g_f > g_b)
    lost = total = 0
    for g, alpha in ((g_a, alpha_a), (g_b, alpha_b)):
        # 3. What is preserved of strength and of angle, by two sigmoids.
        strength = torch.where((g == 0) | (g_f == 0), 0, torch.minimum(g, g_f) / torch.maximum(g, g_f))
        angle = ((alpha - alpha_f).abs() - torch.pi / 2).abs() * (2 / torch.pi)
        preserved = 0.9999 * torch.sigmoid(19 * (strength - 0.5)) * 0.9995 * torch.sigmoid(22 * (angle - 0.5))
        # 4. Strong edges weigh by the power 1.5, weak ones next to nothing.
        weight = torch.where(g >= 2, g**1.5, 0.001)
        lost = lost + mean((1 - preserved.sqrt()) * weight * artefact)
        total = total + mean(weight)
    return (lost / total).to(f.dtype)


def _levels(image: Tensor) -> Tensor:
    return (image + 0.5).floor().clamp(0, LEVELS - 1).long()


def _bits(counts: Tensor) -> Tensor:
    """Entropy in bits of a histogram."""
    shares = counts[counts > 0].double() / counts.sum()
    return -(shares * shares.log2()).sum()


def _shared(x: Tensor, f: Tensor) -> Tensor:
    """Mutual information in bits of two images."""
    joint = torch.bincount((_levels(x) * LEVELS + _levels(f)).flatten(), minlength=LEVELS**2).view(LEVELS, LEVELS)
    return _bits(joint.sum(1)) + _bits(joint.sum(0)) - _bits(joint)


def _mirrored_edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and angle (-pi/2..pi/2, 0 without an edge) of the edges."""
    across, down = (derivative / 8 for derivative in sobel(pad(x, (1, 1, 1, 1), mode="reflect")))
    return (across * across + down * down).sqrt(), (across / down).atan().nan_to_num(0)
