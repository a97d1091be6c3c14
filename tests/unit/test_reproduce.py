"""Notebooks run headless: in order, once, each whole or not at all; what is wrong is told before anything runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fusionlib.reproduce import reproduce as reproduce_module
from fusionlib.reproduce.execute import ThisInterpreter
from fusionlib.reproduce.notebooks import checked_parameters, choose, find_notebooks, in_order
from fusionlib.reproduce.reproduce import Run, reproduce
from fusionlib.support.files import InputError

HEAD = 'preset: str = "paper"  # size\nseed: int = 5  # of all\n'


def write(folder: Path, name: str, *cells: str, needs: tuple[str, ...] = (), head: str = HEAD) -> None:
    folder.mkdir(exist_ok=True)
    cells = [new_code_cell(head, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel} | ({"fusionlib": {"needs": list(needs)}} if needs else {})
    content = new_notebook(cells=[new_markdown_cell(f"# {name}"), *cells], metadata=metadata)
    nbformat.write(content, folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Notebooks: 00 reads what 03 writes, 05 fails unless its divisor is changed, 06 needs it."""
    notebooks = tmp_path / "notebooks"
    head = f'{HEAD}results: str = "../results"  # root\n'
    path = "import pathlib, sys\npath = pathlib.Path(results, preset, 'made.txt')"
    write(notebooks, "00_reads", path, "print(sys.executable, path.read_text())", needs=("03",), head=head)
    head += "retrain: bool = False  # anew\n"
    write(notebooks, "03_writes", path, "path.write_text(f'{preset} {seed} {retrain}')", head=head)
    head = f"{HEAD}divisor: float = 0  # of one\n"
    write(notebooks, "05_fails", "before = 1", "print(1 / divisor)", "after = 1", head=head)
    write(notebooks, "06_needs_it", needs=("05",))
    return notebooks


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_runs_in_order_and_only_what_changed(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproduce_module.parallel, "code_and_facts", lambda *_: "code")  # it may be edited
    results = tmp_path / "results"
    (results / "smoke").mkdir(parents=True)
    told: list[str] = []
    kept = results / "smoke" / "notebooks"

    def run(*numbers: str, **options: object) -> tuple[int, list[str]]:
        status = reproduce(numbers, jobs=2, seed=1, results=results, folder=folder, **options)
        told.append(capsys.readouterr().out)
        return status, [" ".join(line.split()[:2]) for line in told[-1].splitlines()]

    # The failing notebook is told and kept apart, what needs it is left out, the others are run in their order.
    status, lines = run()
    assert status == 1 and "Correct what failed, and the same command goes on from here." in told[0]
    assert [line for line in lines if line.split(" ")[0] in ("00_reads", "03_writes")] == [
        "03_writes started", "03_writes ok", "00_reads started", "00_reads ok",
    ]  # fmt: skip
    assert {"05_fails failed", "06_needs_it not"} <= set(lines)
    assert f"In [4]: ZeroDivisionError: division by zero (see {kept / '05_fails.failed.ipynb'})" in told[0]
    assert outputs(kept / "00_reads.ipynb") == f"{sys.executable} smoke 1 False\n"
    assert sorted(path.name for path in kept.iterdir()) == [
        "00_reads.html", "00_reads.ipynb", "03_writes.html", "03_writes.ipynb", "05_fails.failed.ipynb",
    ]  # fmt: skip
    assert str(tmp_path) not in (kept / "03_writes.ipynb").read_text()

    provenance = json.loads((results / "smoke" / "provenance.json").read_text())
    assert provenance["preset"]["name"] == "smoke" and provenance["packages"]["torch"] and provenance["seed"] == 1
    assert provenance["notebooks"].keys() == {"00_reads", "03_writes"}
    assert provenance["notebooks"]["03_writes"]["parameters"]["retrain"] is False
    assert (results / "smoke" / "README.md").exists() and not (results / "README.md").exists()
    index = (results / "smoke" / "index.html").read_text()
    assert 'href="notebooks/03_writes.html"' in index and 'href="notebooks/05_fails.failed.ipynb"' in index

    # Nothing changed: nothing runs.
    status, lines = run("0", "03")
    assert status == 0 and lines[:2] == ["03_writes up", "00_reads up"]
    ending = told[-1].splitlines()[2:]
    assert len(ending) <= 12 and "Preset smoke: 2 of 2 notebooks are run and up to date" in ending[1]
    assert any(line.startswith("What came out on real pairs") for line in ending)
    assert any(line.strip().startswith(str(results / "smoke" / "index.html")) for line in ending)

    # Unless it is asked for.
    status, lines = run("00", "03", force=True)
    assert status == 0 and lines[:4] == ["03_writes started", "03_writes ok", "00_reads started", "00_reads ok"]

    # Another parameter runs the one that knows it, and its failed copy goes.
    status, lines = run("00", "03", "05", parameters={"divisor": np.float64(4)})
    assert status == 0
    assert {"03_writes up", "00_reads up", "05_fails ok"} <= set(lines)
    assert outputs(kept / "05_fails.ipynb") == "0.25\n"
    assert not (kept / "05_fails.failed.ipynb").exists()
    notebooks = json.loads((results / "smoke" / "provenance.json").read_text())["notebooks"]
    assert notebooks.keys() == {"00_reads", "03_writes", "05_fails"}

    # A newer result of 03, as a training anew leaves it, outdates what needs it; what takes too long keeps the old one.
    os.utime(kept / "03_writes.ipynb")
    before = (kept / "00_reads.ipynb").read_bytes()
    assert run("0", "3", timeout=0.0001)[1][:3] == ["03_writes up", "00_reads started", "00_reads failed"]
    assert (kept / "00_reads.ipynb").read_bytes() == before


