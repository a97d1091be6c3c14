"""Tables that grow part by part and know what made each part, so that long measurements resume and are not repeated.

Such a table is a CSV file with a column `made_by`: the key (`fusionlib.support.keys`) of what made the row. A part is
the rows in which some columns have given values, such as all rows of one method at one level. Several processes, such
as two notebooks, may write to one file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fusionlib.support.files import InputError, atomic, locked
from fusionlib.support.keys import Key

MADE_BY = "made_by"
CONFLICT = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")  # how git begins the lines that it adds to what it cannot merge
ADVICE = "restore it, for example with git, or remove it, and it is made again"
NAMES = dict.fromkeys((MADE_BY, "pair", "subject"), str)  # never numbers: a pair of M3FD is called 00000


def read(path: Path) -> pd.DataFrame:
    """The whole table with its column `made_by`, names as text; empty if there is no file.

    Raises:
        InputError: the file is no table, or a line of it was damaged, as by a merge; the message names that line.
    """
    return parsed(path, "table", ADVICE) if path.exists() else pd.DataFrame()


def parsed(path: Path, kind: str, advice: str) -> pd.DataFrame:
    """The content of a CSV file that this library wrote, in which all lines have as many fields as the first.

    Args:
        path: of the file.
        kind: what it is called in an error, such as "table".
        advice: what to do about a damaged one.

    Raises:
        InputError: it is empty, not UTF-8, holds marks of a merge conflict, or a line has too many or too few fields.
    """
    try:
        why = _damaged_line(path)
        table = pd.DataFrame() if why else pd.read_csv(path, dtype=NAMES)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, csv.Error) as error:
        why = str(error).strip()
    if why:
        raise InputError(f"{path} is no {kind} ({why}): {advice}.")
    return table


def _damaged_line(path: Path) -> str:
    """What is wrong with the first damaged line of a file; empty if there is none.

    Pandas fills a short line up, and takes the first fields of long ones for an index, so neither would be seen.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines, fields = csv.reader(file), 0
        for line in lines:
            if line and line[0].startswith(CONFLICT):
                return f"line {lines.line_num} is a mark of a merge conflict, {line[0][:7]}"
            fields = fields or len(line)
            if line and len(line) != fields:
                return f"line {lines.line_num} has {len(line)} fields, where the first line has {fields}"
    return ""


def check_columns(
    table: pd.DataFrame, path: Path, names: Iterable[str] = (), numbers: Iterable[str] = (), advice: str = ADVICE
) -> None:
    """Refuse a table that lacks rows or columns, or whose columns are not what they were.

    Args:
        table: as `read` gives it.
        path: its file, for the message.
        names: columns in which every row has something.
        numbers: columns of numbers, which may be missing in some rows.
        advice: what to do about a damaged one.

    Raises:
        InputError: one of them is not there, has a gap or holds text, a number is infinite, or the table has no rows.
    """
    names, numbers = list(names), list(numbers)
    if lacking := [column for column in (*names, *numbers) if column not in table]:
        why = f"lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
    elif table.empty:
        why = "has no rows"
    elif gaps := [column for column in names if table[column].isna().any()]:
        why = f"has a gap in the column {gaps[0]}"
    elif texts := [column for column in numbers if not pd.api.types.is_numeric_dtype(table[column])]:
        why = f"has text in the column {texts[0]}, which holds numbers"
    elif infinite := [column for column, values in table.select_dtypes("number").items() if np.isinf(values).any()]:
        why = f"has an infinite number in the column {infinite[0]}"
    else:
        return
    raise InputError(f"{path} {why}: {advice}.")


def replace_part(path: Path, part: Mapping[str, object], key: Key, rows: pd.DataFrame) -> None:
    """Replace the rows of one part in the file, or add them; the file is written atomically.

    A file without the columns of `part` has another form, such as that of an older version, and is replaced as a whole.

    Args:
        path: the CSV file; it need not exist.
        part: column to value, which together name the part.
        key: of everything that the rows depend on.
        rows: without the columns of `part`; numbers are kept to six digits.
    """
    new = rows.assign(**{MADE_BY: str(key)})
    for column, value in reversed(part.items()):
        new.insert(0, column, value)
    with locked(path):
        table = read(path)
        if not set(part) <= set(table):
            table = pd.DataFrame()
        # A part that is measured again keeps its place in the file.
        old = rows_in(table, part).index
        rest, place = table.drop(index=old), old[0] if len(old) else len(table)
        frames = [frame for frame in (rest[rest.index < place], new, rest[rest.index >= place]) if not frame.empty]
        with atomic(path) as half:
            pd.concat(frames, ignore_index=True).to_csv(half, index=False, float_format="%.6g")


def rows_in(table: pd.DataFrame, part: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one part of a table as `read` gives it; none if the table lacks the columns of `part`."""
    if not set(part) <= set(table):
        return table.iloc[:0]
    is_in_part = pd.Series(True, index=table.index)
    for column, value in part.items():
        is_in_part &= table[column] == value
    return table[is_in_part]


def read_part(path: Path, part: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one part in the file, without the column `made_by`, whatever made them."""
    return rows_in(read(path), part).drop(columns=MADE_BY, errors="ignore").reset_index(drop=True)


def keys_of(table: pd.DataFrame, part: Mapping[str, object]) -> list[Key]:
    """The keys of the rows of one part, each once."""
    rows = rows_in(table, part)
    return [Key.parse(str(text)) for text in rows[MADE_BY].unique()] if MADE_BY in rows else []


def in_order(path: Path, parts: Sequence[Mapping[str, object]]) -> None:
    """Write the parts of a file in this order; other rows follow in the order that they have."""
    with locked(path):
        table = read(path)
        first = [place for part in parts for place in rows_in(table, part).index]
        order = [*first, *table.index.difference(first)]
        if order != list(table.index):
            with atomic(path) as half:
                table.loc[order].to_csv(half, index=False, float_format="%.6g")
