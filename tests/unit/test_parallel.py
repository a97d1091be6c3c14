"""Work spread over Dask workers gives what it gives here, also when one is killed; a mistake is one sentence."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import small_sweep
from nbformat.v4 import new_code_cell, new_notebook

from fusionlib import presets
from fusionlib.__main__ import main
from fusionlib.experiments import sweeps
from fusionlib.reproduce import remote
from fusionlib.reproduce.reproduce import reproduce
from fusionlib.support import machine, parallel
from fusionlib.support.files import InputError, write_bytes


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two workers."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it tells of every lost worker
    with parallel.running("local:2", cores=2) as address:
        yield address


def same_files(left: Path, right: Path) -> bool:
    return left.read_bytes() == right.read_bytes()


def test_without_a_cluster_jobs_are_done_in_their_order(capsys, monkeypatch) -> None:
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: 0.0)
    found = list(parallel.spread(len, {"three": "abc", "one": "a"}))
    assert found == [("three", 3), ("one", 1)]
    assert capsys.readouterr().out == "three: 0 s; 1/2, about 0 s left\none: 0 s; 2/2, about 0 s left\n"


def test_progress_counts_workers() -> None:
    progress = parallel.Progress(5)
    assert progress.add(60) == "1/5, about 4 min 00 s left"
    assert progress.add(120, side_by_side=3) == "2/5, about 1 min 30 s left"


def test_two_workers_give_the_same_table_and_a_lost_one_changes_nothing(straight, cluster, tmp_path, capsys) -> None:
    here, *_ = straight
    killed: list[int] = []

    def kill_one(done: threading.Event, after: str) -> None:
        """Kill a worker that is at work, as soon as there is such a file."""
        with parallel.connect(cluster) as client:
            pids = client.run(os.getpid)
            while not (killed or done.is_set()):
                busy = [worker for worker, keys in client.processing().items() if keys]
                if busy and list((tmp_path / "there").glob(after)):
                    killed.append(pids[busy[0]])
                    os.kill(killed[0], signal.SIGKILL)
                time.sleep(0.01)

    # A checkpoint is not there for long. Whoever missed all of them kills earlier, in a run of its own.
    for after in ("weights/sweeps/*.checkpoint", "weights"):
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        (tmp_path / "there").mkdir()
        capsys.readouterr()
        done = threading.Event()
        killer = threading.Thread(target=kill_one, args=(done, after))
        killer.start()
        small_sweep.run(tmp_path / "there", cluster)
        done.set()
        killer.join()
        if killed:
            break
    assert killed and same_files(here / "table.csv", tmp_path / "there" / "table.csv")
    lines = [line for line in capsys.readouterr().out.splitlines() if " on tcp://" in line]
    assert len(lines) == 4 and lines[-1].endswith("4/4, about 0 s left")
    names = ["/".join(path.parts[-2:]) for path in sorted((tmp_path / "there").rglob("*.*"))]
    assert [name for name in names if ".part" in name or "checkpoint" in name] == []
    assert {place.rpartition("/")[2] for place in names} == {path.name for path in here.rglob("*.*")}


def test_a_worker_s_mistake_comes_back_as_one(cluster, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"Unknown preset 'huge'.* \(on worker tcp://"):
        list(parallel.spread(presets.load, {"name": "huge"}, cluster))
    monkeypatch.setattr(parallel, "_own_state", lambda: "edited since")
    with pytest.raises(InputError, match="runs another fusionlib: bring its checkout to this commit"):
        list(parallel.spread(presets.load, {"name": "mini"}, cluster))


def test_a_worker_without_data_of_its_own_takes_the_driver_s(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://worker"))

    def seen(data: Path) -> str | None:
        return parallel._on_worker(os.getenv, "FUSIONLIB_DATA", parallel._own_state(), str(data))[0]

    monkeypatch.setenv("FUSIONLIB_DATA", "its own")
    assert seen(tmp_path) == "its own"
    monkeypatch.delenv("FUSIONLIB_DATA")
    assert seen(tmp_path) == str(tmp_path) and "FUSIONLIB_DATA" not in os.environ
    assert seen(tmp_path / "not on this machine") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Notebooks: 03 writes, 00 needs it, reads that and has a file of its own, 05 fails."""
    head = 'preset: str = "smoke"  # size\nseed: int = 5  # of all\nresults: str = "../results"  # root\n'
    made = "import pathlib\nmade = pathlib.Path(results, preset, 'tables')\nmade.mkdir(parents=True, exist_ok=True)\n"
    cells = {
        "00_reads": "print((made / 'b.csv').read_text(), (made / 'a.csv').read_text(), pathlib.Path().resolve())",
        "03_writes": "(made / 'b.csv').write_text(f'made\\n{seed}\\n')",
        "05_fails": "(made / 'c.csv').write_text('half\\n1\\n'); 1 / 0",
    }
    for name, cell in cells.items():
        needs = {"fusionlib": {"needs": ["03"]}} if name == "00_reads" else {}
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        content = [new_code_cell(head, metadata={"tags": ["parameters"]}), new_code_cell(made), new_code_cell(cell)]
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=content, metadata=kernel | needs), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path / "notebooks"


