"""For readers: checks, tables, figures, and what the paper leaves open."""

from __future__ import annotations

import ast
import html
import io
import math
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from fusionlib.metrics.directions import ARROW, with_arrow
from fusionlib.notebook.ranks import ranks
from fusionlib.support.files import atomic, fingerprint
from fusionlib.support.paths import ROOT, Results

MARK = re.compile(r"PAPER-GAP:\s*")


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


# --- the paper


def paper_gaps(package: Path | None = None) -> pd.DataFrame:
    """Every choice that the paper leaves open, as its mark in the code states it.

    Args:
        package: folder of modules; by default this package.

    Returns:
        Columns `where` (module, then class, function or setting) and `gap` (what follows the mark, up to the end of
        the paragraph, of the setting or of the comment).
    """
    package = package or ROOT / "fusionlib"
    gaps = []
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        gaps += [(f"{module}{place}", gap) for place, text in _remarks(path) for gap in MARK.split(text)[1:]]
    return pd.DataFrame([(place, gap.strip()) for place, gap in gaps], columns=["where", "gap"])


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


def _remarks(path: Path) -> Iterator[tuple[str, str]]:
    """(place in the module, text) of each paragraph of a docstring, each setting in it and each block of comments."""
    source = path.read_text(encoding="utf-8")
    scopes = list(_scopes(ast.parse(source)))
    for place, node in scopes:
        entry, name = [], ""
        for line in [*(ast.get_docstring(node) or "").splitlines(), ""]:
            setting = re.match(r"    (\w+(?:, \w+)*): ", line)
            if setting or not line.strip():
                yield f"{place}{name}", " ".join(entry)
                entry, name = [], f".{setting[1]}" if setting else ""
            entry.append(line.strip())
        yield f"{place}{name}", " ".join(entry)
    block, line, goes_on = [], 0, False  # a comment beside code does not go on in the next line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.lstrip().startswith("#")
            if not (alone and goes_on and token.start[0] == line + 1):
                yield _place(scopes, line), " ".join(block)
                block = []
            block.append(token.string.lstrip("# "))
            line, goes_on = token.start[0], alone
    yield _place(scopes, line), " ".join(block)


def _scopes(node: ast.AST, place: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The module and every class and function in it, outer before inner."""
    yield place, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _scopes(child, f"{place}.{child.name}")


def _place(scopes: list[tuple[str, ast.AST]], line: int) -> str:
    return [place for place, node in scopes if not place or node.lineno <= line <= node.end_lineno][-1]
