"""What all tests share: one thread and no screen, set before torch and matplotlib are imported, and the root."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

# The order of a sum depends on the number of threads; with one, a test sees the same digits on every machine size.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object, float]:
    """The small sweep of `small_sweep`, which nobody disturbs: its folder, its table, its seconds."""
    import small_sweep

    folder, start = tmp_path_factory.mktemp("straight"), time.perf_counter()
    return folder, small_sweep.run(folder), time.perf_counter() - start
