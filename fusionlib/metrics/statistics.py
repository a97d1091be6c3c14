"""Statistics over few pairs: intervals of means, tests of differences, and the verdicts that they allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from fusionlib.metrics.directions import sign

SIGNIFICANCE = 0.05  # a difference is significant if p is below it
NOT_SIGNIFICANT = "not significantly different"
DRAWS = 2000  # of a bootstrap
LEAST_SCENES = 5  # for a bootstrap interval: of two scenes it is just their two values


def interval(values: Sequence[float], scenes: Sequence[str] | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; the same as `share_interval` of these values and of ones.

    Args:
        values: one per pair.
        scenes: of each pair; whole scenes are drawn, since pairs of one scene are no independent evidence. None takes
            each pair as a scene of its own.
        seed: of the bootstrap.

    Returns:
        Lower and upper end; of a single scene the mean, twice; NaN if any value is, or without values.

    >>> low, high = interval([0.5, 0.6, 0.7, 0.8] * 3)
    >>> round(low, 2), round(high, 2)
    (0.58, 0.72)
    >>> low, high = interval([0.5, 0.6, 0.7, 0.8] * 3, scenes=[*"abcdabcdabcd"])  # four scenes, not twelve
    >>> round(low, 2), round(high, 2)
    (0.5, 0.8)
    """
    return share_interval(values, np.ones(len(values)), scenes, seed)


