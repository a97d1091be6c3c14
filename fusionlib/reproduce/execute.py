"""Execute one notebook; `reproduce` starts a process of its own with this module for each.

The kernel is this very interpreter, whatever kernels the user has installed, and is spoken to through files, not ports:
parallel runs then cannot take each other's port.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from fusionlib import presets
from fusionlib.report import web

KERNEL = "python3"  # the only name that every notebook may ask for
START_TIMEOUT = 120  # seconds for a kernel to come up, on a busy machine too
SAVED_EVERY = 10  # seconds
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # how terminals are told a colour
SOCKET_PATH = 103  # bytes; macOS has the least room for the path of a socket (Linux: 107)


def without_ports() -> dict[str, str]:
    """Settings of a kernel manager whose sockets are files in JUPYTER_RUNTIME_DIR; none if its path is too long."""
    connection = Path(jupyter_runtime_dir(), f"{secrets.token_hex(4)}.json")
    connection.parent.mkdir(parents=True, exist_ok=True)
    if os.name != "posix" or len(os.fsencode(connection)) + len("-ipc-5") > SOCKET_PATH:
        return {}
    return {"transport": "ipc", "connection_file": str(connection)}


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with `sys.executable`."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**without_ports() | settings)

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class SavesSeldom(NBClientEngine):
    """papermill's engine, which else writes the whole notebook before and after each cell, with all pictures so far."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **settings: object) -> None:
        save_now, last = nb_man.save, time.monotonic()

        def save(**facts: object) -> None:
            nonlocal last
            if time.monotonic() - last > SAVED_EVERY:
                save_now(**facts)
                last = time.monotonic()

        nb_man.save = save
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **settings)
        finally:
            nb_man.save = save_now  # the end is saved in any case


papermill_engines.register("seldom", SavesSeldom)


def execute(notebook: Path, parameters: dict[str, object], folder: Path) -> dict[str, str | None]:
    """Execute a notebook where it lies; put it with its outputs and, if all went well, its HTML into `folder`.

    Returns:
        `error`: None, or a line with the cell's number and what it raised.
    """
    executed = folder / notebook.name
    error = None
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters,
            engine_name="seldom",
            kernel_name=KERNEL,
            progress_bar=False,
            start_timeout=START_TIMEOUT,
            cwd=notebook.parent,
            kernel_manager_class=ThisInterpreter,
        )
    except PapermillExecutionError as failure:
        plain = COLOUR.sub("", failure.evalue).strip() or "no message"
        error = f"In [{failure.exec_count}]: {failure.ename}: {plain}".splitlines()[0].strip()
    if error is None:
        content = nbformat.read(executed, as_version=4)
        content.metadata.pop("papermill", None)  # paths of this machine
        _remove_widgets(content)
        if "preset" in parameters and (warning := presets.load(str(parameters["preset"])).warning):
            content.cells.insert(0, nbformat.v4.new_markdown_cell(warning))
        nbformat.write(content, executed)
        executed.with_suffix(".html").write_text(web.notebook_page(content, notebook.stem), encoding="utf-8")
    return {"error": error}


def _remove_widgets(content: nbformat.NotebookNode) -> None:
    """Keep only the picture of each output that is a widget with a picture (`fusionlib.notebook.widgets`).

    What is written has no kernel, so its controls would not answer; a page would look for their scripts in the network.
    """
    views, models = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
    outputs = [output.data for cell in content.cells for output in cell.get("outputs", []) if "data" in output]
    for data in outputs:
        if "image/png" in data:
            data.pop(views, None)
    if not any(views in data for data in outputs):
        content.metadata.get("widgets", {}).pop(models, None)
    if not content.metadata.get("widgets"):
        content.metadata.pop("widgets", None)


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent has gone, however that happened; the kernel does the same towards this one."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    threading.Thread(target=_exit_with_parent, args=(job["parent"],), daemon=True).start()
    notebook, folder = Path(job["notebook"]), Path(job["folder"])
    outcome = execute(notebook, job["parameters"], folder)
    (folder / f"{notebook.stem}.json").write_text(json.dumps(outcome), encoding="utf-8")
