"""results/<preset>/index.html: what was run, what came out, and the executed notebooks; opened from the disk.

The page holds all it shows, pictures included, and links to what lies beside it by relative paths.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from markupsafe import Markup
from nbformat import NotebookNode
from PIL import Image

from fusionlib import presets
from fusionlib.experiments import evaluation
from fusionlib.experiments.comparison import IMAGE_METRICS
from fusionlib.report import our_numbers, pages, web
from fusionlib.support import result_tables
from fusionlib.support.files import write_text
from fusionlib.support.paths import SHIPPED

THUMBNAIL, SCENE = (420, 260), (1800, 600)  # pixels, twice of what is shown, for fine screens
FAILED = ".failed"
PICTURE = "drawn_scene.png"  # among the figures of a preset


@dataclass(frozen=True)
class OwnMeans:
    """What a run in `smoke` has measured itself: a table, over so many drawn scenes, at a level of deformation."""

    scenes: int
    level: str
    means: pd.DataFrame

    @property
    def columns(self) -> list[str]:
        return ["method", *self.means.columns]

    @property
    def rows(self) -> list[list[str]]:
        digits = {"left": ".0%", "Q_CV": ".0f"}
        return [
            [name, *(format(value, digits.get(column, ".3f")).replace("%", " %") for column, value in line.items())]
            for name, line in self.means.iterrows()
        ]


def own_numbers(folder: Path | str) -> OwnMeans | None:
    """The means of the test scenes in `folder`, that of a preset, by method; None if there are none."""
    path = Path(folder) / "tables" / our_numbers.TEST_PAIRS
    table = result_tables.read(path)
    if table.empty:
        return None
    table = table[table["level"] == table["level"].iloc[0]]
    level, means = table["level"].iloc[0], evaluation.summary(table, ["EPE_share", *IMAGE_METRICS])
    means = means.loc[(means.index[-1][0], level)].rename(columns={"EPE_share": "left"}).dropna()
    return OwnMeans(table.drop_duplicates(["dataset", "pair"]).shape[0], level, means)


def write_index(folder: Path | str) -> Path:
    """Write index.html into `folder`, which is results/<preset>, of the notebooks that were run; return its path.

    A card a notebook: its first figure, title, what it shows, minutes, and links to the page and the notebook. One that
    failed last time says so, and links to what an earlier run has left.
    """
    folder = Path(folder)
    names = {path.name.removesuffix(".ipynb").removesuffix(FAILED) for path in folder.glob("notebooks/*.ipynb")}
    provenance_path = folder / "provenance.json"
    provenance = json.loads(provenance_path.read_text(encoding="utf-8")) if provenance_path.exists() else {}
    cards = [_card(folder / "notebooks", name, provenance.get("notebooks", {}).get(name, {})) for name in sorted(names)]
    config = presets.load(folder.name)
    shown = SHIPPED.folder if config.shows_shipped else folder
    page = web.render(
        "index.html.j2",
        title=f"Results of the preset {folder.name}",
        preset=folder.name,
        warning=web.line(config.warning),
        scene=_picture(folder, shown),
        ran=_run_text(cards, provenance),
        own=own_numbers(folder) if config.shows_shipped else None,
        came_out="" if config.warning else _findings_html(shown, folder),
        page="../README.md" if (folder.parent / "README.md").exists() else "",
        cards=cards,
        tables=[(f"tables/{path.name}", path.stem) for path in sorted(folder.glob("tables/*.csv"))],
    )
    return write_text(folder / "index.html", page)


def _run_text(cards: list[dict], provenance: dict) -> str:
    if not cards:
        return "No notebook has been run yet."
    minutes = sum(card["seconds"] for card in cards) / 60
    failed = sum(card["failed"] for card in cards)
    machine = f"{provenance.get('cores', '?')} cores, {provenance.get('gpu') or 'no GPU'}"
    text = f"{len(cards)} notebooks, whose minutes add up to {minutes:.0f}, on {machine}"
    return text + (f"; the last run of {failed} of them failed." if failed else ".")


def _findings_html(source: Path, folder: Path) -> Markup:
    """The findings of the preset in `source`, linked to the pages in `folder`."""
    text = pages.findings_text(
        source, folder, {path.name.partition("_")[0]: path for path in folder.glob("notebooks/*.html")}
    )
    return web.markdown(text) if text else Markup("")


def _card(folder: Path, name: str, run: dict) -> dict:
    """One notebook of `folder` as an entry of the list; `run` is what provenance.json says of it."""
    executed, failed, page = folder / f"{name}.ipynb", folder / f"{name}{FAILED}.ipynb", folder / f"{name}.html"
    content = nbformat.read(executed if executed.exists() else failed, as_version=4)
    title, shows = opening(content)
    figure = first_figure(content)
    files = ((page, "read"), (executed, "notebook"), (failed, "failed run"))
    return {
        "name": name,
        "title": web.line(title),
        "shows": web.line(shows),
        "figure": figure and _data_uri(figure, THUMBNAIL),
        "page": f"{folder.name}/{page.name}" if page.exists() else "",
        "failed": failed.exists(),
        "seconds": run.get("seconds", 0.0),
        "took": f"{run['seconds'] / 60:.1f} minutes, {str(run.get('date', ''))[:10]}" if "seconds" in run else "",
        "links": [(f"{folder.name}/{path.name}", text) for path, text in files if path.exists()],
    }


def opening(content: NotebookNode) -> tuple[str, str]:
    """Title and "Shows" of a notebook, as Markdown."""
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    title = re.search(r"^# +(.+)$", text, re.MULTILINE)
    shows = re.search(r"^\| \*\*Shows\*\* \| (.+?) \|$", text, re.MULTILINE)
    return tuple(match[1] if match else "" for match in (title, shows))


def first_figure(content: NotebookNode) -> bytes | None:
    """The first PNG among a notebook's outputs."""
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    pictures = (output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    first = next(pictures, None)
    return None if first is None else base64.b64decode(first)


def _picture(*folders: Path) -> str:
    """The fused drawn scene of the first preset that has it."""
    path = next(filter(Path.exists, (folder / "figures" / PICTURE for folder in folders)), None)
    return "" if path is None else _data_uri(path.read_bytes(), SCENE)


def _data_uri(figure: bytes, size: tuple[int, int]) -> str:
    """A picture made no larger than `size`, as an address that holds it."""
    with Image.open(io.BytesIO(figure)) as file:
        picture = file.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    white.thumbnail(size)
    small = io.BytesIO()
    white.convert("RGB").save(small, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()
