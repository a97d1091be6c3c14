"""Independent pieces of work: one after another here, or spread over the workers of a Dask cluster, by the same call.

A task is a function of a module and a job that holds all it needs; its result is sent back. Files are written by the
calling process, so a worker may be lost at any moment: Dask hands its task to another.

Dask is an optional extra. Without a cluster nothing of it is imported.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from fusionlib.support.behaviour import components, record, source
from fusionlib.support.behaviour.components import COMPONENTS
from fusionlib.support.files import InputError, fingerprint, sha256
from fusionlib.support.machine import gpus
from fusionlib.support.paths import FACTS, ROOT, data_root
from fusionlib.support.threads import short_spin

if TYPE_CHECKING:
    from distributed import Client, Future

LOGGER = logging.getLogger(__name__)
Job, Result = TypeVar("Job"), TypeVar("Result")
CLUSTER = "FUSIONLIB_CLUSTER"  # environment variable: address of the scheduler that `spread` hands its jobs to
PROGRESS = "FUSIONLIB_PROGRESS"  # environment variable: file to which the lines of progress are written, too
ONE_AT_A_TIME = threading.Lock()  # a training sets torch's only random generator: no two in one process


def code_and_facts(cells: str | None = None) -> str:
    """Fingerprint of the library and of the committed facts about the data.

    Args:
        cells: code of a notebook: only the modules that it reaches count, and those of all compared systems, which are
            found by their names. None for the whole library.
    """
    modules = sorted((ROOT / "fusionlib").rglob("*.py"))
    if cells is not None:
        named = [entry for name in components.names() if name not in COMPONENTS for entry in components.entries(name)]
        plain = "\n".join(line for line in cells.splitlines() if not line.lstrip().startswith(("%", "!")))
        modules = list(source.modules_of(named, plain).values())
    patterns = ("registry/**/*.json", "splits/*/*.txt", "*.json", "*.csv")
    # Without the record: it describes the code, which is part of the key already.
    facts = sorted(path for pattern in patterns for path in FACTS.glob(pattern) if path != record.FILE)
    return fingerprint([sha256(path) for path in (*modules, *facts)])


_own_state = cache(code_and_facts)  # read once, when this process began: a later edit does not change what runs


def spread(
    work: Callable[[Job], Result], jobs: Mapping[str, Job], cluster: str | None = None
) -> Iterator[tuple[str, Result]]:
    """Do every job and yield its result as soon as it is ready, with a line of progress for each.

    Args:
        work: a function of a module, called with a job.
        jobs: name to job; the name stands in the line of progress.
        cluster: address of a Dask scheduler; by default that in the environment variable FUSIONLIB_CLUSTER, if any.

    Yields:
        (name, result): without a cluster in the order of the jobs, with one as they come.

    Raises:
        InputError: as `work` does, then with the worker's address; or the cluster is not there, or cannot go on.
    """
    cluster = cluster or os.environ.get(CLUSTER)
    progress = Progress(len(jobs))
    if not cluster:
        for name, job in jobs.items():
            start = time.perf_counter()
            result = work(job)
            seconds = time.perf_counter() - start
            _say(f"{name}: {duration(seconds)}; {progress.add(seconds)}")
            yield name, result
    elif jobs:
        with connect(cluster) as client:
            from distributed import as_completed

            futures = {submit(client, work, job): name for name, job in jobs.items()}
            for future in as_completed(futures, loop=client.loop):
                result, seconds, worker = result_of(future)
                _say(f"{futures[future]}: {duration(seconds)} on {worker}; {progress.add(seconds, slots(client))}")
                yield futures[future], result


class Progress:
    """How many of the tasks are done, and about how long the others will take."""

    def __init__(self, total: int) -> None:
        self.total, self.seconds = total, []

    def add(self, seconds: float, side_by_side: int = 1) -> str:
        """Count one more that took so many seconds; text like "3/12, about 5 min 40 s left"."""
        self.seconds.append(seconds)
        done = len(self.seconds)
        seconds_left = (self.total - done) * sum(self.seconds) / done / max(1, side_by_side)
        return f"{done}/{self.total}, about {duration(seconds_left)} left"


def _say(line: str) -> None:
    """Log a line, and write it to the progress file, which the process that runs this notebook reads."""
    LOGGER.info(line)
    if path := os.environ.get(PROGRESS):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def duration(seconds: float) -> str:
    """Seconds as text: "41 s", "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


# --- Dask


