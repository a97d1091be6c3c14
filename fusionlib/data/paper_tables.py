"""The numbers of the paper's tables, from data/paper_tables.csv; none is typed in by hand."""

from __future__ import annotations

from functools import cache

import pandas as pd

from fusionlib.data import systems
from fusionlib.support.files import InputError
from fusionlib.support.paths import FACTS


@cache
def numbers() -> pd.DataFrame:
    """One row a number: table, dataset, row, metric, value and which way is better."""
    return pd.read_csv(FACTS / "paper_tables.csv")


def paper_table(number: int) -> pd.DataFrame:
    """A table of the paper as printed: rows (dataset, row), one column a metric, in the paper's order.

    Raises:
        InputError: the paper has no such table of numbers.
    """
    paper = numbers()
    table = paper[paper["table"] == number]
    if table.empty:
        raise InputError(f"The paper has no table {number}; it has {', '.join(map(str, paper['table'].unique()))}.")
    wide = table.pivot_table(index=["dataset", "row"], columns="metric", values="value", sort=False)
    return wide.rename_axis(columns=None)


def systems_in(number: int) -> dict[str, str]:
    """Compared systems that are rows of a table of the paper: name to the title printed there, in the printed order."""
    named = {systems.system(name).title: name for name in systems.names()}
    return {named[row]: row for row in paper_table(number).index.get_level_values("row") if row in named}
