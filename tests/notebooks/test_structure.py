"""Every notebook opens, runs and closes alike: readers, papermill and nbval find things where they expect them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from fusionlib.support.paths import notebook_number

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
CHECKED = "nbval-check-output"
MAGIC = "%matplotlib inline"  # the only line that is not Python
# One parameter a line: its name, its type (papermill shows it as help), a literal, and what it means.
PARAMETER = re.compile(r"[a-z]\w*: [\w.\[\], |]+ = .+  # \S.*")
# `/home/...`, `~/...` or `C:\Users`, but neither the path of a URL, nor a closing HTML tag, nor `<preset>/tables`.
ABSOLUTE_PATH = re.compile(r"(?<![\w/:.<>)\]}])(?:/\w[\w.-]*/|~/\w)|\b[A-Z]:\\+Users")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def without_magic(cell: NotebookNode) -> str:
    return "\n".join(line for line in cell.source.splitlines() if line != MAGIC)


def parameters(notebook: NotebookNode) -> NotebookNode:
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    return cell


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Sources and text outputs, everything that a reader reads."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


# --- the set


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4


def test_numbers_are_unique():
    numbers = [notebook_number(path.stem) for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers))


# --- the file


def test_name_is_a_number_and_a_slug(path):
    assert notebook_number(path.stem) and re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", path.stem)


def test_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size < 2**20


def test_runs_on_any_python_kernel(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_keeps_no_trace_of_a_run(notebook):
    assert {"widgets", "papermill"}.isdisjoint(notebook.metadata)
    assert [cell.id for cell in notebook.cells if {"papermill", "execution"} & set(cell.metadata)] == []


def test_has_no_absolute_path(notebook):
    assert [found[0] for text in texts(notebook) for found in ABSOLUTE_PATH.finditer(text)] == []


# --- the code


def test_parameters_are_annotated_and_explained(notebook):
    source = parameters(notebook).source
    assert [line for line in source.splitlines() if not PARAMETER.fullmatch(line)] == []
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    assert values["preset"] == "smoke"  # what nbval runs, as it stands
    assert isinstance(values["seed"], int)


def test_cells_are_short_and_plain_python(notebook):
    assert [cell.id for cell in code_cells(notebook) if len(cell.source.splitlines()) > 25] == []
    for cell in code_cells(notebook):
        ast.parse(without_magic(cell))  # a magic, a shell escape or a trailing `?` is a SyntaxError


def test_no_cell_is_skipped_or_let_off(notebook):
    let_off = {"nbval-skip", "nbval-ignore-output", "nbval-raises-exception", "raises-exception", "skip-execution"}
    assert [cell.id for cell in code_cells(notebook) if tags(cell) & let_off] == []


def test_checked_cells_keep_their_output_and_others_none(notebook):
    """nbval passes a checked cell without output or count unseen; nbstripout leaves both only under `keep_output`."""
    checked = [cell for cell in code_cells(notebook) if CHECKED in tags(cell)]
    assert checked
    assert [
        cell.id for cell in checked if not (cell.outputs and cell.execution_count and "keep_output" in tags(cell))
    ] == []
    assert [cell.id for cell in code_cells(notebook) if CHECKED not in tags(cell) and cell.outputs] == []


# --- the way through


def test_links_to_other_notebooks_lead_there(path, notebook):
    linked = {name for text in texts(notebook) for name in re.findall(r"""[("](\w+\.ipynb)""", text)}
    assert [name for name in sorted(linked) if not (path.parent / name).exists()] == []


def test_sections_are_numbered_without_a_gap(notebook):
    headings = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\.", headings, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


# --- the opening and the close


def test_opens_with_what_a_reader_asks_first(notebook):
    first_code = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    header = "\n".join(cell.source for cell in notebook.cells[:first_code])
    assert re.match(r"# \S", notebook.cells[0].source)
    assert [word for word in ("Shows", "Paper", "Inputs", "Outputs", "Minutes") if word not in header] == []


def test_closes_with_a_summary_and_three_exercises(notebook):
    last_code = max(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    close = "\n".join(cell.source for cell in notebook.cells[last_code + 1 :])
    assert [word for word in ("What to remember", "Exercises") if word not in close] == []
    assert close.count("<details>") == close.count("</details>") == 3
