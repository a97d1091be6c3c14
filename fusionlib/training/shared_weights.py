"""Weights that several notebooks share: one process trains them, all others read them.

`train_or_load` is what notebooks call. Two processes may work in one results folder, side by side in a test or in two
tabs of JupyterLab: a lock lets one train, while the others wait and then read its weights.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fusionlib.detection import Detector
from fusionlib.network import FusionNetwork
from fusionlib.support import result_tables
from fusionlib.support.files import InputError, atomic, locked, remove_partial_files
from fusionlib.support.long_training import may_start, refused, show_earlier
from fusionlib.support.weights import key_of
from fusionlib.training.loop import detector_path, train
from fusionlib.training.recipe import Recipe

START = "registration"  # file name of the weights that other trainings start from
LOCK = "training"  # one for a whole folder, since many trainings share one start


def read_log(path: Path, *columns: str) -> pd.DataFrame:
    """The log beside weights, a row per epoch or step, as a training writes it.

    Args:
        path: of the log.
        columns: of numbers that the caller needs beside the seconds and the epochs or steps.

    Raises:
        InputError: the file is no table, or one of these columns is missing or holds text.
    """
    advice = "restore it, for example with git, or remove it with the weights beside it and train again"
    log = result_tables.parsed(path, "log of a training", advice)
    unit = "step" if "step" in log else "epoch"
    result_tables.check_columns(log, path, numbers=dict.fromkeys([unit, "seconds", *columns]), advice=advice)
    return log


@dataclass(frozen=True)
class Trained:
    """Weights and where they come from.

    Attributes:
        network: ready to fuse.
        detector: the head on the fused feature that was trained with it; None if the recipe has none.
        log: one row per epoch, see `train`; without the epochs of its start.
        path: of the network's weights.
        reused: they were read, not trained.
    """

    network: FusionNetwork
    detector: Detector | None
    log: pd.DataFrame
    path: Path
    reused: bool


def train_or_load(
    recipe: Recipe,
    folder: Path,
    name: str = "ours",
    retrain: bool = False,
    device: str | None = None,
    compiled: bool = False,
) -> Trained:
    """The network of a recipe: from `folder`/`name`.safetensors if this recipe made these weights, else trained now.

    A training of more than a minute needs consent: `retrain`, or `long_training.is_allowed`. Without it, weights of the
    same settings that earlier code or data made are used unchanged, and a logged line says so. Of several processes
    that use one folder, one trains while the others wait and then read its weights.

    Args:
        recipe: what to train; its start is read, or trained if missing, under the name `START`.
        folder: where weights, log (`name`.csv) and, until the end, the checkpoint are kept. A detector lies beside
            them as `name`_detector.safetensors.
        retrain: train even if the weights are there; not the start, which several recipes share.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
        compiled: as in `train`.

    Raises:
        InputError: there are no weights of these settings, and a long training has not been asked for; or the log of
            those that are there is damaged.
    """
    with locked(Path(folder) / LOCK):
        run = _train_or_load(recipe, folder, name, retrain, device, compiled)
        if not run.reused:
            for path in (run.path, detector_path(run.path), run.path.with_stem(START)):
                remove_partial_files(path)
        return run


def copy_start(recipe: Recipe, folder: Path, source: Path) -> None:
    """Copy the weights that a chain of trainings starts from, `START`.safetensors, from one folder to another.

    A training looks for its start in its own folder, always under that name, so the start of a start is overwritten by
    what is trained from it. Weights of any link of this chain that are there already therefore stay.

    Args:
        recipe: the last training of the chain; one without a start needs no copy, and neither does one whose first
            training has not been made in `source`.
        folder: where its weights go.
        source: the folder in which the first training of the chain has left its weights.
    """
    chain = []
    while recipe.start is not None:
        recipe = recipe.start
        chain.append(recipe.key())
    with locked(Path(folder) / LOCK):
        path, first = (Path(place) / f"{START}.safetensors" for place in (folder, source))
        is_here = path.exists() and any(not key.differing(key_of(path)) for key in chain)
        if not chain or is_here or not first.exists():
            return
        for suffix in (".csv", ".safetensors"):
            with atomic(path.with_suffix(suffix)) as part:
                shutil.copyfile(first.with_suffix(suffix), part)


def _train_or_load(
    recipe: Recipe,
    folder: Path,
    name: str,
    retrain: bool,
    device: str | None,
    compiled: bool,
    allowed: bool = False,
) -> Trained:
    """`train_or_load` without the lock; `allowed` is consent to a long training of missing weights."""
    path = Path(folder) / f"{name}.safetensors"
    head = detector_path(path)
    networks = [path, head] if recipe.detector else [path]
    missing = [file.name for file in (*networks, path.with_suffix(".csv")) if not file.exists()]
    start_now = retrain or allowed or may_start(recipe.minutes())
    if not missing and not retrain:
        changed = list(dict.fromkeys(part for file in networks for part in recipe.key().differing(key_of(file))))
        log = read_log(path.with_suffix(".csv"))
        if changed and not start_now and "settings" not in changed:
            show_earlier(name, changed, log["seconds"].sum() / 60)
        if not changed or (not start_now and "settings" not in changed):
            detector = Detector.load(head) if recipe.detector else None
            return Trained(FusionNetwork.load(path), detector, log, path, reused=True)
    if not start_now:
        if path.exists() and missing:
            raise InputError(f"{path} is there without {' and '.join(missing)}: copy that, too, or add --train.")
        raise refused(f"The weights {path}", recipe.minutes())
    start = None
    if recipe.start is not None:
        start = _train_or_load(recipe.start, folder, START, False, device, compiled, retrain or allowed).network
    net, detector, log = train(recipe, path, device, start, compiled)
    return Trained(net, detector, log, path, reused=False)
