"""For readers: checks, tables with the best marked, figures."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from fusionlib.experiments.evaluation import BOUND
from fusionlib.metrics.directions import ARROW, direction, with_arrow
from fusionlib.support.files import atomic, fingerprint
from fusionlib.support.paths import Results

REFERENCES = (BOUND, "identity", "truth")  # rows that others are compared with, which get no rank


# --- checks


def check(name: str, value: float, expect: float, atol: float) -> None:
    """Assert that a number is what it should be; the line printed is the same on every machine.

    Args:
        name: what the number is.
        value: the number found; anything that `float` takes.
        expect: what it should be.
        atol: by how much it may differ.

    Raises:
        AssertionError: it differs by more, or is NaN; the message holds the number found.
    """
    if not abs(float(value) - expect) <= atol:
        raise AssertionError(f"{name} = {float(value):.6g}, expected {expect} within {atol}")
    print(f"ok  {name} = {expect} within {atol}")


def check_that(text: str, condition: object) -> None:
    """Assert a statement: print "ok  <text>" if the condition holds, raise AssertionError if it does not."""
    if not condition:
        raise AssertionError(f"it does not hold that {text}")
    print(f"ok  {text}")


def say_whether(text: str, condition: object) -> None:
    """Print "yes  <text>" if a statement about results holds, "no   <text>" if not: both may come out."""
    print(f"{'yes' if condition else 'no '}  {text}")


# --- tables


def show(frame: pd.DataFrame, caption: str | None = None, best: bool = True) -> HTML:
    """A table for a notebook: an arrow says which way is better, numbers have four digits, the best are bold.

    A column without any number is left out. Equal tables give equal HTML (pandas alone would put a random id into it),
    so that a test can compare outputs.

    Args:
        frame: any table; of a MultiIndex, the last level is compared within the groups of the others.
        caption: a line above it.
        best: whether to mark the best value of each column whose direction is known.
    """
    frame = frame.drop(columns=frame.select_dtypes("number").isna().all().loc[lambda empty: empty].index)
    text = _as_text(frame)
    styler = text.style.set_uuid(fingerprint(caption, text.to_csv())).format(escape="html")
    styler.format_index(escape="html", axis=1)
    if best:
        weights = (ranks(frame) == 1).map({True: "font-weight: bold", False: ""}.get)
        styler.apply(lambda _: weights.set_axis(text.columns, axis=1), axis=None)
    if caption:
        styler.set_caption(caption)
    if isinstance(frame.index, pd.RangeIndex):
        styler.hide(axis="index")
    return HTML(styler.to_html())


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


def folded(tables: Mapping[str, HTML]) -> HTML:
    """Tables of `show`, each under a line that opens it, for those that are too long to be read at once.

    Args:
        tables: the line to the table.
    """
    heads = (f"<details><summary>{html.escape(title)}</summary>" for title in tables)
    return HTML("\n".join(f"{head}{table.data}</details>" for head, table in zip(heads, tables.values(), strict=True)))


def measured_in(shown: Results, preset: str, on: str = "real pairs") -> Markdown:
    """The line above kept numbers: where they were measured and, if this preset cannot measure them, that it cannot.

    Args:
        shown: `Preset.shown` of the notebook.
        preset: the notebook's own.
        on: what they were measured on.
    """
    text = f"Measured on {on} in the preset `{shown.preset}` and kept in `results/{shown.preset}`"
    return Markdown(f"*{text}.*" if shown.preset == preset else f"*{text}; `{preset}` has no {on}.*")


def markdown(frame: pd.DataFrame) -> str:
    """The same table as `show` in Markdown; index levels become columns."""
    text, bold = _as_text(frame), ranks(frame) == 1
    text = text.where(~bold.set_axis(text.columns, axis=1), "**" + text + "**")
    if not isinstance(frame.index, pd.RangeIndex):
        text = text.reset_index()
    numeric = [column in frame.columns and pd.api.types.is_numeric_dtype(frame[column]) for column in _bare(text)]
    lines = [list(text.columns), ["--:" if right else ":--" for right in numeric], *text.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_table(frame: pd.DataFrame, results: Results, name: str) -> Path:
    """Write a table atomically to `results.tables`/NAME.csv, floats with six digits; return the path."""
    path = results.table(name)
    with atomic(path) as part:
        frame.to_csv(part, index=not isinstance(frame.index, pd.RangeIndex), float_format="%.6g")
    return path


def write_figure(figure: Figure, results: Results, name: str) -> Path:
    """Write a figure atomically to `results.figures`/NAME.png; return the path."""
    path = results.figures / f"{name}.png"
    with atomic(path) as part:
        figure.savefig(part, dpi=100)
    return path


# --- helpers


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    text = pd.DataFrame({column: _format(frame[column]) for column in frame.columns}, index=frame.index, dtype=object)
    return text.rename(columns=with_arrow)


def _bare(text: pd.DataFrame) -> list[str]:
    return [re.sub(rf" [{''.join(ARROW.values())}]$", "", str(column)) for column in text.columns]


def _format(values: pd.Series) -> list[str]:
    """Floats with four digits: as many decimals for the whole column, or for each number where sizes differ a lot."""
    if not pd.api.types.is_float_dtype(values):
        return [_format(pd.Series([value]))[0] if isinstance(value, float) else str(value) for value in values]
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    alike = bool(sizes) and max(sizes) / min(sizes) < 1000
    return [
        "–" if math.isnan(value) else f"{value:.{_decimals(max(sizes) if alike else abs(value))}f}" for value in values
    ]


def _decimals(size: float) -> int:
    return min(6, max(0, 3 - math.floor(math.log10(size)))) if 0 < size < math.inf else 0
