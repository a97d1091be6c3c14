"""Sentences made from numbers: what a table says, in words, whichever preset it was made in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fusionlib.metrics.directions import direction
from fusionlib.support.files import InputError


def listed(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else str(last)


def number(value: float) -> str:
    """Three digits, or the whole number where that has more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def better_and_worse(mine: Mapping[str, float], other: Mapping[str, float], metrics: Iterable[str], name: str) -> str:
    """ "better than NAME in A (1 against 2), and worse in B (...)": every metric in its own direction.

    Args:
        mine, other: metric to value, of two methods on the same pairs.
        metrics: which ones; the direction of each has to be known (`fusionlib.metrics.directions`).
        name: of the other method.

    Raises:
        InputError: nobody knows which way a metric is better.
    """
    found: dict[str, list[str]] = {"better": [], "worse": [], "equal": []}
    for metric in metrics:
        way = direction(metric)
        if way is None:
            raise InputError(f"Is a higher {metric} better or a lower one? Choose metrics whose direction is known.")
        a, b = float(mine[metric]), float(other[metric])
        verdict = "equal" if a == b else "better" if (a > b) == (way == "higher") else "worse"
        found[verdict].append(f"{metric} ({number(a)} against {number(b)})")
    words = {"better": "than", "worse": "than", "equal": "to"}
    parts, told = [], False
    for verdict, values in found.items():
        if values:
            parts.append(f"{verdict} {'' if told else f'{words[verdict]} {name} '}in {listed(values)}")
            told = True
    return ", and ".join(parts)
