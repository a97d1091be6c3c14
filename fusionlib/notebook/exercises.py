"""Exercises that check themselves: a reader's number is compared with a computed one, a reader's code with ours.

An answer is never typed in here: `Exercise.solve` measures it with the library. A wrong answer gets the hint that fits
the mistake, where the mistake is a known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusionlib import losses, metrics
from fusionlib.deformation import fold_share, valid_mask, warp
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError


@dataclass(frozen=True)
class Exercise:
    """A question with a number for an answer.

    Attributes:
        question: in one or two sentences.
        solve: computes the answer.
        hint: for any wrong answer.
        mistakes: what makes a wrong answer of the right one, to the hint for that mistake.
        tolerance: how far an answer may be off.
    """

    question: str
    solve: Callable[[], float]
    hint: str
    mistakes: Mapping[str, Callable[[float], float]]
    tolerance: float = 1e-3


def check(name: str, answer: float | None = None) -> None:
    """Say whether an answer is right; without one, ask the question.

    Raises:
        InputError: there is no such exercise.
    """
    if name not in EXERCISES:
        raise InputError(f"There is no exercise {name!r}; there are {', '.join(EXERCISES)}.")
    exercise = EXERCISES[name]
    if answer is None:
        print(f"Your turn: {exercise.question}")
        return
    try:
        number = float(answer)
    except (TypeError, ValueError, RuntimeError):
        print(f"Not a number: give one number, not {type(answer).__name__}.")
        return
    truth = exercise.solve()
    if abs(number - truth) <= exercise.tolerance:
        print(f"Right: {number:g}.")
        return
    for hint, slip in exercise.mistakes.items():
        if abs(number - slip(truth)) <= exercise.tolerance:
            print(f"Not {number:g}. {hint}")
            return
    print(f"Not {number:g}. {exercise.hint}")


def compare(name: str, yours: object, ours: object, tolerance: float = 1e-4) -> float:
    """Compare a reader's result with the library's: the largest difference, and where it is.

    Args:
        name: what it is.
        yours, ours: numbers, arrays or tensors of one shape; dimensions of length 1 do not count.
        tolerance: how far apart still counts as the same.

    Returns:
        The largest difference; infinity if the two cannot be compared.
    """
    a, b = (np.squeeze(_numbers(each)) for each in (yours, ours))
    if a.shape != b.shape:
        print(f"{name}: yours has the shape {a.shape}, the library's {b.shape}.")
        return float("inf")
    if (np.isnan(a) != np.isnan(b)).any():
        print(f"{name}: yours has {np.isnan(a).sum()} values that are not numbers, the library's {np.isnan(b).sum()}.")
        return float("inf")
    difference = np.nan_to_num(np.abs(a - b))
    if (largest := float(difference.max())) <= tolerance:
        print(f"{name}: the same; the largest difference is {largest:.1e}.")
        return largest
    place = tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
    place_text = f" at {place}: {a[place]:.4g} instead of {b[place]:.4g}" if place else f": {a:.4g} instead of {b:.4g}"
    share_text = f" {(difference > tolerance).mean():.0%} of the values are off." if place else ""
    print(f"{name}: not the same. The largest difference is {largest:.3g}{place_text}.{share_text}")
    return largest


def _numbers(value: object) -> np.ndarray:
    return value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype=float)


# --- the answers, measured


def _moves_down() -> float:
    """Where a bright row goes under the constant field (0, -5)."""
    image = torch.zeros(1, 1, 32, 32)
    image[..., 16, :] = 1
    return float(warp(image, _constant(0, -5))[0, 0, :, 16].argmax() - 16)


def _lost_rows() -> float:
    return float((~valid_mask(_constant(0, -5)))[0, 0].all(1).sum())


def _enlarged() -> float:
    """By how much a field towards the centre, a fifth of the way, enlarges: measured on a ruler."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phi = -0.2 * torch.stack([x - 31.5, y - 31.5])[None]
    ruler = warp(x[None, None], phi)[0, 0, 32]
    return 1 / (ruler[33] - ruler[32]).item()


def _folds_from() -> float:
    """The least factor, in steps of 0.1, at which a field towards the centre, a fifth of the way, has folded."""
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    one_way = torch.stack([-0.2 * x, torch.zeros_like(y)])[None]
    return next(factor / 10 for factor in range(1, 200) if fold_share(factor / 10 * one_way) > 0)


