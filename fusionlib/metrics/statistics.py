"""What numbers over a few pairs can say: intervals of means, tests of differences, and the verdicts they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusionlib.metrics.directions import direction

NOT_SIGNIFICANT = "not significantly different"


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, by percentiles (Efron, 1979).

    Of a single value it is that value, twice; NaN if any value is, or without values.

    >>> low, high = interval([0.5, 0.6, 0.7, 0.8])
    >>> round(low, 3), round(high, 3)
    (0.55, 0.75)
    """
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        return float("nan"), float("nan")
    if len(sample) == 1 or np.isnan(sample).any():
        return float(sample.mean()), float(sample.mean())
    from scipy import stats  # slow to import

    random = np.random.default_rng(seed)
    ends = stats.bootstrap([sample], np.mean, n_resamples=draws, method="percentile", rng=random).confidence_interval
    return float(ends.low), float(ends.high)


def share_interval(
    errors: Sequence[float], of: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(errors) / mean(of), drawing both together, as for the share of an error left.

    >>> low, high = share_interval([1.0, 2.0, 3.0, 4.0], [4.0, 4.0, 4.0, 4.0])
    >>> low < 0.625 < high
    True
    """
    samples = np.asarray(errors, dtype=float), np.asarray(of, dtype=float)
    if len(samples[0]) == 1 or np.isnan(samples).any():
        return (float(samples[0].mean() / samples[1].mean()),) * 2
    from scipy import stats

    found = stats.bootstrap(
        samples, lambda a, b, axis: a.mean(axis) / b.mean(axis),
        n_resamples=draws, paired=True, method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def sign_flips(differences: Sequence[float], draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test of the mean: had the two sides been swapped pair by pair?

    Fisher's randomisation test with so many random swaps; the smallest p is 1 / (draws + 1). NaN without differences.

    >>> sign_flips([0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.3, 0.2]) < 0.05
    True
    >>> sign_flips([1.0, -1.0, 1.0, -1.0])
    1.0
    """
    # Not scipy.stats.permutation_test: it draws other swaps, and the p-values of the kept tables would change.
    sample = np.asarray(differences, dtype=float)
    if not len(sample):
        return float("nan")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(sample)))
    extreme = np.abs(signs @ sample) >= np.abs(sample.sum()) * (1 - 1e-12)  # equal up to rounding counts
    return float((1 + extreme.sum()) / (1 + draws))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for asking several questions at once (1979): adjusted p-values by name.

    >>> holm({"a": 0.01, "b": 0.2, "c": 0.25})
    {'a': 0.03, 'b': 0.4, 'c': 0.4}
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def verdict(difference: float, p: float, metric: str) -> str:
    """ "better" or "worse" in the metric's own direction, or `NOT_SIGNIFICANT` unless p is below 5 %.

    >>> verdict(0.1, 0.01, "Q_CC"), verdict(0.1, 0.01, "EPE"), verdict(0.1, 0.3, "Q_CC")
    ('better', 'worse', 'not significantly different')
    """
    if not p < 0.05:
        return NOT_SIGNIFICANT
    return "better" if (difference > 0) == (direction(metric) == "higher") else "worse"
