"""Tables that grow part by part and know what made each part, so that long measurements resume and are not repeated.

Such a table is a CSV file with a column `made_by`: the key (`fusionlib.support.keys`) of what made the row. A part is
the rows in which some columns have given values, such as all rows of one method at one level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fusionlib.support.files import atomic
from fusionlib.support.keys import Key
from fusionlib.support.long_training import may_start, refused, show_earlier

MADE_BY = "made_by"
NAMES = dict.fromkeys((MADE_BY, "pair", "subject"), str)  # never numbers: a pair of M3FD is called 00000


def part(path: Path, where: Mapping[str, object], key: Key, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The rows of one part: those in the file if their key fits, else made now and put in their place.

    Args:
        path: the CSV file; it need not be there.
        where: column to value, what tells this part from the others.
        key: of everything that the rows depend on.
        make: gives the rows, without the columns of `where`.

    Returns:
        The rows with the columns of `where` first, without `made_by`. Numbers are as the file has them, to six digits.
    """
    if not fits(path, where, key):
        put(path, where, key, make())
    return there(path, where)


def read(path: Path) -> pd.DataFrame:
    """The whole table with its column `made_by`, names as text; empty if there is no file."""
    return pd.read_csv(path, dtype=NAMES) if path.exists() else pd.DataFrame()


def put(path: Path, where: Mapping[str, object], key: Key, rows: pd.DataFrame) -> None:
    """Put the rows of one part into the file, in the place of those that were there; arguments as in `part`.

    A file without the columns of `where` is of another form, of an older version say, and gives way.
    """
    table = read(path)
    if not set(where) <= set(table):
        table = pd.DataFrame()
    new = rows.assign(**{MADE_BY: str(key)})
    for column, value in reversed(where.items()):
        new.insert(0, column, value)
    # The place of a part stays what it was, whatever was measured again.
    before, after = _split(table, _rows(table, where).index)
    with atomic(path) as half:
        frames = [frame for frame in (before, new, after) if not frame.empty]
        pd.concat(frames, ignore_index=True).to_csv(half, index=False, float_format="%.6g")


def fits(path: Path, where: Mapping[str, object], key: Key) -> bool:
    """Whether the file holds the rows of one part as this key makes them, so that `part` would not make them again."""
    found = keys_of(path, where)
    return bool(found) and not any(key.differing(each) for each in found)


def keys_of(path: Path, where: Mapping[str, object]) -> list[Key]:
    """The keys of the rows of one part, each once."""
    mine = _rows(read(path), where)
    return [Key.parse(str(text)) for text in mine[MADE_BY].unique()] if MADE_BY in mine else []


def to_train(path: Path, parts: Mapping[str, tuple[Mapping[str, object], Key]], minutes: float) -> list[str]:
    """Which parts have to be made now, of a table whose every part costs a training.

    If that is long and nobody has asked for it (`fusionlib.support.long_training`), rows of earlier code or data are
    left as they are, and a line says so.

    Args:
        path: the CSV file.
        parts: name to `where` and key of each part.
        minutes: that one part takes.

    Raises:
        InputError: rows are missing, or of other settings, and nobody has asked for long trainings.
    """
    open_parts = [name for name, (where, key) in parts.items() if not fits(path, where, key)]
    if not open_parts or may_start(minutes * len(open_parts)):
        return open_parts
    changed: dict[str, None] = {}
    for name in open_parts:
        where, key = parts[name]
        differing = [each for had in keys_of(path, where) for each in key.differing(had)] or ["settings"]
        if "settings" in differing:
            raise refused(
                f"{path.name}, {name} and what else is missing of {len(parts)} parts,", minutes * len(open_parts)
            )
        changed |= dict.fromkeys(differing)
    show_earlier(f"{path.name}, {len(open_parts)} of {len(parts)} parts", changed, minutes * len(open_parts))
    return []


def in_order(path: Path, parts: Sequence[Mapping[str, object]]) -> None:
    """Put the parts of a file into this order, whichever came first; other rows follow as they are."""
    table = read(path)
    first = [place for where in parts for place in _rows(table, where).index]
    order = [*first, *table.index.difference(first)]
    if order != list(table.index):
        with atomic(path) as half:
            table.loc[order].to_csv(half, index=False, float_format="%.6g")


def there(path: Path, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one part as they are in the file, whatever made them: for those who cannot make them themselves."""
    table = read(path)
    return _rows(table, where).drop(columns=MADE_BY, errors="ignore").reset_index(drop=True)


def _rows(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    if not set(where) <= set(table):
        return table.iloc[:0]
    chosen = pd.Series(True, index=table.index)
    for column, value in where.items():
        chosen &= table[column] == value
    return table[chosen]


def _split(table: pd.DataFrame, gone: pd.Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What stands before the rows that go, and after; all of it before if none goes."""
    first = gone[0] if len(gone) else len(table)
    rest = table.drop(index=gone)
    return rest[rest.index < first], rest[rest.index >= first]
