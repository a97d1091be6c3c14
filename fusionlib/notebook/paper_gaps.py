"""The choices that the paper leaves open, read from the marks in this package's own source."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fusionlib.support.paths import ROOT

MARK = re.compile(r"PAPER-GAP:\s*")


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
