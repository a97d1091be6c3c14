"""Trainings that are shared: two processes that want the same weights make them once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from test_training import TINY

from fusionlib import once
from fusionlib.weights import read_header

WANT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fusionlib import once
from test_training import TINY
print("reused" if once.trained(TINY, Path(sys.argv[2]), device="cpu").reused else "trained")
"""


def test_two_processes_train_once(tmp_path: Path) -> None:
    order = [sys.executable, "-c", WANT, str(Path(__file__).parent), str(tmp_path)]
    (tmp_path / ".ours.1.part.safetensors").touch()  # left by one that was killed
    both = [subprocess.Popen(order, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(lines[-1] for lines in said) == ["reused", "trained"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".training.lock", "ours.csv", "ours.safetensors"}
    run = once.trained(TINY, tmp_path, device="cpu")
    assert run.reused and read_header(run.path)["fingerprint"] == TINY.fingerprint()
