"""Which rows of a table are best and second: one rule for every table that marks them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fusionlib.experiments.evaluation import BOUND
from fusionlib.metrics.directions import direction

REFERENCES = (BOUND, "identity", "truth")  # rows that others are compared with, which get no rank


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """1 for the best, 2 for the second, 0 for others, in each column's own direction.

    Compared are the rows that share all index levels but the last, which names the method. `REFERENCES` do not compete,
    nor does a row alone; a best value that more than half of a group share is none. Columns without a direction, or
    without numbers, have no ranks.

    >>> ranks(pd.DataFrame({"Q_CC": [0.5, 0.4, 0.9]}, index=["ours", "average", "bound"]))["Q_CC"].tolist()
    [1, 2, 0]
    """
    marks = pd.DataFrame(0, index=table.index, columns=table.columns)
    competes = ~table.index.get_level_values(-1).isin(REFERENCES)
    rows = table[competes]
    keys = [rows.index.get_level_values(level) for level in range(table.index.nlevels - 1)] or [np.zeros(len(rows))]
    for column in table.columns:
        if (better := direction(column)) and pd.api.types.is_numeric_dtype(table[column]):
            groups = rows[column].astype(float).groupby(keys)
            place = groups.rank(method="dense", ascending=better == "lower")
            count = groups.transform("count")
            shared = (place == 1).groupby(keys).transform("sum") > count / 2
            counted = place.where((place <= 2) & (count > 1) & ~((place == 1) & shared), 0)
            marks.loc[competes, column] = counted.astype(int).to_numpy()
    return marks
