"""What is passed on of an executed notebook: its charts, tables and text, and nobody else's images."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import v4
from PIL import Image

from fusionlib import data
from fusionlib.report import shipped
from fusionlib.report.shipped import INSTEAD, ship, without_pictures

CHART = 'reporting.write_figure(figure, kept, "curves")\nplt.show()'
PHOTOGRAPHS = 'reporting.write_figure(figure, kept, "fused_table1")\nplt.show()'
SHIPPED = sorted((data.ROOT / "results").glob(f"*/{shipped.FOLDER}/*.ipynb"))


def picture(side: int = 8) -> str:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shown(source: str, *data_of_each: dict, streams: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    outputs = [v4.new_output("display_data", each) for each in data_of_each]
    outputs += [v4.new_output("stream", name=name, text="said") for name in streams]
    cell = v4.new_code_cell(source, outputs=outputs, metadata={"tags": ["a"], "execution": {"busy": "now"}})
    return v4.new_notebook(cells=[v4.new_markdown_cell("# 00 · A title"), cell], metadata={"widgets": {"state": {}}})


@pytest.mark.parametrize("root", ["/data", ".", "data", "/somebody/images"])
def test_paths_of_this_machine_get_a_name_and_nothing_else_does(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONLIB_DATA", root)
    text = f"../data/README.md fusionlib/data/sets.py 1.5 {data.ROOT}/results '/somebody/images/TNO' /somebody/images2"
    place = "$FUSIONLIB_DATA" if root == "/somebody/images" else "/somebody/images"
    expected = f"../data/README.md fusionlib/data/sets.py 1.5 ./results '{place}/TNO' /somebody/images2"
    assert shipped.without_paths(text) == expected


def outputs(content: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return without_pictures(content).cells[1].outputs


def test_a_chart_stays_and_a_picture_goes() -> None:
    png = {"image/png": picture(), "text/plain": "<Figure>"}
    assert outputs(shown(CHART, png))[0].data["image/png"] == png["image/png"]
    for source in (PHOTOGRAPHS, CHART + "\n" + PHOTOGRAPHS, "plt.show()", 'name = "curves"'):
        (found,) = outputs(shown(source, png))
        assert found.data == {"text/plain": INSTEAD}


@pytest.mark.parametrize(
    "hidden", [{"image/jpeg": "x"}, {"image/svg+xml": "<svg/>"}, {"text/html": '<img src="data:image/png;base64,x">'}]
)
def test_a_picture_hides_in_no_other_form(hidden: dict) -> None:
    assert outputs(shown("show()", hidden))[0].data == {"text/plain": INSTEAD}


def test_a_chart_of_another_form_than_png_is_no_reason_to_stop() -> None:
    source = 'reporting.write_figure(figure, kept, "curves")'
    (output,) = outputs(shown(source, {"image/jpeg": picture()}))
    assert "image/jpeg" not in output["data"]


def test_tables_stay_and_noise_goes() -> None:
    table, widget = {"text/html": "<table>"}, {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    content = shown("show()", table, widget, streams=("stdout", "stderr"))
    kept = without_pictures(content)
    assert [each.get("name", "table") for each in kept.cells[1].outputs] == ["table", "stdout"]
    assert kept.cells[1].metadata == {"tags": ["a"]} and "widgets" not in kept.metadata
    assert "execution" in content.cells[1].metadata  # the notebook that was executed stays as it is


def in_a_preset(results: Path, preset: str, *cells: nbformat.NotebookNode) -> Path:
    """An executed notebook of a preset, with these cells."""
    path = results / preset / "notebooks" / "00_start.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=list(cells)), path)
    return path


def test_drawn_scenes_stand_in_the_place_of_photographs(tmp_path: Path) -> None:
    photograph, scenes = picture(), [picture(16), picture(24)]

    def cell(name: str, source: str, *pictures: str) -> nbformat.NotebookNode:
        outputs = [v4.new_output("display_data", {"image/png": each}) for each in pictures]
        return v4.new_code_cell(source, id=name, outputs=outputs)

    photographs = [cell("two", "a()", *2 * [photograph]), cell("three", "b()", *3 * [photograph])]
    photographs += [cell("edited", "now()", photograph), cell("chart", CHART, picture(9))]
    in_a_preset(tmp_path, "mini", *photographs)
    drawn = [cell("two", "a()", *scenes), cell("three", "b()", *scenes), cell("edited", "before()", *scenes)]
    smoke = in_a_preset(tmp_path, "smoke", *drawn, cell("chart", CHART, *scenes))

    path, _ = ship(tmp_path / "mini")
    first = nbformat.read(path, as_version=4)
    found = [[next(iter(output.data)) for output in cell.outputs] for cell in first.cells]
    assert found[0] == ["text/markdown", "image/jpeg", "image/jpeg"]
    assert found[1] == [*found[0], "text/plain"]  # smoke shows one picture less
    assert found[2:] == [["text/plain"], ["image/png"]]
    assert [side(output) for output in first.cells[0].outputs[1:]] == [16, 24]
    assert photograph not in path.read_text() and first.cells[3].outputs[0].data["image/png"] == picture(9)

    smoke.unlink()  # somebody who has not run smoke keeps them
    in_a_preset(tmp_path, "mini", *photographs[:1], v4.new_code_cell("new()"))
    again = nbformat.read(ship(tmp_path / "mini")[0], as_version=4)
    assert len(again.cells) == 2 and again.cells[0].outputs == first.cells[0].outputs


def side(output: nbformat.NotebookNode) -> int:
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"]))).width


def test_a_large_chart_is_made_smaller_and_looks_the_same() -> None:
    gradient = np.tile(np.linspace(0, 255, 600, dtype=np.uint8), (600, 1))
    noisy = gradient[..., None] // 2 + np.random.default_rng(0).integers(0, 9, (600, 600, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, format="PNG")
    large = base64.b64encode(file.getvalue()).decode()
    assert len(file.getvalue()) > shipped.LARGE
    (found,) = outputs(shown(CHART, {"image/png": large}))
    smaller = base64.b64decode(found.data["image/png"])
    assert len(smaller) < 0.6 * len(file.getvalue())
    after = np.asarray(Image.open(io.BytesIO(smaller)).convert("RGB")).astype(float)
    assert np.abs(after - noisy).mean() < 6


def test_what_was_executed_once_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONLIB_DATA", "/somebody/s/data")
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "notebooks" / "00_start.ipynb"
    nbformat.write(shown('"/somebody/s/data/RoadScene"', {"image/png": picture()}), source)
    nbformat.write(shown("1 / 0"), source.with_name("01_next.failed.ipynb"))
    found = ship(tmp_path)
    assert [path.name for path in found] == ["00_start.ipynb", "00_start.html"]
    assert "somebody" not in "".join(path.read_text(encoding="utf-8") for path in found)
    assert '"$FUSIONLIB_DATA/RoadScene"' in nbformat.read(found[0], as_version=4).cells[1].source
    before = [path.stat().st_mtime_ns for path in found]
    assert [path.stat().st_mtime_ns for path in ship(tmp_path)] == before
    nbformat.write(shown("2"), source)
    assert [path.stat().st_mtime_ns for path in ship(tmp_path)] != before


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_what_is_in_the_repository_is_small_and_holds_charts_and_drawn_scenes_alone(path: Path) -> None:
    content = nbformat.read(path, as_version=4)
    again = without_pictures(content)
    assert [cell.get("outputs") for cell in again.cells] == [cell.get("outputs") for cell in content.cells]
    for each in (path, path.with_suffix(".html")):
        assert each.stat().st_size < 1_300_000
    names = {name for cell in content.cells for name in shipped.WRITES.findall(cell.source)}
    shown = [output for cell in content.cells for output in cell.get("outputs", []) if "data" in output]
    charts, drawn = ([output for output in shown if kind in output.data] for kind in ("image/png", "image/jpeg"))
    assert all(output.metadata.get("drawn") for output in drawn)
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img[^>]+src="data:image', page)) == len(charts) + len(drawn)
    assert "<style" not in page.split("</head>")[0] and f'href="{shipped.STYLE}"' in page
    assert ".jp-Notebook" in path.with_name(shipped.STYLE).read_text(encoding="utf-8")
    assert not charts or names
