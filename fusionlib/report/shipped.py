"""results/<preset>/executed: the executed notebooks as they may be passed on, without other people's images.

The images of the data sets belong to others and are fetched, never shipped, so a picture of them may not lie in the
repository either. Which pictures are charts is not guessed: an output is kept if its cell writes a figure that is
shipped as well (`reporting.write_figure`, under a name that does not begin with "fused_"). In the place of every other
picture stands what the same cell shows in the preset smoke, which draws its own scenes and knows the same weights, or a
sentence. Noise is removed too: progress bars, times of cells, widgets without a kernel.
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
LARGE, COLOURS = 100_000, 96  # bytes of a chart, and how many colours are left to one that has more
WIDE, QUALITY = 800, 60  # pixels across, and JPEG quality, of a picture of drawn scenes
STYLE_BLOCK = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
INSTEAD = "[A picture, left out since it may show images that belong to others: it appears when you run this notebook.]"
DRAWN = "*In the place of images that belong to others: drawn scenes, as the preset `smoke` shows them in this cell.*"

Drawn = dict[str, list[str]]  # by the id of a cell, the pictures of drawn scenes that it shows: JPEG, base64


def ship(folder: Path | str) -> list[Path]:
    """Write `folder`/executed/NAME.ipynb and .html of every notebook that was executed in `folder`/notebooks.

    The pages share one style, which lies beside them. Drawn scenes come from the notebooks that the preset smoke
    executed beside `folder`, where it has run, else from what was written before. What was written of the same
    execution before stays as it is.

    Args:
        folder: results/<preset>.

    Returns:
        The notebooks and pages, in order.
    """
    folder = Path(folder)
    written = []
    for source in notebook_files(folder / "notebooks").values():
        path = folder / FOLDER / source.name
        content = nbformat.read(source, as_version=4)
        drawn = _drawn(content, path) | _drawn(content, folder.with_name("smoke") / "notebooks" / source.name)
        mark = fingerprint(sha256(source), {cell: len(pictures) for cell, pictures in sorted(drawn.items())})
        complete = all(file.exists() for file in (path, path.with_suffix(".html"), path.with_name(STYLE)))
        if not (complete and _mark(path) == mark):
            content = nbformat.reads(without_paths(nbformat.writes(without_pictures(content, drawn))), as_version=4)
            content.metadata.fusionlib = content.metadata.get("fusionlib", {}) | {"executed": mark}
            write_text(path, nbformat.writes(content) + "\n")
            page, style = _split_style(web.notebook_page(content, source.stem))
            write_text(path.with_name(STYLE), style)
            write_text(path.with_suffix(".html"), page)
        written += [path, path.with_suffix(".html")]
    return written


def without_paths(text: str) -> str:
    """A text with names in the place of the two folders of this machine that notebooks may print."""
    for place, name in {data_root().resolve(): "$FUSIONLIB_DATA", ROOT: "."}.items():
        if len(place.parts) > 2:  # such as /data: too short to be told from a part of another path
            text = re.sub(rf"(?<![\w./-]){re.escape(str(place))}(?![\w.-])", name, text)
    return text


def without_pictures(content: NotebookNode, drawn: Drawn | None = None) -> NotebookNode:
    """A copy of an executed notebook without noise, and with no picture but shipped charts and drawn scenes.

    Args:
        content: the notebook.
        drawn: what stands in the place of other pictures, one after the other.
    """
    cells = []
    for cell in content.cells:
        cell = NotebookNode(
            cell | {"metadata": NotebookNode(tags=cell.metadata.tags) if "tags" in cell.metadata else {}}
        )
        if cell.cell_type == "code":
            is_chart, scenes = _is_shipped(cell.source), list((drawn or {}).get(cell.get("id"), []))
            outputs = [_shippable(NotebookNode(output), is_chart, scenes) for output in cell.outputs]
            cell.outputs = _with_introduction([output for output in outputs if output is not None])
        cells.append(cell)
    facts = ("fusionlib", "kernelspec", "language_info")
    metadata = {name: content.metadata[name] for name in facts if name in content.metadata}
    return v4.new_notebook(cells=cells, metadata=metadata)


def _is_shipped(source: str) -> bool:
    """Whether the cell writes a figure, and no other than such as are shipped."""
    names = WRITES.findall(source)
    return bool(names) and not any(name.startswith("fused_") for name in names)


def _shippable(output: NotebookNode, is_chart: bool, scenes: list[str]) -> NotebookNode | None:
    """What stands in the place of an output: itself, nothing, or the next of the drawn scenes, which is taken away."""
    if output.output_type == "stream":
        return None if output.name == "stderr" else output
    data = output.get("data", {})
    if _is_drawn(output):
        return output if "image/jpeg" in data else None
    if any(kind in data for kind in PICTURES) or "data:image" in data.get("text/html", ""):
        if is_chart and "image/png" in data:
            chart = {"image/png": _fewer_colours(data["image/png"]), "text/plain": data.get("text/plain", "")}
            return NotebookNode(output | {"data": chart})
        if scenes:
            return v4.new_output("display_data", {"image/jpeg": scenes.pop(0)}, metadata={"drawn": True})
        return v4.new_output("display_data", {"text/plain": INSTEAD})
    if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
        return None
    return output


def _with_introduction(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell with a line above the first drawn scene that says what it is."""
    first = next((place for place, output in enumerate(outputs) if _is_drawn(output)), None)
    if first is None:
        return outputs
    line = v4.new_output("display_data", {"text/markdown": DRAWN}, metadata={"drawn": True})
    return [*outputs[:first], line, *outputs[first:]]


def _is_drawn(output: NotebookNode) -> bool:
    return bool(output.get("metadata", {}).get("drawn"))


def _drawn(content: NotebookNode, path: Path) -> Drawn:
    """The drawn scenes in the cells of `content` as the notebook at `path` has them: one of smoke, or a shipped one."""
    if not path.exists():
        return {}
    wanted = {cell.id: cell.source for cell in content.cells if cell.cell_type == "code"}
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if wanted.get(cell.get("id")) == cell.source]
    scenes_by_cell = {cell.id: _scenes(cell.outputs) for cell in cells if not _is_shipped(cell.source)}
    return {name: scenes for name, scenes in scenes_by_cell.items() if scenes}


def _scenes(outputs: list[NotebookNode]) -> list[str]:
    """The pictures of one cell, JPEG in base64: those made of PNG, and those that were made before."""
    pictures = []
    for data in (output.get("data", {}) for output in outputs):
        if "image/png" in data or "image/jpeg" in data:
            pictures.append(data["image/jpeg"] if "image/jpeg" in data else _jpeg(data["image/png"]))
    return pictures


def _jpeg(picture: str) -> str:
    """A PNG (base64) as a JPEG of at most `WIDE` pixels across."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as file:
        image, smaller = file.convert("RGB"), io.BytesIO()
        image.thumbnail((WIDE, image.height))
        image.save(smaller, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


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


def _split_style(page: str) -> tuple[str, str]:
    """A page that asks for its style, and the style: it is most of a page, and the same for all of them."""
    head, body = page.split("</head>", 1)
    style = "\n".join(STYLE_BLOCK.findall(head))
    link = f'<link rel="stylesheet" href="{STYLE}">'
    return f"{STYLE_BLOCK.sub('', head)}{link}\n</head>{body}", style


def _mark(path: Path) -> str | None:
    return nbformat.read(path, as_version=4).metadata.get("fusionlib", {}).get("executed")
