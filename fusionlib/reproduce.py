"""Run notebooks headless: the order they need, several at once, only those that something has changed for.

A notebook whose metadata say `"fusionlib": {"needs": ["03"]}` runs after that one. What a run made is kept in
results/<preset>/notebooks, whole or not at all, with the fingerprint of what made it: the notebook, its parameters, the
code, and the committed facts about the data. As long as that stays the same, the notebook is not run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import nbformat

from fusionlib import pages, presets, provenance
from fusionlib.data import FACTS, ROOT
from fusionlib.files import InputError, atomic, code_fingerprint, fingerprint, sha256, write_text
from fusionlib.notebooks import Notebook, checked_parameters, choose, find_notebooks, in_order

# Modules that no notebook can depend on.
ABOVE_NOTEBOOKS = ("__main__", "reproduce", "execute", "notebooks", "pages", "provenance")


@dataclass(frozen=True)
class Run:
    """What holds for all notebooks of one call."""

    preset: str
    seed: int
    settings: Mapping[str, object]  # every parameter; a notebook is given those that it knows
    again: bool  # run also what is up to date
    code: str  # fingerprint of code and facts
    output: Path  # folder of the executed notebooks
    environment: Mapping[str, str]
    timeout: float | None  # minutes for one notebook

    def parameters(self, notebook: Notebook) -> dict[str, object]:
        return {name: value for name, value in self.settings.items() if name in notebook.known}

    def fingerprint(self, notebook: Notebook) -> str:
        parameters = {name: value for name, value in self.parameters(notebook).items() if name != "retrain"}
        return fingerprint(notebook.cells, parameters, self.code)

    def kept(self, notebook: Notebook, suffix: str = ".ipynb") -> Path:
        """Where a notebook's result lies: .ipynb, .html, or .failed.ipynb."""
        return self.output / f"{notebook.name}{suffix}"


def reproduce(
    numbers: Sequence[str] | None = None,
    preset: str = "smoke",
    jobs: int = 1,
    retrain: bool = False,
    seed: int = 0,
    parameters: Mapping[str, object] | None = None,
    results: Path | str = ROOT / "results",
    force: bool = False,
    timeout: float | None = None,
    folder: Path | str = ROOT / "notebooks",
) -> int:
    """Run notebooks and write what they made, provenance.json and the page of results under `results`.

    Args:
        numbers: of the notebooks, such as "03"; None for all.
        preset: smoke, mini or paper.
        jobs: how many run side by side.
        retrain: train also where weights are kept; implies `force`.
        seed: of everything random.
        parameters: further parameters of the notebooks, each given to those that know it.
        results: root of the results.
        force: run also what is up to date.
        timeout: minutes after which a notebook counts as failed; None for no limit.
        folder: where the notebooks are.

    Returns:
        Exit status: 0 if every chosen notebook has an up-to-date result, 1 if one failed, 130 if interrupted.

    Raises:
        InputError: an unknown preset, number or parameter, or notebooks that need each other; nothing has run then.
    """
    config, folder, results = presets.load(preset, seed), Path(folder).resolve(), Path(results).resolve()
    if jobs < 1:
        raise InputError(f"{jobs} notebooks at a time cannot be run; give a number of jobs from 1 up.")
    everything = find_notebooks(folder)
    chosen = in_order(choose(everything, numbers), everything)
    given = checked_parameters(parameters or {}, chosen)
    root = Path(os.path.relpath(results, folder)).as_posix()
    with tempfile.TemporaryDirectory(prefix="fusionlib-") as scratch:
        run = Run(
            preset=preset,
            seed=seed,
            settings={"preset": preset, "seed": seed, "retrain": retrain, "results": root, **given},
            again=retrain or force,
            code=_code_and_facts(),
            output=results / preset / "notebooks",
            environment=_environment(jobs, scratch),
            timeout=timeout,
        )
        start = time.perf_counter()
        try:
            setting = {"seed": seed, "preset": asdict(config)}
            done = asyncio.run(_run_all(chosen, run, jobs, Path(scratch), setting))
        except KeyboardInterrupt:
            print("Stopped; finished notebooks are kept, and the same command goes on from here.", flush=True)
            return 130
    page = _write_pages(results, preset)
    total = _duration(time.perf_counter() - start)
    print(f"Total {total}; read {_short(run.output)}/*.html and {_short(page)}.", flush=True)
    return 0 if all(done) else 1


# --- running


async def _run_all(chosen: list[Notebook], run: Run, jobs: int, scratch: Path, setting: dict) -> list[bool]:
    gate = asyncio.Semaphore(jobs)
    width = max(len(each.name) for each in chosen)
    tasks: dict[str, asyncio.Task[bool]] = {}

    def tell(notebook: Notebook, state: str) -> None:
        print(f"{notebook.name:<{width}}  {state}", flush=True)

    async def one(notebook: Notebook) -> bool:
        broken = [number for number in notebook.needs if number in tasks and not await tasks[number]]
        if broken:
            tell(notebook, f"not run, because it needs {broken[0]}")
            return False
        if not run.again and _up_to_date(notebook, run):
            tell(notebook, "up to date")
            return True
        async with gate:
            tell(notebook, "started")
            outcome = await _execute(notebook, run, scratch)
        if outcome["error"]:
            tell(notebook, f"failed  {_duration(outcome['seconds'])}  {outcome['error']}")
        else:
            facts = {
                "seconds": outcome["seconds"],
                "fingerprint": run.fingerprint(notebook),
                "parameters": run.parameters(notebook),
            }
            provenance.note(run.output.parent / "provenance.json", notebook.name, facts, setting)
            tell(notebook, f"ok  {_duration(outcome['seconds']):>8}")
        return not outcome["error"]

    for each in chosen:
        tasks[each.number] = asyncio.create_task(one(each))
    return await asyncio.gather(*tasks.values())


