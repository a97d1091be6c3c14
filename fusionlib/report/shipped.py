"""results/<preset>/executed: the executed notebooks as they may be passed on, without other people's images.

The images of the data sets belong to others and are fetched, never shipped, so a picture of them may not lie in the
repository either. Which pictures are charts is not guessed: an output is kept if its cell writes a figure that is
shipped as well (`reporting.write_figure`, under a name that does not begin with "fused_"). In the place of every other
picture stands a sentence. What is noise goes too: progress bars, times of cells, widgets without a kernel.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4
from PIL import Image

from fusionlib.report import web
from fusionlib.support.files import fingerprint, sha256, write_text
from fusionlib.support.paths import ROOT, data_root, notebook_files

FOLDER, STYLE = "executed", "style.css"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
WRITES = re.compile(r"""\bwrite_figure\([^"']+["']([^"']+)["']""")
LARGE, COLOURS = 100_000, 96  # bytes of a picture, and how many colours are left to one that has more
STYLE_BLOCK = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
INSTEAD = "[A picture, left out since it may show images that belong to others: it appears when you run this notebook.]"


def ship(folder: Path | str) -> list[Path]:
    """Write `folder`/executed/NAME.ipynb and .html of every notebook that was executed in `folder`/notebooks.

    The pages share one style, which lies beside them.

    What was written of the same execution before stays as it is.

    Args:
        folder: results/<preset>.

    Returns:
        The notebooks and pages, in order.
    """
    folder = Path(folder)
    found = []
    for source in notebook_files(folder / "notebooks").values():
        path = folder / FOLDER / source.name
        mark = fingerprint(sha256(source))
        there = all(each.exists() for each in (path, path.with_suffix(".html"), path.with_name(STYLE)))
        if not (there and _mark(path) == mark):
            text = nbformat.writes(without_pictures(nbformat.read(source, as_version=4)))
            for place, name in {data_root(): "$FUSIONLIB_DATA", ROOT: "."}.items():  # paths of this machine
                text = text.replace(str(place), name)
            content = nbformat.reads(text, as_version=4)
            content.metadata.fusionlib = content.metadata.get("fusionlib", {}) | {"executed": mark}
            write_text(path, nbformat.writes(content) + "\n")
            page, style = _apart(web.notebook_page(content, source.stem))
            write_text(path.with_name(STYLE), style)
            write_text(path.with_suffix(".html"), page)
        found += [path, path.with_suffix(".html")]
    return found


def without_pictures(content: NotebookNode) -> NotebookNode:
    """A copy of an executed notebook with no picture but shipped charts, and without noise."""
    cells = []
    for cell in content.cells:
        cell = NotebookNode(
            cell | {"metadata": NotebookNode(tags=cell.metadata.tags) if "tags" in cell.metadata else {}}
        )
        if cell.cell_type == "code":
            kept = _is_shipped(cell.source)
            outputs = [_passed_on(NotebookNode(output), kept) for output in cell.outputs]
            cell.outputs = [output for output in outputs if output is not None]
        cells.append(cell)
    facts = ("fusionlib", "kernelspec", "language_info")
    metadata = {name: content.metadata[name] for name in facts if name in content.metadata}
    return v4.new_notebook(cells=cells, metadata=metadata)


def _is_shipped(source: str) -> bool:
    """Whether the cell writes a figure, and no other than such as are shipped."""
    names = WRITES.findall(source)
    return bool(names) and not any(name.startswith("fused_") for name in names)


def _passed_on(output: NotebookNode, kept: bool) -> NotebookNode | None:
    if output.output_type == "stream":
        return None if output.name == "stderr" else output
    data = output.get("data", {})
    if any(kind in data for kind in PICTURES) or "data:image" in data.get("text/html", ""):
        if kept:
            chart = {"image/png": _fewer_colours(data["image/png"]), "text/plain": data.get("text/plain", "")}
            return NotebookNode(output | {"data": chart})
        return v4.new_output("display_data", {"text/plain": INSTEAD})
    if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
        return None
    return output


def _fewer_colours(picture: str) -> str:
    """A large PNG (base64) in as many colours as a reader tells apart, in half of the bytes."""
    content = base64.b64decode(picture)
    if len(content) < LARGE:
        return picture
    with Image.open(io.BytesIO(content)) as file:
        if file.mode == "P":  # has few already; a second time would change it once more
            return picture
        smaller = io.BytesIO()
        file.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(smaller, format="PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


def _apart(page: str) -> tuple[str, str]:
    """A page that asks for its style, and the style: it is most of a page, and the same for all of them."""
    head, body = page.split("</head>", 1)
    style = "\n".join(STYLE_BLOCK.findall(head))
    link = f'<link rel="stylesheet" href="{STYLE}">'
    return f"{STYLE_BLOCK.sub('', head)}{link}\n</head>{body}", style


def _mark(path: Path) -> str | None:
    return nbformat.read(path, as_version=4).metadata.get("fusionlib", {}).get("executed")