def share_interval(
    errors: Sequence[float], totals: Sequence[float], scenes: Sequence[str] | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(errors) / mean(totals), drawing both together, as for the share of an error left.

    By expanded percentiles (Hesterberg, 2015, The American Statistician 69, 371-386). The middle 95 % of the draws
    (Efron, 1979) would hold the true mean too seldom: in about 90 % of cases with a dozen scenes. The draws vary by
    sqrt((n - 1) / n) too little, and their ends are those of a normal distribution, not of Student's t. So less is cut
    off. A mean that one or two scenes decide, as that of Q_CV can be, still has too narrow an interval.

    Arguments and ends as in `interval`.

    >>> low, high = share_interval([1.0, 2.0, 3.0, 4.0], [4.0, 4.0, 4.0, 4.0])
    >>> low < 0.625 < high
    True
    """
    samples = _by_scene(errors, scenes), _by_scene(totals, scenes)
    if not len(samples[0]):
        return float("nan"), float("nan")
    if len(samples[0]) == 1 or np.isnan(samples).any():
        return (float(samples[0].sum() / samples[1].sum()),) * 2
    from scipy import stats  # slow to import

    bounds = stats.bootstrap(
        samples, lambda a, b, axis: a.sum(axis) / b.sum(axis),
        n_resamples=DRAWS, paired=True, method="percentile", rng=np.random.default_rng(seed),
        confidence_level=1 - 2 * _tail(len(samples[0])),
    ).confidence_interval  # fmt: skip
    return float(bounds.low), float(bounds.high)


def _tail(count: int) -> float:
    """The share of the draws of so many scenes that an expanded percentile interval of 95 % cuts off at each end."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-stdtrit(count - 1, 0.975) * math.sqrt(count / (count - 1))))


def _by_scene(values: Sequence[float], scenes: Sequence[str] | None) -> np.ndarray:
    """The sum of the values of each scene, scenes in the order in which they come."""
    sample = np.asarray(values, dtype=float)
    if scenes is None:
        return sample
    places = {scene: place for place, scene in enumerate(dict.fromkeys(scenes))}
    sums = np.zeros(len(places))
    np.add.at(sums, [places[scene] for scene in scenes], sample)
    return sums


def sign_flips(
    differences: Sequence[float], scenes: Sequence[str] | None = None, draws: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value of a paired permutation test: how often is the mean as large with the sides of pairs swapped?

    Fisher's randomisation test with `draws` random swaps; the smallest p is 1 / (draws + 1). NaN without differences,
    or if one of them is.
    With `scenes`, as in `interval`, the two sides are swapped for all pairs of a scene together.

    >>> sign_flips([0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.3, 0.2]) < 0.05
    True
    >>> sign_flips([1.0, -1.0, 1.0, -1.0])
    1.0
    >>> sign_flips([0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.3, 0.2], scenes="aaaabbbb") < 0.05
    False
    """
    # Not scipy.stats.permutation_test: it draws other swaps, and the p-values of the kept tables would change.
    sample = _by_scene(differences, scenes)
    if not len(sample) or np.isnan(sample).any():
        return float("nan")
    extreme = np.abs(_signs(draws, len(sample), seed) @ sample) >= np.abs(sample.sum()) * (
        1 - 1e-12
    )  # equal up to rounding counts
    return float((1 + extreme.sum()) / (1 + draws))


@lru_cache(maxsize=8)  # a table asks hundreds of times for as many pairs
def _signs(draws: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], (draws, count))


def paired_t(differences: Sequence[float]) -> tuple[float, float, float]:
    """95 % interval of the mean difference between two sides measured together, and the p-value under no difference.

    For a few replicates, such as trainings with the same seed or heads: Student's t takes the differences as
    independent draws of one normal distribution. With five of them no permutation test can fall below p = 0.06.

    Returns:
        Lower and upper end, and the two-sided p-value; NaN of fewer than two differences.

    >>> [round(value, 3) for value in paired_t([0.1, 0.2, 0.3, 0.2, 0.2])]
    [0.112, 0.288, 0.003]
    """
    sample = np.asarray(differences, dtype=float)
    if len(sample) < 2:
        return float("nan"), float("nan"), float("nan")
    mean, deviation = sample.mean(), sample.std(ddof=1)
    if deviation < 1e-12 * max(1.0, abs(mean)):  # no spread: scipy would divide by zero
        return float(mean), float(mean), 1.0 if mean == 0 else 0.0
    from scipy.special import stdtr, stdtrit  # scipy.stats takes a hundred times as long

    freedom, error = len(sample) - 1, deviation / len(sample) ** 0.5
    half = stdtrit(freedom, 0.975) * error
    return float(mean - half), float(mean + half), float(2 * stdtr(freedom, -abs(mean) / error))


def deviation_of(low: float, high: float) -> float:
    """Standard deviation of the normal distribution whose middle 95 % lie between two ends."""
    return (high - low) / 3.92


def with_more_spread(
    mean: float, low: float, high: float, p: float, deviation: float
) -> tuple[float, float, float, float]:
    """A mean with its 95 % interval and p-value, after a second, independent spread is added to the first.

    As for a difference over scenes that has been measured with one training, if it is known how much trainings differ.

    Args:
        mean, low, high, p: of the first spread alone.
        deviation: standard deviation of the second, taken as normal. Of the first, it is read from the interval, which
            is wider than a normal one of a few scenes; so p is rather too large. If NaN, the ends are, and p is 1.

    >>> [round(value, 3) for value in with_more_spread(0.3, 0.1, 0.5, 0.001, 0.2)]
    [0.3, -0.14, 0.74, 0.182]
    """
    from scipy.special import ndtr

    more, spread = 1.96 * deviation, math.hypot(deviation_of(low, high), deviation)
    normal = 2 * float(ndtr(-abs(mean) / spread)) if spread else 0.0
    p = max(p, normal) if normal == normal else 1.0  # nothing is known, and the question counts in a correction
    return mean, mean - math.hypot(mean - low, more), mean + math.hypot(high - mean, more), p


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for asking several questions at once (1979): adjusted p-values by name.

    A p of NaN is that of no question, and stays NaN.

    >>> holm({"a": 0.01, "b": 0.2, "c": 0.25})
    {'a': 0.03, 'b': 0.4, 'c': 0.4}
    """
    asked, adjusted, largest = {name: p for name, p in p_values.items() if p == p}, dict(p_values), 0.0
    for rank, name in enumerate(sorted(asked, key=asked.get)):
        largest = max(largest, min(1.0, (len(asked) - rank) * asked[name]))
        adjusted[name] = largest
    return adjusted


def verdict(difference: float, p: float, metric: str) -> str:
    """ "better" or "worse" in the metric's own direction, or `NOT_SIGNIFICANT` unless p is below `SIGNIFICANCE`.

    >>> verdict(0.1, 0.01, "Q_CC"), verdict(0.1, 0.01, "EPE"), verdict(0.1, 0.3, "Q_CC")
    ('better', 'worse', 'not significantly different')
    """
    if not p < SIGNIFICANCE:
        return NOT_SIGNIFICANT
    return "better" if sign(metric) * difference > 0 else "worse"
