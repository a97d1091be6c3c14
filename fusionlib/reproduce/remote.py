"""A notebook in a process of its own: here, or as the task of a worker, to which bytes go and from which bytes come.

The worker needs this library and the data, but none of the driver's folders. It works in a temporary folder of its own,
named after all that makes the result: a task that a lost worker leaves behind is taken up there by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fusionlib.support.files import fingerprint, write_bytes
from fusionlib.support.long_training import ASKED
from fusionlib.support.parallel import CLUSTER, PROGRESS
from fusionlib.support.paths import ROOT, temporary_folder
from fusionlib.support.threads import short_spin

LOGGER = logging.getLogger(__name__)
READ = ("weights", "tables", "detectors")  # folders of a preset's results that a notebook may read
NOT_READ = "sweeps"  # but not what the trainings of one have left, which only that one looks at


@dataclass(frozen=True)
class Task:
    """A notebook and what it needs.

    Attributes:
        name, content: of the notebook's file.
        parameters: of the notebook, without `results`.
        preset: the folder of the results.
        inputs: the results there are, bytes by their path below that folder.
        mark: fingerprint of notebook, parameters, code and facts.
        timeout: seconds after which the notebook counts as failed; None for no limit.
        train: long trainings have been asked for.
    """

    name: str
    content: bytes = field(repr=False)
    parameters: Mapping[str, object]
    preset: str
    inputs: Mapping[str, bytes] = field(repr=False)
    mark: str
    timeout: float | None
    train: bool = False


@dataclass(frozen=True)
class Made:
    """What a task gives: the error or None, the executed notebook and its HTML by suffix, new and changed results."""

    error: str | None
    copies: Mapping[str, bytes] = field(repr=False)
    results: Mapping[str, bytes] = field(repr=False)


def inputs(folder: Path) -> dict[str, bytes]:
    """The results below the folder of a preset that a notebook may read, by their path."""
    files = [path for kind in READ for path in sorted((folder / kind).rglob("*")) if path.is_file()]
    files = [path for path in files if not path.name.startswith(".") and NOT_READ not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run(task: Task) -> Made:
    """Run a notebook on the machine this is called on; unfinished results of an earlier try are continued."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in task.inputs.items()}
    folder = temporary_folder() / fingerprint(task.mark, digests)
    notebook, results = folder / "notebooks" / task.name, folder / "results" / task.preset
    write_bytes(notebook, task.content)
    for name, content in task.inputs.items():
        if not (results / name).exists():
            write_bytes(results / name, content)
    with tempfile.TemporaryDirectory(prefix="fusionlib-") as scratch:  # short: sockets lie in it
        executed = Path(scratch, task.name)
        error = _execute(notebook, task, Path(scratch))
        suffixes = [end for end in (".ipynb", ".html") if executed.with_suffix(end).exists()]
        copies = {end: executed.with_suffix(end).read_bytes() for end in suffixes}
    result_files = {path.relative_to(results).as_posix(): path for path in results.rglob("*") if path.is_file()}
    new_results = {
        name: path.read_bytes()
        for name, path in sorted(result_files.items())
        if not path.name.startswith(".") and (name not in digests or path.read_bytes() != task.inputs[name])
    }
    shutil.rmtree(folder)
    return Made(error, copies, new_results)


def _execute(notebook: Path, task: Task, scratch: Path) -> str | None:
    """Execute a notebook in a process of its own; return its error or None."""
    order = command(notebook, {**task.parameters, "results": "../results"}, scratch)
    log = scratch / "log"
    try:
        with log.open("wb") as stream:
            subprocess.run(
                order,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment(scratch) | ({ASKED: "1"} if task.train else {}),
                timeout=task.timeout,
            )
    except subprocess.TimeoutExpired:
        return f"took longer than {task.timeout / 60:g} min"
    return error_of(scratch / f"{notebook.stem}.json", log)


async def execute_here(
    notebook: Path,
    parameters: Mapping[str, object],
    scratch: Path,
    variables: Mapping[str, str],
    timeout: float | None,
) -> str | None:
    """Execute a notebook in a process of its own, and print what it says about its own tasks; return its error or None.

    Args:
        notebook, parameters: which, and with what.
        scratch: folder for the executed notebook, its HTML and its log.
        variables: environment of the process.
        timeout: seconds after which it counts as failed; None for no limit.
    """
    log, progress = scratch / f"{notebook.stem}.log", scratch / f"{notebook.stem}.progress"
    with log.open("wb") as stream:
        child = await asyncio.create_subprocess_exec(
            *command(notebook, parameters, scratch),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**variables, PROGRESS: str(progress)},
        )
        relay = asyncio.create_task(_relay(progress, notebook.stem))
        try:
            async with asyncio.timeout(timeout):
                await child.wait()
            return error_of(scratch / f"{notebook.stem}.json", log)
        except TimeoutError:
            return f"took longer than {timeout / 60:g} min"
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()  # the kernel sees that it has gone and ends, too
                await child.wait()
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)


async def _relay(progress: Path, name: str) -> None:
    """Log every line that is written to a file, until this is cancelled."""
    line_count = 0

    def tell() -> int:
        lines = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
        for line in lines[line_count:]:
            LOGGER.info(f"{name}  {line}")
        return len(lines)

    try:
        while True:
            line_count = tell()
            await asyncio.sleep(0.5)
    finally:
        tell()


def environment(scratch: Path | str) -> dict[str, str]:
    """Environment of a notebook's process: this library before any other, sockets in `scratch`."""
    variables = {name: value for name, value in os.environ.items() if name != CLUSTER}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), variables.get("PYTHONPATH")]))
    variables["JUPYTER_RUNTIME_DIR"] = str(scratch)
    variables |= short_spin(variables)
    if "FUSIONLIB_DATA" in variables:  # notebooks run in another folder
        variables["FUSIONLIB_DATA"] = os.path.abspath(os.path.expanduser(variables["FUSIONLIB_DATA"]))
    return variables


def command(notebook: Path, parameters: Mapping[str, object], scratch: Path) -> list[str]:
    """The command of a process that executes a notebook, and ends with the one that starts it."""
    job = {"notebook": str(notebook), "parameters": dict(parameters), "folder": str(scratch), "parent": os.getpid()}
    return [sys.executable, "-m", "fusionlib.reproduce.execute", json.dumps(job)]


def error_of(report: Path, log: Path) -> str | None:
    """The error of an executed notebook, or None: from its report, or else the last line of its log."""
    if report.exists():
        return json.loads(report.read_text(encoding="utf-8"))["error"]
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "ended without a word")
