"""Which way is better, of every metric and column."""

from __future__ import annotations

import re
from functools import cache

from fusionlib.data import paper_tables
from fusionlib.metrics import further
from fusionlib.metrics.fusion import DIRECTION

ARROW = {"higher": "↑", "lower": "↓"}


def direction(column: str) -> str | None:
    """ "higher" or "lower", whichever is better of a metric (a variant like Q_CC@given or EPE_share too), else None.

    >>> direction("Q_CC@given"), direction("EPE_share"), direction("pair")
    ('higher', 'lower', None)
    """
    return _directions().get(re.sub(r"@(given|slice)$|_share$", "", str(column)))


@cache
def _directions() -> dict[str, str]:
    paper = paper_tables.numbers()
    known = dict(zip(paper["metric"], paper["better"], strict=True)) | further.DIRECTION | DIRECTION
    return known | {"folds": "lower", "seconds": "lower"}
