"""Waiting threads: every process that the project starts is told how long to spin, unless the user has said so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusionlib.reproduce import remote
from fusionlib.support import threads

OWN = {"GOMP_SPINCOUNT": "7"}


def test_a_setting_of_the_users_own_wins() -> None:
    assert threads.short_spin({}) == {threads.SPIN: threads.ROUNDS}
    assert threads.short_spin(OWN) == {} == threads.short_spin({"OMP_WAIT_POLICY": "active"})


def test_kernels_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.OWN:
        monkeypatch.delenv(name, raising=False)
    assert remote.environment(tmp_path)[threads.SPIN] == threads.ROUNDS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert remote.environment(tmp_path)[threads.SPIN] == "7"


@pytest.mark.parametrize(("given", "expected"), [({}, threads.ROUNDS), (OWN, "7")])
def test_commands_tell_themselves_before_torch_comes(given: dict, expected: str) -> None:
    order = (
        "import os, sys; from fusionlib.__main__ import main; assert 'torch' not in sys.modules\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('SPIN', os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in threads.OWN}
    ran = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True, env=environment | given)
    assert ran.stdout.splitlines()[-1] == f"SPIN {expected}", ran.stderr


def test_make_says_the_same(root: Path) -> None:
    assert f"export {threads.SPIN} ?= {threads.ROUNDS}\n" in (root / "Makefile").read_text(encoding="utf-8")
