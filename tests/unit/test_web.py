"""Pages that need no network: formulas are MathML, nothing is loaded from elsewhere, and text is escaped."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import nbformat
import pytest
from nbformat import v4

from fusionlib.report import shipped, web
from fusionlib.support.paths import ROOT

LOADED = re.compile(r"""(?:src|href)=["'](?:https?:)?//|url\(["']?(?:https?:)?//|import\s*\(?["']https?:""")
PAGES = sorted((ROOT / "results").glob(f"*/{shipped.FOLDER}/*.html"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def loaded(page: str) -> list[str]:
    """What a page asks the network for when it is opened; links that a reader may follow are not."""
    return [found for found in LOADED.findall(re.sub(r"<a [^>]*>", "", page)) if found]


def without_code(page: str) -> str:
    return re.sub(r"<(style|script|pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_formulas_become_mathml_wherever_they_stand() -> None:
    cells = [
        v4.new_markdown_cell(
            "# A title\n\nAn $\\ell_{ob}$ and\n\n$$\\frac{1}{2}\\sum_i x_i$$\n\n| a |\n|---|\n| $Q_{CC}$ |"
        ),
        v4.new_markdown_cell("<details><summary>Answer</summary>$\\rho$ costs $5 to $6.</details>"),
        v4.new_code_cell("price = '$5 and $6'"),
    ]
    page = web.notebook_page(v4.new_notebook(cells=cells), "a <name>")
    assert page.count("<math") == 4 and page.count('display="block"') == 1 and "\\ell" not in page
    assert "$5 to $6" in page and "$5 and $6" in page and "<title>a &lt;name&gt;</title>" in page
    assert loaded(page) == [] and "mathjax" not in page.lower().split("<body")[1]


def test_a_widget_without_a_picture_loads_nothing() -> None:
    cell = v4.new_code_cell("x", outputs=[v4.new_output("display_data", {"text/plain": "a label"})])
    content = v4.new_notebook(
        cells=[cell], metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    )
    assert loaded(web.notebook_page(content, "widgets")) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_shipped_pages_load_nothing_and_show_no_raw_formula(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert loaded(page) == [] and loaded(path.with_name(shipped.STYLE).read_text(encoding="utf-8")) == []
    assert re.findall(r"\$\\\w+", without_code(page)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_of_a_notebook_can_be_converted(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    page = web.markdown("\n\n".join(cell.source for cell in cells))
    assert not re.findall(r"<mi>\\|<mtext>\\|<merror", page)  # what the converter does not know, it leaves as text
    assert page.count("<code>\\") == 0


def test_a_formula_that_cannot_be_read_stays_as_it_is_typed() -> None:
    assert web.formula("\\left( <b>") == "<code>\\left( &lt;b&gt;</code>"


def test_templates_escape_and_miss_nothing() -> None:
    assert web.line("`x` < *y* <b>") == "<code>x</code> &lt; <em>y</em> &lt;b&gt;"
    with pytest.raises(jinja2.UndefinedError):
        web.render("index.html.j2", title="no more")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_is_rendered_to_the_last_command(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for formula in re.findall(r"\$\$(.+?)\$\$", cell.source, re.DOTALL):
            assert "\\" not in web.formula(formula), formula