def test_what_follows_others_runs_after_them_even_if_they_fail(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    write(folder, "04_fails", "1 / 0")
    write(folder, "05_writes", "made = 1")
    write(folder, "12_reads", "read = 1")
    path = folder / "12_reads.ipynb"
    content = nbformat.read(path, as_version=4)
    content.metadata["fusionlib"] = {"follows": ["04", "05"]}
    nbformat.write(content, path)
    run = {"results": tmp_path / "results", "folder": folder}
    assert reproduce(**run, jobs=3) == 1
    told = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert told.index(["12_reads", "started"]) > max(
        told.index(["04_fails", "failed"]), told.index(["05_writes", "ok"])
    )
    assert ["12_reads", "ok"] in told

    assert reproduce(["12"], **run) == 0 and "12_reads  up to date" in capsys.readouterr().out
    os.utime(tmp_path / "results" / "smoke" / "notebooks" / "05_writes.ipynb")
    assert reproduce(["12"], **run) == 0 and "12_reads  ok" in capsys.readouterr().out  # it has something new to read
    everything = find_notebooks(folder)
    assert [each.number for each in in_order(choose(everything, ["12", "05"]), everything)] == ["05", "12"]


def test_tasks_of_a_notebook_are_told_while_it_runs(tmp_path, capsys):
    cells = "from fusionlib.support import parallel", "list(parallel.spread(len, {'one': 'a', 'two': 'b'}))"
    write(tmp_path / "notebooks", "07_spreads", *cells)
    assert reproduce(results=tmp_path / "results", folder=tmp_path / "notebooks") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "07_spreads  started"
    assert re.fullmatch(r"07_spreads  one: .+; 1/2, about .+ left", lines[1])
    assert re.fullmatch(r"07_spreads  two: .+; 2/2, about 0 s left", lines[2])
    assert lines[3].startswith("07_spreads  ok")


def test_fingerprint_tells_apart_what_makes_a_result(folder, tmp_path):
    notebook = find_notebooks(folder)["03"]
    settings = {"preset": "smoke", "seed": 0, "retrain": False, "divisor": 1}  # 03 knows no divisor
    run = Run("smoke", 0, settings, False, {"03": "code"}, tmp_path, {}, None)
    mark = run.fingerprint(notebook)
    assert replace(run, settings=settings | {"retrain": True, "divisor": 2}).fingerprint(notebook) == mark
    other_seed = replace(run, settings=settings | {"seed": 1}).fingerprint(notebook)
    other_notebook = run.fingerprint(replace(notebook, cells=(*notebook.cells, ("code", "1"))))
    other_code = replace(run, code={"03": "other code"}).fingerprint(notebook)
    assert len({mark, other_seed, other_notebook, other_code}) == 4


def test_interrupt_stops_the_children_and_leaves_nothing_half(folder, tmp_path, capsys, monkeypatch):
    children, start = [], asyncio.create_subprocess_exec

    async def watched(*command: str, **options: object) -> asyncio.subprocess.Process:
        children.append(await start(*command, **options))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return children[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    # A shell starts background jobs with SIGINT ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert reproduce(["03"], results=tmp_path / "results", folder=folder) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert [child.returncode for child in children] == [-signal.SIGKILL]
    assert "Stopped; finished notebooks are kept" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "Unknown preset 'huge'"),
        ({"numbers": ["07"]}, "no notebook '07'; choose from 00, 03, 05, 06"),
        (
            {"parameters": {"divisr": 1}},
            "None of the chosen notebooks has a parameter 'divisr'; there are divisor, preset",
        ),
        ({"parameters": {"divisor": "big"}}, "'divisor' must be of type float, not 'big'"),
        ({"parameters": {"seed": 3}}, "give --seed instead of -p seed"),
        ({"jobs": 0}, "0 notebooks at a time"),
        ({"folder": "nowhere"}, "no notebooks NN_name.ipynb"),
    ],
)
def test_mistakes_are_told_before_anything_runs(folder, tmp_path, capsys, options, message):
    with pytest.raises(InputError, match=message):
        reproduce(**{"folder": folder, "results": tmp_path / "results"} | options)
    assert not (tmp_path / "results").exists() and capsys.readouterr().out == ""


