"""Sentences that notebooks make from numbers, and the library's code beside its equation."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from textwrap import dedent

from IPython.display import Markdown

from fusionlib.metrics.directions import sign


def listed(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"; "" of nothing."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else str(last)


def number(value: float, digits: int = 3) -> str:
    """So many digits, or the whole number where that has more."""
    return f"{value:.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """A share in whole per cent: 0.405 is "40 %"."""
    return f"{100 * share:.0f} %"


def better_and_worse(own: Mapping[str, float], other: Mapping[str, float], metrics: Iterable[str], name: str) -> str:
    """ "better than NAME in A (1 against 2), and worse in B (...)": every metric in its own direction.

    Args:
        own, other: metric to value, of two methods on the same pairs.
        metrics: which ones; the direction of each has to be known (`fusionlib.metrics.directions`).
        name: of the other method.

    Raises:
        InputError: the direction of a metric is not known.
    """
    values_of: dict[str, list[str]] = {"better": [], "worse": [], "equal": []}
    for metric in metrics:
        a, b = float(own[metric]), float(other[metric])
        gain = sign(metric) * (a - b)
        verdict = "equal" if a == b else "better" if gain > 0 else "worse"
        digits = next((d for d in range(3, 7) if number(a, d) != number(b, d)), 3)  # as many as show the difference
        values_of[verdict].append(f"{metric} ({number(a, digits)} against {number(b, digits)})")
    words = {"better": "than", "worse": "than", "equal": "to"}
    parts, named = [], False
    for verdict, values in values_of.items():
        if values:
            parts.append(f"{verdict} {'' if named else f'{words[verdict]} {name} '}in {listed(values)}")
            named = True
    return ", and ".join(parts)


def source(*parts: Callable | type) -> Markdown:
    """The code of functions or classes as it is in the library, without docstrings, to stand beside an equation."""
    return Markdown("\n".join(f"```python\n{_without_docstrings(part)}\n```" for part in parts))


def _without_docstrings(part: Callable | type) -> str:
    text = dedent(inspect.getsource(part))
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
            first = node.body[0]
            lines[first.lineno - 1 : first.end_lineno] = [None] * (first.end_lineno - first.lineno + 1)
    return "\n".join(line for line in lines if line is not None).strip("\n")
