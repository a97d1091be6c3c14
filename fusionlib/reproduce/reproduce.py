"""Run notebooks headless: the order they need, several at once, only those that something has changed for.

A notebook whose metadata say `"fusionlib": {"needs": ["03"]}` runs after that one, and not if it fails; one that
`"follows"` others runs after them in any case. What a run made is kept in results/<preset>/notebooks, whole or not at
all, with the fingerprint of what made it: the notebook, its parameters, the code, and the committed facts about the
data. As long as that stays the same, the notebook is not run again.

With a cluster each notebook is a task of it, and what it makes is written here. A notebook whose metadata say
`"spreads": true` stays here and hands out its trainings instead (`fusionlib.support.parallel`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from fusionlib import presets
from fusionlib.report.publish import publish
from fusionlib.reproduce import provenance, remote
from fusionlib.reproduce.ending import ending
from fusionlib.reproduce.notebooks import Notebook, checked_parameters, choose, find_notebooks, in_order
from fusionlib.support import machine, parallel
from fusionlib.support.files import InputError, atomic, check_writable, fingerprint, write_bytes
from fusionlib.support.long_training import ASKED
from fusionlib.support.parallel import duration
from fusionlib.support.paths import ROOT, Results

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What holds for all notebooks of one call."""

    preset: str
    seed: int
    settings: Mapping[str, object]  # every parameter; a notebook is given those that it knows
    again: bool  # run also what is up to date
    code: Mapping[str, str]  # number of a notebook to the fingerprint of code and facts as they were at the start
    output: Path  # folder of the executed notebooks
    environment: Mapping[str, str]
    timeout: float | None  # minutes for one notebook
    client: Client | None = None  # of a cluster that takes the notebooks

    @property
    def seconds(self) -> float | None:
        """After which a notebook counts as failed."""
        return None if self.timeout is None else 60 * self.timeout

    def parameters(self, notebook: Notebook) -> dict[str, object]:
        return {name: value for name, value in self.settings.items() if name in notebook.known}

    def fingerprint(self, notebook: Notebook) -> str:
        parameters = {name: value for name, value in self.parameters(notebook).items() if name != "retrain"}
        return fingerprint(notebook.cells, parameters, self.code[notebook.number])

    def kept(self, notebook: Notebook, suffix: str = ".ipynb") -> Path:
        """Where a notebook's result lies: .ipynb, .html, or .failed.ipynb."""
        return self.output / f"{notebook.name}{suffix}"


def reproduce(
    numbers: Sequence[str] | None = None,
    preset: str = "smoke",
    jobs: int = 1,
    train: bool = False,
    retrain: bool = False,
    seed: int = 0,
    parameters: Mapping[str, object] | None = None,
    results: Path | str = ROOT / "results",
    force: bool = False,
    timeout: float | None = None,
    folder: Path | str = ROOT / "notebooks",
    cluster: str | None = None,
) -> int:
    """Run notebooks and write what they made, provenance.json, index.html and the page of results under `results`.

    Args:
        numbers: of the notebooks, such as "03"; None for all.
        preset: smoke, mini, paper or rehearsal.
        jobs: how many run side by side.
        train: train what is not there or no longer fits, however long that takes; implies `force`.
        retrain: train everything, also where weights are kept; implies `force`.
        seed: of everything random.
        parameters: further parameters of the notebooks, each given to those that know it.
        results: root of the results.
        force: run also what is up to date.
        timeout: minutes after which a notebook counts as failed; None for no limit.
        folder: where the notebooks are.
        cluster: "local", "local:N" or the address of a Dask scheduler, see `parallel.running`; `jobs` then says how
            many of the notebooks that hand out their trainings run side by side.

    Returns:
        Exit status: 0 if every chosen notebook has an up-to-date result, 1 if one failed, 130 if interrupted.

    Raises:
        InputError: an unknown preset, number, parameter or cluster, or notebooks that need each other; nothing has run
            then.
    """
    config, folder, results = presets.load(preset, seed), Path(folder).resolve(), Path(results).resolve()
    if jobs < 1:
        raise InputError(f"{jobs} notebooks at a time cannot be run; give a number of jobs from 1 up.")
    everything = find_notebooks(folder)
    chosen = in_order(choose(everything, numbers), everything)
    checked = checked_parameters(parameters or {}, chosen)
    check_writable(results / preset / "notebooks")
    root = Path(os.path.relpath(results, folder)).as_posix()
    may_train = train or retrain or config.always_train
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="fusionlib-"))
        address = stack.enter_context(parallel.running(cluster, machine.cores())) if cluster else None
        run = Run(
            preset=preset,
            seed=seed,
            settings={"preset": preset, "seed": seed, "retrain": retrain, "results": root, **checked},
            again=train or retrain or force,
            code={notebook.number: parallel.code_and_facts(notebook.code) for notebook in chosen},
            output=results / preset / "notebooks",
            environment=_environment(jobs, scratch, address) | ({ASKED: "1"} if may_train else {}),
            timeout=timeout,
            client=stack.enter_context(parallel.connect(address)) if address else None,
        )
        start = time.perf_counter()
        try:
            setting = {"seed": seed, "preset": asdict(config)}
            done = asyncio.run(_run_all(chosen, run, jobs, Path(scratch), setting))
        except KeyboardInterrupt:
            LOGGER.info("Stopped; finished notebooks are kept, and the same command goes on from here.")
            return 130
    publish(results, preset)
    took = duration(time.perf_counter() - start)
    print("\n" + ending(Results(results, preset), sum(done), len(done), took, _relative), flush=True)
    return 0 if all(done) else 1


# --- running