def _least_specific() -> float:
    """l_s of features of unit variance that are as far apart as can be: plus and minus one, by halves."""
    features = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    return losses.complementarity_loss(features, -features).item()


def _fused_channels() -> float:
    network = FusionNetwork()
    return network.fused_channels / network.config.channels


def _search_range() -> float:
    """How far the coarsest cost volume reaches, in pixels of the image."""
    config = NetworkConfig()
    return config.correlation_radius * config.registration_stride * 2 ** len(config.msrb_widths)


def _same_image_three_times() -> float:
    x = _texture()
    return metrics.fusion_metrics(x, x, x)["Q_SSIM"].item()


def _negative_source() -> float:
    """The most that Q_CC can be if one source is the negative of the other."""
    x = _texture()
    return metrics.q_cc_bound(x, 1 - x).item()


def _constant(x: float, y: float) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, 32, 32)


def _texture() -> Tensor:
    return torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


_FETCH = "A field says where a pixel is fetched from, so the content moves against it."
EXERCISES = {
    "rows down": Exercise(
        "a field is (0, -5) everywhere. By how many rows does the content move down (negative: up)?",
        _moves_down,
        "Each pixel is fetched from five rows above it.",
        {_FETCH: lambda truth: -truth},
    ),
    "rows lost": Exercise(
        "and how many rows of the result are not valid, because they were fetched from outside?",
        _lost_rows,
        "Ask of each row whether the row five above it is in the picture: `valid_mask` does.",
        {
            "Rows at one edge only: at the other edge content is lost, but every pixel there has a source.": lambda t: (
                2 * t
            )
        },
    ),
    "enlarged": Exercise(
        "a field looks a fifth of the way to the centre: phi(p) = -(p - c) / 5. By what factor does it enlarge?",
        _enlarged,
        "Two neighbours of the result are fetched from places 1 - 1/5 apart.",
        {
            "That is how far apart two neighbours are fetched from; the picture grows by the inverse.": lambda t: 1 / t,
            "Not 1 + 1/5: two neighbours are fetched from places 1 - 1/5 apart.": lambda t: 2 - 1 / t,
        },
        tolerance=5e-3,
    ),
    "folds": Exercise(
        "in x alone, phi = -(x - c) / 5 is multiplied by k. From which k on does it fold?",
        _folds_from,
        "The determinant is 1 + dphi/dx, with dphi/dx = -k/5; it folds where that reaches 0.",
        {"That is the slope. By how much must it be multiplied to reach -1?": lambda truth: 1 / truth},
        tolerance=0.051,
    ),
    "least l_s": Exercise(
        "features of both cameras have mean 0 and variance 1. How low can l_s (Eq. 2) get?",
        _least_specific,
        "Each magnitude is at most 1 on average; how far apart can two of them be?",
        {"Mind the sign: l_s is minus a norm.": lambda truth: -truth},
    ),
    "search range": Exercise(
        "features are averaged over 2 x 2 pixels and then made a quarter as large; the cost volume has 9 x 9 shifts. "
        "How many pixels of the image does it reach to each side?",
        _search_range,
        "Nine shifts along an axis are 4 to each side. How many pixels of the image is one position of the quarter?",
        {
            "That is in positions of the quarter; one of them is 2 x 4 pixels of the image.": lambda truth: truth / 8,
            "The features were averaged over 2 x 2 pixels before.": lambda truth: truth / 2,
        },
    ),
    "fused channels": Exercise(
        "an extractor gives C channels. How many times C has the fused feature F_f of Eq. 7?",
        _fused_channels,
        "Count what Eq. 7 puts into its brackets.",
        {"That is the third ablation of Table 4, without the common features.": lambda truth: truth / 2},
    ),
    "Q_SSIM of one image": Exercise(
        "infrared, visible and fused image are one and the same. What is Q_SSIM?",
        _same_image_three_times,
        "It is a sum of two SSIMs, and SSIM of an image with itself is ...",
        {"That is one SSIM; Q_SSIM is the sum over both sources.": lambda truth: truth / 2},
    ),
    "Q_CC of a negative": Exercise(
        "the infrared image is the negative of the visible one. How large can Q_CC of any fused image be?",
        _negative_source,
        "Whatever correlates with the one correlates as much, with the opposite sign, with the other.",
        {"With one source it can be 1, but then with the other it is -1, and Q_CC is their mean.": lambda t: t + 1},
    ),
}