def test_notebooks_run_on_workers_and_come_back_whole(cluster, folder, tmp_path, capsys) -> None:
    results = tmp_path / "results"
    write_bytes(results / "smoke" / "tables" / "a.csv", b"there\nbefore\n")
    assert reproduce(preset="smoke", seed=3, results=results, folder=folder, cluster=cluster) == 1
    told = capsys.readouterr().out
    assert "dashboard http://" in told and "side by side" in told
    first = {line.split()[0]: line for line in told.splitlines() if " on tcp://" in line}
    assert "ok" in first["03_writes"] and "ok" in first["00_reads"] and "left" in first["00_reads"]
    assert "failed" in first["05_fails"] and "ZeroDivisionError" in first["05_fails"]
    kept = results / "smoke" / "notebooks"
    assert sorted(path.name for path in kept.iterdir()) == [
        "00_reads.html", "00_reads.ipynb", "03_writes.html", "03_writes.ipynb", "05_fails.failed.ipynb",
    ]  # fmt: skip
    read = nbformat.read(kept / "00_reads.ipynb", as_version=4).cells[-1].outputs[0].text
    assert read.split()[:4] == ["made", "3", "there", "before"] and str(tmp_path / "notebooks") not in read
    tables = {path.name: path.read_text() for path in (results / "smoke" / "tables").iterdir()}
    assert tables == {"a.csv": "there\nbefore\n", "b.csv": "made\n3\n", "c.csv": "half\n1\n"}
    assert not Path(read.split()[-1]).exists()  # the worker's folder has gone

    # Nothing has changed: nothing is handed out.
    assert reproduce(["00", "03"], preset="smoke", seed=3, results=results, folder=folder, cluster=cluster) == 0
    assert "handed out" not in capsys.readouterr().out


def test_results_that_a_notebook_may_read_go_along(tmp_path) -> None:
    for place in ("weights/ours.safetensors", "weights/mri/a.csv", "tables/t.csv", "detectors/d.csv"):
        write_bytes(tmp_path / place, place.encode())
    for place in ("weights/sweeps/s.csv", "figures/f.png", "notebooks/n.ipynb", "tables/.t.1.part.csv"):
        write_bytes(tmp_path / place, b"stays here")
    found = remote.inputs(tmp_path)
    assert found == {place: place.encode() for place in sorted(found)} and len(found) == 4


def test_gpus_are_asked_for_where_workers_declare_them() -> None:
    asked: list[dict | None] = []

    def client(*gpus: int) -> SimpleNamespace:
        workers = {str(i): {"resources": {"GPU": count} if count else {}} for i, count in enumerate(gpus)}
        return SimpleNamespace(
            scheduler_info=lambda n_workers: {"workers": workers},
            submit=lambda *_, resources, **__: asked.append(resources),
        )

    assert [parallel.slots(client(*gpus)) for gpus in ((), (0, 0), (0, 1, 2))] == [1, 2, 3]
    parallel.submit(client(0, 0), len, "")
    parallel.submit(client(0, 1), len, "")
    assert asked == [None, {"GPU": 1}]


def test_the_gpus_of_a_machine_are_those_that_are_visible(monkeypatch) -> None:
    monkeypatch.setattr(machine.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8932f937")
    assert machine.gpus() == ["5", "GPU-8932f937"]
    monkeypatch.setattr(machine.torch.cuda, "device_count", lambda: 0)
    assert machine.gpus() == []


def test_each_local_worker_has_a_gpu_of_its_own_and_trains_alone_on_it(straight, tmp_path, monkeypatch) -> None:
    """Two real workers on GPUs that are none: torch does not look at them here, and each process is told of its own."""
    here, *_ = straight
    monkeypatch.setattr(parallel, "gpus", lambda: ["5", "7"])
    monkeypatch.setattr(sweeps, "train_and_score", small_sweep.watched)
    with parallel.running("local", cores=2) as address:
        with parallel.connect(address) as client:
            assert parallel.slots(client) == 2
            resources = [worker["resources"] for worker in client.scheduler_info()["workers"].values()]
            assert resources == [{"GPU": 1}] * 2
        small_sweep.run(tmp_path, address)
    assert same_files(here / "table.csv", tmp_path / "table.csv")
    seen = [path.read_text().split() for path in (tmp_path / "weights" / "sweeps").glob("*.seen")]
    spans: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for process, gpu, start, end in seen:
        spans.setdefault((process, gpu), []).append((float(start), float(end)))
    assert len(seen) == 4 and sorted(gpu for _, gpu in spans) == ["5", "7"]
    assert len({process for process, _ in spans}) == 2
    for each in spans.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(each)))


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("local:none", "'local:none' is not a cluster: give local, local:N or the address of a scheduler"),
        ("local:0", "'local:0' is not a cluster"),
        ("nowhere", "No Dask scheduler answers at 'nowhere'"),
    ],
)
def test_a_cluster_that_cannot_be_is_told_in_one_sentence(cluster, message, folder, tmp_path, capsys) -> None:
    with pytest.raises(InputError, match=message):
        reproduce(results=tmp_path / "results", folder=folder, cluster=cluster)
    assert not (tmp_path / "results").exists() and capsys.readouterr().out == ""


def test_without_dask_the_command_says_how_to_get_it(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    assert main(["reproduce", "00", "--results", str(tmp_path), "--cluster", "local:2"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fusionlib: error: --cluster needs Dask: install it with") and message.count("\n") == 1
