"""Tables that grow part by part and know what made each part, so that long measurements resume and are not repeated.

Such a table is a CSV file with a column `made_by`: the key (`fusionlib.support.keys`) of what made the row. A part is
the rows in which some columns have given values, such as all rows of one method at one level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from fusionlib.support.files import atomic
from fusionlib.support.keys import Key

MADE_BY = "made_by"
NAMES = dict.fromkeys((MADE_BY, "pair", "subject"), str)  # never numbers: a pair of M3FD is called 00000


def read(path: Path) -> pd.DataFrame:
    """The whole table with its column `made_by`, names as text; empty if there is no file."""
    return pd.read_csv(path, dtype=NAMES) if path.exists() else pd.DataFrame()


def put(path: Path, where: Mapping[str, object], key: Key, rows: pd.DataFrame) -> None:
    """Put the rows of one part into the file, atomically and in the place of those that were there.

    A file without the columns of `where` is of another form, of an older version say, and gives way.

    Args:
        path: the CSV file; it need not be there.
        where: column to value, what tells this part from the others.
        key: of everything that the rows depend on.
        rows: without the columns of `where`; numbers are kept to six digits.
    """
    table = read(path)
    if not set(where) <= set(table):
        table = pd.DataFrame()
    new = rows.assign(**{MADE_BY: str(key)})
    for column, value in reversed(where.items()):
        new.insert(0, column, value)
    # The place of a part stays what it was, whatever was measured again.
    old = rows_of(table, where).index
    rest, place = table.drop(index=old), old[0] if len(old) else len(table)
    frames = [frame for frame in (rest[rest.index < place], new, rest[rest.index >= place]) if not frame.empty]
    with atomic(path) as half:
        pd.concat(frames, ignore_index=True).to_csv(half, index=False, float_format="%.6g")


def rows_of(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one part of a table as `read` gives it; none if the table has not the columns of `where`."""
    if not set(where) <= set(table):
        return table.iloc[:0]
    chosen = pd.Series(True, index=table.index)
    for column, value in where.items():
        chosen &= table[column] == value
    return table[chosen]


def there(path: Path, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one part as they are in the file, without `made_by`, whatever made them."""
    return rows_of(read(path), where).drop(columns=MADE_BY, errors="ignore").reset_index(drop=True)


def keys_of(table: pd.DataFrame, where: Mapping[str, object]) -> list[Key]:
    """The keys of the rows of one part, each once."""
    mine = rows_of(table, where)
    return [Key.parse(str(text)) for text in mine[MADE_BY].unique()] if MADE_BY in mine else []


def in_order(path: Path, parts: Sequence[Mapping[str, object]]) -> None:
    """Put the parts of a file into this order, whichever came first; other rows follow as they are."""
    table = read(path)
    first = [place for where in parts for place in rows_of(table, where).index]
    order = [*first, *table.index.difference(first)]
    if order != list(table.index):
        with atomic(path) as half:
            table.loc[order].to_csv(half, index=False, float_format="%.6g")
