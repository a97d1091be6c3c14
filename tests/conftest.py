"""What all tests share: one thread and no screen, set before torch and matplotlib are imported, and the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The order of a sum depends on the number of threads; with one, a test sees the same digits on every machine size.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]
