"""Trainings that several notebooks share: whoever comes first makes the weights, the others wait and then read them.

Two kernels may be at work in one results folder, side by side in a test or in two tabs of JupyterLab.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from fusionlib import training
from fusionlib.methods import retraining
from fusionlib.support.files import alone, atomic, remove_halves
from fusionlib.training.recipe import Recipe
from fusionlib.training.weights import key_of


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


def lay_start(recipe: Recipe, folder: Path, source: Path) -> None:
    """Lay the weights that a chain of trainings begins with into the folder where the chain is to run.

    A training looks for its start beside its own weights, under one name: when the start has a start itself, the one
    that was trained last takes the place of the one before. So what lies there already and belongs to the chain stays.

    Args:
        recipe: the last training of the chain.
        folder: where its weights go.
        source: another folder, in which the first training of the chain has left its weights.
    """
    chain = []
    while recipe.start is not None:
        recipe = recipe.start
        chain.append(recipe.key())
    with _only_one(folder):
        there = Path(folder) / f"{training.START}.safetensors"
        if not chain or (there.exists() and any(not key.differing(key_of(there)) for key in chain)):
            return
        for suffix in (".csv", ".safetensors"):
            begun = there.with_suffix(suffix)
            with atomic(begun) as part:
                shutil.copyfile(Path(source) / begun.name, part)


def retrained(settings: retraining.Retraining, folder: Path, retrain: bool = False, device: str | None = None) -> Path:
    """`retraining.retrained`, by one process at a time in a folder."""
    with _only_one(folder):
        return retraining.retrained(settings, folder, retrain, device)


def prepare(names: Iterable[str], preset: retraining.Plan, folder: Path, retrain: bool = False) -> None:
    """`retraining.prepare`, by one process at a time in a folder."""
    with _only_one(folder):
        retraining.prepare(names, preset, folder, retrain)


def _only_one(folder: Path) -> AbstractContextManager[None]:
    """One lock for a whole folder, since many trainings begin with one start."""
    return alone(Path(folder) / "training")
