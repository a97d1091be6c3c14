"""Which way is better, of every metric and column."""

from __future__ import annotations

import re
from functools import cache

from fusionlib.data import paper_tables
from fusionlib.metrics import further
from fusionlib.metrics.fusion import DIRECTION
from fusionlib.support.files import InputError

ARROW = {"higher": "↑", "lower": "↓"}


def direction(column: str) -> str | None:
    """ "higher" or "lower", whichever is better of a metric (a variant like Q_CC@given or EPE_share too), else None.

    >>> direction("Q_CC@given"), direction("EPE_share"), direction("mAP50"), direction("pair")
    ('higher', 'lower', 'higher', None)
    """
    return _directions().get(re.sub(r"@(given|slice)$|_(share|p95)$", "", str(column)))


def sign(metric: str) -> int:
    """1 if a higher value is better, -1 if a lower one is: the sign times a difference is a gain.

    Raises:
        InputError: the direction of the metric is not known.

    >>> sign("Q_CC"), sign("EPE")
    (1, -1)
    """
    if (way := direction(metric)) is None:
        raise InputError(f"Is a higher {metric} better or a lower one? Choose metrics whose direction is known.")
    return 1 if way == "higher" else -1


def with_arrow(column: str) -> str:
    """A heading: the column, and an arrow that says which way is better, if one is.

    >>> with_arrow("Q_CV"), with_arrow("pair")
    ('Q_CV ↓', 'pair')
    """
    return f"{column} {ARROW[way]}" if (way := direction(column)) else column


@cache
def _directions() -> dict[str, str]:
    paper = paper_tables.numbers()
    known = dict(zip(paper["metric"], paper["better"], strict=True)) | further.DIRECTION | DIRECTION
    return known | {"folds": "lower", "seconds": "lower", "mAP50": "higher", "mAP50:95": "higher"}
