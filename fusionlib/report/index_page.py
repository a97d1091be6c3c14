"""results/<preset>/index.html: the executed notebooks at a glance, to be opened from the disk, without a network.

The page holds all it shows, thumbnails included, and links to what lies beside it by relative paths.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from fusionlib.report.pages import PRESETS
from fusionlib.support.files import write_text

THUMBNAIL = (420, 260)  # pixels, twice of what is shown, for fine screens
FAILED = ".failed"
ONLY_A_PATH = """<p><strong>The numbers of this preset say nothing about any method.</strong> It trains everything
for a step or two, on drawn scenes, to prove that every notebook runs from end to end. Real numbers stand in
<code>results/README.md</code> of the repository.</p>"""

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
a { color: #0b5394 }
h1 { font-size: 1.5rem }
code { font-size: .92em }
.shelf { list-style: none; padding: 0; display: grid; gap: 1.2rem }
.shelf { grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
.shelf li { border: 1px solid #c9c9c9; border-radius: 6px; padding: .8rem; display: flex; flex-direction: column }
.shelf img, .shelf .none { width: 100%; height: 130px; object-fit: contain; background: #f4f4f4 }
.shelf h2 { font-size: 1.02rem; margin: .6rem 0 .2rem }
.shelf p { margin: .2rem 0; font-size: .9rem; flex: 1 }
.facts { color: #555; font-size: .85rem }
li.failed { border-color: #d55e00 }
li.failed strong { color: #a84800 }
"""


def write_overview(folder: Path | str) -> Path:
    """Write index.html into `folder`, which is results/<preset>, of the notebooks that were run; return its path.

    A card a notebook: its first figure, title, what it shows, minutes, and links to the page and the notebook. One that
    failed last time says so, beside what an earlier run has left.
    """
    folder = Path(folder)
    kept = folder / "provenance.json"
    provenance = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    runs = provenance.get("notebooks", {})
    names = {path.name.removesuffix(".ipynb").removesuffix(FAILED) for path in folder.glob("notebooks/*.ipynb")}
    cards = [_card(folder / "notebooks", name, runs.get(name, {})) for name in sorted(names)]
    tables = [_link(f"tables/{path.name}", path.stem) for path in sorted(folder.glob("tables/*.csv"))]
    minutes = sum(runs[name]["seconds"] for name in names if name in runs) / 60
    machine = f"{provenance.get('cores', '?')} cores, {provenance.get('gpu') or 'no GPU'}"
    title = f"Results of the preset {folder.name}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(cards)} notebooks, {minutes:.0f} minutes on {html.escape(machine)}. Sliders need a kernel: "
        "open the notebooks in JupyterLab for them.</p>"
        if cards
        else "<p>No notebook has been run yet.</p>",
        "" if folder.name in PRESETS else ONLY_A_PATH,
        f'<ul class="shelf">{"".join(cards)}</ul>',
        f"<p>Tables: {', '.join(tables)}</p>" if tables else "",
        "</body></html>\n",
    ]
    return write_text(folder / "index.html", "\n".join(filter(None, parts)))


def _card(folder: Path, name: str, run: dict) -> str:
    """One notebook of `folder` as an entry of the list; `run` is what provenance.json says of it."""
    good, failed = folder / f"{name}.ipynb", folder / f"{name}{FAILED}.ipynb"
    content = nbformat.read(good if good.exists() else failed, as_version=4)
    title, shows = _opening(content)
    figure = first_figure(content)
    alt = html.escape(f"First figure of {name}", quote=True)
    shown = f'<img src="{_thumbnail(figure)}" alt="{alt}">' if figure else '<div class="none"></div>'
    page = folder / f"{name}.html"
    links = [_link(f"{folder.name}/{name}.html", "read")] if page.exists() else []
    links += [
        _link(f"{folder.name}/{path.name}", label)
        for path, label in ((good, "notebook"), (failed, "failed run"))
        if path.exists()
    ]
    if page.exists():
        target = html.escape(f"{folder.name}/{name}.html", quote=True)
        shown, title = f'<a href="{target}" tabindex="-1">{shown}</a>', f'<a href="{target}">{title}</a>'
    took = [f"{run['seconds'] / 60:.1f} minutes, {str(run.get('date', ''))[:10]}"] if "seconds" in run else []
    facts = " · ".join([*(["<strong>the last run failed</strong>"] if failed.exists() else []), *took, *links])
    kind = ' class="failed"' if failed.exists() else ""
    return f'<li{kind}>{shown}<h2>{title}</h2><p>{shows}</p><div class="facts">{facts}</div></li>'


def first_figure(content: NotebookNode) -> bytes | None:
    """The first PNG among a notebook's outputs."""
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    found = (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    first = next(found, None)
    return None if first is None else base64.b64decode(first)


def _thumbnail(figure: bytes) -> str:
    """A picture made small, as an address that holds it."""
    with Image.open(io.BytesIO(figure)) as file:
        picture = file.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    white.thumbnail(THUMBNAIL)
    small = io.BytesIO()
    white.convert("RGB").save(small, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()


def _opening(content: NotebookNode) -> tuple[str, str]:
    """Title and "Shows" of a notebook, as HTML."""
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    title = re.search(r"^# +(.+)$", text, re.MULTILINE)
    shows = re.search(r"^\| \*\*Shows\*\* \| (.+?) \|$", text, re.MULTILINE)
    return tuple(_plain(found[1]) if found else "" for found in (title, shows))


def _plain(text: str) -> str:
    """A line of Markdown as HTML: code stays code, formulas become letters, for there is no network to typeset them."""
    text = re.sub(r"\$([^$]+)\$", lambda found: found[1].replace("\\ell", "ℓ").translate(_BARE), text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*?([^*]+)\*\*?", r"<em>\1</em>", text)


_BARE = str.maketrans("", "", "{}\\")


def _link(target: str, text: str) -> str:
    return f'<a href="{html.escape(target, quote=True)}">{html.escape(text)}</a>'
