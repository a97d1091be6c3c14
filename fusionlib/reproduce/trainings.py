"""The commands that train, and nothing else: `train` our own rows, for as long as there is time, and `retrain` compared
systems. The same command goes on where it stopped.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fusionlib import presets
from fusionlib.experiments import own_rows
from fusionlib.methods import retraining
from fusionlib.reproduce import provenance
from fusionlib.support.files import InputError, check_writable
from fusionlib.support.inputs import checked_device
from fusionlib.support.long_training import OutOfTimeError, allowed
from fusionlib.support.machine import machine
from fusionlib.support.parallel import duration
from fusionlib.support.paths import ROOT

LOGGER = logging.getLogger(__name__)
NOT_DONE = 75  # EX_TEMPFAIL of sysexits.h: try again


def train(
    preset: str,
    seeds: int = 1,
    minutes: float | None = None,
    compiled: bool = False,
    results: Path | str | None = None,
) -> int:
    """Train and score our own rows (`fusionlib.experiments.own_rows`), and print them.

    Args:
        preset: smoke, mini, paper or rehearsal.
        seeds: how many trainings of Ours.
        minutes: stop before these are over, as far as the last epoch tells how long the next one takes; None for no
            limit.
        compiled: let torch compile the network first, see `fusionlib.training.compiled`.
        results: root of the results; None for `results` of the checkout.

    Returns:
        Exit status: 0 if all is there, `NOT_DONE` if the time was over first, 130 if interrupted, by SIGTERM too.
    """
    config, start = presets.load(preset), time.perf_counter()
    kept_results = config.results(results or ROOT / "results")
    check_writable(kept_results.weights)
    wanted, status, remaining = own_rows.trainings(config, seeds, kept_results.weights), 0, "nothing"
    try:
        with allowed(minutes):
            own_rows.train(wanted, config, compiled)
            table = own_rows.score(wanted, config, kept_results.table("own_rows"))
            costs = own_rows.costs(config, kept_results.tables)
    except torch.OutOfMemoryError:
        raise InputError(f"The memory of this GPU is too small for the preset {preset}: take a larger one.") from None
    except OutOfTimeError as stopped:
        status, remaining = NOT_DONE, str(stopped)
    except KeyboardInterrupt:
        status, remaining = 130, "interrupted; what was done is kept to the last whole epoch"
    took = time.perf_counter() - start
    parameters = {"seeds": seeds, "minutes": minutes, "compiled": compiled}
    facts = {"seconds": round(took, 1), "parameters": parameters, "left": remaining}
    facts |= {name: machine()[name] for name in ("cpu", "cores", "gpu")}
    provenance.note(kept_results.folder / "provenance.json", "train", facts, {"seed": 0, "preset": asdict(config)})
    if status:
        command = f"python -m fusionlib train --preset {preset} --seeds {seeds}"
        command += f" --minutes {minutes:g}" if minutes is not None else ""
        command += " --compiled" if compiled else ""
        command += f" --results {shlex.quote(str(results))}" if results is not None else ""
        LOGGER.info(f"Stopped after {duration(took)}: {remaining}. This goes on from there:\n  {command}")
        return status
    if config.always_train:
        print("This preset trains for a step or two, to show that everything runs: its numbers mean nothing.\n")
    for level in config.levels:
        print(f"Preset {preset}, level {level}, means over all test pairs:")
        print(own_rows.summary(table, level).to_string(float_format="%.4g"), end="\n\n")
    print("Table 6: G multiply-accumulates (thop), M parameters, seconds a pair:")
    print(costs.to_string(float_format="%.4g"), end="\n\n")
    print(f"All is there, after {duration(took)}: weights, tables and provenance.json in {kept_results.folder}.")
    return 0


def retrain(
    names: Sequence[str],
    preset: str = "mini",
    seed: int = 0,
    force: bool = False,
    device: str | None = None,
    results: Path | str | None = None,
) -> int:
    """Train compared systems whose weights are not available, see `fusionlib.methods.retraining`; exit status.

    Args:
        names: of the systems.
        preset: whose pairs and deformations they are trained on.
        seed: of weights, order and deformations.
        force: train also where weights of the same recipe are.
        device: cpu, cuda, ...; None takes a GPU if there is one.
        results: root of the results; None for `results` of the checkout.
    """
    config, device = presets.load(preset, seed), checked_device(device)
    # All of them first: a mistyped name is an error before anything is trained.
    recipes = [retraining.recipe(name, config.recipe, config.always_train) for name in names]
    folder = Path(results or ROOT / "results") / config.name / "weights"
    for recipe in recipes:
        path = folder / f"{recipe.system}.safetensors"
        before = path.stat().st_mtime_ns if path.exists() else None
        retraining.train_or_load(recipe, folder, force, device)
        print(f"wrote {path}" if path.stat().st_mtime_ns != before else f"{path} is there and fits")
    return 0
