"""HTML that needs no network: templates, Markdown with its formulas as MathML, and executed notebooks as pages."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path

import jinja2
import latex2mathml.converter
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'  # a page of HTML does not need it

INLINE = re.compile(r"(?<![\\$])\$(?![\s$])([^$<>]+?)(?<![\s\\])\$(?![\d$])")


def render(template: str, **values: object) -> str:
    """A page from a template of `TEMPLATES`; whatever is not `Markup` is escaped."""
    return _templates().get_template(template).render(**values)


def markdown(text: str) -> Markup:
    """Markdown as HTML; HTML in it is escaped."""
    return Markup(MarkdownWithMath(renderer=_Formulas(escape=True)).render(text))


def line(text: str) -> Markup:
    """One line of Markdown as HTML without a paragraph of its own."""
    return Markup(markdown(text).strip().removeprefix("<p>").removesuffix("</p>"))


def notebook_page(content: NotebookNode, name: str) -> str:
    """An executed notebook as a page; controls are left out, since nothing would answer them.

    Args:
        content: the notebook with its outputs.
        name: its title in the browser.
    """
    return _Pages(template_name="notebook").from_notebook_node(content, {"metadata": {"name": name}})[0]


def formula(latex: str, display: str = "inline") -> str:
    """A formula as MathML, or its source if that cannot be read; `display` is inline or block."""
    try:
        plain = latex.replace("\\big\\", "\\")  # of \big\lVert the library renders the name; MathML stretches by itself
        return latex2mathml.converter.convert(plain, display=display).replace(NAMESPACE, "")
    except Exception:  # the library names no common error, and a formula as typed is better than no page
        return f"<code>{escape(latex)}</code>"


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


class _Formulas(IPythonRenderer):
    """Markdown as nbconvert renders it, with MathML where a formula is."""

    def block_math(self, body: str) -> str:
        return formula(body, "block")

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_html(self, html: str) -> str:
        """A block of HTML, such as a folded answer, in which Markdown sees no formulas."""
        return super().block_html(INLINE.sub(lambda found: formula(unescape(found[1])), html))

    def latex_environment(self, name: str, body: str) -> str:
        return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class _Pages(HTMLExporter):
    """nbconvert's pages in the template `notebook`."""

    def __init__(self, **settings: object) -> None:
        super().__init__(extra_template_basedirs=[str(TEMPLATES)], **settings)

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(renderer=_Formulas(escape=False, attachments=attachments)).render(source)
