"""The page that lists executed notebooks: whole without a network, and true to what lies beside it."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pandas as pd
import pytest
from nbformat import v4
from PIL import Image

from fusionlib.report import findings
from fusionlib.report.index_page import first_figure, write_index
from fusionlib.support.paths import SHIPPED


class Page(HTMLParser):
    """Links, images and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.images, self.text, self.open = [], [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.links += [found["href"]] if "href" in found else []
        self.images += [found["src"]] if "src" in found else []

    def handle_data(self, data: str) -> None:
        self.text += data


def picture(colour: str, mode: str = "RGB") -> str:
    file = io.BytesIO()
    Image.new(mode, (1000, 400), colour).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def write(folder: Path, name: str, title: str = "A title", pictures: tuple[str, ...] = (), html: bool = True) -> None:
    header = f"# {title}\n\n| | |\n|---|---|\n| **Shows** | how `x` < y, and $\\ell_{{ob}}$ |\n| **Paper** | 1 |\n"
    outputs = [v4.new_output("stream", text="hello")]
    outputs += [v4.new_output("display_data", {"image/png": each, "text/plain": ""}) for each in pictures]
    cell = v4.new_code_cell("1", outputs=outputs)
    folder = folder / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell(header), cell]), folder / f"{name}.ipynb")
    if html:
        (folder / f"{name}.html").write_text("<html></html>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "smoke"
    write(folder, "00_start", "00 · Start <here>", (picture("red"), picture("blue")))
    write(folder, "01_next", "01 · Next")
    (folder / "tables").mkdir()
    (folder / "tables" / "table1.csv").write_text("a\n1\n")
    facts = {"00_start": {"seconds": 90.0, "date": "2025-01-02T03:04:05"}, "01_next": {"seconds": 30.0}}
    (folder / "provenance.json").write_text(json.dumps({"cores": 2, "gpu": None, "notebooks": facts}))
    return folder


def test_everything_that_is_linked_is_there_and_nothing_is_elsewhere(folder):
    page = Page(write_index(folder))
    assert {"notebooks/00_start.html", "notebooks/01_next.ipynb", "tables/table1.csv"} <= set(page.links)
    for link in page.links:
        assert not urlparse(link).scheme and (folder / link).exists()
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "http" not in text and "<script" not in text


def test_titles_minutes_and_what_is_shown(folder):
    text = Page(write_index(folder)).text
    assert "00 · Start <here>" in text and "1.5 minutes, 2025-01-02" in text and "0.5 minutes" in text
    assert "2 notebooks, whose minutes add up to 2, on 2 cores, no GPU" in text
    assert "how x < y, and ℓob" in text


def test_smoke_tells_its_own_numbers_apart_from_those_of_real_pairs(folder, tmp_path):
    real = "On real pairs, with the weights and tables that come with the repository"
    assert real not in Page(write_index(folder)).text  # it has measured nothing
    rows = [(m, "synthetic", "medium", p, n, v) for m, v in (("ours", 0.25), ("average", 1.0)) for p in "ab"
            for n in ("EPE", "EPE_share", "Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM")]  # fmt: skip
    rows += [("bound", "synthetic", "medium", p, "Q_CC", 1.0) for p in "ab"]
    table = pd.DataFrame(rows, columns=["method", "dataset", "level", "pair", "metric", "value"])
    table.to_csv(folder / "tables" / "test_pairs.csv", index=False)
    page = Page(write_index(folder))
    text = " ".join(page.text.split())
    assert real in text and "2 drawn scenes, deformed at the level medium" in text
    written = (folder / "index.html").read_text(encoding="utf-8")
    assert "<td>ours</td><td>25 %</td><td>0.250</td>" in written and "<td>average</td><td>100 %</td>" in written
    assert "<td>bound</td>" not in written
    for each in findings.findings(SHIPPED.folder):
        assert each.text.split("**")[1] in text and all(f"notebook {number}" in text for number in each.notebooks)

    write(tmp_path / "mini", "00_start")
    (tmp_path / "mini" / "tables").mkdir()
    table.to_csv(tmp_path / "mini" / "tables" / "test_pairs.csv", index=False)
    assert "drawn scenes, deformed" not in Page(write_index(tmp_path / "mini")).text


def test_the_head_is_the_fused_scene_else_the_shipped_one(folder):
    shipped = Page(write_index(folder)).images[0]
    (folder / "figures").mkdir()
    (folder / "figures" / "drawn_scene.png").write_bytes(base64.b64decode(picture("green")))
    own = Page(write_index(folder)).images[0]
    assert own != shipped
    with Image.open(io.BytesIO(base64.b64decode(own.split(",")[1]))) as shown:
        assert shown.size == (1000, 400)


def test_the_thumbnail_is_the_first_figure_made_small(folder):
    _, image = Page(write_index(folder)).images  # the scene at the head; the other notebook has none
    with Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))) as small:
        assert small.size == (420, 168) and small.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_what_is_transparent_becomes_white(folder):
    write(folder, "02_clear", "02", (picture("#00000000", "RGBA"),))
    image = Page(write_index(folder)).images[2]
    with Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))) as small:
        assert small.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_a_failed_run_is_told_beside_what_an_earlier_one_left(folder):
    write(folder, "01_next.failed", "01 · Next", html=False)
    write(folder, "05_new.failed", "05 · New", html=False)
    page = Page(write_index(folder))
    assert page.text.count("the last run failed") == 2 and "3 notebooks" in page.text
    assert {"notebooks/01_next.html", "notebooks/01_next.failed.ipynb", "notebooks/05_new.failed.ipynb"} <= set(
        page.links
    )
    assert "notebooks/05_new.html" not in page.links


def test_without_any_run_the_page_says_so(tmp_path):
    assert "No notebook has been run yet." in Page(write_index(tmp_path / "mini")).text


def test_first_figure_of_a_notebook_without_figures():
    assert first_figure(v4.new_notebook(cells=[v4.new_code_cell("1"), v4.new_markdown_cell("x")])) is None
