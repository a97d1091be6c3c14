"""What is written of an executed notebook: pictures where a reader without a kernel would look for controls."""

from __future__ import annotations

import nbformat
from nbformat import v4

from fusionlib.reproduce.execute import execute

VIEW = "application/vnd.jupyter.widget-view+json"
EXPLORER = """from matplotlib.figure import Figure
from fusionlib.notebook import widgets
widgets.Explorer(lambda x: Figure(figsize=(x, 1)), x=widgets.slider('a slider', 1, 1, 3, 1))"""
LABEL = "import ipywidgets\nipywidgets.Label('no picture')"


def executed(tmp_path, *cells: str) -> tuple[nbformat.NotebookNode, str]:
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "00_widgets.ipynb")
    folder = tmp_path / "made"
    folder.mkdir()
    assert execute(tmp_path / "00_widgets.ipynb", {}, folder) == {"error": None}
    html = (folder / "00_widgets.html").read_text(encoding="utf-8")
    return nbformat.read(folder / "00_widgets.ipynb", as_version=4), html


def test_an_explorer_leaves_its_picture_and_a_widget_without_one_stays(tmp_path):
    content, html = executed(tmp_path, EXPLORER)
    (output,) = content.cells[0].outputs
    assert "image/png" in output.data and VIEW not in output.data and "widgets" not in content.metadata
    assert html.count('src="data:image/png;base64,') == 1 and VIEW not in html

    (tmp_path / "both").mkdir()
    content, _ = executed(tmp_path / "both", EXPLORER, LABEL)
    assert [VIEW in cell.outputs[0].data for cell in content.cells] == [False, True]
    assert content.metadata.widgets
