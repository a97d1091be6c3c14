"""Trainings that several notebooks share: whoever comes first makes the weights, the others wait and then read them.

Two kernels may be at work in one results folder, side by side in a test or in two tabs of JupyterLab.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from fusionlib import retraining, training
from fusionlib.files import alone, remove_halves
from fusionlib.presets import Preset
from fusionlib.recipe import Recipe


def trained(
    recipe: Recipe, folder: Path, name: str = "ours", retrain: bool = False, device: str | None = None
) -> training.Trained:
    """`training.trained`, by one process at a time in a folder; what killed ones have left there is removed."""
    with _only_one(folder):
        run = training.trained(recipe, folder, name, retrain, device)
        if not run.reused:
            remove_halves(run.path)
            remove_halves(run.path.with_stem(training.START))
        return run


def retrained(settings: retraining.Retraining, folder: Path, retrain: bool = False, device: str | None = None) -> Path:
    """`retraining.retrained`, by one process at a time in a folder."""
    with _only_one(folder):
        return retraining.retrained(settings, folder, retrain, device)


def prepare(names: Iterable[str], preset: Preset, folder: Path, retrain: bool = False) -> None:
    """`retraining.prepare`, by one process at a time in a folder."""
    with _only_one(folder):
        retraining.prepare(names, preset, folder, retrain)


def _only_one(folder: Path) -> AbstractContextManager[None]:
    """One lock for a whole folder, since many trainings begin with one start."""
    return alone(Path(folder) / "training")
