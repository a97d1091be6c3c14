"""Our own two rows, apart from all others: Ours, trained with several seeds, and the plain reading of the paper.

Whoever has a GPU for minutes trains these, in pieces if need be, and scores them on the pairs of Tables 1, 2 and 4; of
Table 6, what they count and how long they take. They have tables of their own, so that those of the notebooks never
hold a few rows alone. Another seed draws other first weights, another order and other deformations, and also trains
the start of a recipe that has one; the test pairs stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from fusionlib import methods, presets
from fusionlib.data import open_set
from fusionlib.experiments import cost, evaluation, profiling, runner, sweep_rows, sweeps
from fusionlib.experiments.evaluation import together
from fusionlib.presets import Preset
from fusionlib.support.files import atomic
from fusionlib.support.keys import Key
from fusionlib.support.long_training import check_time
from fusionlib.support.machine import machine
from fusionlib.support.paths import SHIPPED
from fusionlib.support.weights import key_of
from fusionlib.training import train_or_load
from fusionlib.training.recipe import Recipe

OURS, PLAIN = "ours", "as_in_the_paper"
KEPT = "ours, shipped"  # the weights that come with the repository, where they are others
COLUMNS = ["Q_CC", "Q_AB/F", "Q_CV", "Q_SSIM", "EPE_share"]


@dataclass(frozen=True)
class Own:
    """One training: the method, its recipe, and the folder of its weights."""

    method: str
    recipe: Recipe
    folder: Path


def trainings(preset: Preset, seeds: int, weights: Path) -> list[Own]:
    """What is trained, in this order: Ours and the plain reading with the preset's seed, then Ours with the next ones.

    Args:
        preset: of the recipes.
        seeds: how many trainings of Ours.
        weights: folder of the first two; those of another seed lie in `seed_N` below it.
    """
    plain, first = presets.as_in_the_paper(preset).recipe, preset.recipe.seed
    found = [Own(OURS, preset.recipe, weights), Own(PLAIN, plain, weights)]
    others = range(first + 1, first + seeds)
    return found + [Own(OURS, _seeded(preset.recipe, seed), weights / f"seed_{seed}") for seed in others]


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return replace(recipe, seed=seed, start=recipe.start and _seeded(recipe.start, seed))


def train(wanted: Sequence[Own], preset: Preset, device: str | None = None) -> None:
    """Train what is not there or does not fit; a training that was stopped goes on after its last epoch.

    Raises:
        InputError: as `train_or_load` does.
        OutOfTimeError: the time is over (`fusionlib.support.long_training.allowed`).
    """
    for done, each in enumerate(wanted, 1):
        run = train_or_load(each.recipe, each.folder, each.method, device=device)
        if each.method == OURS:
            _share(run.path, each.recipe, preset, wanted[0].folder / "sweeps")
        if not run.reused and done < len(wanted):
            check_time(f"{each.method} with seed {each.recipe.seed} is trained, {done} of {len(wanted)} trainings")


def _share(path: Path, recipe: Recipe, preset: Preset, folder: Path) -> None:
    """Put weights and log where Tables 4 and 5 look for those of the full method, if theirs is the same training."""
    row = next(row for row in sweep_rows.table4() if not row.changes)
    if sweep_rows.recipe_of(row, preset, recipe.seed, preset.sweep_epochs) == recipe:
        folder.mkdir(exist_ok=True)
        place = sweeps.Job(recipe, None, (), 0, "", None, str(folder)).path()
        for suffix in () if place.exists() else (".csv", ".safetensors"):
            with atomic(place.with_suffix(suffix)) as part:
                shutil.copyfile(path.with_suffix(suffix), part)


def score(wanted: Sequence[Own], preset: Preset, path: Path) -> pd.DataFrame:
    """The rows of these trainings on the test pairs, and of the shipped weights if those of the first are others.

    Args:
        wanted: trained, all of them.
        preset: sets, size, number and levels of the test pairs.
        path: CSV file that keeps the rows.

    Returns:
        A row a pair: method, seed, dataset, level, pair and the numbers of `sweeps.SCORED`.
    """
    scored = [(each.method, each.recipe.seed, each.folder / f"{each.method}.safetensors") for each in wanted]
    kept = SHIPPED.weights / f"{OURS}.safetensors"
    if key_of(kept).differing(key_of(scored[0][2])):
        scored.append((KEPT, 0, kept))
    tested = {name: open_set(name, "test", preset.test_size, count=preset.bench.count) for name in preset.test_sets}
    parts = []
    for (method, seed, file), (name, pairs), level in product(scored, tested.items(), preset.levels):
        where = {"method": method, "seed": seed, "dataset": name, "level": level}
        key = runner.key_of(pairs, "deformation", "scores") | methods.key_of_network(file)
        parts.append(runner.Part(where, key, partial(_measure, file, method, name, level, preset)))
    return runner.run(path, parts)


def _measure(file: Path, method: str, dataset: str, level: str, preset: Preset) -> pd.DataFrame:
    loaded = methods.load(PLAIN if method == PLAIN else OURS, file)
    pairs = open_set(dataset, "test", preset.test_size, count=preset.bench.count)
    return pd.DataFrame(sweeps.scored(loaded, pairs, level))


def summary(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """Means over all pairs at a level: a line a training; of several seeds of Ours also their mean and range."""
    here = together(table[table["level"] == level])
    here = here[here["dataset"] == here["dataset"].iloc[-1]]  # all pairs, or those of the only set
    means = evaluation.means(here, ["method", "seed"], COLUMNS)
    ours = means.loc[OURS]
    lines = {f"{OURS}, seed {seed}": line for seed, line in ours.iterrows()}
    if len(ours) > 1:
        lines[f"mean of {len(ours)} seeds"] = ours.mean()
        lines["largest - smallest"] = ours.max() - ours.min()
    others = means.drop(index=OURS, level="method").droplevel("seed")
    return pd.DataFrame(lines | dict(others.iterrows())).T


def costs(preset: Preset, folder: Path, device: str | None = None) -> pd.DataFrame:
    """Table 6 of the two: G multiply-accumulates by `thop`, M parameters, and the seconds of one pair on a device.

    Args:
        preset: its `cost` says the side and how many calls are timed.
        folder: of the tables own_counts.csv and own_times.csv.
        device: None takes a GPU if there is one. Images come from the memory of the host and go back to it.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    asked = replace(preset.cost, joint=(OURS, PLAIN), chains=(), own_sides=())
    counted = cost.counts(asked, folder / "own_counts.csv").set_index("method")[["side", "thop", "parameters"]]
    facts = machine()
    where = {"device": facts["gpu"] if device.startswith("cuda") else facts["cpu"]}
    key = Key.of(["cost", "network"], side=asked.side, runs=asked.runs)
    part = runner.Part(where, key, partial(_time, asked.side, asked.runs, device))
    return counted.join(runner.run(folder / "own_times.csv", [part]).set_index("method"))


def _time(side: int, runs: int, device: str) -> pd.DataFrame:
    both = profiling.pair(side)
    calls = {name: partial(methods.Ours(methods.network(name), name, device).fuse, *both) for name in (OURS, PLAIN)}
    found = profiling.interleaved(calls, runs)
    return pd.DataFrame([{"method": name, **asdict(timed)} for name, timed in found.items()])
