"""A sweep for tests: two rows of Table 4, two seeds, a network of toy size. As a program it runs in a given folder."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fusionlib import presets
from fusionlib.experiments import sweep_rows, sweeps
from fusionlib.network import NetworkConfig
from fusionlib.training.recipe import TrainingConfig

NETWORK = NetworkConfig(channels=4, msrb_widths=(8, 8), gathering_widths=(8, 8))


def preset(**changes: object) -> presets.Preset:
    """Smoke with a smaller network, four pairs, a start of one epoch and rows of two, scored on two small pairs."""
    smoke = presets.load("smoke")
    learning = TrainingConfig(epochs=1, registration_epochs=1, batch=2, validate_every=1)
    start = replace(smoke.recipe.start, network=NETWORK, train_pairs=4, training=learning)
    together = replace(learning, registration_epochs=0, frozen_statistics=True)
    recipe = replace(smoke.recipe, network=NETWORK, start=start, train_pairs=4, training=together, detector=None)
    bench = replace(smoke.bench, count=2)
    return replace(smoke, recipe=recipe, test_size=smoke.recipe.size, bench=bench, sweep_epochs=2, **changes)


def rows() -> list[sweep_rows.Row]:
    return [row for row in sweep_rows.table4() if row.name in ("w/o l_c", "w/o concat of F_i^r and F_v")]


def run(folder: Path, cluster: str | None = None, table: str = "table.csv") -> pd.DataFrame:
    """The sweep in a folder: the table, and weights beside it."""
    chosen = preset()
    return sweeps.run(rows(), chosen, folder / table, folder / "weights", cluster=cluster)


def watched(job: sweeps.Job) -> sweeps.Outcome:
    """A job as the sweep does it; a line beside its weights says in which process, on which GPU, from when to when."""
    start = time.monotonic()
    outcome = sweeps.train_and_score(job)
    line = f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {start} {time.monotonic()}"
    Path(job.folder, f"{job.path().stem}.seen").write_text(line)
    return outcome


if __name__ == "__main__":
    print("ready", flush=True)
    run(Path(sys.argv[1]), table=(sys.argv[2:] or ["table.csv"])[0])