def test_order_puts_first_what_others_need(tmp_path):
    for name, needs in {"00_a": ("03",), "01_b": (), "03_c": ("07",), "07_d": ()}.items():
        write(tmp_path, name, needs=needs)
    everything = find_notebooks(tmp_path)

    def order(*numbers: str) -> list[str]:
        return [each.number for each in in_order(choose(everything, numbers), everything)]

    assert order() == ["07", "01", "03", "00"]
    assert order("3", "00_a", "0") == ["03", "00"]
    write(tmp_path, "03b_e", needs=("03",))
    write(tmp_path, "03_c-Copy1")  # as JupyterLab names a copy: not one of ours
    everything = find_notebooks(tmp_path)
    assert list(everything) == ["00", "01", "03", "03b", "07"] and order() == ["07", "01", "03", "00", "03b"]
    assert order("3b") == order("03b") == order("03b_e") == ["03b"]

    write(tmp_path, "07_d", needs=("00",))
    everything = find_notebooks(tmp_path)
    with pytest.raises(InputError, match="need each other"):
        order()
    write(tmp_path, "07_d", needs=("99",))
    everything = find_notebooks(tmp_path)
    with pytest.raises(InputError, match="07_d needs notebook '99'"):
        order()


def test_parameters_become_what_papermill_can_pass_on(tmp_path):
    write(
        tmp_path, "00_a", head="name: str = ''  # n\nsteps: int = 1  # s\nsizes: list = []  # s\non: bool = False  # o"
    )
    chosen = list(find_notebooks(tmp_path).values())
    given = {"name": 12, "steps": np.int64(3), "sizes": (1, 2), "on": True}
    assert checked_parameters(given, chosen) == {"name": "12", "steps": 3, "sizes": [1, 2], "on": True}
    for wrong in ({"steps": True}, {"steps": 1.5}, {"on": 1}):
        with pytest.raises(InputError, match="must be of type"):
            checked_parameters(wrong, chosen)


def test_kernel_is_this_interpreter_and_needs_no_port(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.sep)
    manager = ThisInterpreter(kernel_name="python3")
    assert manager.kernel_spec.argv[0] == sys.executable
    assert manager.transport == ("ipc" if os.name == "posix" else "tcp")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ("deep" * 20)))
    assert ThisInterpreter(kernel_name="python3").transport == "tcp"