async def _execute(notebook: Notebook, run: Run, scratch: Path) -> dict:
    """Run one notebook in a process of its own and put what it made in place."""
    job = {"notebook": str(notebook.path), "parameters": run.parameters(notebook), "folder": str(scratch)}
    made, log = scratch / notebook.path.name, scratch / f"{notebook.name}.log"
    command = [sys.executable, "-m", "fusionlib.execute", json.dumps(job | {"parent": os.getpid()})]
    start, limit = time.perf_counter(), None if run.timeout is None else 60 * run.timeout
    with log.open("wb") as stream:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=stream, stderr=stream, env=dict(run.environment)
        )
        try:
            async with asyncio.timeout(limit):
                await child.wait()
            outcome = _outcome(made.with_suffix(".json"), log)
        except TimeoutError:
            outcome = {"error": f"took longer than {run.timeout:g} min"}
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()  # the kernel sees that it has gone and ends, too
                await child.wait()
    failed = run.kept(notebook, ".failed.ipynb")
    if outcome["error"] and made.exists():
        with atomic(failed) as part:
            shutil.copyfile(made, part)
        outcome["error"] += f" (see {_short(failed)})"
    elif not outcome["error"]:
        content = nbformat.read(made, as_version=4)
        content.metadata["fusionlib"] = {**content.metadata.get("fusionlib", {}), "made_by": run.fingerprint(notebook)}
        with atomic(run.kept(notebook, ".html")) as part:
            shutil.copyfile(made.with_suffix(".html"), part)
        with atomic(run.kept(notebook)) as part:  # last: it decides whether the result is up to date
            nbformat.write(content, part)
        failed.unlink(missing_ok=True)
    return outcome | {"seconds": round(time.perf_counter() - start, 1)}


def _outcome(report: Path, log: Path) -> dict:
    if report.exists():
        return json.loads(report.read_text(encoding="utf-8"))
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return {"error": next((line.strip() for line in reversed(lines) if line.strip()), "ended without a word")}


def _up_to_date(notebook: Notebook, run: Run) -> bool:
    """Whether the kept result was made by all that would make it now, and after the results that it needs."""
    kept = run.kept(notebook)
    if not kept.exists() or not run.kept(notebook, ".html").exists() or run.kept(notebook, ".failed.ipynb").exists():
        return False
    try:
        made_by = json.loads(kept.read_text(encoding="utf-8"))["metadata"]["fusionlib"]["made_by"]
    except (ValueError, KeyError):
        return False
    needed = [path for number in notebook.needs for path in run.output.glob(f"{number}_*.ipynb")]
    made_after = all(path.stat().st_mtime <= kept.stat().st_mtime for path in needed)
    return made_by == run.fingerprint(notebook) and made_after


def _code_and_facts() -> str:
    """Fingerprint of what a notebook can see beside itself: the library and the committed facts about the data."""
    modules = [path for path in sorted((ROOT / "fusionlib").rglob("*.py")) if path.stem not in ABOVE_NOTEBOOKS]
    facts = [
        *FACTS.glob("registry/**/*.json"),
        *FACTS.glob("splits/*/*.txt"),
        *FACTS.glob("*.json"),
        *FACTS.glob("*.csv"),
    ]
    return fingerprint(
        code_fingerprint(*[SimpleNamespace(__file__=path) for path in modules]),
        [sha256(path) for path in sorted(facts)],
    )


def _environment(jobs: int, scratch: str) -> dict[str, str]:
    """Environment of the notebooks: this library, a fair share of the cores, sockets in `scratch`."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment["JUPYTER_RUNTIME_DIR"] = scratch
    environment.setdefault("OMP_NUM_THREADS", str(max(1, provenance.cores() // jobs)))
    if "FUSIONLIB_DATA" in environment:  # notebooks run in another folder
        environment["FUSIONLIB_DATA"] = os.path.abspath(os.path.expanduser(environment["FUSIONLIB_DATA"]))
    return environment


# --- what is written beside the notebooks


def _write_pages(results: Path, preset: str) -> Path:
    """Write the page of results, and the README's block if these are the checkout's own results; return the page."""
    if preset not in pages.PRESETS:
        return write_text(results / preset / "README.md", pages.results_page(results, [preset]))
    page = write_text(results / "README.md", pages.results_page(results))
    readme = ROOT / "README.md"
    if results == ROOT / "results" and readme.exists():
        pages.update_block(readme, "results", pages.results_tables(results, levels=1))
    return page


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _short(path: Path) -> str:
    """A path as seen from here, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