async def _run_all(chosen: list[Notebook], run: Run, jobs: int, scratch: Path, setting: dict) -> list[bool]:
    gate = asyncio.Semaphore(jobs)
    width = max(len(notebook.name) for notebook in chosen)
    tasks: dict[str, asyncio.Task[bool]] = {}
    progress = parallel.Progress(len(chosen))

    def tell(notebook: Notebook, state: str) -> None:
        LOGGER.info(f"{notebook.name:<{width}}  {state}")

    async def run_one(notebook: Notebook) -> bool:
        for number in tasks.keys() & set(notebook.follows):
            await tasks[number]
        failed_needs = [number for number in notebook.needs if number in tasks and not await tasks[number]]
        if failed_needs:
            tell(notebook, f"not run, because it needs {failed_needs[0]}")
            return False
        if not run.again and _up_to_date(notebook, run):
            progress.total -= 1
            tell(notebook, "up to date")
            return True
        on_cluster = run.client is not None and not notebook.spreads
        async with contextlib.nullcontext() if on_cluster else gate:  # the cluster has a queue of its own
            tell(notebook, "handed out" if on_cluster else "started")
            outcome = await _execute(notebook, run, scratch)
        line = duration(outcome["seconds"]).rjust(8)
        if run.client is not None:
            place = f" on {outcome['worker']}" if "worker" in outcome else ""
            line += f"{place}; {progress.add(outcome['seconds'], parallel.slots(run.client))}"
        if outcome["error"]:
            tell(notebook, f"failed  {line.strip()}  {outcome['error']}")
        else:
            facts = {
                "seconds": outcome["seconds"],
                "fingerprint": run.fingerprint(notebook),
                "parameters": run.parameters(notebook),
                **({"worker": outcome["worker"]} if "worker" in outcome else {}),
            }
            provenance.note(run.output.parent / "provenance.json", notebook.name, facts, setting)
            tell(notebook, f"ok  {line}")
        return not outcome["error"]

    for notebook in chosen:
        tasks[notebook.number] = asyncio.create_task(run_one(notebook))
    return await asyncio.gather(*tasks.values())


async def _execute(notebook: Notebook, run: Run, scratch: Path) -> dict:
    """Run one notebook, here or on a worker, and put what it made in place."""
    executed, start = scratch / notebook.path.name, time.perf_counter()
    if run.client is None or notebook.spreads:
        arguments = (notebook.path, run.parameters(notebook), scratch, run.environment, run.seconds)
        outcome = {"error": await remote.execute_here(*arguments)}
    else:
        outcome = await _on_a_worker(notebook, run, executed)
    failed = run.kept(notebook, ".failed.ipynb")
    if outcome["error"] and executed.exists():
        with atomic(failed) as part:
            shutil.copyfile(executed, part)
        outcome["error"] += f" (see {_relative(failed)})"
    elif not outcome["error"]:
        content = nbformat.read(executed, as_version=4)
        content.metadata["fusionlib"] = {**content.metadata.get("fusionlib", {}), "made_by": run.fingerprint(notebook)}
        with atomic(run.kept(notebook, ".html")) as part:
            shutil.copyfile(executed.with_suffix(".html"), part)
        with atomic(run.kept(notebook)) as part:  # last: it decides whether the result is up to date
            nbformat.write(content, part)
        failed.unlink(missing_ok=True)
    return {"seconds": round(time.perf_counter() - start, 1)} | outcome


async def _on_a_worker(notebook: Notebook, run: Run, executed: Path) -> dict:
    """Let a worker run one notebook; write the results it made, and the notebook to `executed`."""
    parameters = {name: value for name, value in run.parameters(notebook).items() if name != "results"}
    inputs, content, mark = remote.inputs(run.output.parent), notebook.path.read_bytes(), run.fingerprint(notebook)
    may_train = ASKED in run.environment
    task = remote.Task(notebook.path.name, content, parameters, run.preset, inputs, mark, run.seconds, may_train)
    future, done = parallel.submit(run.client, remote.run, task), asyncio.Event()
    loop = asyncio.get_running_loop()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    try:
        await done.wait()
    finally:
        if not future.done():
            future.cancel()
    try:
        made, seconds, worker = parallel.result_of(future)
    except InputError as error:
        return {"error": str(error)}
    for place, content in made.results.items():
        write_bytes(run.output.parent / place, content)
    for suffix, content in made.copies.items():
        write_bytes(executed.with_suffix(suffix), content)
    return {"error": made.error, "seconds": round(seconds, 1), "worker": worker}


def _up_to_date(notebook: Notebook, run: Run) -> bool:
    """Whether the kept result was made by all that would make it now, and after the results that it needs."""
    kept = run.kept(notebook)
    if not kept.exists() or not run.kept(notebook, ".html").exists() or run.kept(notebook, ".failed.ipynb").exists():
        return False
    try:
        made_by = json.loads(kept.read_text(encoding="utf-8"))["metadata"]["fusionlib"]["made_by"]
    except (ValueError, KeyError):
        return False
    needed = [path for number in (*notebook.needs, *notebook.follows) for path in run.output.glob(f"{number}_*.ipynb")]
    made_after = all(path.stat().st_mtime <= kept.stat().st_mtime for path in needed)
    return made_by == run.fingerprint(notebook) and made_after


def _environment(jobs: int, scratch: str, cluster: str | None = None) -> dict[str, str]:
    """Environment of the notebooks: a fair share of the cores, and the cluster to which they may hand out tasks."""
    share = {"OMP_NUM_THREADS": str(max(1, machine.cores() // jobs))}
    return share | remote.environment(scratch) | ({parallel.CLUSTER: cluster} if cluster else {})


def _relative(path: Path) -> str:
    """A path as seen from here, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