@contextmanager
def running(cluster: str, cores: int) -> Iterator[str]:
    """A cluster as the command line names it: give the address of its scheduler, say that of its dashboard.

    Args:
        cluster: "local" or "local:N", N worker processes on this machine until the block ends; or the address of a
            scheduler that runs already, as in "tcp://host:8786". Where there are GPUs, each local worker sees one of
            them alone, in turn, and declares it.
        cores: of this machine; local workers share them. Without N there is a worker for each GPU, or else each core.

    Raises:
        InputError: another text, no Dask, or no scheduler at that address.
    """
    kind, _, rest = cluster.partition(":")
    if kind != "local":
        with connect(cluster) as client:
            LOGGER.info(_described(client, cluster))
            yield cluster
        return
    if not (rest or "1").isdigit() or int(rest or 1) < 1:
        raise InputError(
            f"{cluster!r} is not a cluster: give local, local:N or the address of a scheduler, tcp://HOST:PORT."
        )
    distributed, gpu_names = _dask(), gpus()
    count = int(rest or len(gpu_names) or cores)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    host, quiet = {"host": "127.0.0.1"}, {"silence_logs": logging.WARNING}
    options = {**host, **quiet, "nthreads": 1, "dashboard": False, "memory_limit": 0}  # no limit to what torch uses
    shared = {"OMP_NUM_THREADS": threads, **short_spin(os.environ)}  # Dask's own workers would have one thread each
    workers = {}
    for index in range(count):
        # Else all of them would train on the first GPU.
        own_gpu = {"CUDA_VISIBLE_DEVICES": gpu_names[index % len(gpu_names)]} if gpu_names else {}
        declared = {"resources": {"GPU": 1}} if gpu_names else {}
        workers[index] = {"cls": distributed.Nanny, "options": {**options, **declared, "env": {**shared, **own_gpu}}}
    # The dashboard takes any free port, for this machine alone.
    scheduler = {"cls": distributed.Scheduler, "options": {**host, "dashboard_address": f"{host['host']}:0"}}
    local = distributed.SpecCluster(workers=workers, scheduler=scheduler, **quiet)
    with local, distributed.Client(local, set_as_default=False) as client:
        LOGGER.info(_described(client, local.scheduler_address))
        yield local.scheduler_address


def connect(address: str) -> Client:
    """A client of the scheduler at an address; InputError if Dask is not installed or nobody answers there."""
    distributed = _dask()
    try:
        return distributed.Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError, TypeError):
        raise InputError(
            f"No Dask scheduler answers at {address!r}: start one with `dask scheduler`, or give --cluster local."
        ) from None


def submit(client: Client, work: Callable[[Job], Result], job: Job) -> Future:
    """Hand a job over: a future for `result_of`. Where workers declare GPUs, it takes one and waits for it."""
    resources = {"GPU": 1} if _gpus(client) else None
    with warnings.catch_warnings():
        # The scheduler keeps the job, weights and all, so that it can hand it out again when a worker is lost.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        data = str(data_root().absolute())
        return client.submit(_on_worker, work, job, _own_state(), data, pure=False, resources=resources)


def result_of(future: Future) -> tuple[object, float, str]:
    """(result, seconds, worker) of a future from `submit`, once it is done.

    Raises:
        InputError: as the work itself, or every worker that had the task was lost.
    """
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise InputError(
            f"{error.last_worker.address} and others before it were lost while they had this task: give the workers "
            "more memory, or look into their logs."
        ) from None


def slots(client: Client) -> int:
    """How many jobs run side by side: one for each worker, or for each GPU where workers declare any."""
    return _gpus(client) or max(1, len(_workers(client)))


def _on_worker(work: Callable[[Job], Result], job: Job, state: str, data: str) -> tuple[Result, float, str]:
    """Do a job on a worker: one at a time, with the same code, on its own data or else in the caller's folder."""
    from distributed import get_worker

    with ONE_AT_A_TIME:
        start, place = time.perf_counter(), get_worker().address
        if _own_state() != state:
            raise InputError(
                f"Worker {place} runs another fusionlib: bring its checkout to this commit and restart it."
            )
        sets_data_root = "FUSIONLIB_DATA" not in os.environ and Path(data).is_dir()
        if sets_data_root:
            os.environ["FUSIONLIB_DATA"] = data
        try:
            result = work(job)
        except InputError as error:
            raise InputError(f"{error} (on worker {place})") from None
        finally:
            if sets_data_root:
                del os.environ["FUSIONLIB_DATA"]
        return result, time.perf_counter() - start, place


def _workers(client: Client) -> list[dict]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _gpus(client: Client) -> int:
    return int(sum(worker["resources"].get("GPU", 0) for worker in _workers(client)))


def _described(client: Client, address: str) -> str:
    return f"Cluster {address}, {slots(client)} side by side; dashboard {client.dashboard_link}"


def _dask() -> ModuleType:
    try:
        import distributed
    except ImportError:
        raise InputError(
            "--cluster needs Dask: install it with `pip install -c constraints.txt -e '.[cluster]'`."
        ) from None
    return distributed
